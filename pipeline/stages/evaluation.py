"""How well scores separate lenses from controls: ROC, AUC with an interval, completeness at a false-positive rate.

Ties are one step of the ROC: examples with equal scores are accepted together, so no number here depends on
the order of the rows. Rank by logits, not by probabilities: float32 probabilities saturate at 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import MIN_FALSE_POSITIVES
from pipeline.stages.intervals import WILSON, wilson_score_interval

FALSE_POSITIVE_RATES = (0.01, 0.001, 0.0001)
MIN_POSITIVES_PER_BIN = 10
ROC_POINTS_MAX = 200
Z_95 = 1.959963984540054
INTERVAL_METHOD = "DeLong 1988 clustered by host (Obuchowski 1997), logit scale, 95 %"


@dataclass(frozen=True)
class RocCurve:
    """Vertices of the ROC from (0, 0) to (1, 1), one per distinct score, scores descending.

    Attributes:
        fpr: (vertex) float64 fraction of negatives at or above the threshold.
        tpr: (vertex) float64 fraction of positives at or above the threshold.
        threshold: (vertex) float64 score that is accepted together with everything above it; inf at (0, 0).
        n_negatives: examples with label 0.
        n_positives: examples with label 1.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float64]
    n_negatives: int
    n_positives: int


@dataclass(frozen=True)
class OperatingPoint:
    """The loosest threshold that keeps a false-positive rate, and what it does to both classes.

    Attributes:
        fpr: rate that was asked for.
        sufficient: at least 10 / fpr negatives; without them every number but the counts is None.
        threshold_logit: accepted together with everything above it; None too if it lies above every score.
        tpr: share of the positives accepted, with a 95 % interval at the threshold held fixed.
        fpr_achieved: share of the negatives accepted, with a 95 % interval; at most `fpr`.
        n_negatives: examples with label 0.
        method: name of both intervals.
    """

    fpr: float
    sufficient: bool
    threshold_logit: float | None
    tpr: float | None
    tpr_low: float | None
    tpr_high: float | None
    fpr_achieved: float | None
    fpr_low: float | None
    fpr_high: float | None
    n_positives: int
    n_negatives: int
    method: str


@dataclass(frozen=True)
class AucInterval:
    """AUC with a 95 % interval; `low` and `high` are None when the data give no finite variance.

    That is so when a class has a single host, or the classes separate completely (AUC of 0 or 1).
    """

    value: float
    low: float | None
    high: float | None
    method: str


def evaluate_scores(label: ArrayLike, logit: ArrayLike, host_id: ArrayLike) -> dict[str, object]:
    """Everything the run record says about one scored split, as JSON-ready values.

    Args:
        label: (example) 1 with arc, 0 without.
        logit: (example) finite score, larger is more lens-like.
        host_id: (example) examples that share it are one cluster of the interval.

    Returns:
        n_positives, n_negatives, auc {value, low, high, method}, tpr_at_fpr (operating points) and roc {fpr, tpr} of
        at most 200 points. By arc_snr and other strata: `strata.stratified_metrics`.

    Raises:
        VerificationError: one class only, non-finite scores, or unequal lengths.
    """
    curve = roc_curve(label, logit)
    return {
        "n_positives": curve.n_positives,
        "n_negatives": curve.n_negatives,
        "auc": asdict(auc_interval(label, logit, host_id)),
        "tpr_at_fpr": [asdict(operating_point(curve, fpr)) for fpr in FALSE_POSITIVE_RATES],
        "roc": _thinned(curve),
    }


def roc_curve(label: ArrayLike, logit: ArrayLike) -> RocCurve:
    """Tie-aware ROC curve.

    Args:
        label: (example) 0 or 1.
        logit: (example) finite score.

    Raises:
        VerificationError: one class only, labels other than 0 and 1, non-finite scores, or unequal lengths.
    """
    is_positive, score = _checked(label, logit)
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    accepted_positives = np.cumsum(is_positive[order])
    last_of_tie = np.append(np.flatnonzero(np.diff(ordered)), ordered.size - 1)
    true_positives = accepted_positives[last_of_tie]
    false_positives = last_of_tie + 1 - true_positives
    n_positives = int(accepted_positives[-1])
    n_negatives = ordered.size - n_positives
    return RocCurve(
        fpr=np.concatenate(([0.0], false_positives / n_negatives)),
        tpr=np.concatenate(([0.0], true_positives / n_positives)),
        threshold=np.concatenate(([np.inf], ordered[last_of_tie])),
        n_negatives=n_negatives,
        n_positives=n_positives,
    )


def auc(label: ArrayLike, logit: ArrayLike) -> float:
    """Probability that a random positive outscores a random negative, ties counting one half.

    Args:
        label: (example) 0 or 1.
        logit: (example) finite score.

    Raises:
        VerificationError: as `roc_curve`.
    """
    is_positive, score = _checked(label, logit)
    return float(_fraction_below(score[is_positive], score[~is_positive]).mean())


def tpr_at_fpr(curve: RocCurve, fpr: float) -> float | None:
    """Largest TPR of any threshold whose FPR does not exceed `fpr`; None with fewer than 10 / fpr negatives.

    Only thresholds that exist count: nothing is interpolated between vertices. `fpr` lies in (0, 1].
    """
    return operating_point(curve, fpr).tpr


