"""Ranking metrics by stratum, at thresholds set once for the whole sample as a survey would set them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import Axis, EvaluationSettings
from pipeline.stages.evaluation import MIN_POSITIVES_PER_BIN, auc_interval, operating_point, roc_curve
from pipeline.stages.host_bootstrap import rate_name
from pipeline.stages.intervals import JEFFREYS, WILSON, jeffreys_interval, wilson_score_interval

_NAN = float("nan")


def bin_codes(values: ArrayLike, edges: tuple[float, ...]) -> NDArray[np.intp]:
    """Bin of every value, low <= value < high; -1 outside the edges and for NaN.

    Args:
        values: (sample,).
        edges: increasing, one more than bins.
    """
    x = np.asarray(values, dtype=np.float64)
    code = np.searchsorted(np.asarray(edges), x, side="right") - 1
    inside = (x >= edges[0]) & (x < edges[-1])
    return np.where(inside, code, -1).astype(np.intp)


def stratified_metrics(examples: pd.DataFrame, settings: EvaluationSettings) -> pd.DataFrame:
    """AUC with its interval, and TPR and FPR at the sample's thresholds, by stratum.

    Positives are cut by every variable. What belongs to the host (psf_fwhm, depth_5sig, host_mag) cuts the
    negatives too; what belongs to the arc cannot, and meets all negatives. A last row per variable with NaN edges
    holds what lies outside the edges or is unknown, so counts add up.

    Args:
        examples: from `scored_rows.scored_examples`, both classes.
        settings: axes and false-positive rates.

    Returns:
        variable, low, high, negatives ("all" or "stratum"), n_positives, n_negatives, n_hosts, sufficient (10 of
        each class), auc, auc_low, auc_high, auc_method, and per rate tpr_at_fpr_<rate> with _low, _high and
        fpr_at_<rate> of the row's negatives; NaN where the sample has fewer than 10 / rate negatives.

    Raises:
        VerificationError: one class only, or scores that are not finite.
    """
    label, logit = examples["label"].to_numpy(), examples["logit"].to_numpy(dtype=np.float64)
    host = examples["host_id"].to_numpy()
    curve = roc_curve(label, logit)
    points = [operating_point(curve, rate) for rate in settings.false_positive_rates]
    thresholds = {
        rate_name(p.fpr): _NAN if not p.sufficient else np.inf if p.threshold_logit is None else p.threshold_logit
        for p in points
    }
    arc = (settings.arc_snr, settings.theta_e_over_psf, settings.theta_e, settings.source_mag, settings.lensed_mag)
    hosts = (settings.psf_fwhm, settings.depth_5sig, settings.host_mag)
    rows = []
    for axis in (*arc, *hosts):
        code = bin_codes(examples[axis.name].to_numpy(), axis.edges)
        for index in (*range(axis.n_bins), -1):
            chosen = code == index
            if axis in arc:
                chosen |= label == 0
            if not (chosen & (label == 1)).any() and (index == -1 or axis in arc):
                continue
            rows.append(
                {
                    "variable": axis.name,
                    "low": _NAN if index < 0 else axis.edges[index],
                    "high": _NAN if index < 0 else axis.edges[index + 1],
                    "negatives": "all" if axis in arc else "stratum",
                    **_metrics(label[chosen], logit[chosen], host[chosen], thresholds),
                }
            )
    return pd.DataFrame(rows)


def recall_by_tier(
    anchors: pd.DataFrame, tier_columns: tuple[str, ...], thresholds: tuple[tuple[str, float], ...]
) -> pd.DataFrame:
    """Recall of real lenses per tier and threshold; tiers are never merged, so there is no total.

    Args:
        anchors: logit (finite) and the tier columns, text; an empty tier was not determined and is a row of its own.
        tier_columns: names of the definitions of a tier, each reported apart.
        thresholds: name and logit of every threshold; a NaN logit gives NaN.

    Returns:
        tier_definition, tier, threshold, threshold_logit, n, n_recovered, recall, wilson95_lo, wilson95_hi,
        jeffreys95_lo, jeffreys95_hi and the methods' names.

    Raises:
        VerificationError: a missing column, no anchor, or a score that is not finite.
    """
    absent = [name for name in ("logit", *tier_columns) if name not in anchors]
    if absent or not tier_columns or anchors.empty:
        raise VerificationError(f"expected scored anchors with tiers, got {len(anchors)} rows without {absent}")
    logit = anchors["logit"].to_numpy(dtype=np.float64)
    if not np.isfinite(logit).all():
        raise VerificationError(f"{int((~np.isfinite(logit)).sum())} anchors have scores that are not finite")
    rows = []
    for definition in tier_columns:
        tiers = anchors[definition].fillna("").astype(str).to_numpy()
        for tier in sorted(set(tiers.tolist())):
            found = logit[tiers == tier]
            for name, threshold in thresholds:
                n_recovered = int(np.count_nonzero(found >= threshold))
                known = not np.isnan(threshold)
                wilson = [float(end) for end in wilson_score_interval(n_recovered, found.size)]
                jeffreys = [float(end) for end in jeffreys_interval(n_recovered, found.size)]
                shown = [n_recovered / found.size, *wilson, *jeffreys] if known else [_NAN] * 5
                rows.append(
                    {
                        "tier_definition": definition,
                        "tier": tier or "undetermined",
                        "threshold": name,
                        "threshold_logit": threshold,
                        "n": int(found.size),
                        "n_recovered": n_recovered if known else 0,
                        **dict(zip(_RECALL_COLUMNS, shown, strict=True)),
                        "wilson_method": WILSON,
                        "jeffreys_method": JEFFREYS,
                    }
                )
    return pd.DataFrame(rows)


_RECALL_COLUMNS = ("recall", "wilson95_lo", "wilson95_hi", "jeffreys95_lo", "jeffreys95_hi")


def axis_columns(axes: tuple[Axis, ...], codes: dict[str, NDArray[np.intp]]) -> dict[str, NDArray[np.float64]]:
    """Lower and upper bin edges of cells, `<name>_low` and `<name>_high`.

    Args:
        axes: the axes.
        codes: name -> (cell,) bin, at least 0.
    """
    columns = {}
    for axis in axes:
        edges = np.asarray(axis.edges)
        columns[f"{axis.name}_low"] = edges[codes[axis.name]]
        columns[f"{axis.name}_high"] = edges[codes[axis.name] + 1]
    return columns


def _metrics(
    label: NDArray[np.int64], logit: NDArray[np.float64], host: NDArray[np.int64], thresholds: dict[str, float]
) -> dict[str, Any]:
    n_positives = int(np.count_nonzero(label == 1))
    n_negatives = int(label.size - n_positives)
    sufficient = min(n_positives, n_negatives) >= MIN_POSITIVES_PER_BIN
    row: dict[str, Any] = {
        "n_positives": n_positives,
        "n_negatives": n_negatives,
        "n_hosts": int(np.unique(host).size),
        "sufficient": sufficient,
    }
    found = auc_interval(label, logit, host) if sufficient else None
    ends = (found.value, found.low, found.high) if found else (None, None, None)
    row |= {key: _NAN if end is None else end for key, end in zip(("auc", "auc_low", "auc_high"), ends, strict=True)}
    row["auc_method"] = found.method if found else ""
    row["tpr_method"] = WILSON
    for name, threshold in thresholds.items():
        known = not np.isnan(threshold)
        n_above = int(np.count_nonzero(logit[label == 1] >= threshold))
        low, high = wilson_score_interval(n_above, n_positives)
        row[name] = n_above / n_positives if known and n_positives else _NAN
        row[f"{name}_low"], row[f"{name}_high"] = (float(low), float(high)) if known else (_NAN, _NAN)
        false = int(np.count_nonzero(logit[label == 0] >= threshold))
        row[name.replace("tpr_at_fpr", "fpr_at")] = false / n_negatives if known and n_negatives else _NAN
    return row
