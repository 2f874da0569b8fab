"""Gates on the SNR of the pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats


def test_snr_target_passes_ideal_draws(cube):
    """Draws from the bins target pass, with the value next to its floor."""
    result = cube.gate("snr_target")
    assert result.passed
    assert 0.0 < result.value < result.detail["tv_mean_ideal"] + 5 * result.detail["tv_std_ideal"]
    assert result.detail["ks_p"] > 1e-3
    assert result.detail["chi2_p"] > 1e-3
    assert sum(result.detail["achieved_counts"]) == 400


def test_snr_target_floor_is_that_of_an_ideal_sample(cube):
    """For equal bins the ideal mean is near 0.4 sqrt(B/N), the textbook value."""
    cube.configure("sampling", target={"kind": "loguniform", "low": 2.0, "high": 50.0})
    floor = cube.gate("snr_target").detail["tv_mean_ideal"]
    assert floor == pytest.approx(0.4 * np.sqrt(8 / 400), rel=0.1)


def test_snr_target_passes_loguniform_draws_and_fails_uniform_ones(cube):
    """A log-uniform target accepts its own density and refuses one that is uniform in SNR."""
    rng = np.random.default_rng(9)
    cube.configure("sampling", target={"kind": "loguniform", "low": 2.0, "high": 50.0})
    pairs = cube.rows("pair")
    cube.columns["arc_snr_sum"][pairs] = np.exp(rng.uniform(np.log(2.0), np.log(50.0), pairs.size))
    assert cube.gate("snr_target").passed
    cube.columns["arc_snr_sum"][pairs] = rng.uniform(2.0, 50.0, pairs.size)
    result = cube.gate("snr_target")
    assert not result.passed
    assert "total variation" in result.message
    assert result.detail["chi2_p"] < 1e-6
    assert result.detail["ks_p"] < 1e-6
    assert result.detail["kl_nats"] > 0.1


def test_snr_target_fails_the_accept_two_over_snr_rule(cube):
    """85/13/2 % in the log-uniform bins 2-8, 8-20, 20-50, where 43/28.5/28.5 % were asked for, fails."""
    rng = np.random.default_rng(10)
    cube.configure("sampling", target={"kind": "loguniform", "low": 2.0, "high": 50.0})
    snr = np.concatenate([rng.uniform(lo, hi, n) for lo, hi, n in [(2, 8, 341), (8, 20, 52), (20, 50, 7)]])
    cube.columns["arc_snr_sum"][cube.rows("pair")] = snr
    assert not cube.gate("snr_target").passed


@pytest.mark.parametrize("snr", [0.79, 100.2, np.nan, np.inf])
def test_snr_target_fails_one_pair_outside_the_support(cube, snr):
    """One pair outside the edges, or without SNR, fails and is counted."""
    cube.columns["arc_snr_sum"][cube.rows("pair")[3]] = snr
    result = cube.gate("snr_target")
    assert not result.passed
    assert result.detail["pairs_outside"] == 1
    assert "1 of 400 pairs" in result.message


def test_snr_target_tolerates_rounding_at_the_edges(cube):
    """A float32 SNR one part in 1e5 beyond an outer edge is inside."""
    cube.columns["arc_snr_sum"][cube.rows("pair")[:2]] = [0.8 * (1 - 1e-5), 100.0 * (1 + 1e-5)]
    result = cube.gate("snr_target")
    assert result.passed
    assert sum(result.detail["achieved_counts"]) == 400


def test_snr_target_counts_a_bin_that_was_not_asked_for_as_outside(cube):
    """Pairs in a bin of share 0 lie outside the support."""
    target = {"kind": "bins", "edges": (0.8, 2.0, 8.0, 20.0, 100.0), "shares": (0.5, 0.5, 0.0, 0.0)}
    cube.configure("sampling", target=target)
    result = cube.gate("snr_target")
    high = cube.columns["arc_snr_sum"].to_numpy()[cube.rows("pair")] >= 8.0
    assert not result.passed
    assert result.detail["pairs_outside"] == int(high.sum())


def test_snr_target_looks_at_the_configured_metric(cube):
    """Only the metric that was targeted is compared."""
    cube.columns["arc_snr"][:] = 1e6
    assert cube.gate("snr_target").passed
    cube.configure("sampling", metric="arc_snr")
    assert not cube.gate("snr_target").passed


def test_snr_target_without_target_passes_without_value(cube):
    """Without sampling nothing was promised about the SNR."""
    cube.configure("sampling", method="none", target=None)
    result = cube.gate("snr_target")
    assert (result.passed, result.value, result.message) == (True, None, "no target configured")


def test_snr_correlation_is_pearsons(cube):
    """r and its sampling error are the textbook's, column by column, and constant columns are named."""
    cube.columns["ebv_mag"][:] = 0.05
    result = cube.gate("snr_correlation")
    pairs = cube.rows("pair")
    ln_snr, mag = np.log(cube.columns["arc_snr_sum"].to_numpy()[pairs]), cube.columns["mag_r"].to_numpy()[pairs]
    found = result.detail["columns"]["mag_r"]
    assert found["r"] == pytest.approx(stats.pearsonr(ln_snr, mag).statistic, abs=1e-5)
    assert found["error"] == pytest.approx(399**-0.5)
    assert result.detail["skipped"] == ["ebv_mag"]
    assert result.passed


def test_snr_correlation_fails_without_positive_snr(cube):
    """A pair without SNR has no logarithm."""
    cube.columns["arc_snr_sum"][3] = 0.0
    assert "1 of 400 pairs have no positive arc_snr_sum" in cube.gate("snr_correlation").message
