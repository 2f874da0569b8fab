"""Light around a galaxy that is shaped like an arc, and how significant it is.

The residual without the galaxy is smoothed with a Gaussian as wide as the seeing and divided by its noise. Connected
regions above a limit are arcs if they peak and are centred in the annulus, end within the measured circle, are longer
along the circle about the galaxy than across it, and no wider across it than a smoothed point source. A compact
neighbour is as long as it is wide, a large one too wide. The sum of the arcs' light over its noise is the significance.
The same search on the negative residual is subtracted: where the galaxy's model is wrong, both signs occur.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from pipeline.contracts.anchors import VisibilityLimits
from pipeline.contracts.survey import FWHM_PER_SIGMA, MAD_TO_SIGMA

# Correlated pixels raise the noise of a smoothed coadd by up to this over that of white noise; more is structure.
_LARGEST_CORRELATION = 1.6
_FLUX_NOISE = 1.5
_MIN_COVERAGE = 0.05
_PIXEL_VARIANCE_PX2 = 1.0 / 12.0
_EDGE_PX = 1.0


def arc_significance(
    image: NDArray[np.float64],
    residual: NDArray[np.float64],
    lens: NDArray[np.float64],
    measured: NDArray[np.bool_],
    centre_px: tuple[float, float],
    sigma: float,
    psf_fwhm_px: float,
    limits: VisibilityLimits,
) -> float:
    """Significance of the light that is shaped like an arc; 0 without such light, negative for a wrong lens model.

    Args:
        image: (y, x) above the background, 0 where there is no good pixel. [nmgy]
        residual: (y, x) image without the lens; read where `measured`. [nmgy]
        lens: (y, x) light of the lens. [nmgy]
        measured: (y, x) good pixels near the lens that the model was fitted to.
        centre_px: (x, y) of the lens, 0-based. [pixel]
        sigma: noise of one pixel, positive. [nmgy]
        psf_fwhm_px: seeing, positive. [pixel]
        limits: the annulus, model_error, region_snr_min, peak_snr_min and elongation_min are used.
    """
    width = psf_fwhm_px / FWHM_PER_SIGMA
    grid = np.indices(image.shape, dtype=np.float64)
    dx, dy = grid[1] - centre_px[0], grid[0] - centre_px[1]
    radius = np.hypot(dx, dy)
    coverage = gaussian_filter(measured.astype(np.float64), width)
    smooth = gaussian_filter(np.where(measured, residual, 0.0), width) / np.maximum(coverage, _MIN_COVERAGE)
    sky_noise = _smoothed_noise(gaussian_filter(image, width)[radius >= limits.outer_px], sigma, width)
    noise = np.hypot(sky_noise, limits.model_error * gaussian_filter(np.maximum(lens, 0.0), width))
    found = []
    for sign in (1.0, -1.0):
        snr = np.where(measured, sign * smooth / noise, -np.inf)
        arcs = _arcs(snr, sign * smooth, radius, np.arctan2(dy, dx), width, limits, float(radius[measured].max()))
        light = float(sign * residual[arcs].sum())
        variance = arcs.sum() * (_FLUX_NOISE * sigma) ** 2 + (limits.model_error * float(lens[arcs].sum())) ** 2
        found.append(light / math.sqrt(variance) if variance > 0.0 else 0.0)
    return found[0] - found[1]


def _smoothed_noise(values: NDArray[np.float64], sigma: float, width_px: float) -> float:
    """Noise of the smoothed sky, between that of white noise and that of the most correlated coadd. [nmgy]"""
    white = sigma / (math.sqrt(4.0 * math.pi) * width_px)
    spread = MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
    return min(max(spread, white), _LARGEST_CORRELATION * white)


def _arcs(
    snr: NDArray[np.float64],
    smooth: NDArray[np.float64],
    radius: NDArray[np.float64],
    angle: NDArray[np.float64],
    width_px: float,
    limits: VisibilityLimits,
    reach_px: float,
) -> NDArray[np.bool_]:
    """(y, x) pixels of the annulus in regions that are shaped like arcs."""
    annulus = (radius >= limits.inner_px) & (radius < limits.outer_px)
    regions, n_regions = label(snr > limits.region_snr_min, structure=np.ones((3, 3)))
    chosen = np.zeros(snr.shape, bool)
    for number in range(1, n_regions + 1):
        region = regions == number
        peak = np.unravel_index(int(np.argmax(np.where(region, snr, -np.inf))), snr.shape)
        if snr[peak] <= limits.peak_snr_min or not annulus[peak]:
            continue
        weight = np.maximum(smooth[region], 0.0)
        weight = weight / weight.sum()
        distance = float(weight @ radius[region])
        middle = np.angle(weight @ np.exp(1j * angle[region]))
        along = distance * ((angle[region] - middle + np.pi) % (2.0 * np.pi) - np.pi)
        along_var = float(weight @ along**2 - (weight @ along) ** 2)
        across_var = float(weight @ (radius[region] - distance) ** 2)
        elongation = math.sqrt((along_var + _PIXEL_VARIANCE_PX2) / (across_var + _PIXEL_VARIANCE_PX2))
        inside = distance < limits.outer_px and float(radius[region].max()) <= reach_px - _EDGE_PX
        if inside and elongation >= limits.elongation_min and across_var <= 2.0 * width_px**2:
            chosen |= region & annulus
    return chosen
