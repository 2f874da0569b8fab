"""Gates on quality and SNR distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.contracts.datasets import REJECT_REASONS, ROLES


def reassign_pairs(cube, chosen):
    """Make `chosen` of the first rows pairs and the others of them exhausted."""
    role, reason = cube.columns["role"].to_numpy().copy(), cube.columns["reject_reason"].to_numpy().copy()
    role[: chosen.size] = np.where(chosen, ROLES.index("pair"), ROLES.index("unused"))
    reason[: chosen.size] = np.where(chosen, 0, REJECT_REASONS.index("sampler_exhausted"))
    cube.columns["role"], cube.columns["reject_reason"] = ("sample", role), ("sample", reason)


def test_quality_distributions_pass_a_fair_sample(cube):
    """Pairs taken at random from the usable hosts pass; a column nobody has is skipped by name."""
    result = cube.gate("quality_distributions")
    assert result.passed
    assert (result.n_positive, result.n_control) == (400, 580)
    assert result.detail["skipped"] == ["wise_brightmask_frac"]
    assert {"ks_d", "ks_p", "ks_p_holm", "cohen_d"} <= set(result.detail["columns"]["psfsize_arcsec[z]"])


def test_quality_distributions_report_the_distance_to_the_population(cube):
    """ks_d is the two-sample distance of pairs and all usable hosts, and ks_p that of pairs and the other hosts."""
    mag = cube.columns["mag_r"].to_numpy().astype(np.float64)
    found = cube.gate("quality_distributions").detail["columns"]["mag_r"]
    assert found["ks_d"] == pytest.approx(stats.ks_2samp(mag[:400], mag[:580]).statistic, abs=1e-12)
    assert found["ks_p"] == pytest.approx(stats.ks_2samp(mag[:400], mag[400:580]).pvalue, rel=0.1)
    assert found["cohen_d"] == pytest.approx((mag[:400].mean() - mag[:580].mean()) / mag[:580].std(), rel=0.05)


@pytest.mark.parametrize(
    ("column", "band", "named"),
    [
        ("mag_r", None, "mag_r"),
        ("bad_pixel_frac", None, "bad_pixel_frac"),
        ("psfsize_arcsec", 1, "psfsize_arcsec[r]"),
        ("sky_sigma_nmgy", 2, "sky_sigma_nmgy[z]"),
    ],
)
def test_quality_distributions_fail_a_sampler_that_prefers_hosts(cube, column, band, named):
    """If only the better half of the hosts became pairs, the gate fails and names the column."""
    values = cube.columns[column].to_numpy()[:400]
    values = values if band is None else values[:, band]
    reassign_pairs(cube, values < np.median(values))
    result = cube.gate("quality_distributions")
    assert not result.passed
    assert f"{named} differs" in result.message
    assert result.detail["columns"][named]["effect"] == result.value > 0.3


def test_quality_distributions_fail_a_difference_that_leaves_the_mean(cube):
    """Pairs from both tails only have the mean of the population, and fail all the same."""
    seeing = cube.columns["psfsize_arcsec"].to_numpy()[:400, 0]
    reassign_pairs(cube, np.abs(seeing - np.median(seeing)) > np.median(np.abs(seeing - np.median(seeing))))
    result = cube.gate("quality_distributions")
    assert abs(result.detail["columns"]["psfsize_arcsec[g]"]["cohen_d"]) < 0.1
    assert not result.passed
    assert "psfsize_arcsec[g] differs" in result.message


def test_quality_distributions_leave_out_hosts_that_were_unusable(cube):
    """Rows rejected for their pixels were never candidates and do not count in the population."""
    missing = cube.columns["reject_reason"].to_numpy() == REJECT_REASONS.index("brick_missing")
    cube.columns["mag_r"][missing] = 5.0
    before = cube.gate("quality_distributions")
    assert before.passed
    cube.columns["reject_reason"][missing] = REJECT_REASONS.index("arc_masked")
    assert cube.gate("quality_distributions").n_control == before.n_control + int(missing.sum())


def test_quality_distributions_pass_if_every_host_became_a_pair(cube):
    """Without a host that was left out there is no preference to find."""
    cube.keep("pair")
    result = cube.gate("quality_distributions")
    assert (result.passed, result.value) == (True, 0.0)


@pytest.mark.parametrize("column", ["psfsize_arcsec", "sky_sigma_nmgy"])
def test_quality_distributions_fail_without_seeing_or_sky(cube, column):
    """Seeing and sky noise must be testable in every band: all NaN fails."""
    cube.columns[column][:, 1] = np.nan
    result = cube.gate("quality_distributions")
    assert not result.passed
    assert f"{column}[r] is finite in 0 pairs" in result.message


def test_quality_distributions_fail_a_column_known_for_too_few_pairs(cube):
    """A column that only some rows have is no reason to skip it."""
    cube.columns["mag_r"][50:] = np.nan
    assert "mag_r is finite in 50 pairs" in cube.gate("quality_distributions").message


def test_quality_distributions_keep_their_false_alarm_rate(cube):
    """With 8 columns tested, at most 5 % of fair selections from the usable hosts fail at p 0.05, up to chance."""
    rng = np.random.default_rng(5)
    cube.configure("gates", quality_ks_p_min=0.05, quality_effect_max=1e-9)
    cube.stamps = cube.stamps.isel(sample=[])
    failures = 0
    for _ in range(200):
        reassign_pairs(cube, rng.permutation(580) < 350)
        failures += not cube.gate("quality_distributions").passed
    assert failures <= 20


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
