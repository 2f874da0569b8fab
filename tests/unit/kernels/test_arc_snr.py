"""The SNR columns against their definitions, bounds and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import BAD_PIXEL_MASK, PIXEL_SCALE_ARCSEC, mask_value
from pipeline.kernels.arc_snr import (
    HostNoise,
    annulus_mask,
    arc_snr_columns,
    arc_snr_linear,
    arc_snr_nonlinear,
    combine_bands,
    good_weight,
    host_noise,
    sigma_pix_from_depth,
)

SIZE = 64
CENTRE = 32.0
SIGMA_PIX_NMGY = 0.07


def _stamp(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """A positive arc, varied weights with bad values among them, and sparse mask bits; all read-only."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - CENTRE
    arc = np.exp(-((np.hypot(x, y) - 6.0) ** 2) / 8.0) * generator.uniform(0.2, 1.0, (SIZE, SIZE))
    invvar = generator.uniform(50.0, 500.0, (SIZE, SIZE))
    invvar.flat[generator.choice(SIZE * SIZE, 60, replace=False)] = np.repeat([0.0, -1.0, np.nan, np.inf], 15)
    bits = np.where(generator.uniform(size=(SIZE, SIZE)) < 0.05, mask_value("MEDIUM", "SATUR_G"), 0)
    arrays = arc.astype(np.float32), invvar.astype(np.float32), bits.astype(np.int32)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _noise(seed: int) -> HostNoise:
    """Noise of the host of `_stamp`, with read-only arrays."""
    _, invvar, bits = _stamp(seed)
    weight, annulus = good_weight(invvar, bits, BAD_PIXEL_MASK), annulus_mask(SIZE, CENTRE, CENTRE)
    weight.flags.writeable = annulus.flags.writeable = False
    return host_noise(weight, annulus, SIGMA_PIX_NMGY)


