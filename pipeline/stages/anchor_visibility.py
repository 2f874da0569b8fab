"""How visible the arc of a real lens is on its cutout, and whether a galaxy is there at all.

The EMR system summed the annulus 4 <= r < 16 px above the background of the pixels outside it, in units of
1.4826 MAD sqrt(N) of those pixels. That sum is mostly lens light; it is kept as `annulus_snr_with_lens`. For
`arc_visibility_snr` the lens light is subtracted first:

* A sum of concentric elliptical Gaussians with positive weights, broadened by the seeing, is fitted around the centroid
  of the core (a multi-Gaussian expansion: Emsellem, Monnet & Bacon 1994, A&A 285, 723). It falls outwards, so it
  cannot follow an arc. Pixels that stick out are left out and the fit is repeated.
* Least squares leave no net flux, so each elliptical ring is then shifted to the level of its faint side: the 10 % and
  30 % quantiles of what the fit left, carried to the middle of a Gaussian. An arc on less than half of a ring does
  not move them.

What remains is the arc and whatever else is not the lens: companions count, and a complete even ring is in part taken
for lens light. The noise is that of the pixels times 1.5, the spread of the sum measured on noise alone, with a share
of the subtracted light added in quadrature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from pipeline.contracts.anchors import MEASUREMENTS, VISIBILITY_TIERS, VisibilityLimits
from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import FWHM_PER_SIGMA, mask_value

MAD_TO_SIGMA = 1.4826
GAUSSIAN_WIDTHS_PX = np.geomspace(0.5, 24.0, 9)
PROFILE_NOISE = 1.5
_MEDIAN_ERROR = math.sqrt(math.pi / 2)
_MAX_ELLIPTICITY = 0.5
_MAX_ROUNDS = 8
_MIN_RING_PX = 8
_MIN_SKY_PX = 50
_RING_WIDTH_PX = 2.0
# Residuals beyond this many sigma do not steer the ellipse.
_CAP_SIGMA = 3.0
_CENTROID_SIGMA_PX = 2.0
_CENTROID_ROUNDS = 12
# Distance of the 30 % quantile of a Gaussian from its middle, in units of that from the 10 % to the 30 % quantile.
_TO_MIDDLE = 0.524401 / (1.281552 - 0.524401)


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
        return Visibility(math.nan, math.nan, n_used, frac, *[math.nan] * 5)
    background = float(np.median(pixels[outer]))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(pixels[outer] - background)))
    centre_snr = _centre_snr(pixels, good, radius, sigma, limits)
    if sigma <= 0 or frac < limits.min_annulus_frac:
        return Visibility(sigma, centre_snr, n_used, frac, *[math.nan] * 5)
    noise = float(sigma * math.sqrt(n_used))
    with_lens = float((pixels[used] - background).sum()) / noise
    # Ellipses reach beyond the annulus on one axis and end within it on the other.
    around = good & (radius < 1.5 * limits.outer_px)
    flux, inside = pixels[around] - background, used[around]
    lens, axis_ratio = lens_light(dx[around], dy[around], flux, sigma, psf_fwhm_px, limits)
    arc_nmgy, lens_nmgy = float((flux - lens)[inside].sum()), float(lens[inside].sum())
    arc_noise = math.hypot(PROFILE_NOISE * noise, limits.light_error * lens_nmgy)
    return Visibility(sigma, centre_snr, n_used, frac, with_lens, axis_ratio, lens_nmgy, arc_nmgy, arc_nmgy / arc_noise)


def lens_light(
    dx: NDArray[np.float64],
    dy: NDArray[np.float64],
    flux: NDArray[np.float64],
    sigma: float,
    psf_fwhm_px: float,
    limits: VisibilityLimits,
) -> tuple[NDArray[np.float64], float]:
    """Light of the lens in pixels around it.

    Args:
        dx, dy: (pixel) positions relative to the lens. [pixel]
        flux: (pixel) above the background. [nmgy]
        sigma: noise of one pixel, positive. [nmgy]
        psf_fwhm_px: seeing. [pixel]
        limits: clip_sigma and model_error are used.

    Returns:
        (pixel) float64 lens light [nmgy] and its axis ratio.
    """
    centre = _centroid(dx, dy, flux)
    dx, dy = dx - centre[0], dy - centre[1]
    seeing = psf_fwhm_px / FWHM_PER_SIGMA
    ellipse, step = np.zeros(2), 0.15
    noise = np.hypot(sigma, limits.model_error * np.maximum(flux, 0.0))
    kept, model = np.ones(flux.size, bool), np.zeros(flux.size)
    for _ in range(_MAX_ROUNDS):
        ellipse, model = _fit_gaussians((dx, dy, flux), kept / noise, seeing, ellipse, step)
        noise, step = np.hypot(sigma, limits.model_error * model), 0.04
        before, kept = kept, flux - model <= limits.clip_sigma * noise
        if np.array_equal(kept, before):
            break
    ellipticity = math.hypot(*ellipse)
    radius = _elliptical_radius(dx, dy, ellipse)
    return model + _ring_levels(flux - model, radius), (1.0 - ellipticity) / (1.0 + ellipticity)


def judge_anchors(measured: pd.DataFrame, limits: VisibilityLimits) -> pd.DataFrame:
    """Set the visibility tier of every measured anchor, and the reason of those that have none.

    Args:
        measured: columns of MEASURED_ANCHORS; `visibility_tier` is replaced, `reject_reason` completed. Grades are
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
    visible = measured["arc_visibility_snr"].to_numpy(np.float64) > limits.threshold
    tier = np.where(visible, *VISIBILITY_TIERS).astype(object)
    tier[reason != "none"] = ""
    return measured.assign(reject_reason=reason, visibility_tier=tier)


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


