"""What scores are worth as probabilities, and what a threshold would return from the sky."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.stages.evaluation import OperatingPoint
from pipeline.stages.intervals import WILSON, wilson_score_interval

PURITY_METHOD = "ends of the Wilson intervals of TPR and FPR combined, the widest choice"


def probabilities(logit: ArrayLike) -> NDArray[np.float64]:
    """Scores of logits as float64; 1 only above a logit of about 37.

    Args:
        logit: (example).
    """
    x = np.asarray(logit, dtype=np.float64)
    return np.where(x >= 0.0, 1.0 / (1.0 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1.0 + np.exp(-np.abs(x))))


def calibrate(label: ArrayLike, logit: ArrayLike, bins: int = 15) -> dict[str, Any]:
    """Reliability curve, expected calibration error and Brier score at the class mix of the examples.

    ECE = sum over bins of (n_bin / n) |share of positives - mean score|; Brier = mean (score - label)**2.

    Args:
        label: (example) 0 or 1; both occur.
        logit: (example) finite.
        bins: equal bins of the score in [0, 1]; a score on an edge belongs to the upper bin.

    Returns:
        ece, brier, brier_of_constant (that of the class share as score), positive_share, n, method and
        reliability: per non-empty bin low, high, n, mean_score, positive_share, share_low, share_high.

    Raises:
        VerificationError: one class, other labels, scores that are not finite, or unequal lengths.
    """
    labels, x = np.asarray(label), np.asarray(logit, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != x.shape or not np.isfinite(x).all():
        raise VerificationError(f"expected equally long labels and finite scores, got {labels.shape} and {x.shape}")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise VerificationError(f"expected labels 0 and 1, both classes, got {np.unique(labels)[:5].tolist()}")
    score, truth = probabilities(x), labels.astype(np.float64)
    code = np.minimum((score * bins).astype(np.intp), bins - 1)
    count = np.bincount(code, minlength=bins)
    positives = np.bincount(code, weights=truth, minlength=bins)
    score_sum = np.bincount(code, weights=score, minlength=bins)
    low, high = wilson_score_interval(positives, count)
    filled = np.flatnonzero(count)
    share = float(truth.mean())
    return {
        "n": int(truth.size),
        "positive_share": share,
        "ece": float(np.abs(positives - score_sum).sum() / truth.size),
        "brier": float(np.mean((score - truth) ** 2)),
        "brier_of_constant": share * (1.0 - share),
        "method": f"{bins} equal bins of the score; {WILSON}, 95 %",
        "reliability": [
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "n": int(count[index]),
                "mean_score": float(score_sum[index] / count[index]),
                "positive_share": float(positives[index] / count[index]),
                "share_low": float(low[index]),
                "share_high": float(high[index]),
            }
            for index in filled.tolist()
        ],
    }


def purity(tpr: float, fpr: float, base_rate: float) -> float:
    """Share of lenses among the objects above a threshold; NaN if nothing lies above it.

    Args:
        tpr: share of lenses above the threshold, in [0, 1].
        fpr: share of other objects above it, in [0, 1].
        base_rate: share of lenses among all objects, in (0, 1).

    Raises:
        VerificationError: a value out of range.
    """
    if not (0.0 <= tpr <= 1.0 and 0.0 <= fpr <= 1.0 and 0.0 < base_rate < 1.0):
        raise VerificationError(f"expected rates in [0, 1] and a base rate in (0, 1), got {tpr}, {fpr}, {base_rate}")
    lenses, others = tpr * base_rate, fpr * (1.0 - base_rate)
    return lenses / (lenses + others) if lenses + others > 0.0 else float("nan")


def candidates_per_million(tpr: float, fpr: float, base_rate: float) -> float:
    """Objects above a threshold per million objects of the sky; arguments as in `purity`."""
    return 1e6 * (tpr * base_rate + fpr * (1.0 - base_rate))


def survey_yield(point: OperatingPoint, base_rate: float) -> dict[str, Any]:
    """Purity and candidates per million at one operating point, with the base rate that they assume.

    Args:
        point: from `evaluation.operating_point`; its negatives stand for every object that is no lens.
        base_rate: share of lenses among all objects, in (0, 1).

    Returns:
        fpr, base_rate, sufficient, purity, purity_low, purity_high, candidates_per_million with its _low and _high,
        and method; NaN where the point is not sufficient.
    """
    nan = float("nan")
    result: dict[str, Any] = {"fpr": point.fpr, "base_rate": base_rate, "sufficient": point.sufficient}
    ends = (point.tpr, point.tpr_low, point.tpr_high, point.fpr_achieved, point.fpr_low, point.fpr_high)
    tpr, tpr_low, tpr_high, fpr, fpr_low, fpr_high = (nan if value is None else value for value in ends)
    for name, measure in (("purity", purity), ("candidates_per_million", candidates_per_million)):
        # Purity falls with the FPR, the number of candidates rises with it.
        worst = (tpr_low, fpr_high) if name == "purity" else (tpr_low, fpr_low)
        best = (tpr_high, fpr_low) if name == "purity" else (tpr_high, fpr_high)
        chosen = ((name, (tpr, fpr)), (f"{name}_low", worst), (f"{name}_high", best))
        result |= {key: measure(*pair, base_rate) if point.sufficient else nan for key, pair in chosen}
    return {**result, "method": PURITY_METHOD}
