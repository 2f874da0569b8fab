"""Distance from a target beside its Monte-Carlo floor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.stages.sampling import SnrTarget
from pipeline.stages.target_fit import fit_target

TARGET = SnrTarget((1.0, 4.0, 16.0), (0.25, 0.75))


def fit(snr: np.ndarray, target: SnrTarget = TARGET):
    """With a generator of its own."""
    return fit_target(snr, target, np.random.default_rng(3))


def test_shares_that_are_met_have_no_distance() -> None:
    """Exact shares: zero distance and divergence, certain chi-square; the floor is that of the sample's size."""
    found = fit(np.array([2.0] * 25 + [8.0] * 75))
    assert (found.tv, found.kl_nats, found.chi2_p) == pytest.approx((0.0, 0.0, 1.0))
    assert found.achieved_counts.tolist() == [25, 75]
    floor = math.sqrt(0.25 * 0.75 / 100) * math.sqrt(2 / math.pi)
    assert found.tv_mean_ideal == pytest.approx(floor, rel=0.05)
    assert found.ks_p < 1e-6
    assert found.tv_p == 1.0


def test_ideal_draws_lie_at_the_floor() -> None:
    """Draws of the target itself are within 4 deviations, with p values that are no accident."""
    generator = np.random.default_rng(8)
    snr = np.array([TARGET.quantile(u) for u in generator.uniform(size=4000)])
    found = fit(snr)
    assert abs(found.tv - found.tv_mean_ideal) < 4 * found.tv_std_ideal
    assert min(found.chi2_p, found.ks_p, found.tv_p) > 1e-3
    assert found.tv_interval_95[0] <= found.tv <= found.tv_interval_95[1]


def test_outside_nan_and_unasked_bins_are_counted() -> None:
    """Beyond the edges, NaN, or in a bin of share 0; an empty bin has no finite divergence."""
    target = SnrTarget((1.0, 4.0, 16.0), (1.0, 0.0))
    found = fit(np.array([2.0, 3.0, 8.0, 20.0, np.nan]), target)
    assert (found.outside, found.nan) == (3, 1)
    assert found.tv == pytest.approx(1 / 3)
    assert math.isnan(fit(np.full(5, 8.0)).kl_nats)


def test_nothing_to_compare_is_nan() -> None:
    """An empty sample has no distance."""
    found = fit(np.array([]))
    assert math.isnan(found.tv)
    assert math.isnan(found.ks_p)


def test_grid_has_no_ks() -> None:
    """A share at each value is compared by counts."""
    grid = SnrTarget((1.9, 4.0, 8.4), (0.5, 0.5), values=(2.0, 8.0))
    found = fit(np.array([2.0, 8.0] * 50), grid)
    assert found.tv == 0.0
    assert math.isnan(found.ks_p)
