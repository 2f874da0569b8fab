"""The Fourier basis: it holds every stamp, and multiplying in it is convolving."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from pipeline.kernels.fourier import apply_transfer, frequencies, period_px, stamp_basis, to_spectrum, to_stamp
from pipeline.kernels.products import COLUMN_STEP
from pipeline.kernels.scratch import spread_stride
from pipeline.kernels.spreading import SPREAD_PX

Floats = NDArray[np.float32]


def _spread(size: int, seed: int) -> Floats:
    """Noise on a spread stamp, none in its margin, garbage in the padding."""
    generator = np.random.default_rng(seed)
    spread = np.zeros((size + 2 * SPREAD_PX, spread_stride(size)), np.float32)
    spread[:, size + 2 * SPREAD_PX :] = 77.0
    spread[2:-2, 2 : size + 2] = generator.normal(size=(size, size))
    return spread


@pytest.mark.parametrize("size", [16, 64, 100])
def test_basis_lies_below_the_nyquist_frequency(size: int) -> None:
    """All cosines and one sine fewer, whose period leaves light from the stamp room on the far side."""
    basis, period = stamp_basis(size), period_px(size)
    assert 2 * (frequencies(size) - 1) < period <= 2 * frequencies(size)
    assert period - size == size // 2
    assert basis.cos_in.shape == basis.sin_in.shape == (size // 2 + SPREAD_PX, COLUMN_STEP * (1 + size // 66))
    assert not basis.cos_in[:, frequencies(size) :].any() and not basis.sin_in[:, frequencies(size) - 1 :].any()
    assert basis.sin_out.shape == (frequencies(size) - 1, size // 2)
    assert {array.dtype for array in basis} == {np.dtype("f4")}


@pytest.mark.parametrize("size", [16, 64])
def test_spectrum_is_the_transform_about_the_centre(size: int) -> None:
    """Coefficients are sums of the stamp with cosines and sines about its middle; [0, 0] is the flux."""
    spread, kept = _spread(size, 1), frequencies(size) - 3
    spectrum = np.empty((2 * kept - 1, 2 * kept - 1), np.float32)
    to_spectrum(spread, stamp_basis(size), kept, size // 2 + SPREAD_PX, spectrum)
    stamp = spread[2:-2, 2 : size + 2].astype(np.float64)
    angle = 2 * np.pi / period_px(size) * np.arange(kept)[:, None] * (np.arange(size) - size / 2 + 0.5)
    waves = np.concatenate([np.cos(angle), np.sin(angle)[1:]])
    assert spectrum == pytest.approx(waves @ stamp @ waves.T, abs=2e-5 * size)
    assert spectrum[0, 0] == pytest.approx(stamp.sum(), abs=1e-4)


@pytest.mark.parametrize("size", [16, 64])
def test_smooth_stamp_returns(size: int) -> None:
    """A smooth stamp goes to the basis and back unchanged."""
    y, x = np.mgrid[-2 : size + 2, -2 : size + 2] - size // 2
    bands = [np.exp(-0.5 * ((x - 1.3) ** 2 + (y + 0.6) ** 2) / s**2).astype(np.float32) for s in (1.6, 2.0)]
    kept = frequencies(size)
    n = 2 * kept - 1
    convolved, stamp = np.empty((n, n), np.float32), np.empty((size, size), np.float32)
    for image in bands:
        spread = np.zeros((size + 4, spread_stride(size)), np.float32)
        spread[:, : size + 4] = image
        spectrum = np.empty((n, n), np.float32)
        to_spectrum(spread, stamp_basis(size), kept, size // 2 + SPREAD_PX, spectrum)
        apply_transfer(spectrum, 1.0, np.ones((1, n, n), np.float32), kept, convolved)
        to_stamp(convolved, kept, stamp_basis(size), stamp)
        assert stamp == pytest.approx(image[2:-2, 2:-2], abs=2e-4)


def _parts(kernel: NDArray[np.float64], size: int, kept: int) -> Floats:
    """The four parts of a kernel's transform, laid out as `apply_transfer` takes them."""
    half = kernel.shape[0] // 2
    angle = 2 * np.pi / period_px(size) * np.arange(kept)[:, None] * np.arange(-half, half + 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    index = np.concatenate([np.arange(kept), np.arange(1, kept)])
    pairs = ((cosine, cosine), (cosine, sine), (sine, cosine), (sine, sine))
    return np.stack([(y @ kernel @ x.T)[np.ix_(index, index)] for y, x in pairs]).astype(np.float32)


@pytest.mark.parametrize("even", [True, False])
def test_multiplying_a_transfer_is_convolving(even: bool) -> None:
    """A kernel even in x and y by one part, any other by four, equals a direct convolution of a smooth stamp."""
    size, kept = 64, frequencies(64)
    n = 2 * kept - 1
    y, x = np.mgrid[:9, :9] - 4
    kernel = np.exp(-0.5 * (x**2 + 0.6 * y**2) / 1.7)
    if not even:
        kernel = kernel * (1 + 0.3 * x - 0.2 * y + 0.15 * x * y)
    spread = np.zeros((size + 4, spread_stride(size)), np.float32)
    row, column = np.mgrid[-2 : size + 2, -2 : size + 2] - size // 2
    image = np.exp(-0.5 * ((column - 4) ** 2 / 4 + (row + 7) ** 2 / 9))
    spread[:, : size + 4] = image
    spectrum, convolved = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    to_spectrum(spread, stamp_basis(size), kept, size // 2 + SPREAD_PX, spectrum)
    parts = _parts(kernel, size, kept)
    apply_transfer(spectrum, 2.0, parts[:1] if even else parts, kept, convolved)
    stamp = np.empty((size, size), np.float32)
    to_stamp(convolved, kept, stamp_basis(size), stamp)
    expected = 2.0 * signal.convolve2d(image, kernel, mode="same")[2:-2, 2:-2]
    assert np.abs(stamp - expected).max() < 2e-5 * expected.max()


def test_fewer_frequencies_are_the_lowest() -> None:
    """Coefficients do not depend on how many are kept."""
    spread, basis = _spread(64, 3), stamp_basis(64)
    few, many = np.empty((39, 39), np.float32), np.empty((95, 95), np.float32)
    to_spectrum(spread, basis, 20, 34, few)
    to_spectrum(spread, basis, 48, 34, many)
    index = np.concatenate([np.arange(20), 48 + np.arange(19)])
    assert few == pytest.approx(many[np.ix_(index, index)], abs=1e-3)


def test_zeros_beyond_the_reach_are_not_read() -> None:
    """Light near the centre has the same coefficients, to the bit, whether its empty margin is read or not."""
    spread, basis = np.zeros((68, spread_stride(64)), np.float32), stamp_basis(64)
    spread[34 - 11 : 34 + 9, 34 - 4 : 34 + 11] = np.random.default_rng(4).normal(size=(20, 15))
    whole, part = np.empty((2, 81, 81), np.float32)
    to_spectrum(spread, basis, 41, 34, whole)
    spread[:23] = spread[45:] = spread[:, :23] = spread[:, 45:] = np.nan
    to_spectrum(spread, basis, 41, 11, part)
    assert np.array_equal(whole, part)
