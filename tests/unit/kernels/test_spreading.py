"""The spreading profile: flux and position kept, nothing aliased that a PSF of the survey lets through."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.contracts.survey import FWHM_PER_SIGMA, PIXEL_SCALE_ARCSEC
from pipeline.kernels.psf import psf_fwhm_arcsec
from pipeline.kernels.simd import LANES
from pipeline.kernels.spreading import (
    SPREAD_FUNCTIONS,
    SPREAD_PX,
    spread_box,
    spread_coefficients,
    spread_functions,
    spread_profile,
    spread_transfer,
)

_POSITIONS = np.linspace(-0.5, 0.5, 33)
_PIXEL = np.arange(-SPREAD_PX, SPREAD_PX + 1)


def _weights() -> NDArray[np.float64]:
    """(position, pixel) weights, from the coefficients."""
    return spread_functions(_POSITIONS) @ spread_coefficients()[:, : _PIXEL.size].astype(np.float64)


def test_transfer_is_the_transform_of_the_profile() -> None:
    """The closed form equals the integral of phi cos(2 pi f x)."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = 2.5 * nodes
    for frequency in (0.0, 0.13, 0.37, 0.5, 0.9, 1.6):
        integral = 2.5 * np.sum(weights * spread_profile(x) * np.cos(2 * np.pi * frequency * x))
        assert spread_transfer(frequency) == pytest.approx(integral, abs=1e-12)


def test_transfer_keeps_flux_and_can_be_divided_by() -> None:
    """1 at zero, 0 at every other whole frequency, positive and falling up to the Nyquist frequency of pixels."""
    assert spread_transfer(0.0) == pytest.approx(1.0, abs=1e-15)
    assert np.abs(spread_transfer(np.arange(1, 12))).max() < 1e-15
    up_to_nyquist = spread_transfer(np.linspace(0.0, 0.5, 501))
    assert (up_to_nyquist > 0.0).all()
    assert (np.diff(up_to_nyquist) < 0.0).all()


def test_profile_is_even_and_ends_at_two_and_a_half_pixels() -> None:
    """phi(-x) = phi(x), not negative, and 0 beyond its width, which is continuous to a thousandth of its peak."""
    x = np.linspace(0.0, 3.0, 3001)
    value = spread_profile(x)
    assert np.array_equal(value, spread_profile(-x))
    assert (value[x >= 2.5] == 0.0).all()
    assert (value >= 0.0).all()
    assert spread_profile(2.4999) < 1e-3 * spread_profile(0.0)


def test_weights_are_near_the_profile() -> None:
    """At every position of a pixel the five weights sum to one and are phi to 1.1e-3; the padding is zero."""
    table = spread_coefficients()
    assert table.shape == (SPREAD_FUNCTIONS, LANES)
    assert table.dtype == np.float32
    assert (table[:, _PIXEL.size :] == 0.0).all()
    assert _weights().sum(axis=1) == pytest.approx(np.ones(_POSITIONS.size), abs=2e-7)
    assert np.abs(_weights() - spread_profile(_POSITIONS[:, None] - _PIXEL)).max() < 1.1e-3


def test_weights_mirror_themselves() -> None:
    """Weights at -x are those at x in reverse order: even functions are even in the pixel, odd ones odd."""
    table = spread_coefficients()[:, : _PIXEL.size]
    for p, row in enumerate(table):
        assert row[::-1] == pytest.approx((-1) ** p * row, abs=1e-7)


def test_weights_keep_the_position() -> None:
    """The first moment of the weights is the position of their sample to 0.001 px, that of the box zero."""
    assert np.abs(_weights() @ _PIXEL - _POSITIONS).max() < 1e-3
    assert spread_box().astype(np.float64) @ _PIXEL == pytest.approx(0.0, abs=1e-7)


def test_box_is_the_mean_of_the_table() -> None:
    """A whole pixel is spread as the average over samples inside it, to their error, and keeps its flux."""
    box = spread_box()
    assert box.dtype == np.float32
    assert box.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-7)
    trapezia = np.full(_POSITIONS.size, 1.0 / (_POSITIONS.size - 1))
    trapezia[[0, -1]] *= 0.5
    assert box == pytest.approx(trapezia @ _weights(), abs=3e-4)


@pytest.mark.parametrize("psfsize_arcsec", [0.9, 1.1, 1.3, 1.6])
def test_spread_point_source_equals_the_profile(psfsize_arcsec: float) -> None:
    """On an axis, a sample anywhere in its pixel, spread and sharpened, gives the Gaussian to 1e-3 of its peak."""
    size, sigma_px = 64, float(psf_fwhm_arcsec(psfsize_arcsec, "gaussian", 0.0)) / FWHM_PER_SIGMA / PIXEL_SCALE_ARCSEC
    frequency = np.fft.rfftfreq(size)
    transfer = np.exp(-2.0 * (np.pi * sigma_px * frequency) ** 2) / spread_transfer(frequency)
    pixel = np.arange(size) - size // 2
    for position, weights in zip(_POSITIONS, _weights(), strict=True):
        axis = np.zeros(size)
        axis[size // 2 - SPREAD_PX : size // 2 + SPREAD_PX + 1] = weights
        result = np.fft.irfft(np.fft.rfft(axis) * transfer, size)
        exact = np.exp(-0.5 * ((pixel - position) / sigma_px) ** 2) / (np.sqrt(2 * np.pi) * sigma_px)
        assert np.abs(result - exact).max() < 1e-3 * exact.max()
