"""How visible the arc of a real lens is on its cutout, and whether a galaxy is there at all.

The EMR system summed the annulus 4 <= r < 16 px above the background of the pixels outside it, in units of
1.4826 MAD sqrt(N) of those pixels. That sum is mostly lens light; it is kept as `annulus_snr_with_lens`. For
`arc_visibility_snr` the lens light is subtracted first (`lens_light.py`). What remains is the arc and whatever else is
not the lens: companions count, and a complete even ring is in part taken for lens light. The noise is that of the
pixels times 1.5, the spread of the sum measured on noise alone, with a share of the subtracted light added in
quadrature. `arc_significance` (`arc_significance.py`) counts only light that is shaped like an arc.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.contracts.anchors import MEASUREMENTS, VISIBILITY_TIERS, VisibilityLimits
from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import MAD_TO_SIGMA, mask_value
from pipeline.stages.arc_significance import arc_significance
from pipeline.stages.lens_light import core_centroid, lens_light

PROFILE_NOISE = 1.5
_MEDIAN_ERROR = math.sqrt(math.pi / 2)
_MIN_RING_PX = 8
_MIN_SKY_PX = 50


@dataclass(frozen=True)
class Visibility:
    """Measurement of one stamp in one band; see MEASUREMENTS for what each number means. [nmgy, px or 1]"""

    sky_sigma_nmgy: float
    centre_snr: float
    annulus_px: int
    annulus_good_frac: float
    annulus_snr_with_lens: float
    lens_axis_ratio: float
    lens_annulus_nmgy: float
    arc_annulus_nmgy: float
    arc_visibility_snr: float
    arc_significance: float


def good_pixels(
    image: NDArray[np.float32], invvar: NDArray[np.float32], maskbits: NDArray[np.int32], band: str
) -> NDArray[np.bool_]:
    """Pixels that measure the sky: finite, with weight, and not saturated, bailed out or in a star's halo.

    Args:
        image: (y, x). [nmgy]
        invvar: (y, x). [nmgy**-2]
        maskbits: (y, x) DR10 MASKBITS; NPRIMARY pixels are good, they only belong to another brick as well.
        band: g, r, i or z.
    """
    bad = mask_value("BRIGHT", "MEDIUM", "BAILOUT", f"SATUR_{band.upper()}", f"ALLMASK_{band.upper()}")
    good: NDArray[np.bool_] = np.isfinite(image) & np.isfinite(invvar) & (invvar > 0) & ((maskbits & bad) == 0)
    return good


def measure_visibility(
    image: NDArray[np.float32],
    good: NDArray[np.bool_],
    centre_px: tuple[float, float],
    psf_fwhm_px: float,
    limits: VisibilityLimits,
) -> Visibility:
    """Measure one stamp.

    Args:
        image: (y, x). [nmgy]
        good: (y, x) pixels to use.
        centre_px: (x, y) of the lens, 0-based. [pixel]
        psf_fwhm_px: seeing, positive. [pixel]
        limits: see VisibilityLimits.

    Returns:
        NaN where too few pixels are good: sky sigma below 50 outer pixels, the others without sky sigma.

    Raises:
        ContractError: shapes differ, the annulus does not fit into the stamp, or the seeing is not positive.
    """
    if image.ndim != 2 or image.shape != good.shape:
        raise ContractError(f"arc visibility: expected one (y, x) stamp and its mask, got {image.shape}, {good.shape}")
    if not psf_fwhm_px > 0:
        raise ContractError(f"arc visibility: expected a seeing above 0 px, got {psf_fwhm_px}")
    grid = np.indices(image.shape, dtype=np.float64)
    dx, dy = grid[1] - centre_px[0], grid[0] - centre_px[1]
    reach = min(centre_px[0], centre_px[1], image.shape[1] - 1 - centre_px[0], image.shape[0] - 1 - centre_px[1])
    if reach < limits.outer_px:
        raise ContractError(
            f"arc visibility: an annulus of {limits.outer_px} px does not fit around {centre_px} of {image.shape}"
        )
    radius = np.hypot(dx, dy)
    annulus = (radius >= limits.inner_px) & (radius < limits.outer_px)
    used, outer = annulus & good, (radius >= limits.outer_px) & good
    n_used, frac = int(used.sum()), float(used.sum() / annulus.sum())
    pixels = np.where(good, image, 0.0).astype(np.float64)
    if outer.sum() < _MIN_SKY_PX:
        return Visibility(math.nan, math.nan, n_used, frac, *[math.nan] * 6)
    background = float(np.median(pixels[outer]))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(pixels[outer] - background)))
    centre_snr = _centre_snr(pixels, good, radius, sigma, limits)
    if sigma <= 0 or frac < limits.min_annulus_frac:
        return Visibility(sigma, centre_snr, n_used, frac, *[math.nan] * 6)
    noise = float(sigma * math.sqrt(n_used))
    with_lens = float((pixels[used] - background).sum()) / noise
    # Ellipses reach beyond the annulus on one axis and end within it on the other.
    around = good & (radius < 1.5 * limits.outer_px)
    flux, inside = pixels[around] - background, used[around]
    lens, axis_ratio = lens_light(dx[around], dy[around], flux, sigma, psf_fwhm_px, limits)
    arc_nmgy, lens_nmgy = float((flux - lens)[inside].sum()), float(lens[inside].sum())
    arc_noise = math.hypot(PROFILE_NOISE * noise, limits.light_error * lens_nmgy)
    maps = np.zeros((3, *image.shape))
    maps[0], maps[1][around], maps[2][around] = np.where(good, pixels - background, 0.0), flux - lens, lens
    shift = core_centroid(dx[around], dy[around], flux)
    place = (centre_px[0] + shift[0], centre_px[1] + shift[1])
    significance = arc_significance(maps[0], maps[1], maps[2], around, place, sigma, psf_fwhm_px, limits)
    return Visibility(
        sky_sigma_nmgy=sigma,
        centre_snr=centre_snr,
        annulus_px=n_used,
        annulus_good_frac=frac,
        annulus_snr_with_lens=with_lens,
        lens_axis_ratio=axis_ratio,
        lens_annulus_nmgy=lens_nmgy,
        arc_annulus_nmgy=arc_nmgy,
        arc_visibility_snr=arc_nmgy / arc_noise,
        arc_significance=significance,
    )


def judge_anchors(measured: pd.DataFrame, limits: VisibilityLimits) -> pd.DataFrame:
    """Set both measured tiers of every anchor, and the reason of those that have none.

    `annulus_tier` is A where arc_visibility_snr exceeds its threshold; `visibility_tier` is A where in addition
    arc_significance exceeds its own.

    Args:
        measured: columns of MEASURED_ANCHORS; the measured tiers are replaced, `reject_reason` completed. Grades are
            not looked at.
        limits: see VisibilityLimits.
    """
    reason = measured["reject_reason"].to_numpy(dtype=object).copy()
    checks = (
        ("no_cutout", measured["cube_row"].to_numpy() < 0),
        ("cutout_unusable", ~measured["cutout_reject_reason"].isin(["", "none"]).to_numpy()),
        ("annulus_unmeasurable", ~np.isfinite(measured["arc_visibility_snr"].to_numpy(np.float64))),
        ("no_central_galaxy", ~(measured["centre_snr"].to_numpy(np.float64) >= limits.centre_snr_min)),
    )
    for name, applies in checks:
        reason[(reason == "none") & applies] = name
    unfit = reason != "none"
    in_annulus = measured["arc_visibility_snr"].to_numpy(np.float64) > limits.threshold
    shaped = measured["arc_significance"].to_numpy(np.float64) > limits.significance_min
    tiers = {}
    for name, visible in (("annulus_tier", in_annulus), ("visibility_tier", in_annulus & shaped)):
        tiers[name] = np.where(visible, *VISIBILITY_TIERS).astype(object)
        tiers[name][unfit] = ""
    return measured.assign(reject_reason=reason, **tiers)


def unmeasured(n_rows: int, band: str) -> pd.DataFrame:
    """Rows of MEASUREMENTS before anything was measured: NaN, no cutout, no tier."""
    blank: dict[str, object] = {}
    for variable in MEASUREMENTS.variables:
        if variable.dtype == "str":
            blank[variable.name] = [""] * n_rows
        else:
            fill = -1 if variable.name == "cube_row" else variable.fill_value
            blank[variable.name] = np.full(n_rows, fill, variable.dtype)
    return pd.DataFrame(blank).assign(band=band)


def _centre_snr(
    pixels: NDArray[np.float64],
    good: NDArray[np.bool_],
    radius: NDArray[np.float64],
    sigma: float,
    limits: VisibilityLimits,
) -> float:
    """Aperture flux above the median of the ring around it, so that the wing of a neighbour cancels."""
    low, high = limits.centre_ring_px
    aperture, ring = good & (radius < limits.centre_radius_px), good & (radius >= low) & (radius < high)
    n_aperture, n_ring = int(aperture.sum()), int(ring.sum())
    if not (sigma > 0 and n_aperture and n_ring >= _MIN_RING_PX):
        return math.nan
    excess = float(pixels[aperture].sum()) - n_aperture * float(np.median(pixels[ring]))
    variance = n_aperture + (n_aperture * _MEDIAN_ERROR) ** 2 / n_ring
    return float(excess / (sigma * math.sqrt(variance)))
