"""Stamps that question a trained network: arcs taken away, rings put in, pixels in units of their noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.survey import FWHM_PER_SIGMA, PIXEL_SCALE_ARCSEC
from pipeline.stages.cutouts import SKY_RING_INNER

SMALLEST_CORE_PX = 2.0
# A ring about the centre, the same for every host, that a network once took for a lens: radius and squared width
# in pixels, brightness in nanomaggies.
FIXED_RING_RADIUS_PX, FIXED_RING_WIDTH2_PX2, FIXED_RING_NMGY = 15.0, 20.0, 0.01

_APERTURE_PX = 8.0
_MIN_SKY_PIXELS = 32

Floats = NDArray[np.float64]
Stamps = NDArray[np.float32]


def in_noise_units(stamps: Stamps, invvar: Stamps) -> Stamps:
    """Flux times sqrt(inverse variance), pixel by pixel.

    Args:
        stamps: (sample, band, y, x). [nmgy]
        invvar: the same shape, 0 where there is no data. [nmgy**-2]

    Returns:
        (sample, band, y, x) float32. [1]

    Raises:
        ContractError: an inverse variance is negative or not finite.
    """
    if not (invvar >= 0.0).all() or not np.isfinite(invvar).all():
        raise ContractError("expected inverse variances >= 0, got a negative one or one that is not finite")
    return stamps * np.sqrt(invvar)


def without_arc(
    injected: Stamps, control: Stamps, theta_e_arcsec: Floats, lens_arcsec: tuple[Floats, Floats], core: float
) -> Stamps:
    """Injected stamps whose pixels beyond a core about the lens are those of the pair's control.

    What is left of the arc is its light that the seeing throws on the lens.

    Args:
        injected: (sample, band, y, x). [nmgy]
        control: the same hosts without arc. [nmgy]
        theta_e_arcsec: (sample,) Einstein radii. [arcsec]
        lens_arcsec: (sample,) x and y of the lens about the stamp centre. [arcsec]
        core: radius of the core in theta_E; it has at least 2 px. [1]

    Returns:
        (sample, band, y, x) float32. [nmgy]
    """
    radius = _radius_px(injected.shape[-1], *lens_arcsec)
    core_px = np.maximum(core * theta_e_arcsec / PIXEL_SCALE_ARCSEC, SMALLEST_CORE_PX)
    return np.where((radius < core_px[:, None, None])[:, None], injected, control)


def with_resampled_annulus(
    stamps: Stamps, annulus_px: tuple[float, float], seed: int, rows: NDArray[np.int64]
) -> Stamps:
    """Stamps whose pixels low <= r < high are drawn with replacement from their own pixels at r >= high.

    Args:
        stamps: (sample, band, y, x). [nmgy]
        annulus_px: low, high about pixel size // 2. [pixel]
        seed: run seed.
        rows: (sample,) rows of the cube; with the seed they key the draws.

    Returns:
        (sample, band, y, x) float32; all bands of a stamp take the same places. [nmgy]

    Raises:
        ConfigError: fewer than 32 pixels lie beyond the annulus.
    """
    low, high = annulus_px
    radius = _radius_px(stamps.shape[-1], np.zeros(1), np.zeros(1))[0].ravel()
    inside, sky = np.flatnonzero((radius >= low) & (radius < high)), np.flatnonzero(radius >= high)
    if sky.size < _MIN_SKY_PIXELS:
        raise ConfigError(
            f"gates.network.suppression_annulus_px {annulus_px} leaves {sky.size} pixels of a {stamps.shape[-1]} px "
            f"stamp; expected at least {_MIN_SKY_PIXELS}, or gates.network.suppression: pair"
        )
    resampled = stamps.copy().reshape(*stamps.shape[:2], -1)
    for index, row in enumerate(rows.tolist()):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, row])))
        resampled[index][:, inside] = resampled[index][:, sky[generator.integers(0, sky.size, inside.size)]]
    return resampled.reshape(stamps.shape)


def with_ring_like_arc(
    control: Stamps,
    injected: Stamps,
    theta_e_arcsec: Floats,
    lens_arcsec: tuple[Floats, Floats],
    psfsize_arcsec: Floats,
    band: int,
) -> Stamps:
    """Controls with an even ring in place of their arc: of its radius, colours and peak.

    A thin ring of radius theta_E about the lens behind a Gaussian PSF, exp(-(r - R)**2 / 2 s**2) I0e(r R / s**2). Its
    peak in one band is the brightest pixel that the arc adds, so both have the same peak SNR on even noise; its
    fluxes in the bands relate like those of the arc.

    Args:
        control: (sample, band, y, x). [nmgy]
        injected: the same hosts with arc. [nmgy]
        theta_e_arcsec: (sample,) radii of the rings. [arcsec]
        lens_arcsec: (sample,) x and y of the lens about the stamp centre. [arcsec]
        psfsize_arcsec: (sample, band) FWHM. [arcsec]
        band: index of the band whose peak is kept.

    Returns:
        (sample, band, y, x) float32. [nmgy]

    Raises:
        ContractError: a radius or seeing is not positive, or an arc has no flux in the band.
    """
    if not (theta_e_arcsec > 0.0).all() or not (psfsize_arcsec > 0.0).all():
        raise ContractError("expected positive theta_e_arcsec and psfsize_arcsec of every pair")
    arc = injected.astype(np.float64) - control
    flux, peak = arc.sum(axis=(2, 3)), arc[:, band].max(axis=(1, 2))
    if not (flux[:, band] > 0.0).all() or not (peak > 0.0).all():
        raise ContractError(f"{int((flux[:, band] <= 0.0).sum())} arcs have no flux in the band of the SNR")
    distance = _radius_px(control.shape[-1], *lens_arcsec)[:, None]
    ring_px = (theta_e_arcsec / PIXEL_SCALE_ARCSEC)[:, None, None, None]
    sigma_px = (psfsize_arcsec / PIXEL_SCALE_ARCSEC / FWHM_PER_SIGMA)[:, :, None, None]
    profile = np.exp(-0.5 * ((distance - ring_px) / sigma_px) ** 2) * i0e(distance * ring_px / sigma_px**2)
    profile /= profile.sum(axis=(2, 3), keepdims=True)
    ring_flux = flux * (peak / profile[:, band].max(axis=(1, 2)) / flux[:, band])[:, None]
    return np.asarray(control + ring_flux[:, :, None, None] * profile, dtype=np.float32)


def with_fixed_ring(control: Stamps) -> Stamps:
    """Controls with a ring of 0.01 nmgy at 15 px about the centre, the same in every band and stamp.

    Args:
        control: (sample, band, y, x). [nmgy]
    """
    radius = _radius_px(control.shape[-1], np.zeros(1), np.zeros(1))
    ring = FIXED_RING_NMGY * np.exp(-((radius - FIXED_RING_RADIUS_PX) ** 2) / FIXED_RING_WIDTH2_PX2)
    return np.asarray(control + ring[:, None].astype(np.float32), dtype=np.float32)


def arc_power_inside(injected: Stamps, control: Stamps, radii_px: tuple[float, ...]) -> Floats:
    """Share of an arc's squared light, of all bands together, nearer than each radius to pixel size // 2.

    Args:
        injected: (sample, band, y, x). [nmgy]
        control: the same hosts without arc. [nmgy]
        radii_px: radii. [pixel]

    Returns:
        (sample, radius) float64 in [0, 1].
    """
    power = np.square(injected.astype(np.float64) - control).sum(axis=1)
    radius = _radius_px(injected.shape[-1], np.zeros(1), np.zeros(1))[0]
    total = power.sum(axis=(1, 2))
    return np.stack([power[:, radius < limit].sum(axis=1) / total for limit in radii_px], axis=1)


def aperture_flux_nmgy(stamps: Stamps) -> Floats:
    """Flux within 8 px of pixel size // 2 above the median beyond 24/64 of the size, measured alike on any cutout.

    Args:
        stamps: (sample, y, x). [nmgy]

    Returns:
        (sample,) float64. [nmgy]
    """
    radius = _radius_px(stamps.shape[-1], np.zeros(1), np.zeros(1))[0]
    level = np.median(stamps[:, radius >= SKY_RING_INNER * stamps.shape[-1]].astype(np.float64), axis=1)
    aperture = stamps[:, radius < _APERTURE_PX].astype(np.float64)
    return np.asarray((aperture - level[:, None]).sum(axis=1), dtype=np.float64)


def _radius_px(size_px: int, x_arcsec: Floats, y_arcsec: Floats) -> Floats:
    """(sample, y, x) distance of pixel centres from positions about pixel size // 2. [pixel]"""
    offset = np.arange(size_px, dtype=np.float64) - size_px // 2
    dx = offset[None, None, :] - (x_arcsec / PIXEL_SCALE_ARCSEC)[:, None, None]
    dy = offset[None, :, None] - (y_arcsec / PIXEL_SCALE_ARCSEC)[:, None, None]
    return np.asarray(np.hypot(dx, dy), dtype=np.float64)
