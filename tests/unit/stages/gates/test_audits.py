"""Audits of bands, pixels and splits."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.datasets import SPLITS
from pipeline.stages.gates.result import wilson_interval


def test_bandset_audit_passes_the_configured_bands(cube):
    """A cube whose bands and seeing are complete passes, with the class counts."""
    result = cube.gate("bandset_audit")
    assert result.passed
    assert (result.value, result.n_positive, result.n_control) == (0.0, 400, 520)


@pytest.mark.parametrize("found", [("r",), ("g", "r"), ("z", "r", "g"), ("g", "r", "i", "z")])
def test_bandset_audit_fails_other_bands(cube, found):
    """Missing, extra and reordered bands fail."""
    cube.bands_found = found
    result = cube.gate("bandset_audit")
    assert not result.passed
    assert "expected ['g', 'r', 'z']" in result.message


@pytest.mark.parametrize("psfsize", [np.nan, np.inf, 0.0])
def test_bandset_audit_fails_a_used_row_without_seeing(cube, psfsize):
    """One used row without a seeing in one band fails and is counted in its role; unused rows do not matter."""
    cube.columns["psfsize_arcsec"][cube.rows("unused")[0], 0] = psfsize
    assert cube.gate("bandset_audit").passed
    cube.columns["psfsize_arcsec"][cube.rows("control")[0], 2] = psfsize
    result = cube.gate("bandset_audit")
    assert not result.passed
    assert result.detail["rows_without_psfsize"] == {"pair": 0, "injected": 0, "control": 1}
    assert result.interval_95 == wilson_interval(1, 520)
    assert result.null.startswith("none: ")


def test_bandset_audit_fails_a_band_axis_of_other_length(cube):
    """Columns with two bands fail although the cube says three."""
    cube.columns = cube.columns.isel(band=[0, 1])
    assert "length of the band axis" in cube.gate("bandset_audit").message


@pytest.mark.parametrize(
    ("variable", "value", "count"),
    [
        ("injected", np.nan, "injected_not_finite"),
        ("control", np.inf, "control_not_finite"),
        ("control", -np.inf, "control_not_finite"),
    ],
)
def test_finite_pixels_fails_one_bad_pixel(cube, variable, value, count):
    """One NaN or infinite pixel in one band of one stamp fails."""
    assert cube.gate("finite_pixels").passed
    cube.stamps[variable][517, 1, 30, 3] = value
    result = cube.gate("finite_pixels")
    assert not result.passed
    assert result.detail[count] == 1
    assert result.interval_95 == wilson_interval(1, 520 + 400)
    assert result.interval_of == "share of rows at fault"


@pytest.mark.parametrize("variable", ["injected", "control"])
def test_finite_pixels_fails_a_constant_band(cube, variable):
    """A band of one value, such as zeros where no data is, fails."""
    cube.stamps[variable][3, 2] = 0.0
    result = cube.gate("finite_pixels")
    assert not result.passed
    assert result.detail[f"{variable}_constant_band"] == 1


@pytest.mark.parametrize("column", ["weight_prior", "arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture"])
def test_finite_pixels_fails_a_pair_without_weight_or_snr(cube, column):
    """Every pair row has a finite weight and finite SNRs; other rows need none."""
    cube.columns[column][cube.rows("pair")[5]] = np.nan
    result = cube.gate("finite_pixels")
    assert not result.passed
    assert result.detail[f"{column}_not_finite"] == 1


def test_finite_pixels_fails_pairs_that_do_not_differ_and_controls_that_do(cube):
    """Without arc a pair is two controls; a control row with an arc is a mislabelled positive."""
    cube.stamps["injected"][7] = cube.stamps["control"][7]
    cube.stamps["injected"][410, 0, 5, 5] += 1.0
    result = cube.gate("finite_pixels")
    assert not result.passed
    assert (result.detail["pair_without_arc"], result.detail["control_with_arc"]) == (1, 1)


def test_split_proportions_gate_passes_hashed_splits(cube):
    """Splits by hash of sky cells pass; guard rows are left out of the shares."""
    result = cube.gate("split_proportions")
    assert result.passed
    assert sum(result.detail["pairs"].values()) == 400
    assert result.detail["pairs"]["guard"] > 0


def test_split_proportions_gate_fails_inverted_shares(cube):
    """Shares of 26/39/35 where 70/15/15 were asked for fail and are named."""
    pairs = cube.rows("pair")
    cube.columns["split_healpix"][pairs] = np.arange(pairs.size)
    cube.columns["split"][pairs] = np.repeat([0, 1, 2], [104, 156, 140]).astype(np.uint8)
    result = cube.gate("split_proportions")
    assert not result.passed
    assert result.value == pytest.approx(0.44)
    assert "off by 0.4400, tolerance 0.06: train 0.2600 for 0.7000" in result.message


@pytest.mark.parametrize(
    ("key", "count"), [("host_id", "hosts_in_two_splits"), ("split_healpix", "cells_in_two_splits")]
)
def test_split_proportions_gate_fails_a_leak(cube, key, count):
    """One host, or one sky cell, in two splits fails, also between a pair and a control row; guard rows do not leak."""
    split = cube.columns["split"].to_numpy()
    pairs, controls = cube.rows("pair"), cube.rows("control")
    in_train = pairs[split[pairs] == 0][0]
    in_test = controls[split[controls] == 2][0]
    guarded = pairs[split[pairs] == SPLITS.index("guard")][0]
    cube.columns[key][guarded] = cube.columns[key][in_train]
    assert cube.gate("split_proportions").passed
    cube.columns[key][in_test] = cube.columns[key][in_train]
    result = cube.gate("split_proportions")
    assert not result.passed
    assert result.detail[count] == 1


def test_split_proportions_gate_fails_an_empty_split(cube):
    """A split that was asked for and holds too few pairs fails even where its share is within tolerance."""
    cube.configure("splits", train=0.95, val=0.05, test=0.0, tolerance=0.5)
    split = cube.columns["split"].to_numpy().copy()
    split[(split == 1) | (split == 2)] = SPLITS.index("guard")
    split[cube.rows("pair")[:9]] = 1
    cube.columns["split"] = ("sample", split)
    cube.columns["split_healpix"] = ("sample", np.arange(split.size))
    result = cube.gate("split_proportions")
    assert not result.passed
    assert "fewer than 10 pairs in {'val': 9}" in result.message


def test_split_proportions_gate_fails_if_every_pair_is_guarded(cube):
    """Without a pair outside the guard there are no shares, which is a failure."""
    cube.columns["split"][:] = SPLITS.index("guard")
    result = cube.gate("split_proportions")
    assert (result.passed, result.value) == (False, None)
    assert "guard" in result.message
