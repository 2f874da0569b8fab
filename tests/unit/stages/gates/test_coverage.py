"""Pairs near the threshold, and filled cells of Einstein radius and SNR."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.stages.gates.result import wilson_interval


def test_share_near_the_threshold_is_counted(cube):
    """The value is the share of pairs in the range, with its Wilson interval and the numbers per split."""
    result = cube.gate("near_threshold_coverage")
    snr = cube.columns["arc_snr"].to_numpy()[:400]
    n_near = int(((snr >= 0.8 * (1 - 1e-4)) & (snr < 2.0)).sum())
    assert result.passed
    assert result.value == pytest.approx(n_near / 400)
    assert result.interval_95 == wilson_interval(n_near, 400)
    assert result.null_p == pytest.approx(stats.binom.cdf(n_near, 400, 0.2))
    assert sum(entry["near"] for entry in result.detail["splits"].values()) == n_near


def test_null_near_the_threshold_is_the_target_of_the_same_metric(cube):
    """Where the target is one of that metric, p is the chance under the share that it asks for."""
    cube.configure("gates", near_threshold_metric="arc_snr_sum")
    result = cube.gate("near_threshold_coverage")
    assert "0.4 of the target" in result.null
    assert 0.01 < result.null_p < 0.99


def test_a_set_of_easy_arcs_fails(cube):
    """Arcs that are all far above the threshold fail, by share and by number."""
    cube.columns["arc_snr"][:400] = 10.0
    cube.columns["arc_snr"][:30] = 1.0
    result = cube.gate("near_threshold_coverage")
    assert not result.passed
    assert "30 pairs lie there, fewer than 100" in result.message


def test_grid_follows_prior_and_target(cube):
    """Without edges of its own the grid has four cells of the prior times the bins of the target."""
    result = cube.gate("parameter_grid_coverage")
    assert result.passed
    assert result.detail["theta_e_edges_arcsec"] == pytest.approx([0.7, 1.075, 1.45, 1.825, 2.2])
    assert result.detail["snr_edges"] == pytest.approx([0.8, 2.0, 8.0, 20.0, 100.0])
    assert np.sum(result.detail["counts"]) == 400


def test_grid_with_a_hole_fails_and_names_it(cube):
    """A range of Einstein radii that nobody drew leaves a row of cells empty."""
    theta_e = cube.columns["theta_e_arcsec"].to_numpy().copy()
    theta_e[:400] = np.where(theta_e[:400] > 1.825, 1.0, theta_e[:400])
    cube.columns["theta_e_arcsec"] = ("sample", theta_e)
    result = cube.gate("parameter_grid_coverage")
    assert (result.passed, result.value) == (False, 0.75)
    assert result.null_p > 0.9
    assert result.interval_95[0] <= 0.75 <= result.interval_95[1]
    assert "theta_E 1.83-2.2" in result.message


def test_a_corner_that_is_empty_together_is_no_chance(cube):
    """Wide arcs that are all faint leave cells empty which shuffled SNRs would fill."""
    rows = slice(0, 400)
    snr, theta_e = (cube.columns[name].to_numpy().copy() for name in ("arc_snr_sum", "theta_e_arcsec"))
    theta_e[rows] = 0.7 + 1.5 * np.argsort(np.argsort(-snr[rows])) / 400
    cube.columns["theta_e_arcsec"] = ("sample", theta_e)
    result = cube.gate("parameter_grid_coverage")
    assert not result.passed
    assert result.null_p == pytest.approx(1 / 500)


def test_configured_edges_take_over(cube):
    """Given edges are used as they are; pairs outside are counted."""
    cube.configure("gates", grid_theta_e_arcsec=(0.7, 1.5), grid_snr=(0.8, 2.0, 8.0))
    result = cube.gate("parameter_grid_coverage")
    assert np.shape(result.detail["counts"]) == (1, 2)
    assert result.detail["pairs_outside"] == 400 - np.sum(result.detail["counts"]) > 0


def test_grid_fails_a_pair_without_einstein_radius(cube):
    """A pair whose theta_E is NaN belongs to no cell."""
    cube.columns["theta_e_arcsec"][5] = np.nan
    assert "not finite" in cube.gate("parameter_grid_coverage").message


def test_wilson_interval_is_the_published_one():
    """100 of 112 gives 82.2 to 93.8 per cent."""
    assert wilson_interval(100, 112) == pytest.approx((0.822, 0.938), abs=5e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
