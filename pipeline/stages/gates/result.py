"""What a gate is given, what it measures, and the verdict the run record keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import INJECTED_ROLES, ROLES
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.intervals import wilson_score_interval
from pipeline.stages.sampling import Pilot

VALUE = "value"
SHARE_AT_FAULT = "share of rows at fault"


@dataclass(frozen=True)
class Reinjection:
    """What it takes to inject a few stored pairs once more.

    Attributes:
        cutouts: variables of the cutouts cube of some pair rows.
        rows: the manifest rows of the same rows.
        stored: `role`, `injected` and `control` of the same rows of the training cube.
        assets, pilot: what the run injected with.
    """

    cutouts: xr.Dataset
    rows: xr.Dataset
    stored: xr.Dataset
    assets: InjectionAssets = field(default_factory=InjectionAssets)
    pilot: Pilot | None = None


@dataclass(frozen=True)
class GateInput:
    """What every gate sees.

    Attributes:
        columns: the (sample,) and (sample, band) variables of the training cube, all rows.
        stamps: those variables and `injected`, `control` for a subset of the rows of role pair or control.
        config: the run's configuration; thresholds are in `config.gates`.
        bands_found: the bands the cube says it holds, in storage order.
        reinjection: some pairs to inject again; None fails the gate that needs it.
        scores: what a trained network said of the probes, see `storage.probe_tables.read_probes`; None before training.
        anchors: `image` of usable real lenses, (sample, band, y, x) in nmgy; None without anchors.
    """

    columns: xr.Dataset
    stamps: xr.Dataset
    config: RunConfig
    bands_found: tuple[str, ...]
    reinjection: Reinjection | None = None
    scores: xr.Dataset | None = None
    anchors: xr.Dataset | None = None


@dataclass(frozen=True)
class Attribution:
    """Where a difference between the classes comes from.

    Attributes:
        quantity: what the numbers are, in words.
        total: injected stamps against all control stamps.
        host_selection: control stamps of the pairs against control rows; None without enough control rows.
        arc_overlap: injected stamps against the control stamps of the same pairs, the arc alone.
        neutral: the value that means no difference.
    """

    quantity: str
    total: float
    host_selection: float | None
    arc_overlap: float
    neutral: float

    def sentence(self) -> str:
        """The numbers as a sentence."""
        host = "not measurable without control rows" if self.host_selection is None else f"{self.host_selection:.4f}"
        return (
            f"{self.quantity} (no difference: {self.neutral:g}): host selection {host}, "
            f"arc overlap {self.arc_overlap:.4f}, both {self.total:.4f}"
        )


@dataclass(frozen=True)
class Null:
    """What a gate finds by chance alone, or why chance has no part in it.

    Attributes:
        how: what was permuted or drawn at random, or why nothing can be, in a few words.
        draws: permutations or drawn samples; 0 for an exact distribution, and where there is no null.
        p: chance of what was found, or more, under the null, at least 1 / (1 + draws); None without a null.
    """

    how: str
    draws: int = 0
    p: float | None = None

    def __post_init__(self) -> None:
        if not self.how or (self.p is None and self.draws) or (self.p is not None and not 0.0 <= self.p <= 1.0):
            raise ValueError(f"expected words and a chance in [0, 1], or a reason alone, got {self}")


# Of audits: each row is right or wrong, whatever the others are.
NO_NULL = Null("none: a row is right or wrong by itself, nothing can be permuted")


@dataclass(frozen=True)
class Measurement:
    """What a gate found where it had enough samples.

    Attributes:
        passed: whether the statistic lies within its bound.
        value: the statistic; None only if the gate needs none.
        bound: the bound in words, with its numbers.
        detail: everything else worth keeping; numpy values allowed.
        message: one sentence a person can act on.
        interval_95: of what `interval_of` names.
        null: what chance alone gives, or why there is no chance in it.
        interval_of: the value, or for a count of faults the share of rows at fault.
        attribution: where the difference comes from, for gates that physics can make fail.
    """

    passed: bool
    value: float | None
    bound: str
    detail: dict[str, Any]
    message: str
    interval_95: tuple[float, float]
    null: Null
    interval_of: str = VALUE
    attribution: Attribution | None = None


@dataclass(frozen=True)
class GateResult:
    """The verdict of one gate.

    Attributes:
        passed: False for a failed bound, an error, one class, too few samples, or a NaN statistic.
        waived: the reason given in the configuration, or None; a waived gate keeps its verdict.
        value: the statistic; None if it could not be computed or none is needed.
        n_positive: samples of the positive class, n_control: of what it is compared with.
        detail: JSON-able; what is not finite is None.
        number: of the gate in the lessons, such as 1.6; empty if it has none.
        interval_95: of the value, or of what `interval_of` names; None if nothing was measured.
        attribution: in words, where the difference between the classes comes from; its numbers are in detail.
        applicable: False if there is nothing to judge, as the message says; it then counts as passed.
        interval_of: what the interval belongs to.
        null: how chance alone was tried, or why there is no chance in it; empty if nothing was measured.
        null_draws, null_p: as in `Null`.
    """

    name: str
    passed: bool
    waived: str | None
    value: float | None
    bound: str
    n_positive: int
    n_control: int
    detail: dict[str, Any]
    message: str
    number: str = ""
    interval_95: tuple[float, float] | None = None
    attribution: str = ""
    applicable: bool = True
    interval_of: str = VALUE
    null: str = ""
    null_draws: int = 0
    null_p: float | None = None


@dataclass(frozen=True)
class Gate:
    """One gate: how to count its classes and how to measure.

    Attributes:
        count: number of (positive, control) samples.
        measure: called only if both classes have enough samples.
        not_applicable: the reason why a configuration has nothing to measure; empty if it has.
        nothing_to_judge: the reason why a cube has nothing to measure; empty if it has.
        number: of the gate in the lessons; empty if it has none.
        needs_scores: it judges a network, so it runs only where scores are given.
        fewest: samples of each class needed; None asks for `config.gates.min_per_class`.
    """

    name: str
    count: Callable[[GateInput], tuple[int, int]]
    measure: Callable[[GateInput], Measurement]
    not_applicable: Callable[[RunConfig], str] | None = None
    number: str = ""
    needs_scores: bool = False
    fewest: Callable[[RunConfig], int] | None = None
    nothing_to_judge: Callable[[GateInput], str] | None = None


def has_role(dataset: xr.Dataset, *roles: str) -> NDArray[np.bool_]:
    """(sample,) True where the row's role is one of the named ones.

    Raises:
        KeyError: the dataset has no `role`.
        ValueError: a name is not a role.
    """
    unknown = set(roles) - set(ROLES)
    if unknown:
        raise ValueError(f"expected roles among {ROLES}, got {sorted(unknown)}")
    return np.isin(dataset["role"].to_numpy(), [ROLES.index(role) for role in roles])


def count_rows(sample: GateInput) -> tuple[int, int]:
    """Injected stamps and control stamps of the whole cube."""
    return _count_classes(sample.columns)


def count_stamps(sample: GateInput) -> tuple[int, int]:
    """Injected stamps and control stamps among the sampled stamps."""
    return _count_classes(sample.stamps)


def count_pairs(sample: GateInput) -> tuple[int, int]:
    """Pairs among the sampled stamps, as injected and as control."""
    n_pair = int(has_role(sample.stamps, "pair").sum())
    return n_pair, n_pair


def gate_generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one gate: Philox keyed by run seed and gate name."""
    digest = hashlib.blake2b(name.encode(), digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def json_value(value: object) -> Any:
    """The value as JSON types: numpy scalars and arrays unwrapped, what is not finite as None.

    Raises:
        ValueError: a type that has no JSON form.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_value(value.tolist())
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Sequence):
        return [json_value(item) for item in value]
    raise ValueError(f"{type(value).__name__} has no JSON form")


def cohen_d(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Difference of means over the pooled standard deviation; 0 for equal, inf for different constants.

    Args:
        first: (n,) n >= 2, finite.
        second: (m,) m >= 2, finite.
    """
    if np.ptp(first) == 0.0 and np.ptp(second) == 0.0:
        return 0.0 if first[0] == second[0] else float(np.copysign(np.inf, first[0] - second[0]))
    n, m = first.size, second.size
    variance = ((n - 1) * np.var(first, ddof=1) + (m - 1) * np.var(second, ddof=1)) / (n + m - 2)
    return float((np.mean(first) - np.mean(second)) / np.sqrt(variance))


def wilson_interval(part: int, whole: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); (0, 1) for nothing of nothing."""
    if whole == 0:
        return 0.0, 1.0
    low, high = wilson_score_interval(part, whole)
    return float(low), float(high)


def _count_classes(dataset: xr.Dataset) -> tuple[int, int]:
    """Pair rows hold one stamp of each class, control rows one control stamp, imported arcs one injected stamp."""
    return int(has_role(dataset, *INJECTED_ROLES).sum()), int(has_role(dataset, "pair", "control").sum())
