"""Numbers that say whether a template is a galaxy or a noise pedestal, and the verdict on a whole bank.

A stamp whose negative noise was clipped without subtracting a background is a box of positive flux. Its half-light
radius is that of the box: a circle of area S**2 / 2, so S / sqrt(2 pi) = 0.399 S, whatever galaxy lies in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import TEMPLATE_REJECT_REASONS, SourceBank

# A bank is pedestal dominated from these medians on.
PEDESTAL_FRACTION_LIMIT = 0.5
FLAT_HLR_SHARE_LIMIT = 0.85

_CLUMPINESS_BLUR_PX = 1.0
_SUBPIXELS = 5
_RADIAL_STEP_PX = 0.02
_PSF_ZOOM = 8
_CLIP_SIGMAS = 3.0
_ONE_SIGMA_PERCENTILE = 84.13
_CLIP_ROUNDS = 20
_BORDER_SHARE = 12


@dataclass(frozen=True)
class BankQuality:
    """What a bank's templates look like; medians are over usable templates and NaN where there is none.

    Attributes:
        n_templates: all rows.
        n_usable: rows that may be lensed.
        n_by_reason: rows of each reject reason, in the order of TEMPLATE_REJECT_REASONS.
        hlr_arcsec: (N,) measured anew; NaN for a template without light. [arcsec]
        clumpiness: (N,) measured anew.
        pedestal_fraction: (N,) measured anew, on the templates as they are.
        flat_hlr_arcsec: half-light radius of an empty stamp on a pedestal. [arcsec]
        is_pedestal_dominated: the verdict.
        message: the verdict as a sentence, with the numbers it rests on.
    """

    n_templates: int
    n_usable: int
    n_by_reason: dict[str, int]
    hlr_arcsec: NDArray[np.float64]
    clumpiness: NDArray[np.float64]
    pedestal_fraction: NDArray[np.float64]
    flat_hlr_arcsec: float
    is_pedestal_dominated: bool
    message: str


def clipped_statistics(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of values within 3 sigma of the median, iterated until nothing more falls out.

    The mean, not the median, and sigma as the distance from the median to the 84th percentile: of clipped noise half
    the pixels are zero, the pedestal is what they average to, and clipping by their own scatter would eat it up.

    Raises:
        ContractError: no value.
    """
    kept = np.asarray(values, dtype=np.float64).ravel()
    if not kept.size:
        raise ContractError("clipped_statistics: expected at least one value, got none")
    for _ in range(_CLIP_ROUNDS):
        middle, upper = np.percentile(kept, (50.0, _ONE_SIGMA_PERCENTILE))
        inside = np.abs(kept - middle) <= _CLIP_SIGMAS * (upper - middle)
        if upper <= middle or inside.all():
            break
        kept = kept[inside]
    return float(kept.mean()), float(kept.std())


