"""Stamps around hosts: where they lie in the brick, and how good their pixels are.

Geometry is that of the EMR system: the window starts at round-half-even(x) - size // 2, so the host
lies on pixel size // 2 to within half a pixel; the remainder is kept and later places the lens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import QualitySection
from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.survey import BAD_PIXEL_MASK, MAD_TO_SIGMA, PSFSIZE_RANGE_ARCSEC, WISE_MASK

# Inner radius of the sky ring as a fraction of the stamp size.
SKY_RING_INNER = 24.0 / 64.0
# Stamps whose rings fit into a processor's cache together.
_STAMPS_AT_ONCE = 16
_REASON = {name: code for code, name in enumerate(REJECT_REASONS)}


@dataclass(frozen=True)
class Placement:
    """Where the stamps of some hosts lie in their brick; all arrays (sample,)."""

    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    in_bounds: NDArray[np.bool_]


def place_stamps(
    x_px: NDArray[np.float64], y_px: NDArray[np.float64], size: int, brick_shape: tuple[int, int]
) -> Placement:
    """Windows of `size` pixels around brick positions.

    Args:
        x_px, y_px: (sample,) 0-based positions in the brick; a NaN or far-off position is out of bounds.
        brick_shape: (ny, nx) of the brick image.
    """
    ny, nx = brick_shape
    far = ~(np.isfinite(x_px) & np.isfinite(y_px)) | (np.abs(x_px) > 1e8) | (np.abs(y_px) > 1e8)
    x0 = np.where(far, -2 * size, np.rint(np.where(far, 0.0, x_px))).astype(np.int64) - size // 2
    y0 = np.where(far, -2 * size, np.rint(np.where(far, 0.0, y_px))).astype(np.int64) - size // 2
    in_bounds = (x0 >= 0) & (y0 >= 0) & (x0 + size <= nx) & (y0 + size <= ny)
    return Placement(x_px, y_px, x0, y0, in_bounds)


def measure_stamps(
    image: NDArray[np.float32], invvar: NDArray[np.float32], maskbits: NDArray[np.int32], mask_readable: bool
) -> dict[str, NDArray[np.float32]]:
    """Quality of stamps of one brick.

    Args:
        image: (sample, band, y, x). [nmgy]
        invvar: (sample, band, y, x). [nmgy**-2]
        maskbits: (sample, y, x) DR10 MASKBITS.
        mask_readable: False makes both mask fractions NaN, as the EMR system did.

    Returns:
        finite_frac, invvar_zero_frac, sky_sigma_nmgy (sample, band);
        bad_pixel_frac, wise_brightmask_frac (sample,).
    """
    finite = np.isfinite(image) & np.isfinite(invvar)
    known = np.float32(1.0 if mask_readable else np.nan)
    return {
        "finite_frac": finite.mean(axis=(2, 3), dtype=np.float64).astype(np.float32),
        "invvar_zero_frac": (~(invvar > 0)).mean(axis=(2, 3), dtype=np.float64).astype(np.float32),
        "sky_sigma_nmgy": sky_sigma(image),
        "bad_pixel_frac": _mask_fraction(maskbits, BAD_PIXEL_MASK) * known,
        "wise_brightmask_frac": _mask_fraction(maskbits, WISE_MASK) * known,
    }


def sky_sigma(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """1.4826 MAD of the ring r >= 24/64 size of each (..., y, x) stamp; NaN pixels are left out. [nmgy]"""
    size = image.shape[-1]
    offset = np.arange(size) - size // 2
    ring = np.hypot(offset[:, None], offset[None, :]) >= SKY_RING_INNER * size
    sigma = np.empty(image.shape[:-2], np.float32)
    for first in range(0, len(image), _STAMPS_AT_ONCE):
        block = slice(first, first + _STAMPS_AT_ONCE)
        sigma[block] = _sigma_of(image[block][..., ring].astype(np.float64))
    return sigma


def _sigma_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1.4826 MAD over the last axis; values are overwritten."""
    values[~np.isfinite(values)] = np.nan
    empty = np.isnan(values).all(axis=-1)
    values[empty] = 0.0
    sigma: NDArray[np.float64] = MAD_TO_SIGMA * _known_median(np.abs(values - _known_median(values)[..., None]))
    sigma[empty] = np.nan
    return sigma


def _known_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over the last axis of what is not NaN. np.nanmedian is slow, so it only sees rows that hold NaN."""
    known = ~np.isnan(values).any(axis=-1)
    median = np.empty(values.shape[:-1])
    median[known] = np.median(values[known], axis=-1)
    median[~known] = np.nanmedian(values[~known], axis=-1)
    return median


def judge(cutouts: xr.Dataset, quality: QualitySection) -> xr.Dataset:
    """Fill `usable` and complete `reject_reason`: the first reason of the list that applies.

    Args:
        cutouts: the cutouts cube's variables, `reject_reason` holding only what reading the brick gave.
    """
    psfsize = cutouts["psfsize_arcsec"].to_numpy()
    low, high = PSFSIZE_RANGE_ARCSEC
    with np.errstate(invalid="ignore"):
        checks = (
            ("out_of_bounds", cutouts["in_bounds"].to_numpy() == 0),
            ("nonfinite_pixels", (cutouts["finite_frac"].to_numpy() < 1.0).any(axis=1)),
            ("invvar_zero", (cutouts["invvar_zero_frac"].to_numpy() > quality.invvar_zero_frac_max).any(axis=1)),
            ("mask_unreadable", np.isnan(cutouts["bad_pixel_frac"].to_numpy())),
            ("masked", ~(cutouts["bad_pixel_frac"].to_numpy() <= quality.bad_pixel_frac_max)),
            ("psfsize_invalid", ~((psfsize >= low) & (psfsize <= high)).all(axis=1)),
        )
    reason = cutouts["reject_reason"].to_numpy().copy()
    for name, applies in checks:
        reason[(reason == 0) & applies] = _REASON[name]
    usable = (reason == 0).astype(np.uint8)
    return cutouts.assign(reject_reason=("sample", reason.astype(np.uint8)), usable=("sample", usable))


def _mask_fraction(maskbits: NDArray[np.int32], mask: int) -> NDArray[np.float32]:
    fraction: NDArray[np.float64] = ((maskbits & mask) != 0).mean(axis=(1, 2), dtype=np.float64)
    return fraction.astype(np.float32)


def reason_counts(reasons: NDArray[np.uint8]) -> dict[str, int]:
    """Rows per reject reason, by name; "none" counts the usable ones."""
    counts = np.bincount(reasons, minlength=len(REJECT_REASONS))
    return {name: int(count) for name, count in zip(REJECT_REASONS, counts, strict=True) if count}


def reason_code(name: str) -> int:
    """Code of a reject reason."""
    return _REASON[name]
