"""PSF widths against N_eff, and convolution against a direct sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.psf import convolve_psf, psf_fwhm_arcsec, psf_kernel, psf_transfer

SIZE = 64


def _effective_area_px(kernel: NDArray[np.float64]) -> float:
    return float(1.0 / np.sum(kernel**2))


def _kernel(psfsize_arcsec: float, profile: str, beta: float = 3.5) -> NDArray[np.float64]:
    fwhm = float(psf_fwhm_arcsec(psfsize_arcsec, profile, beta))
    return psf_kernel(fwhm, profile, beta, SIZE // 2, PIXEL_SCALE_ARCSEC)


@pytest.mark.parametrize(
    ("psfsize_arcsec", "area_px", "centre"),
    [
        (0.9, 26.74, 0.07194),
        (1.1, 39.95, 0.04878),
        (1.3, 55.79, 0.03518),
        (1.5, 74.28, 0.02655),
        (1.8, 106.96, 0.01852),
    ],
)
def test_kernel_has_the_effective_area_of_psfsize(psfsize_arcsec: float, area_px: float, centre: float) -> None:
    """The Gaussian has the tabulated N_eff, and a Moffat solved for the same psfsize has it within 1 %."""
    gaussian = _kernel(psfsize_arcsec, "gaussian")
    assert _effective_area_px(gaussian) == pytest.approx(area_px, abs=0.01)
    # The tabulated fraction is the integral over the central pixel; the sample at its centre is higher.
    sigma_px = psfsize_arcsec / 2.354820 / PIXEL_SCALE_ARCSEC
    assert gaussian[32, 32] == pytest.approx(1 / (2 * np.pi * sigma_px**2), rel=1e-6)
    assert gaussian[32, 32] == pytest.approx(centre * (1 + 1 / (12 * sigma_px**2)), rel=3e-3)
    for beta in (2.5, 3.5, 4.765):
        assert _effective_area_px(_kernel(psfsize_arcsec, "moffat", beta)) == pytest.approx(area_px, rel=0.01)


@pytest.mark.parametrize(
    ("beta", "area_px", "equivalent"), [(2.5, 107.6, 1.805), (3.5, 84.8, 1.602), (4.765, 74.3, 1.5)]
)
def test_moffat_of_the_psfsize_itself_is_too_broad(beta: float, area_px: float, equivalent: float) -> None:
    """A Moffat with FWHM 1.3 has the tabulated N_eff; the solved FWHM is smaller by 1.3 / equivalent."""
    fwhm = float(psf_fwhm_arcsec(1.3, "moffat", beta))
    assert fwhm == pytest.approx(1.3 * 1.3 / equivalent, rel=1e-3)
    assert _effective_area_px(psf_kernel(1.3, "moffat", beta, 60, PIXEL_SCALE_ARCSEC)) == pytest.approx(
        area_px, rel=5e-3
    )


def test_fwhm_is_vectorised_and_keeps_nan() -> None:
    """Arrays of psfsize give arrays of FWHM, from read-only input, with NaN where psfsize is NaN."""
    psfsize = np.array([[1.0, np.nan], [1.3, 1.8]])
    psfsize.flags.writeable = False
    fwhm = psf_fwhm_arcsec(psfsize, "moffat", 3.5)
    assert fwhm.shape == (2, 2)
    assert np.isnan(fwhm[0, 1])
    assert fwhm[1, 0] == pytest.approx(1.3 * fwhm[0, 0])
    assert np.array_equal(psf_fwhm_arcsec(psfsize, "gaussian", 3.5), psfsize, equal_nan=True)


@pytest.mark.parametrize("profile", ["gaussian", "moffat"])
def test_kernel_has_unit_sum_and_half_maximum_at_half_fwhm(profile: str) -> None:
    """The kernel sums to one, is symmetric, and falls to half its peak at half the FWHM."""
    kernel = psf_kernel(1.2, profile, 3.0, 20, 0.1)
    assert kernel.shape == (41, 41)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.array_equal(kernel, kernel.T)
    assert np.array_equal(kernel, kernel[::-1, ::-1])
    assert kernel[20, 26] / kernel[20, 20] == pytest.approx(0.5, rel=1e-9)


def test_moffat_wings_hold_their_flux() -> None:
    """The flux outside R is (1 + R^2 / alpha^2)^(1 - beta)."""
    alpha_px, beta, radius_px = 10.0, 2.5, 30.0
    fwhm = 2 * alpha_px * np.sqrt(2 ** (1 / beta) - 1)
    kernel = psf_kernel(fwhm, "moffat", beta, 400, 1.0)
    y, x = np.mgrid[-400:401, -400:401]
    inside = kernel[np.hypot(x, y) <= radius_px].sum()
    assert 1 - inside == pytest.approx((1 + radius_px**2 / alpha_px**2) ** (1 - beta), rel=0.01)


@pytest.mark.parametrize("profile", ["gaussian", "moffat"])
@pytest.mark.parametrize("size", [64, 33])
def test_convolution_equals_a_direct_sum(profile: str, size: int) -> None:
    """The FFT gives the zero-padded direct convolution to float32 rounding, for even and odd sizes."""
    stamp = np.random.default_rng(1).exponential(size=(size, size)).astype(np.float32)
    stamp.flags.writeable = False
    transfer = psf_transfer(1.3, profile, 3.5, size, PIXEL_SCALE_ARCSEC)
    transfer.flags.writeable = False
    kernel = psf_kernel(1.3, profile, 3.5, size // 2, PIXEL_SCALE_ARCSEC)
    expected = signal.convolve2d(stamp.astype(np.float64), kernel, mode="same")
    result = convolve_psf(stamp, transfer, size)
    assert result.dtype == np.float32
    assert result.shape == (size, size)
    assert np.abs(result - expected).max() < 2e-6 * expected.max()


@settings(deadline=None)
@given(x=st.integers(30, 34), y=st.integers(30, 34), flux=st.floats(1e-3, 1e4))
def test_convolution_conserves_interior_flux(x: int, y: int, flux: float) -> None:
    """Light far from the edges keeps its flux to 1e-6 and its centroid."""
    stamp = np.zeros((SIZE, SIZE), np.float32)
    stamp[y, x] = flux
    result = convolve_psf(stamp, psf_transfer(1.3, "gaussian", 3.5, SIZE, PIXEL_SCALE_ARCSEC), SIZE).astype(np.float64)
    assert result.sum() == pytest.approx(float(stamp[y, x]), rel=1e-6)
    assert (result.sum(axis=0) @ np.arange(SIZE)) / result.sum() == pytest.approx(x, abs=1e-4)
    assert (result.sum(axis=1) @ np.arange(SIZE)) / result.sum() == pytest.approx(y, abs=1e-4)


def test_nothing_wraps_around() -> None:
    """A point source three pixels from an edge leaves nothing at the opposite edge."""
    stamp = np.zeros((SIZE, SIZE), np.float32)
    stamp[3, 60] = 1.0
    result = convolve_psf(stamp, psf_transfer(1.8, "moffat", 2.5, SIZE, PIXEL_SCALE_ARCSEC), SIZE)
    assert result[3, 60] > 0.01
    assert np.abs(result[40:, :]).max() < 1e-7
    assert np.abs(result[:, :24]).max() < 1e-7


@pytest.mark.parametrize(("profile", "beta", "message"), [("airy", 3.5, "airy"), ("moffat", 1.0, "> 1")])
def test_unknown_psf_is_refused(profile: str, beta: float, message: str) -> None:
    """A profile that does not exist, and a Moffat of infinite flux, are ContractErrors."""
    with pytest.raises(ContractError, match=message):
        psf_fwhm_arcsec(1.3, profile, beta)
    with pytest.raises(ContractError, match=message):
        psf_transfer(1.3, profile, beta, SIZE, PIXEL_SCALE_ARCSEC)


def test_unusable_widths_and_shapes_are_refused() -> None:
    """A NaN width and a stamp of another size are ContractErrors that show what came."""
    with pytest.raises(ContractError, match="nan"):
        psf_kernel(float("nan"), "gaussian", 3.5, 8, PIXEL_SCALE_ARCSEC)
    transfer = psf_transfer(1.3, "gaussian", 3.5, SIZE, PIXEL_SCALE_ARCSEC)
    with pytest.raises(ContractError, match=r"\(32, 32\)"):
        convolve_psf(np.zeros((32, 32), np.float32), transfer, SIZE)
