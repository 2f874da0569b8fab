"""PSFs of a stamp, one a band, as transfer functions in the basis of `pipeline.kernels.fourier`.

The psfsize maps hold the FWHM of the Gaussian with the same effective area N_eff = 1 / sum(P**2) as
the PSF. A Moffat of that FWHM would be too broad: at psfsize 1.3 arcsec and beta 3.5, by 23 % in width.
A coadd PSF contains the pixel response, so the image is the convolution taken at pixel centres, not averaged
over pixels again; that would raise N_eff by 4 % at 0.9 arcsec.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import FWHM_PER_SIGMA
from pipeline.kernels.fourier import MIN_KEPT, frequencies, period_px
from pipeline.kernels.spreading import spread_transfer

DEFAULT_NEGLECTED = 5e-4
_TABLE_STEP = 0.01
_TABLE_END = 80.0


class StampPsf(NamedTuple):
    """PSFs of one stamp.

    Attributes:
        size: side of the stamps it is made for. [px]
        transfer: (band, part, 2K - 1, 2K - 1) float32, as `fourier.apply_transfer` takes one band of it, divided
            by the transform of the spreading profile; K is that of the sharpest band.
        kept: (band,) int64, how many cosines an axis a band needs; coefficients beyond are not read.
    """

    size: int
    transfer: NDArray[np.float32]
    kept: NDArray[np.int64]


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


def round_psf(
    fwhm_arcsec: ArrayLike,
    profile: str,
    moffat_beta: float,
    size: int,
    pixel_scale_arcsec: float,
    neglected: float = DEFAULT_NEGLECTED,
) -> StampPsf:
    """PSFs of a profile that is known everywhere, from its analytic transform.

    Args:
        fwhm_arcsec: (band,) half-maximum FWHM, from `psf_fwhm_arcsec`, > 0. [arcsec]
        profile: "gaussian" or "moffat".
        moffat_beta: > 1; read for "moffat" only.
        size: side of the stamps, even, >= 16. [px]
        pixel_scale_arcsec: > 0. [arcsec/px]
        neglected: share of the transfer function that the frequencies left out hold, at most the error at the peak of
            a point source, over the peak; 1e-9 to 0.1.

    Returns:
        Transfer functions of unit flux, with as many frequencies as each band needs. The zero frequency, the
        flux, is exact.

    Raises:
        ContractError: an argument outside its range.
    """
    if not 0.0 < pixel_scale_arcsec < math.inf:
        raise ContractError(f"round_psf: expected pixel_scale_arcsec > 0, got {pixel_scale_arcsec}")
    fwhm_px = np.atleast_1d(np.asarray(fwhm_arcsec, dtype=np.float64)) / pixel_scale_arcsec
    _check_profile(profile, moffat_beta)
    _check_size(size)
    if not (fwhm_px.size and np.isfinite(fwhm_px).all() and (fwhm_px > 0.0).all()):
        raise ContractError(f"round_psf: expected fwhm_arcsec > 0 in every band, got {np.asarray(fwhm_arcsec)}")
    period = period_px(size)
    count = frequencies(size)
    quarter = np.empty((fwhm_px.size, count, count))
    if profile == "gaussian":
        frequency = np.arange(count) / period
        for band, width in enumerate(fwhm_px):
            axis = np.exp(-2.0 * (math.pi * width / FWHM_PER_SIGMA * frequency) ** 2)
            quarter[band] = axis[:, None] * axis[None, :]
    else:
        table = _moffat_table(moffat_beta)
        for band, width in enumerate(fwhm_px):
            per_index = 2.0 * math.pi * width / _moffat_fwhm_per_alpha(moffat_beta) / period
            _fill_radial(table, per_index / _TABLE_STEP, quarter[band])
    return _stamp_psf(quarter[:, None], size, neglected)


def measured_psf(
    stamps: NDArray[np.float64] | NDArray[np.float32], size: int, neglected: float = DEFAULT_NEGLECTED
) -> StampPsf:
    """PSFs measured as pixel stamps, such as those of a coadd.

    Args:
        stamps: (band, s, s) PSF at native pixels, s odd and at most `size`, centred at [s // 2, s // 2],
            finite, of positive sum; normalised to unit flux here.
        size: side of the arcs' stamps, even, >= 16. [px]
        neglected: as in `round_psf`.

    Returns:
        Transfer functions of the band-limited PSF through the stamp's pixels.

    Raises:
        ContractError: another shape, or a stamp that is not finite or has no flux.
    """
    psf = np.asarray(stamps, dtype=np.float64)
    _check_size(size)
    if (
        psf.ndim != 3
        or not psf.shape[0]
        or psf.shape[1] != psf.shape[2]
        or psf.shape[1] % 2 == 0
        or psf.shape[1] > size
    ):
        raise ContractError(f"measured_psf: expected (band, s, s) stamps with s odd and <= {size}, got {psf.shape}")
    total = psf.sum(axis=(1, 2))
    if not (np.isfinite(psf).all() and (total > 0.0).all()):
        raise ContractError(f"measured_psf: expected finite stamps of positive flux, got sums {total}")
    period, half = period_px(size), psf.shape[1] // 2
    angle = 2.0 * np.pi / period * np.arange(frequencies(size))[:, None] * np.arange(-half, half + 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    unit = psf / total[:, None, None]
    parts = np.stack([y @ unit @ x.T for y, x in ((cosine, cosine), (cosine, sine), (sine, cosine), (sine, sine))], 1)
    return _stamp_psf(parts, size, neglected)


def _stamp_psf(quarter: NDArray[np.float64], size: int, neglected: float) -> StampPsf:
    """Transfer functions from (band, part, frequency, frequency) parts on the quarter plane."""
    period = period_px(size)
    if not 1e-9 <= neglected <= 0.1:
        raise ContractError(f"PSF: expected a neglected share in [1e-9, 0.1], got {neglected}")
    needed = np.array([_frequencies_needed(np.abs(parts).max(axis=0), neglected) for parts in quarter], np.int64)
    kept = int(needed.max())
    axis = spread_transfer(np.arange(kept) / period)
    divided = quarter[..., :kept, :kept] / (axis[:, None] * axis[None, :])
    full = np.empty((*quarter.shape[:2], 2 * kept - 1, 2 * kept - 1), np.float32)
    full[..., :kept, :kept] = divided
    full[..., kept:, :kept] = divided[..., 1:, :]
    full[..., :kept, kept:] = divided[..., :, 1:]
    full[..., kept:, kept:] = divided[..., 1:, 1:]
    return StampPsf(size, full, needed)


def _frequencies_needed(envelope: NDArray[np.float64], neglected: float) -> int:
    """Frequencies an axis that hold all but a negligible share of a transfer function."""
    inside = np.cumsum(np.cumsum(envelope, axis=0), axis=1).diagonal()
    return max(int(np.searchsorted(inside, (1.0 - neglected) * inside[-1])) + 1, MIN_KEPT)


@lru_cache(maxsize=16)
def _moffat_table(moffat_beta: float) -> NDArray[np.float64]:
    """Transform of a Moffat of unit alpha and flux at angular frequencies 0, _TABLE_STEP, ..., _TABLE_END.

    2 / Gamma(nu) (x / 2)**nu K_nu(x), nu = beta - 1 (Trujillo et al. 2001, MNRAS 328, 977).
    """
    x = np.arange(0.0, _TABLE_END, _TABLE_STEP)
    nu = moffat_beta - 1.0
    table = np.ones_like(x)
    log_value = math.log(2.0) - special.gammaln(nu) + nu * np.log(0.5 * x[1:]) + np.log(special.kve(nu, x[1:])) - x[1:]
    table[1:] = np.exp(log_value)
    table[-1] = 0.0
    table.setflags(write=False)
    return table


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_radial(table: NDArray[np.float64], per_index: float, quarter: NDArray[np.float64]) -> None:
    """quarter[i, j] from a table of a radial function, linear in between; both triangles."""
    last = table.shape[0] - 2
    for i in range(quarter.shape[0]):
        for j in range(i + 1):
            position = math.sqrt(i * i + j * j) * per_index
            index = min(int(position), last)
            fraction = min(position - index, 1.0)
            value = table[index] + fraction * (table[index + 1] - table[index])
            quarter[i, j] = value
            quarter[j, i] = value


def _check_profile(profile: str, moffat_beta: float) -> None:
    if profile not in ("gaussian", "moffat"):
        raise ContractError(f"PSF profile: expected 'gaussian' or 'moffat', got {profile!r}")
    if profile == "moffat" and not moffat_beta > 1.0:
        raise ContractError(f"moffat_beta: expected > 1 (finite flux), got {moffat_beta}")


def _check_size(size: int) -> None:
    if size < 16 or size % 2:
        raise ContractError(f"stamp size: expected an even number >= 16, got {size}")


def _moffat_fwhm_per_alpha(moffat_beta: float) -> float:
    return 2.0 * math.sqrt(2.0 ** (1.0 / moffat_beta) - 1.0)
