"""Completeness of a finder as a function of lens, seeing, depth and brightness, restored to the prior.

C = sum(w d) / sum(w) over the injections of a cell, w their importance weight and d = 1 where the score reaches the
threshold. Its effective size is n_eff = sum(w)**2 / sum(w**2) (Kish 1965), and intervals take n_eff C of n_eff.
Injections that failed have no score: they are counted beside C and never enter it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import SELECTION_FUNCTION_COLUMNS, Axis, EvaluationSettings
from pipeline.stages.calibration import probabilities
from pipeline.stages.evaluation import OperatingPoint
from pipeline.stages.intervals import jeffreys_interval, wilson_score_interval
from pipeline.stages.strata import axis_columns, bin_codes

_NAN = float("nan")
ALL_MAGNITUDES = "all"


@dataclass(frozen=True)
class DetectionThreshold:
    """A score above which an injection counts as detected.

    Attributes:
        kind: "fixed", or "FPR=1.0e-03" for one set by a false-positive rate.
        fpr_target: that rate; NaN for a fixed one.
        logit: the threshold as a logit; inf above every score, NaN if not sufficient.
        sufficient: False if there are fewer than 10 / fpr_target negatives to set it by.
    """

    kind: str
    fpr_target: float
    logit: float
    sufficient: bool

    @property
    def score(self) -> float:
        """The threshold as a score in [0, 1]; NaN if not sufficient."""
        return float(probabilities(self.logit)) if self.sufficient else _NAN


def detection_thresholds(
    points: Iterable[OperatingPoint], settings: EvaluationSettings
) -> tuple[DetectionThreshold, ...]:
    """The fixed thresholds of the settings, then those of the operating points.

    Args:
        points: from `evaluation.operating_point`, measured on negatives of the same split.
        settings: the fixed thresholds.
    """
    score = np.asarray(settings.score_thresholds)
    found = [DetectionThreshold("fixed", _NAN, float(x), True) for x in np.log(score / (1.0 - score))]
    for point in points:
        above_all = np.inf if point.threshold_logit is None else point.threshold_logit
        logit = above_all if point.sufficient else _NAN
        found.append(DetectionThreshold(f"FPR={point.fpr:.1e}", point.fpr, logit, point.sufficient))
    return tuple(found)


def selection_function(
    injections: pd.DataFrame, thresholds: tuple[DetectionThreshold, ...], settings: EvaluationSettings
) -> pd.DataFrame:
    """C(theta_E, PSF, depth) by threshold and magnitude bin, empty cells included.

    Coordinates are bin centres. `source_mag_bin` is "all", "23-24" (unlensed) or "lensed_20-22" (arc inside the
    stamp); cells without injections have the "all" rows only. Intervals are Jeffreys' at 68 % and 95 %.

    Args:
        injections: from `scored_rows.injection_rows`.
        thresholds: from `detection_thresholds`.
        settings: grid, magnitude bins and the effective number that suffices.

    Returns:
        The columns SELECTION_FUNCTION_COLUMNS. `completeness` is weighted; `n_injections` and `n_detected` are
        counts of scored injections; `n_failed` counts failures whose coordinates are known; means are weighted.

    Raises:
        VerificationError: as `completeness_surfaces`.
    """
    grid = (settings.theta_e, settings.psf_fwhm, settings.depth_5sig)
    cell, failed = _cells(injections, grid), injections["failed"].to_numpy(np.bool_)
    n_cells = int(np.prod([axis.n_bins for axis in grid]))
    occupied = np.bincount(cell[(cell >= 0) & ~failed], minlength=n_cells) > 0
    choices = [(ALL_MAGNITUDES, np.ones(len(injections), dtype=np.bool_), np.ones(n_cells, dtype=np.bool_))]
    for axis, prefix in ((settings.source_mag, ""), (settings.lensed_mag, "lensed_")):
        code = bin_codes(injections[axis.name], axis.edges)
        for index in range(axis.n_bins):
            label = f"{prefix}{axis.edges[index]:g}-{axis.edges[index + 1]:g}"
            choices.append((label, code == index, occupied))
    centre = _centres(grid, np.arange(n_cells))
    frames = []
    for number, (label, chosen, shown) in enumerate(choices):
        for order, threshold in enumerate(thresholds):
            measured = _aggregate(injections, np.where(chosen, cell, -1), n_cells, threshold, settings)
            frame = pd.DataFrame({**centre, **measured, "source_mag_bin": label})
            frame["_order"] = np.arange(n_cells) * len(thresholds) * len(choices) + order * len(choices) + number
            frames.append(frame[shown])
    table = pd.concat(frames, ignore_index=True).sort_values("_order", ignore_index=True)
    names = {f"jeffreys{level}_{end}": f"ci{level}_{end}" for level in (68, 95) for end in ("lo", "hi")}
    return table.rename(columns=names)[list(SELECTION_FUNCTION_COLUMNS)]


def completeness_surfaces(
    injections: pd.DataFrame, thresholds: tuple[DetectionThreshold, ...], settings: EvaluationSettings
) -> pd.DataFrame:
    """Completeness along every axis, on (theta_E, PSF) and on all five coordinates; cells with a row only.

    Args:
        injections: from `scored_rows.injection_rows`.
        thresholds: from `detection_thresholds`.
        settings: axes and the effective number that suffices.

    Returns:
        surface (axis names joined by ","; "" for the sample as a whole), <axis>_low and <axis>_high of every axis
        (NaN where an axis was summed over), threshold, threshold_logit, threshold_type, fpr_target, n_injections,
        n_detected, n_failed, n_hosts, weight_sum, n_effective, completeness, completeness_unweighted,
        wilson68_lo ... jeffreys95_hi, mean_score, mean_arc_snr, sufficient.

    Raises:
        VerificationError: no scored injection, a weight that is not positive, or a failed row with a score.
    """
    scored = ~injections["failed"].to_numpy(np.bool_)
    weight, logit = injections["weight"].to_numpy(np.float64), injections["logit"].to_numpy(np.float64)
    if not scored.any():
        raise VerificationError("expected scored injections, got none")
    if not (np.isfinite(weight[scored]).all() and (weight[scored] > 0.0).all()):
        raise VerificationError("expected positive weights of all scored injections")
    if not np.isfinite(logit[scored]).all() or np.isfinite(logit[~scored]).any():
        raise VerificationError("expected a finite score of every injection that did not fail, and of no other")
    frames = []
    for axes in settings.surfaces:
        cell = _cells(injections, axes)
        used, code = np.unique(cell[cell >= 0], return_inverse=True)
        compact = np.full(cell.size, -1, dtype=np.intp)
        compact[cell >= 0] = code
        edges = axis_columns(axes, _unravel(axes, used))
        for threshold in thresholds:
            measured = _aggregate(injections, compact, used.size, threshold, settings)
            name = ",".join(axis.name for axis in axes)
            frames.append(pd.DataFrame({"surface": name, **edges, **measured}, index=np.arange(used.size)))
    table = pd.concat(frames, ignore_index=True)
    every = dict.fromkeys(axis.name for axes in settings.surfaces for axis in axes)
    first = ["surface", *(f"{name}_{end}" for name in every for end in ("low", "high"))]
    return table[first + [name for name in table if name not in first]]


def surface_accounting(injections: pd.DataFrame, settings: EvaluationSettings) -> list[dict[str, Any]]:
    """Where every asked-for injection went, per surface: in a cell, outside the axes, or unknown.

    Args:
        injections: from `scored_rows.injection_rows`.
        settings: the axes.

    Returns:
        Per surface: surface, n_asked = n_scored + n_failed, n_scored_outside, n_failed_unplaced (failed before the
        coordinates of the surface were drawn or measured, or outside the axes).
    """
    failed = injections["failed"].to_numpy(np.bool_)
    rows = []
    for axes in settings.surfaces:
        outside = _cells(injections, axes) < 0
        rows.append(
            {
                "surface": ",".join(axis.name for axis in axes),
                "n_asked": len(injections),
                "n_scored": int(np.count_nonzero(~failed)),
                "n_failed": int(np.count_nonzero(failed)),
                "n_scored_outside": int(np.count_nonzero(outside & ~failed)),
                "n_failed_unplaced": int(np.count_nonzero(outside & failed)),
            }
        )
    return rows


def failure_table(injections: pd.DataFrame, settings: EvaluationSettings) -> pd.DataFrame:
    """Failed injections by reason, seeing and depth; NaN edges where the host's value is unknown or outside.

    Args:
        injections: from `scored_rows.injection_rows`.
        settings: the axes psf_fwhm and depth_5sig.

    Returns:
        reject_reason, psf_fwhm_low, psf_fwhm_high, depth_5sig_low, depth_5sig_high, n_failed.
    """
    failed = injections[injections["failed"].to_numpy(np.bool_)]
    columns: dict[str, Any] = {"reject_reason": failed["reject_reason"].to_numpy().astype(object)}
    for axis in (settings.psf_fwhm, settings.depth_5sig):
        code = bin_codes(failed[axis.name], axis.edges)
        edges = np.asarray(axis.edges)
        columns[f"{axis.name}_low"] = np.where(code >= 0, edges[np.maximum(code, 0)], np.nan)
        columns[f"{axis.name}_high"] = np.where(code >= 0, edges[np.maximum(code, 0) + 1], np.nan)
    frame = pd.DataFrame(columns)
    return frame.groupby(list(columns), dropna=False, sort=True).size().rename("n_failed").reset_index()


def _cells(injections: pd.DataFrame, axes: tuple[Axis, ...]) -> NDArray[np.intp]:
    """(row,) number of the cell, row-major over the axes; -1 outside."""
    cell = np.zeros(len(injections), dtype=np.intp)
    outside = np.zeros(len(injections), dtype=np.bool_)
    for axis in axes:
        code = bin_codes(injections[axis.name], axis.edges)
        outside |= code < 0
        cell = cell * axis.n_bins + code
    return np.where(outside, -1, cell)


def _unravel(axes: tuple[Axis, ...], cell: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    if not axes:
        return {}
    codes = np.unravel_index(cell, [axis.n_bins for axis in axes])
    return {axis.name: np.asarray(code, dtype=np.intp) for axis, code in zip(axes, codes, strict=True)}


def _centres(axes: tuple[Axis, ...], cell: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    edges = axis_columns(axes, _unravel(axes, cell))
    return {a.name: np.round((edges[f"{a.name}_low"] + edges[f"{a.name}_high"]) / 2.0, 9) for a in axes}


def _aggregate(
    injections: pd.DataFrame,
    cell: NDArray[np.intp],
    n_cells: int,
    threshold: DetectionThreshold,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Columns of one threshold, one value per cell."""
    failed = injections["failed"].to_numpy(np.bool_)
    chosen = (cell >= 0) & ~failed
    code = cell[chosen]
    weight, logit = injections["weight"].to_numpy()[chosen], injections["logit"].to_numpy()[chosen]
    detected = logit >= threshold.logit

    def total(values: NDArray[Any] | None = None) -> NDArray[Any]:
        return np.bincount(code, weights=values, minlength=n_cells)

    n_injections, n_detected = total(), total(detected.astype(np.float64)).astype(np.int64)
    weight_sum = total(weight)
    filled = n_injections > 0

    def per(values: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
        quotient: NDArray[np.float64] = np.divide(values, whole, out=np.full(n_cells, np.nan), where=filled)
        return quotient

    n_effective = np.where(filled, per(weight_sum**2, total(weight**2)), 0.0)
    known = np.where(filled & threshold.sufficient, 1.0, np.nan)
    completeness = np.minimum(per(total(weight * detected), weight_sum), 1.0)
    detected_effective = np.where(filled, completeness, 0.0) * n_effective
    hosts = np.unique(np.stack([code, injections["host_id"].to_numpy()[chosen]]), axis=1)[0]
    intervals: dict[str, NDArray[np.float64]] = {}
    for name, interval in (("wilson", wilson_score_interval), ("jeffreys", jeffreys_interval)):
        for level in (68, 95):
            low, high = interval(detected_effective, n_effective, level / 100.0)
            intervals |= {f"{name}{level}_lo": low * known, f"{name}{level}_hi": high * known}
    return {
        "threshold": threshold.score,
        "threshold_logit": threshold.logit,
        "threshold_type": threshold.kind,
        "fpr_target": threshold.fpr_target,
        "n_injections": n_injections,
        "n_detected": n_detected,
        "n_failed": np.bincount(cell[(cell >= 0) & failed], minlength=n_cells),
        "n_hosts": np.bincount(hosts.astype(np.intp), minlength=n_cells),
        "weight_sum": weight_sum,
        "n_effective": n_effective,
        "completeness": completeness * known,
        "completeness_unweighted": per(n_detected, n_injections) * known,
        **intervals,
        "mean_score": per(total(weight * probabilities(logit)), weight_sum),
        "mean_arc_snr": per(total(weight * injections["arc_snr"].to_numpy()[chosen]), weight_sum),
        "sufficient": (n_effective >= settings.min_effective_n) & threshold.sufficient,
    }