def operating_point(curve: RocCurve, fpr: float) -> OperatingPoint:
    """The loosest threshold of the curve whose FPR does not exceed `fpr`; never an extrapolated one.

    Args:
        curve: from `roc_curve`.
        fpr: wanted false-positive rate in (0, 1].

    Raises:
        VerificationError: `fpr` outside (0, 1].
    """
    if not 0.0 < fpr <= 1.0:
        raise VerificationError(f"expected a false-positive rate in (0, 1], got {fpr}")
    n_positives, n_negatives = curve.n_positives, curve.n_negatives
    if n_negatives < MIN_FALSE_POSITIVES / fpr - 1e-9:
        return OperatingPoint(fpr, False, None, None, None, None, None, None, None, n_positives, n_negatives, WILSON)
    vertex = int(np.flatnonzero(curve.fpr <= fpr + 1e-12)[-1])
    tpr, achieved, threshold = (float(part[vertex]) for part in (curve.tpr, curve.fpr, curve.threshold))
    tpr_low, tpr_high = wilson_score_interval(tpr * n_positives, n_positives)
    fpr_low, fpr_high = wilson_score_interval(achieved * n_negatives, n_negatives)
    return OperatingPoint(
        fpr=fpr,
        sufficient=True,
        threshold_logit=threshold if math.isfinite(threshold) else None,
        tpr=tpr,
        tpr_low=float(tpr_low),
        tpr_high=float(tpr_high),
        fpr_achieved=achieved,
        fpr_low=float(fpr_low),
        fpr_high=float(fpr_high),
        n_positives=n_positives,
        n_negatives=n_negatives,
        method=WILSON,
    )


def auc_interval(label: ArrayLike, logit: ArrayLike, cluster: ArrayLike) -> AucInterval:
    """AUC and its 95 % interval when examples of one cluster are correlated.

    The variance is the cluster form of DeLong's (Obuchowski 1997, Biometrics 53, 567): a pair's injected and
    control stamp share their host, which plain DeLong takes for independent. Equal to DeLong's when every
    example is its own cluster. The interval is symmetric in ln(AUC / (1 - AUC)).

    Args:
        label: (example) 0 or 1.
        logit: (example) finite score.
        cluster: (example) integer identity of the cluster, the host.

    Raises:
        VerificationError: as `roc_curve`.
    """
    is_positive, score = _checked(label, logit)
    identity = np.asarray(cluster)
    if identity.shape != score.shape:
        raise VerificationError(f"expected one cluster per example, got {identity.shape} for {score.shape}")
    _, code = np.unique(identity, return_inverse=True)
    positive, negative = score[is_positive], score[~is_positive]
    below = _fraction_below(positive, negative)
    above = 1.0 - _fraction_below(negative, positive)
    value = float(below.mean())

    n_clusters = int(code.max()) + 1
    positive_sum = np.bincount(code[is_positive], weights=below - value, minlength=n_clusters)
    negative_sum = np.bincount(code[~is_positive], weights=above - value, minlength=n_clusters)
    positive_clusters = np.unique(code[is_positive]).size
    negative_clusters = np.unique(code[~is_positive]).size
    if min(positive_clusters, negative_clusters) < 2 or not 0.0 < value < 1.0:
        return AucInterval(value, None, None, INTERVAL_METHOD)
    m, n = positive.size, negative.size
    variance = (
        positive_clusters / (positive_clusters - 1) * float(positive_sum @ positive_sum) / m**2
        + negative_clusters / (negative_clusters - 1) * float(negative_sum @ negative_sum) / n**2
        + 2.0 * n_clusters / (n_clusters - 1) * float(positive_sum @ negative_sum) / (m * n)
    )
    centre = math.log(value / (1.0 - value))
    half_width = Z_95 * math.sqrt(max(variance, 0.0)) / (value * (1.0 - value))
    return AucInterval(value, _logistic(centre - half_width), _logistic(centre + half_width), INTERVAL_METHOD)


def _checked(label: ArrayLike, logit: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    labels, score = np.asarray(label), np.asarray(logit, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != score.shape:
        raise VerificationError(f"expected equally long 1-D labels and scores, got {labels.shape} and {score.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise VerificationError(f"expected labels 0 and 1, got {np.unique(labels)[:5].tolist()}")
    if not np.isfinite(score).all():
        raise VerificationError(f"{np.count_nonzero(~np.isfinite(score))} of {score.size} scores are not finite")
    is_positive = labels == 1
    n_positives = int(np.count_nonzero(is_positive))
    if n_positives in (0, labels.size):
        raise VerificationError(
            f"expected both classes, got {n_positives} positives and {labels.size - n_positives} negatives"
        )
    return is_positive, score


def _fraction_below(score: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, score, side="left")
    not_above = np.searchsorted(ordered, score, side="right")
    return (below + not_above) / (2.0 * reference.size)


def _thinned(curve: RocCurve) -> dict[str, list[float]]:
    keep = np.unique(np.round(np.linspace(0, curve.fpr.size - 1, ROC_POINTS_MAX)).astype(np.intp))
    return {"fpr": curve.fpr[keep].tolist(), "tpr": curve.tpr[keep].tolist()}


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0
