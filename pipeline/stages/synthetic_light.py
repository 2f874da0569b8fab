"""Light of sources through the PSF, and the noise of a coadd, as pixels."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import gammaincinv

from pipeline.stages.synthetic_sources import MOFFAT_BETA, Conditions, FloatArray, Sources, star_mag_radius

Pixels = NDArray[np.float32]
# Wings of a star of flux 1 at 1 arcsec, nmgy/arcsec**2 (DR10 description); as a pure r**-2 law also at 1 px per pixel.
_HALO_NMGY = 0.00033
_HALF_SIZES_PX = (16, 24, 32, 48, 64, 96, 128, 160)
_CHUNK_PX = 1 << 19
_EXPOSURES = 3


def paint_sources(image: Pixels, sources: Sources, conditions: Conditions, channels: list[int]) -> None:
    """Add every source to image (band, y, x), as stamps cut at the brick's edge. [nmgy/pixel]"""
    total = sources.flux_nmgy.max(axis=0)
    reach = np.where(sources.re_px > 0, _truncation(sources.sersic_n) * sources.re_px + 10.0, 8.0 * total**0.2)
    classes = np.minimum(np.searchsorted(_HALF_SIZES_PX, reach), len(_HALF_SIZES_PX) - 1)
    size = image.shape[-1]
    for number, half in enumerate(_HALF_SIZES_PX):
        for is_star in (True, False):
            members = np.flatnonzero((classes == number) & ((sources.re_px == 0) == is_star))
            step = max(1, _CHUNK_PX // (2 * half) ** 2)
            for start in range(0, members.size, step):
                group = sources.take(members[start : start + step])
                rows, columns = (np.rint(axis).astype(int) - half for axis in (group.y, group.x))
                for stamp, y0, x0 in zip(_stamps(group, half, conditions, channels), rows, columns, strict=True):
                    y1, x1 = min(y0 + 2 * half, size), min(x0 + 2 * half, size)
                    ya, xa = max(y0, 0), max(x0, 0)
                    image[:, ya:y1, xa:x1] += stamp[:, ya - y0 : y1 - y0, xa - x0 : x1 - x0]


def paint_halos(image: Pixels, stars: Sources, channels: list[int]) -> None:
    """Add the r**-2 wings of the DECam PSF to stars of G < 16; they end at 1.2 radii of MEDIUM. [nmgy/pixel]"""
    axis = np.arange(image.shape[-1], dtype=np.float32)
    for x, y, flux in zip(stars.x, stars.y, stars.flux_nmgy.T, strict=True):
        mag, radius = star_mag_radius(flux[1])
        if mag < 16.0:
            rows, columns = (np.flatnonzero(np.abs(axis - centre) < 1.2 * radius) for centre in (y, x))
            square = (axis[rows, None] - y) ** 2 + (axis[None, columns] - x) ** 2
            halo = _HALO_NMGY / np.maximum(square, 16.0) * np.clip(4.0 * (1.2 - np.sqrt(square) / radius), 0.0, 1.0)
            image[:, rows[:, None], columns[None, :]] += (flux[channels][:, None, None] * halo).astype(np.float32)


def coadded_noise(rng: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
    """Noise (y, x) in units of 1 / sqrt(invvar), and invvar (y, x) in units of its value with every exposure.

    Every exposure is white noise on a slightly finer pixel grid, resampled by Lanczos-3, so that the sub-pixel
    phase drifts across the brick, and lacks one strip, no two of which overlap along an axis.
    """
    total = np.zeros((size, size), dtype=np.float32)
    weight = np.zeros((size, size), dtype=np.float32)
    shares = rng.dirichlet(np.full(_EXPOSURES, 12.0))
    strips = rng.permutation(_EXPOSURES)
    for exposure in range(_EXPOSURES):
        native = rng.standard_normal((size + 16, size + 16), dtype=np.float32)
        rows, columns = _lanczos_matrix(rng, size), _lanczos_matrix(rng, size)
        resampled = (columns @ (rows @ native).T).T
        share = np.full(size, shares[exposure], dtype=np.float32)
        middle = (strips[exposure] + rng.uniform(0.15, 0.85)) / _EXPOSURES * size
        share[np.abs(np.arange(size) - middle) < 0.02 * size] = 0.0
        plane = share[None, :] if rng.random() < 0.5 else share[:, None]
        weight += plane
        total += plane * resampled / np.float32(math.sqrt(shares[exposure]))
    total /= np.sqrt(weight)
    return total, weight


def _stamps(group: Sources, half: int, conditions: Conditions, channels: list[int]) -> Pixels:
    """(source, band, y, x) images of only stars or only galaxies after the PSF. [nmgy/pixel]"""
    is_star = bool(group.re_px[0] == 0)
    grid = np.arange(-half, half, dtype=np.float32)
    dx, dy = ((axis - np.rint(axis)).astype(np.float32) * is_star for axis in (group.x, group.y))
    square = (grid - dx[:, None])[:, None, :] ** 2 + (grid - dy[:, None])[:, :, None] ** 2
    radii = np.stack([conditions.moffat_alpha_px(channel, group.x, group.y) for channel in channels], axis=1)
    alpha = radii.astype(np.float32)[:, :, None, None]
    psf: Pixels = np.exp(-np.float32(MOFFAT_BETA) * np.log1p(square[:, None] / alpha**2))
    psf *= np.float32((MOFFAT_BETA - 1.0) / np.pi) / alpha**2
    flux = group.flux_nmgy[channels].T.astype(np.float32)[:, :, None, None]
    if is_star:
        return flux * psf
    psf *= flux / psf.sum(axis=(2, 3), keepdims=True)
    spectrum = scipy.fft.rfft2(_sersic(group, half))[:, None] * scipy.fft.rfft2(scipy.fft.ifftshift(psf, axes=(2, 3)))
    stamps: Pixels = scipy.fft.irfft2(spectrum, s=psf.shape[2:])
    return stamps


def _truncation(sersic_n: FloatArray) -> FloatArray:
    """Radius at which light profiles end, in Re: 5 for n <= 2, else 8, as in the survey's own models."""
    return np.where(sersic_n <= 2.0, 5.0, 8.0)


def _sersic(group: Sources, half: int) -> Pixels:
    """(source, y, x) pixel-integrated profiles of total flux 1; the inner 17 x 17 pixels are sampled 5 x 5."""
    core, samples = 8, 5
    dx, dy = (axis - np.rint(axis) for axis in (group.x, group.y))
    b = gammaincinv(2.0 * group.sersic_n, 0.5)

    def brightness(axis: NDArray[np.generic], soft_px: float) -> Pixels:
        column = [np.asarray(values, dtype=np.float32)[:, None, None] for values in (dx, dy, group.phi_rad, group.q)]
        u, v = axis.astype(np.float32)[None, None, :] - column[0], axis.astype(np.float32)[None, :, None] - column[1]
        major = np.cos(column[2]) * u + np.sin(column[2]) * v
        minor = (np.cos(column[2]) * v - np.sin(column[2]) * u) / column[3]
        re, scale, power, end = (
            np.asarray(values, dtype=np.float32)[:, None, None]
            for values in (group.re_px, b, 0.5 / group.sersic_n, _truncation(group.sersic_n))
        )
        square = (major**2 + minor**2 + np.float32(soft_px**2)) / re**2
        taper = np.clip((end - np.sqrt(square)) / (0.2 * end), 0.0, 1.0)
        profile: Pixels = np.exp(-scale * square**power) * taper
        return profile

    profile = brightness(np.arange(-half, half), 0.0)
    fine = (np.arange((2 * core + 1) * samples) + 0.5) / samples - 0.5 - core
    inner = brightness(fine, 0.3 / samples).reshape(-1, 2 * core + 1, samples, 2 * core + 1, samples).mean(axis=(2, 4))
    profile[:, half - core : half + core + 1, half - core : half + core + 1] = inner
    profile /= profile.sum(axis=(1, 2), keepdims=True)
    return profile


def _lanczos_matrix(rng: np.random.Generator, size: int) -> scipy.sparse.csr_array:
    """(size, size + 16) resampling along one axis: unit row sums, 6 taps, drifting phase."""
    position = 3.0 + rng.random() + np.arange(size) * rng.uniform(0.991, 0.997)
    taps = np.floor(position).astype(int)[:, None] + np.arange(-2, 4)
    distance = position[:, None] - taps
    kernel = np.sinc(distance) * np.sinc(distance / 3.0)
    kernel /= kernel.sum(axis=1, keepdims=True)
    starts = np.arange(0, taps.size + 1, 6)
    return scipy.sparse.csr_array((kernel.astype(np.float32).ravel(), taps.ravel(), starts), shape=(size, size + 16))