def _point_source(sigma_px: float, flux_nmgy: float) -> NDArray[np.float32]:
    y, x = np.mgrid[:SIZE, :SIZE] - CENTRE
    psf = np.exp(-(x**2 + y**2) / (2 * sigma_px**2)) / (2 * np.pi * sigma_px**2)
    return np.asarray(flux_nmgy * psf, dtype=np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_columns_equal_their_definitions(seed: int) -> None:
    """Each column equals its formula over the good pixels in numpy."""
    arc, invvar, bits = _stamp(seed)
    good = np.isfinite(invvar) & (invvar > 0) & ((bits & BAD_PIXEL_MASK) == 0)
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(x - 32.3, y - 31.8)
    ring = good & (radius >= 4) & (radius <= 16)
    a, w = arc.astype(np.float64), np.where(good, invvar, 1.0).astype(np.float64)
    expected = (
        (a * np.sqrt(w))[good].max(),
        a[good].sum() / np.sqrt((1 / w)[good].sum()),
        np.sqrt((a * a * w)[good].sum()),
        a[ring].sum() / np.sqrt((1 / w)[ring].sum()),
    )
    assert arc_snr_columns(arc, invvar, bits, BAD_PIXEL_MASK, 32.3, 31.8) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_columns_are_linear_in_flux(seed: int, scale: float) -> None:
    """Scaling the arc scales every column."""
    arc, invvar, bits = _stamp(seed)
    before = np.array(arc_snr_columns(arc, invvar, bits, BAD_PIXEL_MASK, CENTRE, CENTRE))
    after = arc_snr_columns(arc * np.float32(scale), invvar, bits, BAD_PIXEL_MASK, CENTRE, CENTRE)
    assert np.array(after) == pytest.approx(before * np.float32(scale), rel=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_matched_bounds_the_other_columns(seed: int) -> None:
    """The matched SNR is at least the largest pixel's and that of any aperture (Cauchy-Schwarz)."""
    peak, total, matched, aperture = arc_snr_columns(*_stamp(seed), BAD_PIXEL_MASK, CENTRE, CENTRE)
    assert matched >= max(peak, total, aperture) > 0.0


def test_matched_equals_the_sum_for_a_flat_template() -> None:
    """For a constant arc and constant weights the stamp sum is the matched filter."""
    flat, weight = np.full((SIZE, SIZE), 0.01, np.float32), np.full((SIZE, SIZE), 400.0, np.float32)
    peak, total, matched, _ = arc_snr_columns(flat, weight, np.zeros((SIZE, SIZE), np.int32), 0, CENTRE, CENTRE)
    assert total == pytest.approx(matched, rel=1e-9)
    assert matched == pytest.approx(SIZE * peak, rel=1e-9)


def test_matched_snr_of_a_point_source_follows_the_effective_area() -> None:
    """A Gaussian point source has matched SNR flux / (sigma sqrt(N_eff))."""
    sigma_px, flux_nmgy, noise = 2.0, 3.0, 0.05
    weight, clear = np.full((SIZE, SIZE), 1 / noise**2, np.float32), np.zeros((SIZE, SIZE), np.int32)
    matched = arc_snr_columns(_point_source(sigma_px, flux_nmgy), weight, clear, 0, CENTRE, CENTRE)[2]
    assert matched == pytest.approx(flux_nmgy / (noise * math.sqrt(4 * math.pi * sigma_px**2)), rel=1e-5)


def test_best_disc_of_a_point_source_has_nine_tenths_of_the_matched_snr() -> None:
    """Of the discs around a Gaussian point source the best one has R = 1.585 sigma and .9025 of the matched SNR."""
    sigma_px = 6.0
    arc, weight = _point_source(sigma_px, 10.0), np.full((SIZE, SIZE), 400.0, np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] - CENTRE
    radii = np.arange(6.0, 14.0, 0.25)
    columns = [
        arc_snr_linear(arc, host_noise(weight, np.hypot(x, y) <= radius, SIGMA_PIX_NMGY))[2:4] for radius in radii
    ]
    ratios = np.array([disc / matched for matched, disc in columns])
    assert ratios.max() == pytest.approx(0.9025, abs=3e-3)
    assert radii[ratios.argmax()] / sigma_px == pytest.approx(1.585, abs=0.1)


def test_no_good_pixel_gives_zeros() -> None:
    """An entirely masked, or entirely unweighted, stamp has four zeros; an empty aperture only its own."""
    arc, weight = np.ones((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
    clear, masked = np.zeros((SIZE, SIZE), np.int32), np.full((SIZE, SIZE), mask_value("BRIGHT"), np.int32)
    assert arc_snr_columns(arc, weight, masked, BAD_PIXEL_MASK, CENTRE, CENTRE) == (0.0, 0.0, 0.0, 0.0)
    assert arc_snr_columns(arc, 0 * weight, clear, BAD_PIXEL_MASK, CENTRE, CENTRE) == (0.0, 0.0, 0.0, 0.0)
    peak, total, matched, aperture = arc_snr_columns(arc, weight, clear, BAD_PIXEL_MASK, -100.0, CENTRE)
    assert (peak, total, matched, aperture) == pytest.approx((1.0, SIZE, SIZE, 0.0))


def test_bits_outside_the_bad_mask_do_not_count() -> None:
    """A pixel flagged only with bits that are not bad keeps its weight."""
    arc, weight = np.ones((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
    flagged = np.full((SIZE, SIZE), mask_value("GALAXY", "WISEM1"), np.int32)
    assert arc_snr_columns(arc, weight, flagged, BAD_PIXEL_MASK, CENTRE, CENTRE)[2] == pytest.approx(SIZE)


def test_aperture_includes_both_its_radii() -> None:
    """Pixels at exactly 4 and 16 px count; those at 3 and 17 px do not."""
    weight, clear = np.ones((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.int32)
    for offset, counts in ((3, False), (4, True), (16, True), (17, False)):
        arc = np.zeros((SIZE, SIZE), np.float32)
        arc[32, 32 + offset] = 1.0
        assert (arc_snr_columns(arc, weight, clear, 0, CENTRE, CENTRE)[3] > 0.0) is counts


@pytest.mark.parametrize("seed", range(4))
def test_linear_columns_equal_those_of_one_call(seed: int) -> None:
    """With the host prepared the four columns have the same bits, and the fifth its own definition."""
    arc, invvar, bits = _stamp(seed)
    noise = _noise(seed)
    *columns, annulus = arc_snr_linear(arc, noise)
    assert tuple(columns) == arc_snr_columns(arc, invvar, bits, BAD_PIXEL_MASK, CENTRE, CENTRE)
    flux = arc[noise.aperture].astype(np.float64).sum()
    assert annulus == pytest.approx(flux / (math.sqrt(noise.aperture.sum()) * SIGMA_PIX_NMGY), rel=1e-12)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_all_but_the_region_are_linear_in_flux(seed: int, scale: float) -> None:
    """Scaling the arc scales the five linear columns and the cumulative one."""
    arc, _, _ = _stamp(seed)
    noise = _noise(seed)
    before = np.array([*arc_snr_linear(arc, noise), arc_snr_nonlinear(arc, noise.weight)[1]])
    scaled = arc * np.float32(scale)
    after = np.array([*arc_snr_linear(scaled, noise), arc_snr_nonlinear(scaled, noise.weight)[1]])
    assert after == pytest.approx(before * np.float32(scale), rel=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_matched_bounds_the_nonlinear_columns(seed: int) -> None:
    """The matched SNR bounds the cumulative, that bounds the largest pixel, the region and the stamp sum."""
    arc, _, _ = _stamp(seed)
    noise = _noise(seed)
    peak, total, matched, _, _ = arc_snr_linear(arc, noise)
    region, cumulative = arc_snr_nonlinear(arc, noise.weight)
    assert matched >= cumulative >= max(peak, total) * (1 - 1e-12)
    assert matched >= region > 1.0


def test_a_negative_arc_keeps_its_sign() -> None:
    """An arc below zero has a negative peak, sum and cumulative SNR, no region and a positive matched SNR."""
    noise = _noise(0)
    arc = np.full((SIZE, SIZE), -0.01, np.float32)
    peak, total, matched, aperture, annulus = arc_snr_linear(arc, noise)
    least = np.sqrt(noise.weight[noise.weight > 0].astype(np.float64).min())
    assert peak == pytest.approx(-0.01 * least, rel=1e-6)
    assert max(total, aperture, annulus) < 0.0 < matched
    assert np.array(arc_snr_nonlinear(arc, noise.weight)) == pytest.approx(np.array([0.0, peak]), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_good_weight_drops_what_is_no_inverse_variance(value: float) -> None:
    """A pixel counts only with a positive finite invvar and without a bad bit."""
    invvar, bits = np.full((4, 4), 9.0, np.float32), np.zeros((4, 4), np.int32)
    invvar[1, 2] = value
    bits[3, 0], bits[0, 0] = mask_value("BRIGHT"), mask_value("GALAXY")
    invvar.flags.writeable = bits.flags.writeable = False
    expected = np.full((4, 4), 9.0, np.float32)
    expected[1, 2] = expected[3, 0] = 0.0
    weight = good_weight(invvar, bits, BAD_PIXEL_MASK)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, expected)


def test_bad_pixels_do_not_reach_any_column() -> None:
    """An arc that lies in bad pixels only has no SNR of any name, however bright."""
    arc, weight = np.zeros((SIZE, SIZE), np.float32), np.full((SIZE, SIZE), 4.0, np.float32)
    arc[30:34, 38] = 1e6
    weight[30:34, 38] = 0.0
    noise = host_noise(weight, annulus_mask(SIZE, CENTRE, CENTRE), SIGMA_PIX_NMGY)
    assert arc_snr_linear(arc, noise) == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert arc_snr_nonlinear(arc, weight) == (0.0, 0.0)


def test_host_without_good_pixel_has_infinite_noise() -> None:
    """Without good pixels the noises are infinite and every column is zero."""
    noise = host_noise(np.zeros((SIZE, SIZE), np.float32), annulus_mask(SIZE, CENTRE, CENTRE), SIGMA_PIX_NMGY)
    assert (noise.stamp_noise_nmgy, noise.aperture_noise_nmgy, noise.annulus_noise_nmgy) == (math.inf,) * 3
    arc = np.ones((SIZE, SIZE), np.float32)
    assert arc_snr_linear(arc, noise) == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert arc_snr_nonlinear(arc, noise.weight) == (0.0, 0.0)


def test_unknown_depth_leaves_only_the_annulus_unknown() -> None:
    """A NaN noise per pixel gives a NaN annulus SNR and changes nothing else."""
    arc, _, _ = _stamp(1)
    known = _noise(1)
    unknown = host_noise(known.weight, annulus_mask(SIZE, CENTRE, CENTRE), math.nan)
    *columns, annulus = arc_snr_linear(arc, unknown)
    assert columns == list(arc_snr_linear(arc, known)[:4])
    assert math.isnan(annulus)


@pytest.mark.parametrize("scale", [0.1, 0.3, 2.0])
def test_region_snr_equals_labelled_regions(scale: float) -> None:
    """The region SNR is the largest over the regions that scipy labels with shared edges."""
    arc, _, _ = _stamp(7)
    arc = arc * np.float32(scale)
    weight = _noise(7).weight
    pixel_snr = arc.astype(np.float64) * np.sqrt(weight.astype(np.float64))
    labels, count = ndimage.label(pixel_snr > 1.0)
    assert count > 1
    expected = max(
        arc[labels == k].astype(np.float64).sum() / np.sqrt((1.0 / weight[labels == k].astype(np.float64)).sum())
        for k in range(1, count + 1)
    )
    assert arc_snr_nonlinear(arc, weight)[0] == pytest.approx(expected, rel=1e-12)


def test_regions_share_edges_and_exceed_the_threshold() -> None:
    """Pixels that touch at a corner are two regions; a pixel at exactly the threshold is none."""
    arc, weight = np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)
    arc[2, 2] = arc[3, 3] = 3.0
    assert arc_snr_nonlinear(arc, weight)[0] == pytest.approx(3.0)
    arc[2, 3] = 3.0
    assert arc_snr_nonlinear(arc, weight)[0] == pytest.approx(3.0 * math.sqrt(3.0))
    assert arc_snr_nonlinear(arc, weight, 3.0)[0] == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_cumulative_snr_equals_a_sorted_scan(seed: int) -> None:
    """The cumulative SNR is the largest over the prefixes of all good pixels in falling order."""
    arc, _, _ = _stamp(seed)
    arc = arc - np.float32(0.01)
    weight = _noise(seed).weight
    a, w = arc[weight > 0].astype(np.float64), weight[weight > 0].astype(np.float64)
    order = np.argsort(-a * np.sqrt(w))
    expected = (np.cumsum(a[order]) / np.sqrt(np.cumsum(1.0 / w[order]))).max()
    assert arc_snr_nonlinear(arc, weight)[1] == pytest.approx(expected, rel=1e-12)


def test_cumulative_scan_passes_a_local_maximum() -> None:
    """A bright pixel followed by a faint plateau: the maximum is at the end, not at the first fall."""
    arc, weight = np.ones((32, 32), np.float32), np.ones((32, 32), np.float32)
    arc[0, 0] = 10.0
    assert arc_snr_nonlinear(arc, weight)[1] == pytest.approx((10.0 + 1023.0) / 32.0)


def test_point_source_at_the_depth_has_five_sigma() -> None:
    """With the noise per pixel of a depth, a point source of that magnitude has a matched SNR of 5."""
    psfsize_arcsec, depth_mag = 1.3, 23.9
    sigma_pix = float(sigma_pix_from_depth(depth_mag, psfsize_arcsec, PIXEL_SCALE_ARCSEC))
    sigma_px = psfsize_arcsec / (2.0 * math.sqrt(2.0 * math.log(2.0))) / PIXEL_SCALE_ARCSEC
    arc = _point_source(sigma_px, 10.0 ** (0.4 * (22.5 - depth_mag)))
    weight = np.full((SIZE, SIZE), sigma_pix**-2, np.float32)
    noise = host_noise(weight, annulus_mask(SIZE, CENTRE, CENTRE), sigma_pix)
    _, _, matched, aperture, annulus = arc_snr_linear(arc, noise)
    assert matched == pytest.approx(5.0, rel=1e-4)
    assert annulus == pytest.approx(aperture, rel=1e-6)


def test_depth_gives_the_known_noise() -> None:
    """A depth of 23.9 mag is a point-source sigma of .055085 nmgy; unknown numbers stay unknown."""
    scale_arcsec = 0.3
    psfsize_arcsec = scale_arcsec * 2.0 * math.sqrt(2.0 * math.log(2.0)) / math.sqrt(4.0 * math.pi)
    sigma = sigma_pix_from_depth([23.9, math.nan, 23.9], [psfsize_arcsec, 1.3, math.nan], scale_arcsec)
    assert sigma[0] == pytest.approx(0.055085, rel=1e-5)
    assert np.isnan(sigma[1:]).all()


def test_depth_as_inverse_variance_is_refused() -> None:
    """The catalogues' depth, an inverse variance, is not taken for a magnitude; a psfsize of 0 is refused."""
    with pytest.raises(ContractError, match="magnitudes"):
        sigma_pix_from_depth(329.564, 1.3, PIXEL_SCALE_ARCSEC)
    with pytest.raises(ContractError, match="psfsize_arcsec > 0"):
        sigma_pix_from_depth(23.9, 0.0, PIXEL_SCALE_ARCSEC)


def test_bands_in_quadrature_are_the_matched_filter_of_the_cube() -> None:
    """The combined matched SNR equals the matched SNR of the bands side by side, and keeps missing bands missing."""
    bands = [(_stamp(seed)[0], _noise(seed)) for seed in (1, 2, 3)]
    combined = combine_bands([arc_snr_linear(arc, noise)[2] for arc, noise in bands])
    arcs = np.hstack([arc for arc, _ in bands])
    weights = np.hstack([noise.weight for _, noise in bands])
    together = arc_snr_linear(arcs, host_noise(weights, np.zeros(weights.shape, np.bool_), math.nan))[2]
    assert float(combined) == pytest.approx(together, rel=1e-12)
    np.testing.assert_array_equal(combine_bands([[3.0, 4.0], [1.0, math.nan]]), [5.0, math.nan])
    with pytest.raises(ContractError, match="at least one band"):
        combine_bands(np.zeros((3, 0)))


def test_shapes_that_differ_are_refused() -> None:
    """No kernel reads beyond an array."""
    small, weight = np.zeros((8, 8), np.float32), np.ones((SIZE, SIZE), np.float32)
    annulus = annulus_mask(SIZE, CENTRE, CENTRE)
    with pytest.raises(ContractError, match="arc_snr_linear"):
        arc_snr_linear(small, host_noise(weight, annulus, SIGMA_PIX_NMGY))
    with pytest.raises(ContractError, match="arc_snr_nonlinear"):
        arc_snr_nonlinear(small, weight)
    with pytest.raises(ContractError, match="host_noise"):
        host_noise(small, annulus, SIGMA_PIX_NMGY)
    with pytest.raises(ContractError, match="good_weight"):
        good_weight(weight, np.zeros((8, 8), np.int32), 0)
