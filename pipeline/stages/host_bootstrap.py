"""Bootstrap of ranking metrics over hosts: examples of one host are drawn together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import MIN_FALSE_POSITIVES
from pipeline.kernels.host_weights import poisson_host_weights

BOOTSTRAP = "bootstrap over hosts, Poisson counts, percentiles of {replicates} replicates, 95 %"
_TAIL = (2.5, 97.5)


@dataclass(frozen=True)
class BootstrapInterval:
    """A value of the whole sample and percentiles of its replicates; NaN ends where no replicate has a value."""

    value: float
    low: float
    high: float


class RankedScores:
    """Scores sorted once, for many weightings of their examples."""

    def __init__(self, label: ArrayLike, logit: ArrayLike) -> None:
        """Sort.

        Args:
            label: (example) 0 or 1; both occur.
            logit: (example) finite score.

        Raises:
            VerificationError: one class, other labels, scores that are not finite, or unequal lengths.
        """
        labels, score = np.asarray(label), np.asarray(logit, dtype=np.float64)
        if labels.ndim != 1 or labels.shape != score.shape or not np.isfinite(score).all():
            raise VerificationError(
                f"expected equally long 1-D labels and finite scores, got {labels.shape} and {score.shape}"
            )
        if set(np.unique(labels).tolist()) != {0, 1}:
            raise VerificationError(f"expected labels 0 and 1, both classes, got {np.unique(labels)[:5].tolist()}")
        self.is_positive: NDArray[np.bool_] = labels == 1
        self.n_negatives = int(np.count_nonzero(~self.is_positive))
        # Rank 0 is the highest score; equal scores share a rank.
        self._rank = np.unique(-score, return_inverse=True)[1].astype(np.intp)
        self._n_ranks = int(self._rank.max()) + 1

    def auc(self, weight: NDArray[np.float64]) -> float:
        """Weighted probability that a positive outscores a negative, ties one half; NaN if a class has no weight.

        Args:
            weight: (example) >= 0.
        """
        positive, negative = self._by_rank(weight)
        total = positive.sum() * negative.sum()
        if total <= 0.0:
            return float("nan")
        below = negative.sum() - np.cumsum(negative)
        return float((positive * (below + 0.5 * negative)).sum() / total)

    def tpr_at_fpr(self, weight: NDArray[np.float64], fpr: float) -> float:
        """Weighted TPR of the loosest threshold that keeps the weighted FPR; NaN with fewer than 10 / fpr negatives.

        Args:
            weight: (example) >= 0.
            fpr: false-positive rate in (0, 1].
        """
        positive, negative = self._by_rank(weight)
        if self.n_negatives < MIN_FALSE_POSITIVES / fpr - 1e-9 or positive.sum() <= 0.0 or negative.sum() <= 0.0:
            return float("nan")
        allowed = np.cumsum(negative) <= fpr * negative.sum() * (1.0 + 1e-12)
        n_ranks = int(np.count_nonzero(allowed))
        return float(positive[:n_ranks].sum() / positive.sum())

    def _by_rank(self, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        chosen = self.is_positive
        positive = np.bincount(self._rank[chosen], weights=weight[chosen], minlength=self._n_ranks)
        negative = np.bincount(self._rank[~chosen], weights=weight[~chosen], minlength=self._n_ranks)
        return positive.astype(np.float64), negative.astype(np.float64)


def bootstrap_weights(host_id: ArrayLike, seed: int, replicates: int) -> Iterator[NDArray[np.float64]]:
    """Weights of the examples, one array per replicate; a host's weight depends on seed, host and replicate alone.

    Args:
        host_id: (example) int64 identity of the host.
        seed: run seed, 0 <= seed < 2**64.
        replicates: number of arrays.

    Yields:
        (example) float64 whole numbers. [1]
    """
    hosts, code = np.unique(np.asarray(host_id, dtype=np.int64), return_inverse=True)
    key = hosts.view(np.uint64)
    for replicate in range(replicates):
        yield poisson_host_weights(np.uint64(seed), key, replicate)[code]


def percentile_interval(value: float, replicates: ArrayLike) -> BootstrapInterval:
    """The central 95 % of the finite replicates around a value; NaN ends without a finite one.

    Args:
        value: statistic of the sample itself.
        replicates: (replicate) statistics of the resamplings.
    """
    found = np.asarray(replicates, dtype=np.float64)
    found = found[np.isfinite(found)]
    low, high = np.percentile(found, _TAIL).tolist() if found.size else (float("nan"), float("nan"))
    return BootstrapInterval(value, low, high)


def centred_interval(value: float, replicates: ArrayLike) -> BootstrapInterval:
    """`percentile_interval` with the replicates moved so that their median is the value.

    For distances, which resampling enlarges: it adds noise to both samples.

    Args:
        value: statistic of the sample itself.
        replicates: (replicate) statistics of the resamplings.
    """
    found = np.asarray(replicates, dtype=np.float64)
    found = found[np.isfinite(found)]
    return percentile_interval(value, found - np.median(found) + value if found.size else found)


def bootstrap_ranking(
    label: ArrayLike, logit: ArrayLike, host_id: ArrayLike, rates: tuple[float, ...], seed: int, replicates: int
) -> dict[str, BootstrapInterval]:
    """AUC and TPR at every false-positive rate, thresholds set anew in every replicate.

    Args:
        label: (example) 0 or 1.
        logit: (example) finite score.
        host_id: (example) int64 identity of the host.
        rates: false-positive rates in (0, 1]; NaN for one with fewer than 10 / rate negatives.
        seed: run seed.
        replicates: resamplings.

    Returns:
        "auc" and "tpr_at_fpr_<rate>" to value and interval.

    Raises:
        VerificationError: as `RankedScores`.
    """
    ranked = RankedScores(label, logit)
    names = ["auc", *(rate_name(rate) for rate in rates)]

    def measure(weight: NDArray[np.float64]) -> list[float]:
        return [ranked.auc(weight), *(ranked.tpr_at_fpr(weight, rate) for rate in rates)]

    whole = measure(np.ones(ranked.is_positive.size))
    drawn = np.array([measure(weight) for weight in bootstrap_weights(host_id, seed, replicates)])
    return {name: percentile_interval(whole[k], drawn[:, k]) for k, name in enumerate(names)}


def rate_name(fpr: float) -> str:
    """Name of the TPR at a false-positive rate, such as tpr_at_fpr_0.01."""
    return f"tpr_at_fpr_{fpr:g}"
