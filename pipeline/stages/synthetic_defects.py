"""Defects of a synthetic brick (masks, NaN, gaps) and the hosts, which are placed with regard to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.survey import BAD_PIXEL_MASK, BANDS, BRICK_SIZE_PX, PIXEL_SCALE_ARCSEC, mask_value
from pipeline.stages.synthetic_sources import (
    DEFECTS,
    HOSTS,
    MOFFAT_BETA,
    SATURATION_NMGY,
    FloatArray,
    Sources,
    SyntheticSky,
    brick_rng,
    defect_corners,
    make_large_galaxies,
    make_stars,
    relative_area,
    source_fluxes,
    star_mag_radius,
)

STAMP_SIZE_PX = 64
PRIMARY_MARGIN_PX = 82
_PLACEMENT_TRIES = 5000
# Cumulative shares of hosts that are placed on a defect; the rest have a clean stamp.
_PLACES = (("edge", 0.04), ("nan", 0.065), ("gap", 0.09), ("masked", 0.12))
# Defects share one int32 flag image: MASKBITS, then per band of BANDS a NaN and a no-exposure bit.
NAN_BIT = 20
GAP_BIT = 24
_ALL_NAN = 0b1111 << NAN_BIT
_ALL_GAP = 0b1111 << GAP_BIT
_ALL_ALLMASK = mask_value(*(f"ALLMASK_{band.upper()}" for band in BANDS))


@dataclass(frozen=True)
class DefectPatch:
    """An ellipse, or a box, that sets bits of the flag image. [pixel]"""

    x: float
    y: float
    half_x: float
    half_y: float
    bits: int
    phi_rad: float = 0.0
    box: bool = False


def make_hosts(sky: SyntheticSky, index: int) -> Sources:
    """Early-type galaxies along one red sequence: fainter ones are redder and smaller."""
    rng = brick_rng(sky, index, HOSTS)
    count = sky.hosts_per_brick
    x, y = _host_positions(sky, index, rng).T
    r_mag = 17.5 + 3.0 * np.sqrt(rng.random(count))
    age = np.clip(rng.normal(0.2 + 0.2 * (r_mag - 17.5), 0.15), 0.0, 1.0)
    flux = source_fluxes(r_mag, 1.0 + 0.8 * age, 0.5 + 0.4 * age)
    re = np.clip(2.2 * 10.0 ** (-0.12 * (r_mag - 17.5)) * rng.lognormal(0.0, 0.15, count), 0.8, 2.5)
    q, phi = rng.uniform(0.6, 1.0, count), rng.uniform(0.0, np.pi, count)
    return Sources(x, y, flux, re / PIXEL_SCALE_ARCSEC, np.clip(rng.normal(4.0, 0.5, count), 3.0, 5.5), q, phi)


def make_defects(sky: SyntheticSky, index: int) -> list[DefectPatch]:
    """Every defect of a brick: masks of its stars and galaxies, NaN clumps, strips without exposure."""
    rng = brick_rng(sky, index, DEFECTS, 2)
    corners, size = defect_corners(sky, index), sky.brick_size_px
    patches = _star_patches(make_stars(sky, index))
    galaxies = make_large_galaxies(sky, index)
    for x, y, re, q, phi in zip(galaxies.x, galaxies.y, galaxies.re_px, galaxies.q, galaxies.phi_rad, strict=True):
        patches.append(DefectPatch(x, y, 3.5 * re, 3.5 * re * q, mask_value("GALAXY"), phi))
        patches.append(DefectPatch(x, y, 4.2 * re, 4.2 * re * q + 6.0, mask_value("SUB_BLOB"), phi))
        patches.append(DefectPatch(x + 2.2 * re, y, 24.0, 17.0, mask_value("BAILOUT"), phi + 0.6))
    patches.append(DefectPatch(corners[2, 0], corners[2, 1], 26.0, 26.0, mask_value("CLUSTER")))
    for clump in range(2 + round(4 * relative_area(sky))):
        x, y = corners[2] + rng.normal(0.0, 14.0, 2) if clump < 2 else rng.uniform(0.0, size, 2)
        bits = _ALL_NAN if clump % 2 == 0 else 1 << (NAN_BIT + BANDS.index("r"))
        patches.append(DefectPatch(x, y, rng.uniform(2.0, 5.0), rng.uniform(1.5, 3.0), bits, rng.uniform(0.0, np.pi)))
    half_width, half_length = 0.012 * size, 0.09 * size
    for channel in range(len(BANDS)):
        x, y = corners[3] + [rng.uniform(-0.6, 0.6) * half_width, 0.0]
        edge_y = half_length - 0.5 if y < size / 2 else size - 0.5 - half_length
        patches.append(DefectPatch(x, edge_y, half_width, half_length, 1 << (GAP_BIT + channel), box=True))
    return patches


def rasterise_defects(
    patches: list[DefectPatch], corner: tuple[int, int], shape: tuple[int, int], size: int
) -> NDArray[np.int32]:
    """Flags (y, x) of a window of the brick whose first pixel is `corner`."""
    flags = np.zeros(shape, dtype=np.int32)
    frame = max(4, round(PRIMARY_MARGIN_PX * size / BRICK_SIZE_PX))
    for axis in (0, 1):
        pixel = np.arange(shape[axis]) + corner[axis]
        outside = np.where((pixel < frame) | (pixel >= size - frame), mask_value("NPRIMARY"), 0).astype(np.int32)
        flags |= outside[:, None] if axis == 0 else outside[None, :]
    for patch in patches:
        reach = max(patch.half_x, patch.half_y) * (1.5 if patch.box else 1.0)
        centre = (patch.y - corner[0], patch.x - corner[1])
        low = [max(0, math.floor(middle - reach)) for middle in centre]
        high = [min(length, math.ceil(middle + reach) + 1) for middle, length in zip(centre, shape, strict=True)]
        if low[0] >= high[0] or low[1] >= high[1]:
            continue
        dy = np.arange(low[0], high[0])[:, None] - centre[0]
        dx = np.arange(low[1], high[1])[None, :] - centre[1]
        u = (np.cos(patch.phi_rad) * dx + np.sin(patch.phi_rad) * dy) / patch.half_x
        v = (np.cos(patch.phi_rad) * dy - np.sin(patch.phi_rad) * dx) / patch.half_y
        inside = np.maximum(np.abs(u), np.abs(v)) <= 1.0 if patch.box else u**2 + v**2 <= 1.0
        flags[low[0] : high[0], low[1] : high[1]][inside] |= patch.bits
    return flags


def _host_positions(sky: SyntheticSky, index: int, rng: np.random.Generator) -> FloatArray:
    """Positions (host, 2), apart from each other, 0.12 of them on a defect. [pixel]

    Raises:
        ConfigError: the brick has no room for so many hosts.
    """
    patches, size = make_defects(sky, index), sky.brick_size_px
    targets = {"nan": _ALL_NAN, "gap": _ALL_GAP, "masked": mask_value("BAILOUT")}
    near = {place: [patch for patch in patches if patch.bits & bits] for place, bits in targets.items()}
    avoid, stars = make_large_galaxies(sky, index), make_stars(sky, index)
    bright = stars.take(np.flatnonzero(stars.flux_nmgy[1] > 5.0))
    taken = [(x, y, 40.0) for x, y in zip(avoid.x, avoid.y, strict=True)]
    taken += [(x, y, 12.0) for x, y in zip(bright.x, bright.y, strict=True)]
    positions = np.empty((sky.hosts_per_brick, 2))
    for host in range(sky.hosts_per_brick):
        turn = ((index * sky.hosts_per_brick + host) * 0.6180339887498949 + 0.5) % 1.0
        place = next((name for name, share in _PLACES if turn < share), "clean")
        for _ in range(_PLACEMENT_TRIES):
            x, y = rng.uniform(STAMP_SIZE_PX // 2, size - 1 - STAMP_SIZE_PX // 2, 2)
            if place == "edge":
                inset = rng.uniform(5.0, STAMP_SIZE_PX // 2 - 4.0)
                x, y = ((inset, y), (size - 1 - inset, y), (x, inset), (x, size - 1 - inset))[rng.integers(4)]
            elif place in near:
                patch = near[place][rng.integers(len(near[place]))]
                x, y = rng.normal([patch.x, patch.y], [0.4 * patch.half_x, 0.4 * patch.half_y])
            free = all((x - a) ** 2 + (y - b) ** 2 > apart**2 for a, b, apart in taken)
            inside = 4 < min(x, y) <= max(x, y) < size - 5
            if inside and (place in near or free) and (place != "clean" or _is_clean(patches, x, y, size)):
                break
        else:
            raise ConfigError(f"no room for hosts_per_brick={sky.hosts_per_brick} in a brick of {size} px")
        positions[host] = x, y
        taken.append((x, y, 16.0))
    return positions


def _is_clean(patches: list[DefectPatch], x: float, y: float, size: int) -> bool:
    """True where a stamp lies inside the brick, has data everywhere and few bad pixels."""
    corner = (round(y) - STAMP_SIZE_PX // 2, round(x) - STAMP_SIZE_PX // 2)
    if min(corner) < 0 or max(corner) + STAMP_SIZE_PX > size:
        return False
    flags = rasterise_defects(patches, corner, (STAMP_SIZE_PX, STAMP_SIZE_PX), size)
    has_data = not np.any(flags & (_ALL_NAN | _ALL_GAP | _ALL_ALLMASK))
    return has_data and float(np.mean(flags & BAD_PIXEL_MASK != 0)) < 0.17


def _star_patches(stars: Sources) -> list[DefectPatch]:
    """MEDIUM inside 1630 * 1.396**-G arcsec, BRIGHT inside half of it; saturated cores, bleed trails along x."""
    patches = []
    for x, y, flux in zip(stars.x, stars.y, stars.flux_nmgy.T, strict=True):
        mag, radius = star_mag_radius(flux[1])
        if mag < 16.0:
            patches.append(DefectPatch(x, y, radius, radius, mask_value("MEDIUM")))
            patches.append(DefectPatch(x, y, 0.55 * radius, 0.55 * radius, mask_value("WISEM1")))
            patches.append(DefectPatch(x, y, 0.35 * radius, 0.35 * radius, mask_value("WISEM2")))
        if mag < 13.0:
            patches.append(DefectPatch(x, y, radius / 2, radius / 2, mask_value("BRIGHT")))
            patches += [DefectPatch(x, y, radius, 2.0, mask_value("WISEM1"), phi) for phi in (0.7, 0.7 + np.pi / 2)]
        for channel, band in enumerate(BANDS):
            excess = 0.05 * flux[channel] / SATURATION_NMGY[channel]
            if excess > 1.0:
                core = 4.0 * math.sqrt(excess ** (1.0 / MOFFAT_BETA) - 1.0) + 1.0
                saturated, allmask = mask_value(f"SATUR_{band.upper()}"), mask_value(f"ALLMASK_{band.upper()}")
                patches.append(DefectPatch(x, y, core + 1.5, core + 1.5, saturated))
                patches.append(DefectPatch(x, y, core, core, allmask))
                if excess > 12.0:
                    patches.append(DefectPatch(x, y, 5.0 * core, 1.3, saturated | allmask, box=True))
    return patches
