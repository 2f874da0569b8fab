"""The SNR columns against their definitions, bounds and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.contracts.survey import BAD_PIXEL_MASK, mask_value
from pipeline.kernels.arc_snr import arc_snr_columns

SIZE = 64
CENTRE = 32.0


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
    sigma_px, flux, noise = 2.0, 3.0, 0.05
    y, x = np.mgrid[:SIZE, :SIZE] - CENTRE
    psf = np.exp(-(x**2 + y**2) / (2 * sigma_px**2)) / (2 * np.pi * sigma_px**2)
    weight = np.full((SIZE, SIZE), 1 / noise**2, np.float32)
    clear = np.zeros((SIZE, SIZE), np.int32)
    matched = arc_snr_columns((flux * psf).astype(np.float32), weight, clear, 0, CENTRE, CENTRE)[2]
    assert matched == pytest.approx(flux / (noise * math.sqrt(4 * math.pi * sigma_px**2)), rel=1e-5)


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
