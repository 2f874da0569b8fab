"""Prior draws: their distributions, and what they depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline.kernels.priors import DISC, FIXED, LOGUNIFORM, NORMAL, PRIOR_COLUMNS, UNIFORM, draw_priors
from pipeline.kernels.random import PURPOSE_PILOT, PURPOSE_PRIOR, task_keys

N_DRAWS = 4000
KEYS = task_keys([f"task-{index}" for index in range(N_DRAWS)])


def table_of(*rows: tuple[float, ...]) -> NDArray[np.float64]:
    """A read-only prior table."""
    table = np.array(rows, dtype=np.float64).reshape(-1, PRIOR_COLUMNS)
    table.flags.writeable = False
    return table


def drawn(
    table: NDArray[np.float64], keys: NDArray[np.uint64] = KEYS, purpose: int = PURPOSE_PRIOR, attempt: int = 0
) -> NDArray[np.float64]:
    """(task, parameter) draws."""
    values = np.empty((len(keys), table.shape[0]))
    for row, key in zip(values, keys, strict=True):
        draw_priors(table, np.uint64(7), key, np.uint64(purpose), np.uint64(attempt), row)
    return values


MIXED = table_of(
    (UNIFORM, -1.0, 3.0, 0, 0, 0),
    (LOGUNIFORM, 0.1, 20.0, 0, 0, 0),
    (NORMAL, -1e30, 1e30, 2.0, 0.5, 0),
    (NORMAL, 1.8, 3.5, 2.0, 0.5, 0),
    (DISC, 0.0, 2.0, 0, 0, 0),
    (DISC, 0.5, 2.0, 0, 0, 0),
    (FIXED, 0.0, 1.0, 5.0, 5.0, 0.37),
)
EXPECTED = {
    0: stats.uniform(-1.0, 4.0).cdf,
    1: stats.loguniform(0.1, 20.0).cdf,
    2: stats.norm(2.0, 0.5).cdf,
    3: stats.truncnorm((1.8 - 2.0) / 0.5, (3.5 - 2.0) / 0.5, 2.0, 0.5).cdf,
    4: lambda r: (r / 2.0) ** 2,
    5: lambda r: (r**2 - 0.25) / (4.0 - 0.25),
}


@pytest.mark.parametrize("parameter", EXPECTED)
def test_each_kind_has_its_distribution(parameter: int) -> None:
    """Kolmogorov-Smirnov of 4000 draws against the closed-form distribution."""
    assert stats.kstest(drawn(MIXED)[:, parameter], EXPECTED[parameter]).pvalue > 0.01


def test_area_weighting_is_not_a_uniform_radius() -> None:
    """A uniform radius would fail the test that the disc passes."""
    uniform = drawn(table_of((UNIFORM, 0.0, 2.0, 0, 0, 0)))[:, 0]
    assert stats.kstest(uniform, EXPECTED[4]).pvalue < 1e-30


def test_draws_stay_in_range_and_fixed_is_fixed() -> None:
    """Bounded kinds never leave their range, and a fixed value is exact."""
    values = drawn(MIXED)
    for column, low, high in ((0, -1.0, 3.0), (1, 0.1, 20.0), (3, 1.8, 3.5), (4, 0.0, 2.0), (5, 0.5, 2.0)):
        assert values[:, column].min() >= low
        assert values[:, column].max() <= high
    assert (values[:, 6] == 0.37).all()


def test_a_range_of_zero_width_gives_its_only_value() -> None:
    """low == high is a constant for every kind with a range."""
    table = table_of(*((kind, 1.5, 1.5, 1.5, 0.0, 0) for kind in (UNIFORM, LOGUNIFORM, NORMAL, DISC)))
    assert drawn(table, KEYS[:50]) == pytest.approx(np.full((50, 4), 1.5), rel=1e-15)


def test_draws_depend_on_the_key_alone() -> None:
    """Order and company of the tasks do not matter; repeating gives the same bits."""
    values = drawn(MIXED, KEYS[:200])
    order = np.random.default_rng(1).permutation(200)
    assert np.array_equal(drawn(MIXED, KEYS[:200][order]), values[order])
    assert np.array_equal(drawn(MIXED, KEYS[100:101])[0], values[100])


def test_purpose_and_attempt_give_unrelated_draws() -> None:
    """Pilot draws and later attempts do not repeat or follow the first draws."""
    first = drawn(MIXED, KEYS[:1500])[:, :6]
    others = (drawn(MIXED, KEYS[:1500], attempt=1)[:, :6], drawn(MIXED, KEYS[:1500], purpose=PURPOSE_PILOT)[:, :6])
    for other in others:
        assert not np.isin(other, first).any()
        for column in range(6):
            assert abs(stats.spearmanr(first[:, column], other[:, column]).statistic) < 0.1


def test_parameters_are_independent_of_each_other() -> None:
    """No two parameters of a draw are correlated."""
    values = drawn(MIXED)[:, :6]
    correlation = stats.spearmanr(values).statistic
    assert np.abs(correlation - np.eye(6)).max() < 5 / math.sqrt(N_DRAWS)


def test_narrow_truncation_has_no_spike() -> None:
    """A normal cut to a range with 2.1 % of its mass is still a truncated normal: no value occurs twice."""
    low = stats.norm.isf(0.021)
    values = drawn(table_of((NORMAL, low, 40.0, 0.0, 1.0, 0)))[:, 0]
    assert stats.kstest(values, stats.truncnorm(low, 40.0).cdf).pvalue > 0.01
    assert np.unique(values).size == values.size
