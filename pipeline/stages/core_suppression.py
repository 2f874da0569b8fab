"""Core suppression, an ablation: how much of an arc's light is left at a distance from its lens.

It answers what a classifier gains from arc light on the core of the host. No lens looks like this, so a set that
was made with it is for comparison, never for a claim about the sky.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.injection import CoreSuppression
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.stages.draws import ArcDraw


def core_radius_arcsec(section: CoreSuppression, theta_e_arcsec: float, psfsize_arcsec: float) -> float:
    """The smallest of the configured radii.

    Args:
        section: radii, at least one.
        theta_e_arcsec: Einstein radius of the draw, > 0. [arcsec]
        psfsize_arcsec: seeing of the host, > 0; read for radius_psf_fwhm alone. [arcsec]

    Raises:
        ValueError: the radius follows from the seeing, which is not known.
    """
    units = {
        "radius_px": PIXEL_SCALE_ARCSEC,
        "radius_arcsec": 1.0,
        "radius_theta_e": theta_e_arcsec,
        "radius_psf_fwhm": psfsize_arcsec,
    }
    radii = [getattr(section, name) * unit for name, unit in units.items() if getattr(section, name) is not None]
    if not all(math.isfinite(radius) for radius in radii):
        raise ValueError(
            f"core suppression needs psfsize_arcsec and theta_e_arcsec, got {psfsize_arcsec}, {theta_e_arcsec}"
        )
    return float(min(radii))


def core_weight(section: CoreSuppression, draw: ArcDraw, psfsize_arcsec: float, size_px: int) -> NDArray[np.float32]:
    """Share of the light that is left in every pixel.

    With R the core radius and r the distance from the lens: 0 for r <= (1 - taper) R, 1 for r >= R, and between
    sin(pi/2 x)**2 with x rising from 0 to 1. It knows nothing of the flux, so what it leaves stays linear in it.

    Args:
        section: radii and taper.
        draw: lens centre and Einstein radius.
        psfsize_arcsec: seeing of the host. [arcsec]
        size_px: side of the stamp. [px]

    Returns:
        (y, x) float32 in [0, 1].

    Raises:
        ValueError: as `core_radius_arcsec`.
    """
    radius_px = core_radius_arcsec(section, draw.theta_e_arcsec, psfsize_arcsec) / PIXEL_SCALE_ARCSEC
    offset = np.arange(size_px, dtype=np.float64) - size_px // 2
    x_px, y_px = (offset - centre / PIXEL_SCALE_ARCSEC for centre in (draw.lens_x_arcsec, draw.lens_y_arcsec))
    rise = (np.hypot(y_px[:, None], x_px[None, :]) - (1.0 - section.taper) * radius_px) / (section.taper * radius_px)
    return (np.sin(0.5 * math.pi * np.clip(rise, 0.0, 1.0)) ** 2).astype(np.float32)
