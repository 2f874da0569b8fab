"""Round PSFs whose width is solved from the survey's psfsize, and linear convolution with them.

The psfsize maps hold the FWHM of the Gaussian with the same effective area N_eff = 1 / sum(P**2) as
the PSF. A Moffat of that FWHM would be too broad: at psfsize 1.3 arcsec and beta 3.5, by 23 % in width.
A coadd PSF contains the pixel response, so the kernel is sampled at pixel centres, not averaged over
pixels again; that would raise N_eff by 4 % at 0.9 arcsec.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import FWHM_PER_SIGMA


def psf_fwhm_arcsec(psfsize_arcsec: ArrayLike, profile: str, moffat_beta: float) -> NDArray[np.float64]:
    """Half-maximum FWHM of the profile whose N_eff is that of a Gaussian of FWHM psfsize.

    Args:
        psfsize_arcsec: any shape, psfsize map values, > 0; NaN stays NaN. [arcsec]
        profile: "gaussian" or "moffat", P(r) ~ (1 + r**2 / alpha**2)**-beta.
        moffat_beta: > 1; read for "moffat" only.

    Returns:
        The shape of the input, float64. Moffat: N_eff = pi alpha**2 (2 beta - 1) / (beta - 1)**2. [arcsec]

    Raises:
        ContractError: unknown profile, or beta <= 1.
    """
    psfsize = np.asarray(psfsize_arcsec, dtype=np.float64)
    _check_profile(profile, moffat_beta)
    if profile == "gaussian":
        return psfsize
    alpha_ratio = (moffat_beta - 1.0) / math.sqrt((2.0 * moffat_beta - 1.0) * 2.0 * math.log(2.0))
    return psfsize * (alpha_ratio * _moffat_fwhm_per_alpha(moffat_beta))


def psf_kernel(
    fwhm_arcsec: float, profile: str, moffat_beta: float, half_width_px: int, pixel_scale_arcsec: float
) -> NDArray[np.float64]:
    """PSF sampled at pixel centres, truncated to a square and normalised.

    Args:
        fwhm_arcsec: half-maximum FWHM, from `psf_fwhm_arcsec`, > 0. [arcsec]
        profile: "gaussian" or "moffat".
        moffat_beta: > 1; read for "moffat" only.
        half_width_px: h >= 1. [px]
        pixel_scale_arcsec: > 0. [arcsec/px]

    Returns:
        (2h + 1, 2h + 1) float64, sum 1, centre at [h, h].

    Raises:
        ContractError: an argument outside its range.
    """
    _check_profile(profile, moffat_beta)
    if not (fwhm_arcsec > 0.0 and pixel_scale_arcsec > 0.0 and half_width_px >= 1):
        raise ContractError(
            "psf_kernel: expected fwhm_arcsec > 0, pixel_scale_arcsec > 0 and half_width_px >= 1, "
            f"got {fwhm_arcsec}, {pixel_scale_arcsec}, {half_width_px}"
        )
    offset_arcsec = np.arange(-half_width_px, half_width_px + 1) * pixel_scale_arcsec
    r2 = offset_arcsec[:, None] ** 2 + offset_arcsec[None, :] ** 2
    if profile == "gaussian":
        kernel = np.exp(-0.5 * r2 * (FWHM_PER_SIGMA / fwhm_arcsec) ** 2)
    else:
        kernel = (1.0 + r2 * (_moffat_fwhm_per_alpha(moffat_beta) / fwhm_arcsec) ** 2) ** -moffat_beta
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def psf_transfer(
    fwhm_arcsec: float, profile: str, moffat_beta: float, size: int, pixel_scale_arcsec: float
) -> NDArray[np.complex64]:
    """Transfer function of the PSF for `convolve_psf` of (size, size) stamps.

    The kernel reaches size // 2 px, and the grid has a good FFT length L >= 2 size, so nothing wraps around.

    Args:
        fwhm_arcsec, profile, moffat_beta, pixel_scale_arcsec: as in `psf_kernel`.
        size: side of the stamps, >= 2. [px]

    Returns:
        (L, L // 2 + 1) complex64, rfft2 of the kernel with its centre at [0, 0].

    Raises:
        ContractError: an argument outside its range.
    """
    half_width_px = size // 2
    kernel = psf_kernel(fwhm_arcsec, profile, moffat_beta, half_width_px, pixel_scale_arcsec)
    length = _padded_length(size)
    grid = np.zeros((length, length))
    grid[: kernel.shape[0], : kernel.shape[1]] = kernel
    centred = np.roll(grid, (-half_width_px, -half_width_px), axis=(0, 1))
    return np.asarray(fft.rfft2(centred), dtype=np.complex64)


def convolve_psf(stamp: NDArray[np.float32], transfer: NDArray[np.complex64], size: int) -> NDArray[np.float32]:
    """Linear convolution of a stamp with a PSF; light that leaves the stamp is lost.

    Args:
        stamp: (size, size) float32 image. [any flux per pixel]
        transfer: `psf_transfer` for the same size.
        size: side of the stamp. [px]

    Returns:
        (size, size) float32 image, same unit and pixel positions. Rounding leaves noise, of either
        sign, near 1e-8 of the stamp's flux.

    Raises:
        ContractError: stamp or transfer of another shape than size asks for.
    """
    length = _padded_length(size)
    if stamp.shape != (size, size) or transfer.shape != (length, length // 2 + 1):
        raise ContractError(
            f"convolve_psf: size={size} needs a stamp of shape {(size, size)} and a transfer of shape "
            f"{(length, length // 2 + 1)}, got {stamp.shape} and {transfer.shape}"
        )
    # Row and column passes apart, so that the rows of padding are neither read nor made.
    rows = fft.rfft(np.asarray(stamp, dtype=np.float32), n=length, axis=1)
    spectrum = fft.fft(rows, n=length, axis=0, overwrite_x=True)
    spectrum *= transfer
    columns = fft.ifft(spectrum, axis=0, overwrite_x=True)[:size]
    return np.ascontiguousarray(fft.irfft(columns, n=length, axis=1)[:, :size], dtype=np.float32)


def _check_profile(profile: str, moffat_beta: float) -> None:
    if profile not in ("gaussian", "moffat"):
        raise ContractError(f"PSF profile: expected 'gaussian' or 'moffat', got {profile!r}")
    if profile == "moffat" and not moffat_beta > 1.0:
        raise ContractError(f"moffat_beta: expected > 1 (finite flux), got {moffat_beta}")


def _moffat_fwhm_per_alpha(moffat_beta: float) -> float:
    return 2.0 * math.sqrt(2.0 ** (1.0 / moffat_beta) - 1.0)


def _padded_length(size: int) -> int:
    return int(fft.next_fast_len(2 * size, real=True))