def border_pixels(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(y, x) the outer ring of a stamp, a twelfth of the shorter side wide and at least 2 px."""
    width = max(2, min(shape) // _BORDER_SHARE)
    ring = np.ones(shape, dtype=np.bool_)
    ring[width:-width, width:-width] = False
    return ring


def pedestal_share(image: NDArray[np.floating]) -> float:
    """Share of a stamp's light, negatives clipped, that a flat level as bright as its border would carry.

    Args:
        image: (y, x) light per pixel.

    Returns:
        0 to 1; 1 for flat light and for clipped noise, 0 for a galaxy on a dark background. NaN without light.
    """
    positive = np.maximum(np.asarray(image, dtype=np.float64), 0.0)
    total = float(positive.sum())
    if not (math.isfinite(total) and total > 0):
        return math.nan
    level, _ = clipped_statistics(positive[border_pixels((image.shape[0], image.shape[1]))])
    return min(level * positive.size / total, 1.0)


def centroid_px(image: NDArray[np.floating]) -> tuple[float, float]:
    """Flux-weighted (x, y) of a stamp, 0 at the centre of the first pixel. [pixel]

    Raises:
        ContractError: no light.
    """
    light = np.asarray(image, dtype=np.float64)
    total = float(light.sum())
    if not (math.isfinite(total) and total > 0):
        raise ContractError(f"centroid: expected light with a positive sum, got {total}")
    rows, columns = np.indices(light.shape)
    return float((columns * light).sum() / total), float((rows * light).sum() / total)


def half_light_radius_arcsec(image: NDArray[np.floating], pixel_scale_arcsec: float) -> float:
    """Radius of the circle around the flux-weighted centroid that holds half of the light. [arcsec]

    Each pixel is spread over 5 x 5 points; the radius is exact to about 0.03 px.

    Args:
        image: (y, x) light per pixel, >= 0.
        pixel_scale_arcsec: pixel side. [arcsec]

    Raises:
        ContractError: no light.
    """
    light = np.asarray(image, dtype=np.float64)
    x_px, y_px = centroid_px(light)
    fine = np.repeat(np.repeat(light, _SUBPIXELS, axis=0), _SUBPIXELS, axis=1)
    rows = ((np.arange(fine.shape[0]) + 0.5) / _SUBPIXELS - 0.5 - y_px)[:, None]
    columns = ((np.arange(fine.shape[1]) + 0.5) / _SUBPIXELS - 0.5 - x_px)[None, :]
    steps = (np.hypot(rows, columns) / _RADIAL_STEP_PX).astype(np.int64)
    growth = np.cumsum(np.bincount(steps.ravel(), weights=fine.ravel()))
    radius_px = (np.searchsorted(growth, 0.5 * growth[-1]) + 0.5) * _RADIAL_STEP_PX
    return float(radius_px * pixel_scale_arcsec)


def template_clumpiness(image: NDArray[np.floating]) -> float:
    """sum |image - Gaussian of sigma 1 px| / sum image, as the EMR system defines it; about 0.9 for clipped noise.

    Raises:
        ContractError: no light.
    """
    light = np.asarray(image, dtype=np.float64)
    total = float(light.sum())
    if not (math.isfinite(total) and total > 0):
        raise ContractError(f"clumpiness: expected light with a positive sum, got {total}")
    return float(np.abs(light - gaussian_filter(light, _CLUMPINESS_BLUR_PX)).sum() / total)


def psf_half_maximum_arcsec(psf: NDArray[np.floating], pixel_scale_arcsec: float) -> float:
    """FWHM of the circle that has the area above half of the peak, on an 8 times finer cubic spline. [arcsec]

    Raises:
        ContractError: the point-spread function is not finite or has no positive peak.
    """
    kernel = np.asarray(psf, dtype=np.float64)
    if not np.isfinite(kernel).all() or not kernel.max() > 0:
        raise ContractError(f"point-spread function: expected finite values with a positive peak, got {psf.shape}")
    fine = zoom(kernel, _PSF_ZOOM, order=3, mode="nearest", grid_mode=True)
    area_px = float((fine > 0.5 * fine.max()).sum()) / _PSF_ZOOM**2
    return 2.0 * math.sqrt(area_px / math.pi) * pixel_scale_arcsec


def flat_half_light_radius_arcsec(stamp_size_px: int, pixel_scale_arcsec: float) -> float:
    """Half-light radius of uniform light in a square stamp, S / sqrt(2 pi). [arcsec]"""
    return stamp_size_px * pixel_scale_arcsec / math.sqrt(2.0 * math.pi)


def judge_bank(bank: SourceBank) -> BankQuality:
    """Measure every template anew and say whether the bank is galaxies or pedestals.

    Pedestal dominated: the median pedestal share of the usable templates is above 0.5, or their median half-light
    radius is above 0.85 of that of an empty stamp.
    """
    n_templates = bank.images.shape[0]
    measured = np.full((3, n_templates), np.nan)
    for row, image in enumerate(bank.images):
        if image.any():
            measured[:, row] = (
                half_light_radius_arcsec(image, bank.pixel_scale_arcsec),
                template_clumpiness(image),
                pedestal_share(image),
            )
    usable = bank.usable
    flat = flat_half_light_radius_arcsec(bank.stamp_size_px, bank.pixel_scale_arcsec)
    hlr, clumpiness, pedestal = (float(np.median(values[usable])) if usable.any() else math.nan for values in measured)
    dominated = bool(pedestal > PEDESTAL_FRACTION_LIMIT or hlr > FLAT_HLR_SHARE_LIMIT * flat)
    message = (
        f"{'pedestal dominated' if dominated else 'galaxies, not pedestals'}: median pedestal share {pedestal:.3f} "
        f"(limit {PEDESTAL_FRACTION_LIMIT}), median half-light radius {hlr:.3f} arcsec (an empty stamp has {flat:.3f}, "
        f"limit {FLAT_HLR_SHARE_LIMIT * flat:.3f}), median clumpiness {clumpiness:.3f}"
    )
    reasons = np.bincount(bank.columns["reject_reason"].astype(np.int64), minlength=len(TEMPLATE_REJECT_REASONS))
    return BankQuality(
        n_templates=n_templates,
        n_usable=int(usable.sum()),
        n_by_reason=dict(zip(TEMPLATE_REJECT_REASONS, reasons.tolist(), strict=True)),
        hlr_arcsec=measured[0],
        clumpiness=measured[1],
        pedestal_fraction=measured[2],
        flat_hlr_arcsec=flat,
        is_pedestal_dominated=dominated,
        message=message if usable.any() else "no usable template",
    )
