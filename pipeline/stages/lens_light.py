"""The light of a galaxy in a stamp, fitted so that it cannot follow an arc.

A sum of concentric elliptical Gaussians with positive weights, broadened by the seeing, is fitted around the centroid
of the core (a multi-Gaussian expansion: Emsellem, Monnet & Bacon 1994, A&A 285, 723). It falls outwards. Pixels that
stick out are left out and the fit is repeated. Least squares leave no net flux, so each elliptical ring is then shifted
to the level of its faint side: the 10 % and 30 % quantiles of what the fit left, carried to the middle of a Gaussian.
An arc on less than half of a ring does not move them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from pipeline.contracts.anchors import VisibilityLimits
from pipeline.contracts.survey import FWHM_PER_SIGMA

GAUSSIAN_WIDTHS_PX = np.geomspace(0.5, 24.0, 9)
_MAX_ELLIPTICITY = 0.5
_MAX_ROUNDS = 8
_MIN_RING_PX = 8
_RING_WIDTH_PX = 2.0
# Residuals beyond this many sigma do not steer the ellipse.
_CAP_SIGMA = 3.0
_CENTROID_SIGMA_PX = 2.0
_CENTROID_ROUNDS = 12
# Distance of the 30 % quantile of a Gaussian from its middle, in units of that from the 10 % to the 30 % quantile.
_TO_MIDDLE = 0.524401 / (1.281552 - 0.524401)


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
    centre = core_centroid(dx, dy, flux)
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


def core_centroid(dx: NDArray[np.float64], dy: NDArray[np.float64], flux: NDArray[np.float64]) -> tuple[float, float]:
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
