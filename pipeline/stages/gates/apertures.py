"""Statistics of stamps in a core, an annulus and rings about the centre, as the gates on shortcuts use them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

CORE_STATISTICS = ("mean", "std", "median", "q25", "q75", "max", "min")
ANNULUS_STATISTICS = ("median", "mad", "clip_frac")
_ROWS_PER_BLOCK = 1024
_MIN_PIXELS = 32


def core_statistics(
    stamps: xr.Dataset, name: str, radius_px: NDArray[np.float64], bands: slice = slice(None)
) -> NDArray[np.float64]:
    """CORE_STATISTICS of the pixels nearer than a radius to the host, per band.

    Args:
        stamps: rows with stamps `name` and the host centre `centre_dx_px`, `centre_dy_px`.
        radius_px: (sample,) radii, such that the circles lie in the stamp. [pixel]
        bands: the bands to use.

    Returns:
        (sample, band * 7) float64 in nmgy, statistics fastest.

    Raises:
        ValueError: a pixel or a centre is not finite, or a circle leaves the stamp.
    """
    pixels = stamps[name].to_numpy()[:, bands]
    dx, dy = (stamps[f"centre_{axis}_px"].to_numpy().astype(np.float64) for axis in ("dx", "dy"))
    blocks = [_statistics_of_block(flux, inside) for flux, inside in _core_blocks(pixels, dx, dy, radius_px)]
    return np.concatenate(blocks).reshape(pixels.shape[0], -1)


def annulus_statistics(
    stamps: NDArray[np.float32], annulus_px: tuple[float, float], clip: float
) -> NDArray[np.float64]:
    """ANNULUS_STATISTICS of every stamp and band, as the trainer's normalisation takes them.

    Median and plain MAD (no factor 1.4826) of the pixels low <= r < high about pixel size // 2, and the
    share of these pixels that the clip at +-clip MAD cuts.

    Args:
        stamps: (sample, band, y, x). [nmgy]
        annulus_px: low, high. [pixel]
        clip: in MAD.

    Returns:
        (sample, band, 3) float64; median and MAD in nmgy.

    Raises:
        ValueError: a pixel is not finite, a MAD is 0, or the annulus holds fewer than 32 pixels.
    """
    radius = stamp_radius_px(stamps.shape[-1])
    inside = (radius >= annulus_px[0]) & (radius < annulus_px[1])
    if int(inside.sum()) < _MIN_PIXELS:
        raise ValueError(f"the annulus {annulus_px} px holds {int(inside.sum())} pixels of a {len(radius)} px stamp")
    blocks = []
    for start in range(0, stamps.shape[0], _ROWS_PER_BLOCK):
        ring = stamps[start : start + _ROWS_PER_BLOCK, :, inside]
        if not np.isfinite(ring).all():
            raise ValueError("a pixel of the annulus is not finite")
        median = np.median(ring, axis=2, keepdims=True)
        deviation = np.abs(ring - median)
        mad = np.median(deviation, axis=2, keepdims=True)
        if (mad == 0).any():
            raise ValueError("the MAD of an annulus is 0; expected sky noise there")
        clipped = (deviation >= clip * mad).mean(axis=2)
        blocks.append(np.stack([median[:, :, 0], mad[:, :, 0], clipped], axis=2).astype(np.float64))
    return np.concatenate(blocks) if blocks else np.empty((0, stamps.shape[1], 3))


def radial_profiles(stamps: NDArray[np.float32], n_bins: int) -> NDArray[np.float64]:
    """Azimuthal medians in rings of equal width, out to half the stamp's size.

    Args:
        stamps: (sample, band, y, x). [nmgy]
        n_bins: rings.

    Returns:
        (sample, band * ring) float64, rings fastest. [nmgy]

    Raises:
        ValueError: a pixel in a ring is not finite, or a ring holds no pixel.
    """
    size = stamps.shape[-1]
    ring = np.floor(stamp_radius_px(size) / (size // 2) * n_bins).astype(np.int64)
    members = [np.flatnonzero(ring.ravel() == index) for index in range(n_bins)]
    if not all(pixels.size for pixels in members):
        raise ValueError(f"{n_bins} rings are too many for stamps of {size} px: a ring holds no pixel")
    flat = stamps.reshape(*stamps.shape[:2], -1)
    profiles = np.empty((*stamps.shape[:2], n_bins))
    for start in range(0, stamps.shape[0], _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        for index, pixels in enumerate(members):
            profiles[rows, :, index] = np.median(flat[rows][:, :, pixels], axis=2)
    if not np.isfinite(profiles).all():
        raise ValueError("a pixel of a ring is not finite")
    return profiles.reshape(stamps.shape[0], -1)


def stamp_radius_px(size_px: int) -> NDArray[np.float64]:
    """(y, x) distance of pixel centres from pixel size // 2. [pixel]"""
    offset = np.arange(size_px, dtype=np.float64) - size_px // 2
    return np.hypot(offset[:, None], offset[None, :])


