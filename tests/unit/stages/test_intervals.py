"""Intervals of a proportion: published values, coverage, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from pipeline.contracts.errors import VerificationError
from pipeline.stages.intervals import jeffreys_interval, wilson_score_interval

ALL = (wilson_score_interval, jeffreys_interval)


def test_recall_of_100_of_112_under_both_names() -> None:
    """Wilson is [82.2, 93.8] %, Jeffreys [82.6, 94.0] %: the two are not the same interval."""
    assert np.round(np.multiply(wilson_score_interval(100, 112), 100), 1).tolist() == [82.2, 93.8]
    assert np.round(np.multiply(jeffreys_interval(100, 112), 100), 1).tolist() == [82.6, 94.0]


def test_agreement_with_an_independent_implementation() -> None:
    """Wilson equals scipy's binomial test interval."""
    for k, n in ((0, 7), (3, 7), (7, 7), (55, 1000)):
        expected = binomtest(k, n).proportion_ci(0.9, method="wilson")
        assert np.array(wilson_score_interval(k, n, 0.9)) == pytest.approx([expected.low, expected.high], abs=1e-10)


def test_published_selection_function_cells_are_reproduced() -> None:
    """0 and 15 of 500 at 68 % and 95 %, as the published table has them."""
    low, high = jeffreys_interval([0, 15], [500, 500], 0.68)
    np.testing.assert_allclose(low, [4.0739771573051846e-05, 0.023315341267229603], rtol=1e-9)
    np.testing.assert_allclose(high, [0.0019712935049890257, 0.038550272465823855], rtol=1e-9)
    low, high = jeffreys_interval([0, 15], [500, 500], 0.95)
    np.testing.assert_allclose(low, [9.815777236487957e-07, 0.01764046386572944], rtol=1e-9)
    np.testing.assert_allclose(high, [0.0050087878001096745, 0.04776791682721319], rtol=1e-9)


def test_intervals_cover_on_average() -> None:
    """For n = 40 over a grid of p: 94 to 96.5 % of the counts give an interval that holds p."""
    k, n = np.arange(41), 40
    p = np.linspace(0.02, 0.98, 97)
    mass = binom.pmf(k[:, None], n, p)
    for interval in ALL:
        low, high = interval(k, n)
        coverage = (mass * ((low[:, None] <= p) & (p <= high[:, None]))).sum(0)
        assert 0.94 < coverage.mean() < 0.965


@pytest.mark.parametrize("interval", ALL)
def test_no_trials_give_nan_and_fractions_are_counts(interval) -> None:  # type: ignore[no-untyped-def]
    """n = 0 has no interval; an effective number need not be whole; the interval holds the proportion."""
    low, high = interval([0.0, 1.25], [0.0, 3.7])
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < 1.25 / 3.7 < high[1]
    for k, n, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (np.nan, 2, 0.95)):
        with pytest.raises(VerificationError, match="expected"):
            interval(k, n, level)
