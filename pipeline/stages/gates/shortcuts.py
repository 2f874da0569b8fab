"""Gates on shortcuts: whether the core of a stamp alone tells an injected host from a bare one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.stages.gates.result import GateInput, Measurement, cohen_d, gate_generator, has_role

CORE_STATISTICS = ("mean", "std", "median", "q25", "q75", "max", "min")
_RATIO_BAND = "r"
_BOOTSTRAPS = 1000
_PERMUTATIONS = 20
_ROWS_PER_BLOCK = 1024


def count_pairs(sample: GateInput) -> tuple[int, int]:
    """Pairs among the sampled stamps, as injected and as control."""
    n_pair = int(has_role(sample.stamps, "pair").sum())
    return n_pair, n_pair


def compare_core_brightness(sample: GateInput) -> Measurement:
    """Injected cores are as bright as the cores of the same hosts without arc.

    The value is the ratio of the means over all sampled pairs of the mean r-band flux within
    `core_ratio_radius_px` of the host. The 95 % interval resamples hosts, so repeated hosts count once.
    """
    section = sample.config.gates
    pairs = sample.stamps.isel(sample=np.flatnonzero(has_role(sample.stamps, "pair")))
    band = sample.bands_found.index(_RATIO_BAND)
    radius = section.core_ratio_radius_px
    injected, control = (
        _core_statistics(pairs, name, radius, slice(band, band + 1))[:, 0] for name in ("injected", "control")
    )
    mean_injected, mean_control = float(injected.mean()), float(control.mean())
    if not mean_control > 0.0:
        raise ValueError(f"control cores hold no flux (mean {mean_control:.4g} nmgy), so they have no ratio")
    ratio = mean_injected / mean_control
    low, high = section.core_ratio_range
    interval = _ratio_interval(injected, control, pairs["host_id"].to_numpy(), sample.config.run.seed)
    return Measurement(
        passed=low <= ratio <= high,
        value=ratio,
        bound=f"{low} <= injected / control <= {high} within {radius} px",
        detail={
            "mean_injected_nmgy": mean_injected,
            "mean_control_nmgy": mean_control,
            "interval_95": interval,
            "bootstraps": _BOOTSTRAPS,
            "cohen_d": cohen_d(injected, control),
        },
        message=f"injected cores are {ratio:.4f} times as bright, 95 % interval {interval[0]:.4f} to {interval[1]:.4f}",
    )


def classify_core(sample: GateInput) -> Measurement:
    """A linear classifier that sees only the core cannot tell injected from control stamps.

    Features are seven statistics of the pixels within `core_auc_radius_px` in every band. The folds
    are grouped by host, so the members of a pair, and all repeats of a host, are scored by a
    classifier that never saw them. The value is the mean over folds of the ROC AUC.

    Detail holds the permutation null: the same with labels swapped at random within each pair, control
    rows staying controls. A null above 0.5 says the control rows come from other hosts than the pairs.
    """
    section = sample.config.gates
    pair = np.flatnonzero(has_role(sample.stamps, "pair"))
    control = np.flatnonzero(has_role(sample.stamps, "pair", "control"))
    radius = section.core_auc_radius_px
    features = np.concatenate(
        [
            _core_statistics(sample.stamps.isel(sample=pair), "injected", radius),
            _core_statistics(sample.stamps.isel(sample=control), "control", radius),
        ]
    )
    host_id = sample.stamps["host_id"].to_numpy()
    folds = _folds(np.concatenate([host_id[pair], host_id[control]]), section.folds)
    label = np.concatenate([np.ones(pair.size, dtype=np.int64), np.zeros(control.size, dtype=np.int64)])
    aucs = _fold_aucs(features, label, folds)
    auc = float(np.mean(aucs))
    twin = pair.size + np.searchsorted(control, pair)
    null = _permuted_aucs(features, label, folds, twin, gate_generator(sample.config.run.seed, "core_only_auc"))
    return Measurement(
        passed=auc <= section.core_auc_max,
        value=auc,
        bound=f"out-of-fold AUC <= {section.core_auc_max} within {radius} px",
        detail={
            "fold_aucs": aucs,
            "hosts": int(np.unique(host_id[control]).size),
            "statistics": CORE_STATISTICS,
            "null_permutations": _PERMUTATIONS,
            "null_mean": float(null.mean()),
            "null_std": float(null.std(ddof=1)),
            "null_max": float(null.max()),
            "p_permutation": (1 + int((null >= auc).sum())) / (1 + null.size),
        },
        message=f"the core alone gives AUC {auc:.4f}; labels swapped within pairs give {null.mean():.4f}",
    )


def _core_statistics(
    stamps: xr.Dataset, name: str, radius_px: float, bands: slice = slice(None)
) -> NDArray[np.float64]:
    """CORE_STATISTICS of the pixels nearer than a radius to the host, per band.

    Args:
        stamps: rows with stamps `name` and the host centre `centre_dx_px`, `centre_dy_px`.
        radius_px: radius, such that the circle lies in the stamp. [pixel]
        bands: the bands to use.

    Returns:
        (sample, band * 7) float64 in nmgy, statistics fastest.

    Raises:
        ValueError: a pixel or a centre is not finite, or the circle leaves the stamp.
    """
    pixels = stamps[name].to_numpy()[:, bands]
    dx, dy = (stamps[f"centre_{axis}_px"].to_numpy().astype(np.float64) for axis in ("dx", "dy"))
    blocks = [_statistics_of_block(flux, inside) for flux, inside in _core_blocks(pixels, dx, dy, radius_px)]
    return np.concatenate(blocks).reshape(pixels.shape[0], -1)


def _core_blocks(
    pixels: NDArray[np.float32], dx: NDArray[np.float64], dy: NDArray[np.float64], radius_px: float
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Blocks of rows as ((row, band, pixel) flux in a box around the centre, (row, pixel) inside the circle)."""
    half_size = pixels.shape[-1] // 2
    half_box = math.ceil(radius_px + 0.5)
    if half_box >= half_size:
        raise ValueError(f"a core of {radius_px} px does not fit into stamps of {pixels.shape[-1]} px")
    if not (np.abs(np.stack([dx, dy])) <= 0.5 + 1e-6).all():
        raise ValueError("centre_dx_px and centre_dy_px must be finite and within half a pixel")
    box = slice(half_size - half_box, half_size + half_box + 1)
    offset = np.arange(-half_box, half_box + 1, dtype=np.float64)
    for start in range(0, pixels.shape[0], _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        flux = pixels[rows, :, box, box]
        if not np.isfinite(flux).all():
            raise ValueError("a core pixel is not finite")
        x2 = (offset - dx[rows, None]) ** 2
        y2 = (offset - dy[rows, None]) ** 2
        inside = y2[:, :, None] + x2[:, None, :] < radius_px**2
        yield flux.reshape(*flux.shape[:2], -1), inside.reshape(inside.shape[0], -1)


def _statistics_of_block(flux: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(row, band, 7) statistics of the pixels inside; quantiles interpolate linearly."""
    n = inside.sum(axis=1).astype(np.float64)
    selected = inside[:, None, :]
    mean = flux.sum(axis=2, where=selected, dtype=np.float64) / n[:, None]
    residual = flux.astype(np.float64) - mean[:, :, None]
    std = np.sqrt(np.square(residual).sum(axis=2, where=selected) / n[:, None])
    ordered = np.sort(np.where(selected, flux, np.float32(np.inf)), axis=2)
    q25, median, q75 = (_quantile(ordered, n, q) for q in (0.25, 0.5, 0.75))
    largest = np.take_along_axis(ordered, (n.astype(np.int64) - 1)[:, None, None], axis=2)[:, :, 0]
    return np.stack([mean, std, median, q25, q75, largest, ordered[:, :, 0]], axis=2, dtype=np.float64)


def _quantile(ordered: NDArray[np.float32], n: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """Quantile q of the first n of each row's ordered values."""
    position = q * (n - 1.0)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, n.astype(np.int64) - 1)
    low = np.take_along_axis(ordered, below[:, None, None], axis=2)[:, :, 0].astype(np.float64)
    high = np.take_along_axis(ordered, above[:, None, None], axis=2)[:, :, 0].astype(np.float64)
    return low + (position - below)[:, None] * (high - low)


def _ratio_interval(
    injected: NDArray[np.float64], control: NDArray[np.float64], host_id: NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """Central 95 % of the ratio of sums over bootstrap samples of hosts."""
    host = np.unique(host_id, return_inverse=True)[1]
    sums = np.stack([np.bincount(host, weights=injected), np.bincount(host, weights=control)], axis=1)
    generator = gate_generator(seed, "core_brightness_ratio")
    totals = np.stack([sums[generator.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(_BOOTSTRAPS)])
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(low), float(high)


def _folds(host_id: NDArray[np.int64], n_folds: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(train, test) rows of each fold; ValueError if there are fewer hosts than folds."""
    return list(GroupKFold(n_folds).split(host_id, groups=host_id))


def _fold_aucs(
    features: NDArray[np.float64], label: NDArray[np.int64], folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> list[float]:
    """AUC of each fold's test rows; ValueError if a fold misses a class."""
    aucs = []
    for train, test in folds:
        if np.unique(label[test]).size < 2:
            raise ValueError("a fold's test rows hold one class only")
        model: Any = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", max_iter=200))
        model.fit(features[train], label[train])
        aucs.append(float(roc_auc_score(label[test], model.decision_function(features[test]))))
    return aucs


def _permuted_aucs(
    features: NDArray[np.float64],
    label: NDArray[np.int64],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    twin: NDArray[np.int64],
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Mean fold AUC under random swaps within pairs; row i < len(twin) is injected, twin[i] its control."""
    aucs = []
    for _ in range(_PERMUTATIONS):
        permuted = label.copy()
        swapped = np.flatnonzero(generator.integers(0, 2, twin.size))
        permuted[swapped] = 0
        permuted[twin[swapped]] = 1
        aucs.append(np.mean(_fold_aucs(features, permuted, folds)))
    return np.array(aucs, dtype=np.float64)