def _core_blocks(
    pixels: NDArray[np.float32], dx: NDArray[np.float64], dy: NDArray[np.float64], radius_px: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Blocks of rows as ((row, band, pixel) flux in a box around the centre, (row, pixel) inside the circle)."""
    half_size = pixels.shape[-1] // 2
    largest = float(radius_px.max(initial=0.0))
    half_box = math.ceil(largest + 0.5)
    if half_box >= half_size:
        raise ValueError(f"a core of {largest} px does not fit into stamps of {pixels.shape[-1]} px")
    if not (np.abs(np.stack([dx, dy])) <= 0.5 + 1e-6).all():
        raise ValueError("centre_dx_px and centre_dy_px must be finite and within half a pixel")
    box = slice(half_size - half_box, half_size + half_box + 1)
    offset = np.arange(-half_box, half_box + 1, dtype=np.float64)
    for start in range(0, pixels.shape[0], _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        flux = pixels[rows, :, box, box]
        if not np.isfinite(flux).all():
            raise ValueError("a core pixel is not finite")
        x2 = (offset - dx[rows, None]) ** 2
        y2 = (offset - dy[rows, None]) ** 2
        inside = y2[:, :, None] + x2[:, None, :] < radius_px[rows, None, None] ** 2
        yield flux.reshape(*flux.shape[:2], -1), inside.reshape(inside.shape[0], -1)


def _statistics_of_block(flux: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(row, band, 7) statistics of the pixels inside; quantiles interpolate linearly."""
    n = inside.sum(axis=1).astype(np.float64)
    selected = inside[:, None, :]
    mean = flux.sum(axis=2, where=selected, dtype=np.float64) / n[:, None]
    residual = flux.astype(np.float64) - mean[:, :, None]
    std = np.sqrt(np.square(residual).sum(axis=2, where=selected) / n[:, None])
    ordered = np.sort(np.where(selected, flux, np.float32(np.inf)), axis=2)
    q25, median, q75 = (_quantile(ordered, n, q) for q in (0.25, 0.5, 0.75))
    largest = np.take_along_axis(ordered, (n.astype(np.int64) - 1)[:, None, None], axis=2)[:, :, 0]
    return np.stack([mean, std, median, q25, q75, largest, ordered[:, :, 0]], axis=2, dtype=np.float64)


def _quantile(ordered: NDArray[np.float32], n: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """Quantile q of the first n of each row's ordered values."""
    position = q * (n - 1.0)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, n.astype(np.int64) - 1)
    low = np.take_along_axis(ordered, below[:, None, None], axis=2)[:, :, 0].astype(np.float64)
    high = np.take_along_axis(ordered, above[:, None, None], axis=2)[:, :, 0].astype(np.float64)
    return low + (position - below)[:, None] * (high - low)
