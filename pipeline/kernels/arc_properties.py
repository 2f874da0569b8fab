"""Where the light of a lensed arc lies: radius, tangential extent, share in the core, half-light radius."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError

SECTORS = 24

# A pixel nearer to the lens than this has no direction. [px]
_NO_DIRECTION_PX = 0.5


class ArcShape(NamedTuple):
    """Moments of an arc about its lens; all NaN if the arc has no flux.

    mean_radius_arcsec: sum a r / sum a. [arcsec]
    core_fraction: share of the flux in pixels with r <= core_radius_px.
    tangential_extent_rad: angle that an even ring section of the same concentration covers: with f_k the flux
        of sector k of 24, (2 pi / 24) (sum f_k)**2 / sum f_k**2; several images add up. From 2 pi / 24, the
        resolution, for a point to 2 pi for a ring. [rad]
    """

    mean_radius_arcsec: float
    core_fraction: float
    tangential_extent_rad: float


@njit(cache=True, nogil=True, error_model="numpy")
def arc_shape(
    arc: NDArray[np.float32],
    centre_x_px: float,
    centre_y_px: float,
    core_radius_px: float,
    pixel_scale_arcsec: float,
) -> ArcShape:
    """Moments of an arc about its lens, with or without PSF.

    Args:
        arc: (y, x) float32 noise-free arc. [any flux per pixel]
        centre_x_px, centre_y_px: lens, 0-based pixel-centre coordinates. [px]
        core_radius_px: radius of the core aperture, >= 0; pixels count whole, by their centres. [px]
        pixel_scale_arcsec: > 0. [arcsec/px]

    Returns:
        The `ArcShape`. The light of a pixel goes to the two sectors nearest to its direction, in proportion
        to nearness; within 0.5 px of the lens it is spread over all.

    Raises:
        ContractError: core_radius_px or pixel_scale_arcsec outside its range.
    """
    if not (core_radius_px >= 0.0 and pixel_scale_arcsec > 0.0):
        raise ContractError(
            "arc_shape: expected core_radius_px >= 0 and pixel_scale_arcsec > 0, got",
            core_radius_px,
            pixel_scale_arcsec,
        )
    sectors = np.zeros(SECTORS)
    flux = moment = core = central = 0.0
    for i in range(arc.shape[0]):
        dy = i - centre_y_px
        for j in range(arc.shape[1]):
            value = np.float64(arc[i, j])
            if value == 0.0:
                continue
            dx = j - centre_x_px
            r = math.sqrt(dx * dx + dy * dy)
            flux += value
            moment += value * r
            if r <= core_radius_px:
                core += value
            if r < _NO_DIRECTION_PX:
                central += value
                continue
            # In [0, SECTORS]; sector 0 is centred on -x.
            position = (math.atan2(dy, dx) / (2.0 * math.pi) + 0.5) * SECTORS
            lower = math.floor(position)
            share = position - lower
            sectors[lower % SECTORS] += value * (1.0 - share)
            sectors[(lower + 1) % SECTORS] += value * share
    if not 0.0 < flux < np.inf:
        return ArcShape(np.nan, np.nan, np.nan)
    power = 0.0
    for k in range(SECTORS):
        power += (sectors[k] + central / SECTORS) ** 2
    extent = 2.0 * math.pi / SECTORS * flux * flux / power
    return ArcShape(moment / flux * pixel_scale_arcsec, core / flux, extent)


@njit(cache=True, nogil=True, error_model="numpy")
def lensed_half_light_radius_arcsec(image: NDArray[np.float32], pixel_scale_arcsec: float) -> float:
    """EMR's lensed_hlr_arcsec: radius about the middle of the stamp that holds half of its flux.

    It is the distance of pixel centres from ((width - 1) / 2, (height - 1) / 2) at which the sum over all pixels
    up to that distance first reaches half; not interpolated. For a ring around the middle it is about theta_E.

    Args:
        image: (y, x) float32. [any flux per pixel]
        pixel_scale_arcsec: > 0. [arcsec/px]

    Returns:
        The radius, NaN unless the flux is positive and finite. [arcsec]

    Raises:
        ContractError: pixel_scale_arcsec is not positive.
    """
    if not pixel_scale_arcsec > 0.0:
        raise ContractError("lensed_half_light_radius_arcsec: expected pixel_scale_arcsec > 0, got", pixel_scale_arcsec)
    height, width = image.shape
    # Four times the squared distance is an integer, so a sum per integer replaces a sort.
    rings = np.zeros((height - 1) ** 2 + (width - 1) ** 2 + 1)
    flux = 0.0
    for i in range(height):
        for j in range(width):
            rings[(2 * i - height + 1) ** 2 + (2 * j - width + 1) ** 2] += image[i, j]
            flux += image[i, j]
    if not 0.0 < flux < np.inf:
        return np.nan
    within = 0.0
    for squared in range(rings.size):
        within += rings[squared]
        if within >= 0.5 * flux:
            return 0.5 * math.sqrt(squared) * pixel_scale_arcsec
    return 0.5 * math.sqrt(rings.size - 1) * pixel_scale_arcsec
