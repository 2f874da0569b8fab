"""Quality of the pairs' hosts against all usable hosts, and of split against split."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.contracts.datasets import REJECT_REASONS, ROLES
from pipeline.stages.gates import host_effects


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
    assert result.null_p == pytest.approx(1 / 300)
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


def test_quality_distributions_keep_their_false_alarm_rate(cube, monkeypatch):
    """With 8 columns tested, at most 5 % of fair selections from the usable hosts fail at p 0.05, up to chance."""
    rng = np.random.default_rng(5)
    monkeypatch.setattr(host_effects, "PERMUTATIONS", 1)
    monkeypatch.setattr(host_effects, "BOOTSTRAPS", 1)
    cube.configure("gates", quality_ks_p_min=0.05, quality_effect_max=1e-9)
    cube.stamps = cube.stamps.isel(sample=[])
    failures = 0
    for _ in range(200):
        reassign_pairs(cube, rng.permutation(580) < 350)
        failures += not cube.gate("quality_distributions").passed
    assert failures <= 20


def test_splits_are_compared_cell_by_cell(cube):
    """A difference that comes of few cells with one seeing each is chance; the same over many cells is not."""
    rng = np.random.default_rng(11)
    used = np.flatnonzero(cube.columns["role"].to_numpy() > 0)
    cell = np.arange(used.size) % 6
    cube.columns["split_healpix"][used] = cell
    cube.columns["split"][used] = np.array([0, 0, 0, 1, 1, 2], dtype=np.uint8)[cell]
    cube.columns["psfsize_arcsec"][used] = rng.normal(1.3, 0.1, 6)[cell][:, None] * np.ones(3)
    result = cube.gate("quality_by_split")
    assert (result.passed, result.value > 0.5) == (True, True), result.message
    assert result.null_p > 0.1
    cube.columns["split_healpix"][used] = np.arange(used.size)
    assert not cube.gate("quality_by_split").passed


def test_splits_without_held_out_share_are_not_compared(cube):
    """A configuration that trains on everything has nothing to compare."""
    cube.configure("splits", train=1.0, val=0.0, test=0.0)
    assert "no split but train" in cube.gate("quality_by_split").message
