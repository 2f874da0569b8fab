"""Audits: facts about a training cube that hold exactly or not at all, and the split shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import INJECTED_ROLES, SNR_METRICS, SPLITS, TRAINED_SPLITS
from pipeline.stages.gates.result import (
    NO_NULL,
    SHARE_AT_FAULT,
    GateInput,
    Measurement,
    Null,
    gate_generator,
    has_role,
    wilson_interval,
)
from pipeline.stages.host_bootstrap import centred_interval
from pipeline.stages.splits import largest_share_error, share_problem, split_proportions

_ROWS_PER_BLOCK = 512
# NaN by contract where the brick has no depth.
_SNR_OPTIONAL = ("arc_snr_annulus",)
_DRAWS = 499


def audit_bandset(sample: GateInput) -> Measurement:
    """The cube's bands are the configured ones in order, and every used row has a seeing in each.

    The value is the number of used rows without a finite, positive psfsize in some band.
    """
    wanted = sample.config.survey.bands
    found = sample.bands_found
    psfsize = sample.columns["psfsize_arcsec"].to_numpy()
    lengths = {"psfsize_arcsec": psfsize.shape[1], "injected": sample.stamps["injected"].shape[1]}
    without_seeing = ~(np.isfinite(psfsize) & (psfsize > 0)).all(axis=1)
    bad = {role: int((without_seeing & has_role(sample.columns, role)).sum()) for role in (*INJECTED_ROLES, "control")}
    wrong_lengths = {name: length for name, length in lengths.items() if length != len(wanted)}
    n_bad = sum(bad.values())
    problems = []
    if found != wanted:
        problems.append(f"bands: expected {list(wanted)}, got {list(found)}")
    if wrong_lengths:
        problems.append(f"length of the band axis: expected {len(wanted)}, got {wrong_lengths}")
    if n_bad:
        problems.append(f"rows without seeing in every band: {bad}")
    return Measurement(
        passed=not problems,
        value=float(n_bad),
        bound=f"bands {list(wanted)} in order; 0 used rows without psfsize",
        detail={"bands_found": list(found), "rows_without_psfsize": bad, "band_axis": lengths},
        message="; ".join(problems) or f"bands are {list(found)} and every used row has its seeing",
        interval_95=wilson_interval(n_bad, int(has_role(sample.columns, *INJECTED_ROLES, "control").sum())),
        null=NO_NULL,
        interval_of=SHARE_AT_FAULT,
    )


def audit_pixels(sample: GateInput) -> Measurement:
    """No stamp has a NaN, an infinity or a constant band; no pair row a non-finite weight or SNR.

    `arc_snr_annulus` needs the depth of the brick and has to be finite only as the target metric. The
    members of a pair must differ, those of a control row must not: a cube without arcs would pass every
    gate on shortcuts. The value is the number of offending stamps and rows.
    """
    counts = {
        "injected_not_finite": 0,
        "injected_constant_band": 0,
        "control_not_finite": 0,
        "control_constant_band": 0,
    }
    used = has_role(sample.stamps, "pair", "control")
    at_fault = np.zeros(used.size, dtype=bool)
    for name, held in (("injected", used | has_role(sample.stamps, *INJECTED_ROLES)), ("control", used)):
        faults = [np.zeros((0, 2), dtype=bool)]
        for pixels in _pixel_blocks(sample.stamps, name, held):
            lowest, highest = pixels.min(axis=(2, 3)), pixels.max(axis=(2, 3))
            finite = np.isfinite(lowest) & np.isfinite(highest)
            constant = finite & (lowest == highest)
            faults.append(np.stack([~finite.all(axis=1), constant.any(axis=1)], axis=1))
        found = np.concatenate(faults)
        counts[f"{name}_not_finite"], counts[f"{name}_constant_band"] = found.sum(axis=0).tolist()
        at_fault[held] |= found.any(axis=1)
    differs = np.concatenate(
        [
            (injected != control).any(axis=(1, 2, 3))
            for injected, control in zip(
                _pixel_blocks(sample.stamps, "injected", used),
                _pixel_blocks(sample.stamps, "control", used),
                strict=True,
            )
        ]
    )
    stamp_is_pair = has_role(sample.stamps, "pair")[used]
    counts["pair_without_arc"] = int((stamp_is_pair & ~differs).sum())
    counts["control_with_arc"] = int((~stamp_is_pair & differs).sum())
    at_fault[used] |= stamp_is_pair != differs
    is_pair = has_role(sample.columns, *INJECTED_ROLES)
    target = sample.config.sampling.metric
    needed = [metric for metric in SNR_METRICS if metric not in _SNR_OPTIONAL or metric == target]
    row_at_fault = np.zeros(int(is_pair.sum()), dtype=bool)
    for column in ("weight_prior", *needed):
        absent = ~np.isfinite(sample.columns[column].to_numpy()[is_pair])
        counts[f"{column}_not_finite"] = int(absent.sum())
        row_at_fault |= absent
    offending = {name: count for name, count in counts.items() if count}
    message = f"offending: {offending}"
    if sample.config.manifest.kind == "stamps" and row_at_fault.any():
        message += "; SNRs that the imported tables do not hold are not made up: waive the gate with that reason"
    n_stamps = int(used.sum())
    return Measurement(
        passed=not offending,
        value=float(sum(offending.values())),
        bound="0 offending stamps and rows",
        detail={**counts, "stamp_rows": n_stamps, "pair_rows": int(is_pair.sum())},
        message=message if offending else f"{n_stamps} stamp rows are finite and vary in every band",
        interval_95=wilson_interval(
            int(at_fault.sum() + row_at_fault.sum()),
            int((used | has_role(sample.stamps, *INJECTED_ROLES)).sum()) + row_at_fault.size,
        ),
        null=NO_NULL,
        interval_of=SHARE_AT_FAULT,
    )


def audit_splits(sample: GateInput) -> Measurement:
    """Pair rows outside the guard have the requested shares; no host and no sky cell is in two splits.

    The value is the largest absolute difference between an achieved and a requested share. Each split
    with a request above 0 needs `min_per_class // 10` pairs, at least 10. The interval resamples sky cells; the
    null draws the split of every cell anew with the requested shares.
    """
    section = sample.config.splits
    requested = {"train": section.train, "val": section.val, "test": section.test}
    split = sample.columns["split"].to_numpy()
    outside_guard = split != SPLITS.index("guard")
    is_pair = has_role(sample.columns, *INJECTED_ROLES)
    pairs = {name: int((is_pair & (split == SPLITS.index(name))).sum()) for name in TRAINED_SPLITS}
    n_guard = int((is_pair & ~outside_guard).sum())
    used = outside_guard & has_role(sample.columns, *INJECTED_ROLES, "control")
    leaked_hosts = _keys_in_two_splits(sample.columns["host_id"].to_numpy()[used], split[used])
    leaked_cells = _keys_in_two_splits(sample.columns["split_healpix"].to_numpy()[used], split[used])
    minimum = max(10, sample.config.gates.min_per_class // 10)
    small = {name: n for name, n in pairs.items() if requested[name] > 0 and n < minimum}

    if sum(pairs.values()) == 0:
        raise ValueError(f"all {n_guard} pairs lie in the guard, so there are no split shares")
    achieved = split_proportions(split[is_pair])
    difference = largest_share_error(achieved, section)
    problem = share_problem(achieved, section)
    interval, null = _share_chance(sample, is_pair & outside_guard, np.array([*requested.values()]), difference)
    problems = [problem] if problem else []
    if small:
        problems.append(f"fewer than {minimum} pairs in {small}")
    if leaked_hosts or leaked_cells:
        problems.append(f"in two splits: {leaked_hosts} hosts, {leaked_cells} sky cells")
    return Measurement(
        passed=not problems,
        value=difference,
        bound=f"|share - request| <= {section.tolerance}; >= {minimum} pairs per split; no host or cell in two splits",
        detail={
            "requested": requested,
            "achieved": achieved,
            "pairs": {**pairs, "guard": n_guard},
            "hosts_in_two_splits": leaked_hosts,
            "cells_in_two_splits": leaked_cells,
        },
        message="; ".join(problems) or f"shares are within {difference:.4f} of the request and no host leaks",
        interval_95=interval,
        null=null,
    )


def _share_chance(
    sample: GateInput, rows: NDArray[np.bool_], requested: NDArray[np.float64], difference: float
) -> tuple[tuple[float, float], Null]:
    """Interval and null of the largest share error of some rows, whose sky cells are what is drawn."""
    cell = np.unique(sample.columns["split_healpix"].to_numpy()[rows], return_inverse=True)[1]
    split = sample.columns["split"].to_numpy()[rows]
    codes = np.array([SPLITS.index(name) for name in TRAINED_SPLITS])
    pairs = np.stack([np.bincount(cell[split == code], minlength=int(cell.max()) + 1) for code in codes], axis=1)
    size = pairs.sum(axis=1).astype(np.float64)
    generator = gate_generator(sample.config.run.seed, "split_proportions")
    below = np.cumsum(requested / requested.sum())[:-1]
    drawn, resampled = np.empty(_DRAWS), np.empty(_DRAWS)
    for index in range(_DRAWS):
        assigned = np.searchsorted(below, generator.random(size.size), side="right")
        drawn[index] = _largest_error(np.bincount(assigned, weights=size, minlength=codes.size), requested)
        weight = np.bincount(generator.integers(0, size.size, size.size), minlength=size.size)
        resampled[index] = _largest_error(weight @ pairs, requested)
    found = centred_interval(difference, resampled)
    p = (1 + int((drawn >= difference).sum())) / (1 + _DRAWS)
    return (max(found.low, 0.0), min(found.high, 1.0)), Null("sky cells assigned at random", _DRAWS, p)


def _largest_error(pairs: NDArray[Any], requested: NDArray[np.float64]) -> float:
    return float(np.abs(pairs / pairs.sum() - requested).max())


def _pixel_blocks(stamps: xr.Dataset, name: str, used: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    """Blocks (row, band, y, x) of the used rows of one stamp variable."""
    pixels = stamps[name].to_numpy()
    for start in range(0, pixels.shape[0], _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        yield pixels[rows][used[rows]]


def _keys_in_two_splits(keys: NDArray[np.int64], split: NDArray[np.uint8]) -> int:
    """Number of distinct keys that occur with more than one split."""
    order = np.lexsort((split, keys))
    keys, split = keys[order], split[order]
    changes = (keys[1:] == keys[:-1]) & (split[1:] != split[:-1])
    return int(np.unique(keys[1:][changes]).size)
