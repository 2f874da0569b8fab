"""What lies in a brick of the synthetic survey, apart from defects: conditions, stars and galaxies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.survey import (
    BANDS,
    BRICK_SIZE_PX,
    FWHM_PER_SIGMA,
    PIXEL_SCALE_ARCSEC,
    ZERO_POINT_MAG,
    flux_nmgy_from_mag,
)

FloatArray = NDArray[np.float64]
MOFFAT_BETA = 3.5
# Per band of BANDS: typical depth minus r depth [mag], psfsize over r psfsize, sky and full well [nmgy/pixel].
_DEPTH_OFFSET_MAG = (0.6, 0.0, -0.4, -0.9)
_PSFSIZE_RATIO = (1.07, 1.0, 0.96, 0.94)
_RA_RANGES_DEG = ((0.0, 80.0), (140.0, 240.0), (308.0, 360.0))
SATURATION_NMGY = (8.0, 10.0, 12.0, 14.0)
_DEC_RANGE_DEG = (-29.8, 9.8)
_FIELD_GALAXIES_PER_BRICK = 5000
_MIN_BRICK_SIZE_PX = 300
CONDITIONS, DEFECTS, STARS, FIELD, HOSTS, NOISE = range(6)


@dataclass(frozen=True)
class SyntheticSky:
    """A survey to invent.

    Attributes:
        seed: from 0; another seed is another sky.
        brick_size_px: side of a brick, at least 300; DR10 has 3600.
        hosts_per_brick: early-type galaxies per brick that the parent catalogue lists.
        stars_per_brick: faint stars per area of a 3600-px brick; bright ones come on top.
        bands: distinct members of survey.BANDS, in the order of the `band` axis.

    Raises:
        ConfigError: a value lies outside these ranges.
    """

    seed: int
    brick_size_px: int = BRICK_SIZE_PX
    hosts_per_brick: int = 40
    stars_per_brick: int = 900
    bands: tuple[str, ...] = ("g", "r", "z")

    def __post_init__(self) -> None:
        if min(self.seed, self.hosts_per_brick, self.stars_per_brick) < 0:
            raise ConfigError(f"synthetic sky: seed, hosts_per_brick and stars_per_brick must be >= 0, got {self}")
        if self.brick_size_px < _MIN_BRICK_SIZE_PX:
            raise ConfigError(f"synthetic sky: brick_size_px must be >= {_MIN_BRICK_SIZE_PX}, got {self.brick_size_px}")
        if not self.bands or len(set(self.bands)) < len(self.bands) or not set(self.bands) <= set(BANDS):
            raise ConfigError(f"synthetic sky: bands must be distinct members of {BANDS}, got {self.bands}")


@dataclass(frozen=True)
class Conditions:
    """Observing conditions of a brick; arrays are per band of BANDS, `tilt` (band, 3) is relative."""

    depth_mag: FloatArray
    seeing_arcsec: FloatArray
    tilt: FloatArray
    ebv_mag: float
    size_px: int

    @property
    def invvar(self) -> FloatArray:
        """Sky invvar that gives `depth_mag`: N_eff * 25 / flux(depth)**2. [nmgy**-2]"""
        sigma_px = self.seeing_arcsec / FWHM_PER_SIGMA / PIXEL_SCALE_ARCSEC
        return 4.0 * np.pi * sigma_px**2 * 25.0 / flux_nmgy_from_mag(self.depth_mag) ** 2

    def psfsize_arcsec(self, channel: int, x: FloatArray, y: FloatArray) -> FloatArray:
        """Seeing at pixels (x, y), whose mean over the brick is `seeing_arcsec`."""
        u, v = (2.0 * (axis + 0.5) / self.size_px - 1.0 for axis in (x, y))
        a, b, c = self.tilt[channel]
        seeing: FloatArray = self.seeing_arcsec[channel] * (1.0 + a * u + b * v + c * u * v)
        return seeing

    def moffat_alpha_px(self, channel: int, x: FloatArray, y: FloatArray) -> FloatArray:
        """Moffat radius whose N_eff, pi alpha**2 (2 beta - 1) / (beta - 1)**2, is that of psfsize."""
        sigma_px = self.psfsize_arcsec(channel, x, y) / FWHM_PER_SIGMA / PIXEL_SCALE_ARCSEC
        return 2.0 * sigma_px * (MOFFAT_BETA - 1.0) / math.sqrt(2.0 * MOFFAT_BETA - 1.0)


@dataclass(frozen=True)
class Sources:
    """Stars (re_px = 0) and Sersic galaxies: x, y [pixel], flux_nmgy (4, n), shape as (n,) arrays."""

    x: FloatArray
    y: FloatArray
    flux_nmgy: FloatArray
    re_px: FloatArray
    sersic_n: FloatArray
    q: FloatArray
    phi_rad: FloatArray

    @staticmethod
    def join(parts: list[Sources]) -> Sources:
        """All sources of several lists."""
        return Sources(*(np.concatenate(columns, axis=-1) for columns in zip(*map(_columns, parts), strict=True)))

    def take(self, members: NDArray[np.int64]) -> Sources:
        """The sources with these positions in the list."""
        return Sources(*(column[..., members] for column in _columns(self)))


def brick_centre(sky: SyntheticSky, index: int) -> tuple[str, float, float]:
    """Name, ra_deg and dec_deg of brick `index`, a point of the R2 sequence over DR10 south at |b| > 18 deg.

    Successive centres lie many degrees apart; names are distinct for at least 5000 indices. |dec| >= 0.02 deg.
    """
    start = np.random.default_rng(sky.seed).random(2)
    plastic = 1.324717957244746
    u, v = (float((start[axis] + (index + 1) / plastic ** (axis + 1)) % 1.0) for axis in (0, 1))
    offset = u * sum(high - low for low, high in _RA_RANGES_DEG)
    for low, high in _RA_RANGES_DEG:
        if offset < high - low:
            break
        offset -= high - low
    ra_deg = low + offset
    sine = [math.sin(math.radians(dec)) for dec in _DEC_RANGE_DEG]
    dec_deg = math.degrees(math.asin(sine[0] + v * (sine[1] - sine[0])))
    dec_deg = math.copysign(max(abs(dec_deg), 0.02), dec_deg)
    return f"{int(ra_deg * 10):04d}{'p' if dec_deg > 0 else 'm'}{int(abs(dec_deg) * 10):03d}", ra_deg, dec_deg


def brick_rng(sky: SyntheticSky, index: int, *purpose: int) -> np.random.Generator:
    """Generator of one purpose in one brick."""
    return np.random.default_rng(np.random.SeedSequence(sky.seed, spawn_key=(index, *purpose)))


def relative_area(sky: SyntheticSky) -> float:
    """Area of a brick over that of a 3600-px brick."""
    return (sky.brick_size_px / BRICK_SIZE_PX) ** 2


def defect_corners(sky: SyntheticSky, index: int) -> FloatArray:
    """Where the first star, galaxy, cluster and gap of a brick lie, (4, 2): each near another corner. [pixel]"""
    rng = brick_rng(sky, index, DEFECTS)
    sides = rng.permutation(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    return sky.brick_size_px * np.abs(sides - rng.uniform(0.09, 0.19, (4, 2)))


def make_conditions(sky: SyntheticSky, index: int) -> Conditions:
    """Depth, seeing and extinction of a brick."""
    rng = brick_rng(sky, index, CONDITIONS)
    depth = float(np.clip(rng.normal(24.0, 0.3), 23.3, 25.0)) + np.array(_DEPTH_OFFSET_MAG)
    seeing = np.clip(rng.normal(1.32, 0.13) * np.array(_PSFSIZE_RATIO) + rng.normal(0.0, 0.04, 4), 1.05, 1.62)
    tilt = np.clip(rng.normal(0.0, 0.012, (4, 3)), -0.02, 0.02)
    ebv = float(np.clip(rng.lognormal(math.log(0.035), 0.6), 0.005, 0.12))
    depth += rng.normal(0.0, 0.08, 4) * (np.array(BANDS) != "r")
    return Conditions(depth, seeing, tilt, ebv, sky.brick_size_px)


def make_stars(sky: SyntheticSky, index: int) -> Sources:
    """The G < 13 star of the first corner, other G < 13 stars, G < 16 stars, faint stars, a globular cluster."""
    rng = brick_rng(sky, index, STARS)
    corners, size = defect_corners(sky, index), sky.brick_size_px
    bright, medium = round(3 * relative_area(sky)), 1 + round(25 * relative_area(sky))
    faint, members = round(sky.stars_per_brick * relative_area(sky)), 60
    mags = [
        np.array([12.7]),
        _power_law_mag(rng, 0.2, 11.5, 13.0, bright),
        _power_law_mag(rng, 0.2, 14.0, 15.9, medium),
    ]
    mags += [_power_law_mag(rng, 0.12, 16.0, 23.0, faint), rng.uniform(19.5, 23.5, members)]
    r_mag = np.concatenate(mags)
    x, y = rng.uniform(-0.5, size - 0.5, (2, r_mag.size))
    x[0], y[0] = corners[0]
    radius, angle = rng.rayleigh(7.0, members), rng.uniform(0.0, 2.0 * np.pi, members)
    x[-members:] = corners[2, 0] + radius * np.cos(angle)
    y[-members:] = corners[2, 1] + radius * np.sin(angle)
    g_r = rng.uniform(0.35, 1.45, r_mag.size)
    none = np.zeros(r_mag.size)
    return Sources(x, y, source_fluxes(r_mag, g_r, 0.6 * g_r**1.5), none, none, none, none)


def make_large_galaxies(sky: SyntheticSky, index: int) -> Sources:
    """Galaxies with a GALAXY mask; the first lies in its defect corner."""
    rng = brick_rng(sky, index, DEFECTS, 1)
    count = 1 + round(2 * relative_area(sky))
    x, y = rng.uniform(0.0, sky.brick_size_px, (2, count))
    x[0], y[0] = defect_corners(sky, index)[1]
    flux = source_fluxes(rng.uniform(15.2, 16.2, count), np.full(count, 0.75), np.full(count, 0.6))
    re, q, phi = rng.uniform(10.0, 14.0, count), rng.uniform(0.4, 0.8, count), rng.uniform(0.0, np.pi, count)
    return Sources(x, y, flux, re, np.full(count, 1.0), q, phi)


def make_field_galaxies(sky: SyntheticSky, index: int) -> Sources:
    """Faint exponential galaxies anywhere in the brick."""
    rng = brick_rng(sky, index, FIELD)
    count = round(_FIELD_GALAXIES_PER_BRICK * relative_area(sky))
    x, y = rng.uniform(-0.5, sky.brick_size_px - 0.5, (2, count))
    r_mag = _power_law_mag(rng, 0.35, 18.5, 24.5, count)
    flux = source_fluxes(r_mag, np.clip(rng.normal(0.7, 0.35, count), 0.0, 1.7), rng.uniform(0.1, 1.0, count))
    re = np.clip(0.5 * 10.0 ** (-0.1 * (r_mag - 22.5)) * rng.lognormal(0.0, 0.3, count), 0.15, 2.0)
    q, phi = rng.uniform(0.25, 1.0, count), rng.uniform(0.0, np.pi, count)
    return Sources(x, y, flux, re / PIXEL_SCALE_ARCSEC, np.ones(count), q, phi)


def source_fluxes(r_mag: FloatArray, g_r: FloatArray, r_z: FloatArray) -> FloatArray:
    """Fluxes (4, n) in BANDS; the r - i colour is 0.45 of r - z. [nmgy]"""
    return flux_nmgy_from_mag(np.stack([r_mag + g_r, r_mag, r_mag - 0.45 * r_z, r_mag - r_z]))


def _power_law_mag(rng: np.random.Generator, slope: float, low: float, high: float, count: int) -> FloatArray:
    """Magnitudes whose counts grow as 10**(slope * mag)."""
    edges = 10.0 ** (slope * np.array([low, high]))
    return np.log10(rng.uniform(edges[0], edges[1], count)) / slope


def star_mag_radius(flux_nmgy: float) -> tuple[float, float]:
    """Magnitude of a star and the radius inside which the survey masks it. [mag, pixel]"""
    mag = ZERO_POINT_MAG - 2.5 * math.log10(flux_nmgy)
    return mag, 1630.0 * 1.396**-mag / PIXEL_SCALE_ARCSEC


def _columns(sources: Sources) -> tuple[FloatArray, ...]:
    return tuple(vars(sources).values())
