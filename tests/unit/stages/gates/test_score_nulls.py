"""Nulls of scores: differences that are there are found, those of chance are not."""

from __future__ import annotations

import numpy as np

from pipeline.stages.gates.score_nulls import PERMUTATIONS, SWAPS, rank_swap_null, shuffled_mean_null, sign_null

RNG = np.random.default_rng(4)
HOST = np.repeat(np.arange(100), 2)
LABEL = np.tile([1, 0], 100)


def test_swapped_ranks_find_a_scoring_that_ranks_worse() -> None:
    """Noise in place of scores is found with the smallest p; the same scores twice differ by nothing, p 1."""
    scores = LABEL + RNG.normal(0.0, 0.5, 200)
    generator = np.random.default_rng(1)
    found = rank_swap_null(LABEL, HOST, scores, RNG.normal(0.0, 1.0, 200), generator)
    assert (found.p, found.draws) == (1 / (1 + SWAPS), SWAPS)
    assert rank_swap_null(LABEL, HOST, scores, scores, generator).p == 1.0


def test_signs_are_those_of_hosts() -> None:
    """A common shift is found; one host that holds all of it is not, however many examples it has."""
    shifted = sign_null("signs", np.full(200, 0.1), HOST, np.random.default_rng(1))
    assert (shifted.how, shifted.p) == ("signs", 1 / (1 + PERMUTATIONS))
    one = sign_null("signs", np.where(HOST == 0, 5.0, 0.0), HOST, np.random.default_rng(1))
    assert 0.4 < one.p < 0.6


def test_shuffled_labels_find_controls_that_score_low() -> None:
    """Controls below the injected stamps are found; controls above them have p 1."""
    controls = np.flatnonzero(LABEL == 0)
    assert shuffled_mean_null(1.0 * LABEL, controls, np.random.default_rng(1)).p == 1 / (1 + PERMUTATIONS)
    assert shuffled_mean_null(1.0 - LABEL, controls, np.random.default_rng(1)).p == 1.0
