"""Known answers: each planted shortcut makes exactly the gates fail that see it."""

from __future__ import annotations

import numpy as np

N_PAIR = 400


def centre_light() -> np.ndarray:
    """(y, x) light on the centre, as arcs blurred into the core have."""
    y, x = np.mgrid[:48, :48] - 24.0
    return (0.3 * np.exp(-0.5 * (x**2 + y**2) / 3.0**2)).astype(np.float32)


def test_bright_cores_are_found_and_laid_to_the_arcs(cube):
    """Arc light on the core fails the gates on core and profile, which name arc overlap and clear the hosts."""
    cube.stamps["injected"][:N_PAIR] += centre_light()
    cube.stamps["arc_flux_nmgy"][:N_PAIR] += centre_light().sum()
    results = {result.name: result for result in cube.verdicts()}
    assert {name for name, result in results.items() if not result.passed} == {
        "core_brightness_ratio",
        "core_only_auc",
        "radial_profile_auc",
    }
    found = results["core_brightness_ratio"].detail["attribution"]
    assert found["arc_overlap"] > 1.2
    assert 0.9 < found["host_selection"] < 1.1
    assert "host selection" in results["core_only_auc"].attribution


def test_bright_controls_are_laid_to_the_hosts(cube):
    """Control rows of fainter galaxies are host selection: the arc's share stays neutral."""
    for name in ("injected", "control"):
        cube.stamps[name][N_PAIR:] *= 0.5
    found = cube.gate("core_brightness_ratio").detail["attribution"]
    assert found["host_selection"] > 1.7
    assert abs(found["arc_overlap"] - 1.0) < 0.01
    found = cube.gate("core_only_auc").detail["attribution"]
    assert found["host_selection"] > 0.8
    assert abs(found["arc_overlap"] - 0.5) < 0.05


def test_a_clipped_band_is_found(cube):
    """Clipping one band of the injected stamps removes host light: no injection does that."""
    cube.stamps["injected"][:N_PAIR, 0] = np.minimum(cube.stamps["injected"][:N_PAIR, 0], 0.2)
    assert cube.failing() == {"null_injection", "core_only_auc", "radial_profile_auc"}


def test_a_leaked_pattern_of_nan_is_found(cube):
    """A magnitude that is known for pairs alone tells the classes apart by being NaN."""
    cube.columns["mag_g"][cube.rows("control")] = np.nan
    assert cube.failing() == {"metadata_only_auc"}


def test_a_nan_pixel_is_found(cube):
    """A NaN outside every aperture fails the audits of pixels and light only."""
    cube.stamps["injected"][3, 1, 0, 0] = np.nan
    assert cube.failing() == {"finite_pixels", "null_injection"}


def test_unmatched_depth_is_found(cube):
    """Control rows from deeper sky fail the comparison of hosts and the metadata baseline."""
    controls = cube.rows("control")
    cube.columns["psfdepth_r_mag"][controls] += 0.5
    cube.columns["sky_sigma_nmgy"][controls] *= 0.7
    assert cube.failing() == {"quality_distributions", "metadata_only_auc"}


def test_an_unmatched_split_is_found(cube):
    """A test split of better seeing fails the comparison of splits and nothing else."""
    in_test = cube.columns["split"].to_numpy() == 2
    cube.columns["psfsize_arcsec"][in_test] -= 0.15
    assert cube.failing() == {"quality_by_split"}


def test_snr_that_follows_depth_is_found(cube):
    """Bright arcs in deep stamps fail the correlation, with the column named, and leave the target met."""
    pairs = cube.rows("pair")
    snr = cube.columns["arc_snr_sum"].to_numpy()[pairs]
    depth = cube.columns["psfdepth_r_mag"].to_numpy()[pairs]
    order = np.argsort(np.argsort(depth + np.random.default_rng(0).normal(0.0, 0.2, depth.size)))
    cube.columns["arc_snr_sum"][pairs] = np.sort(snr)[order]
    result = cube.gate("snr_correlation")
    assert not result.passed
    assert "psfdepth_r_mag" in result.message
    assert result.null_p < 0.05
    assert result.interval_95[0] > 0.3
    assert cube.gate("snr_target").passed
