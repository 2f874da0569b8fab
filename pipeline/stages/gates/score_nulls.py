"""Nulls of scores of a network: what differences are by chance, with the examples of a host kept together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.stages.gates.result import Null
from pipeline.stages.host_bootstrap import RankedScores

PERMUTATIONS = 999
SWAPS = 199

Floats = NDArray[np.float64]


def rank_swap_null(
    label: NDArray[Any], host_id: NDArray[Any], first: Floats, second: Floats, generator: np.random.Generator
) -> Null:
    """Two-sided chance of a difference of AUC between two scorings of the same examples.

    Under the null a host ranks alike in both, so the two ranks of all its examples are swapped for random hosts.

    Args:
        label: (example) 0 or 1; both occur.
        host_id: (example) identity of the host.
        first, second: (example) finite scores.
        generator: of the swaps.
    """
    ranks = [stats.rankdata(values) for values in (first, second)]
    code = np.unique(host_id, return_inverse=True)[1]
    ones = np.ones(label.size)

    def difference(swap: NDArray[np.bool_]) -> float:
        mixed = [np.where(swap, ranks[1 - which], ranks[which]) for which in (0, 1)]
        aucs = [RankedScores(label, values).auc(ones) for values in mixed]
        return aucs[0] - aucs[1]

    observed = abs(difference(np.zeros(label.size, dtype=bool)))
    drawn = [difference(generator.integers(0, 2, int(code.max()) + 1)[code] == 1) for _ in range(SWAPS)]
    return Null("ranks swapped by host", SWAPS, (1 + int((np.abs(drawn) >= observed).sum())) / (1 + SWAPS))


def sign_null(how: str, difference: Floats, host_id: NDArray[Any], generator: np.random.Generator) -> Null:
    """One-sided chance of so large a mean difference where a host's differences have a random common sign.

    Args:
        how: what the signs stand for, for the record.
        difference: (example) finite.
        host_id: (example) identity of the host.
        generator: of the signs.
    """
    code = np.unique(host_id, return_inverse=True)[1]
    sums = np.bincount(code, weights=difference)
    signs = generator.integers(0, 2, (PERMUTATIONS, sums.size)) * 2 - 1
    return Null(how, PERMUTATIONS, (1 + int((signs @ sums >= sums.sum()).sum())) / (1 + PERMUTATIONS))


def shuffled_mean_null(score: Floats, rows: NDArray[np.int64], generator: np.random.Generator) -> Null:
    """One-sided chance of so low a mean score of some examples where as many are taken at random from all.

    Args:
        score: (example) finite.
        rows: (row) indices of the examples.
        generator: of the choices.
    """
    observed = float(score[rows].mean())
    drawn = np.array([score[generator.permutation(score.size)[: rows.size]].mean() for _ in range(PERMUTATIONS)])
    return Null(
        "labels shuffled over all stamps", PERMUTATIONS, (1 + int((drawn <= observed).sum())) / (1 + PERMUTATIONS)
    )