def _centroid(dx: NDArray[np.float64], dy: NDArray[np.float64], flux: NDArray[np.float64]) -> tuple[float, float]:
    """Gaussian-weighted centroid of the core; the origin where there is none within two pixels. [pixel]"""
    x = y = 0.0
    for _ in range(_CENTROID_ROUNDS):
        weight = flux * np.exp(-0.5 * ((dx - x) ** 2 + (dy - y) ** 2) / _CENTROID_SIGMA_PX**2)
        total = float(weight.sum())
        if total <= 0:
            return 0.0, 0.0
        # The weight halves the offset of a source as wide as itself.
        x += 2.0 * float((weight * (dx - x)).sum()) / total
        y += 2.0 * float((weight * (dy - y)).sum()) / total
        if math.hypot(x, y) > _CENTROID_SIGMA_PX:
            return 0.0, 0.0
    return x, y


_Pixels = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _fit_gaussians(
    pixels: _Pixels, weight: NDArray[np.float64], seeing_px: float, start: NDArray[np.float64], step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ellipticity (e1, e2) and model of the Gaussians that fit weighted pixels best."""
    dx, dy, flux = pixels

    def misfit(shape: NDArray[np.float64]) -> float:
        if math.hypot(*shape) > _MAX_ELLIPTICITY:
            return math.inf
        residual = (flux - _gaussian_model(pixels, weight, seeing_px, shape)) * weight
        return float(np.minimum(residual**2, _CAP_SIGMA**2).sum())

    simplex = start + step * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    options = {"initial_simplex": simplex, "xatol": 3e-3, "fatol": 0.1, "maxiter": 40}
    best = np.asarray(minimize(misfit, start, method="Nelder-Mead", options=options).x, dtype=np.float64)
    return best, _gaussian_model((dx, dy, flux), weight, seeing_px, best)


def _gaussian_model(
    pixels: _Pixels, weight: NDArray[np.float64], seeing_px: float, shape: NDArray[np.float64]
) -> NDArray[np.float64]:
    dx, dy, flux = pixels
    ellipticity, angle = math.hypot(*shape), 0.5 * math.atan2(shape[1], shape[0])
    axis_ratio = (1.0 - ellipticity) / (1.0 + ellipticity)
    cos, sin = math.cos(angle), math.sin(angle)
    along2, across2 = (dx * cos + dy * sin) ** 2, (dy * cos - dx * sin) ** 2
    columns = np.empty((flux.size, GAUSSIAN_WIDTHS_PX.size))
    for column, width in enumerate(GAUSSIAN_WIDTHS_PX.tolist()):
        major, minor = width**2 / axis_ratio + seeing_px**2, width**2 * axis_ratio + seeing_px**2
        columns[:, column] = np.exp(-0.5 * (along2 / major + across2 / minor)) / math.sqrt(major * minor)
    weighted = columns * weight[:, None]
    normal = weighted.T @ weighted
    # Neighbouring widths are nearly degenerate; the ridge is far below the noise of any weight.
    normal[np.diag_indices_from(normal)] += 1e-9 * np.trace(normal)
    lower = np.linalg.cholesky(normal)
    amplitudes, _ = nnls(lower.T, np.linalg.solve(lower, weighted.T @ (flux * weight)))
    model: NDArray[np.float64] = columns @ amplitudes
    return model


def _elliptical_radius(
    dx: NDArray[np.float64], dy: NDArray[np.float64], ellipse: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Radius of the circle that has the area of the ellipse through a pixel. [pixel]"""
    e1, e2 = ellipse.tolist()
    stretched = ((1 - e1) ** 2 + e2**2) * dx**2 + ((1 + e1) ** 2 + e2**2) * dy**2 - 4 * e2 * dx * dy
    radius: NDArray[np.float64] = np.sqrt(np.maximum(stretched, 0.0) / (1.0 - e1 * e1 - e2 * e2))
    return radius


def _ring_levels(left: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Level of the faint side of what the model left, per ring, interpolated to every pixel. [nmgy]"""
    ring = (radius / _RING_WIDTH_PX).astype(np.int64)
    levels = np.zeros(int(ring.max()) + 1)
    for number in range(levels.size):
        values = left[ring == number]
        if values.size >= _MIN_RING_PX:
            low, high = np.quantile(values, [0.1, 0.3])
            levels[number] = high + _TO_MIDDLE * (high - low)
    return np.interp(radius, _RING_WIDTH_PX * (np.arange(levels.size) + 0.5), levels)
