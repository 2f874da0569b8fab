"""A linear classifier as a probe: out-of-fold AUC, its interval over hosts, and its permutation null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from pipeline.stages.gates.result import Null

PERMUTATIONS = 20
BOOTSTRAPS = 400
SWAPS = 499

Relabel = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]


@dataclass(frozen=True)
class Fold:
    """Rows that a classifier learns from and rows that it scores, with their features scaled by the former.

    Attributes:
        train, test: rows.
        train_features, test_features: (row, feature), of mean 0 and variance 1 over `train`.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    train_features: NDArray[np.float64]
    test_features: NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """What a linear classifier found.

    Attributes:
        auc: mean over folds of the ROC AUC of the fold's test rows.
        fold_aucs: of each fold.
        interval_95: of `auc`, over bootstrap samples of the hosts of each fold's test rows.
        null: `auc` under permuted labels, one per permutation.
        hosts: distinct hosts.
    """

    auc: float
    fold_aucs: list[float]
    interval_95: tuple[float, float]
    null: NDArray[np.float64]
    hosts: int

    def detail(self) -> dict[str, Any]:
        """The numbers for the record."""
        return {
            "fold_aucs": self.fold_aucs,
            "hosts": self.hosts,
            "bootstraps": BOOTSTRAPS,
            "null_mean": float(self.null.mean()),
            "null_std": float(self.null.std(ddof=1)),
            "null_max": float(self.null.max()),
        }

    def chance(self, how: str) -> Null:
        """The null for the record: how its labels were permuted, and the chance of an AUC as large."""
        return Null(how, self.null.size, (1 + int((self.null >= self.auc).sum())) / (1 + self.null.size))


def fit_baseline(
    features: NDArray[np.float64],
    label: NDArray[np.int64],
    host_id: NDArray[np.int64],
    n_folds: int,
    relabel: Relabel,
    generator: np.random.Generator,
) -> Baseline:
    """Score a standardised logistic regression out of fold, with folds grouped by host.

    The members of a pair, and all repeats of a host, are scored by a classifier that never saw them.

    Args:
        features: (sample, feature) finite.
        label: (sample,) 0 or 1.
        host_id: (sample,) group of every row.
        n_folds: folds.
        relabel: gives permuted labels, with which the same is done PERMUTATIONS times.
        generator: of the permutations and the bootstrap.

    Raises:
        ValueError: fewer hosts than folds, a fold's test rows of one class, or a feature that is not finite.
    """
    folds = _folds(features, host_id, n_folds)
    scores = [_scores(fold, label) for fold in folds]
    aucs = [_auc(score, label[fold.test]) for score, fold in zip(scores, folds, strict=True)]
    # The features were found good by the first fits.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        null = [_mean_auc(folds, relabel(label, generator)) for _ in range(PERMUTATIONS)]
    interval = _bootstrap_interval(scores, label, host_id, folds, generator)
    return Baseline(float(np.mean(aucs)), aucs, interval, np.array(null), int(np.unique(host_id).size))


def out_of_fold_auc(
    features: NDArray[np.float64], label: NDArray[np.int64], host_id: NDArray[np.int64], n_folds: int
) -> float:
    """`Baseline.auc` alone."""
    return _mean_auc(_folds(features, host_id, n_folds), label)


def swap_within_pairs(twin: NDArray[np.int64]) -> Relabel:
    """Relabelling that swaps the two members of random pairs; row i < len(twin) is injected, twin[i] its control."""

    def relabel(label: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        permuted = label.copy()
        swapped = np.flatnonzero(generator.integers(0, 2, twin.size))
        permuted[swapped] = 0
        permuted[twin[swapped]] = 1
        return permuted

    return relabel


def pair_swap_null(
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    injected: NDArray[np.float64],
    control: NDArray[np.float64],
    neutral: float,
    generator: np.random.Generator,
) -> tuple[Null, float]:
    """How far a statistic of pairs lies from what it is if the members of random pairs are swapped.

    Args:
        statistic: of (pair,) values of the injected members and of the controls.
        injected, control: (pair,) finite values.
        neutral: the statistic where the members do not differ.
        generator: of the swaps.

    Returns:
        The null with its two-sided p, and the standard deviation of its statistics about `neutral`.
    """
    distance = abs(statistic(injected, control) - neutral)
    null = np.empty(SWAPS)
    for index in range(SWAPS):
        swap = generator.integers(0, 2, injected.size) == 1
        null[index] = statistic(np.where(swap, control, injected), np.where(swap, injected, control)) - neutral
    p = (1 + int((np.abs(null) >= distance).sum())) / (1 + SWAPS)
    return Null("members of pairs swapped", SWAPS, p), float(np.sqrt(np.mean(null**2)))


def shuffle_labels(label: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Labels in random order."""
    return generator.permutation(label)


def _folds(features: NDArray[np.float64], host_id: NDArray[np.int64], n_folds: int) -> list[Fold]:
    folds = []
    for train, test in GroupKFold(n_folds).split(host_id, groups=host_id):
        scaler: Any = StandardScaler().fit(features[train])
        folds.append(Fold(train, test, scaler.transform(features[train]), scaler.transform(features[test])))
    return folds


def _scores(fold: Fold, label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Decision function of a fold's test rows."""
    if np.unique(label[fold.test]).size < 2:
        raise ValueError("a fold's test rows hold one class only")
    model: Any = LogisticRegression(max_iter=1000).fit(fold.train_features, label[fold.train])
    return np.asarray(model.decision_function(fold.test_features), dtype=np.float64)


def _mean_auc(folds: list[Fold], label: NDArray[np.int64]) -> float:
    return float(np.mean([_auc(_scores(fold, label), label[fold.test]) for fold in folds]))


def _auc(score: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    rank = np.unique(score, return_inverse=True)[1]
    return _weighted_auc(rank, label == 1, np.ones(rank.size, np.int64))


def _bootstrap_interval(
    scores: list[NDArray[np.float64]],
    label: NDArray[np.int64],
    host_id: NDArray[np.int64],
    folds: list[Fold],
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Central 95 % of the mean fold AUC over bootstrap samples of each fold's hosts."""
    drawn = np.zeros((BOOTSTRAPS, len(folds)))
    for index, (fold, score) in enumerate(zip(folds, scores, strict=True)):
        rank = np.unique(score, return_inverse=True)[1]
        host = np.unique(host_id[fold.test], return_inverse=True)[1]
        n_hosts, positive = int(host.max()) + 1, label[fold.test] == 1
        for bootstrap in range(BOOTSTRAPS):
            weight = np.bincount(generator.integers(0, n_hosts, n_hosts), minlength=n_hosts)[host]
            drawn[bootstrap, index] = _weighted_auc(rank, positive, weight)
    low, high = np.nanquantile(np.nanmean(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _weighted_auc(rank: NDArray[np.int64], positive: NDArray[np.bool_], weight: NDArray[np.int64]) -> float:
    """AUC of weighted rows with dense score ranks, ties counted half; NaN if a class has no weight."""
    n_ranks = int(rank.max()) + 1
    positives = np.bincount(rank[positive], weights=weight[positive], minlength=n_ranks)
    negatives = np.bincount(rank[~positive], weights=weight[~positive], minlength=n_ranks)
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - 0.5 * negatives
    return float((positives * below).sum() / pairs) if pairs else float("nan")
