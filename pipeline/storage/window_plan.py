"""Which tiles a set of square windows touches, and the windows put together from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.storage.tile_table import TiledImage


@dataclass(frozen=True)
class WindowPlan:
    """What windows need of one image.

    Attributes:
        x0: (window,) int64 first columns. [pixel]
        y0: (window,) int64 first rows. [pixel]
        size: side of every window. [pixel]
        tiles: (tile,) int64 numbers of the touched tiles, ascending.
        pixels: (tile,) int64 pixels needed of each tile, counted from its first in row order.
        parts: (part, 2) int64 window, and index into `tiles`, of every overlap.
    """

    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    size: int
    tiles: NDArray[np.int64]
    pixels: NDArray[np.int64]
    parts: NDArray[np.int64]


def plan_windows(image: TiledImage, x0: NDArray[np.int64], y0: NDArray[np.int64], size: int) -> WindowPlan:
    """Find the tiles under the windows [x0, x0 + size) x [y0, y0 + size), and how far down each is needed.

    Args:
        image: shape and tiles.
        x0: (window,) int64 first columns, anywhere. [pixel]
        y0: (window,) int64 first rows, anywhere. [pixel]
        size: side of every window, at least 1. [pixel]
    """
    (ny, nx), (tile_ny, tile_nx) = image.shape, image.tile_shape
    low_y, high_y = np.maximum(y0, 0), np.minimum(y0 + size, ny)
    low_x, high_x = np.maximum(x0, 0), np.minimum(x0 + size, nx)
    inside = np.flatnonzero((low_y < high_y) & (low_x < high_x))
    parts = []
    for dy in range((size - 1) // tile_ny + 2):
        for dx in range((size - 1) // tile_nx + 2):
            row, column = low_y[inside] // tile_ny + dy, low_x[inside] // tile_nx + dx
            touched = (row * tile_ny < high_y[inside]) & (column * tile_nx < high_x[inside])
            parts.append(np.stack([inside, row, column])[:, touched])
    window, row, column = np.concatenate(parts, axis=1)
    tiles, index = np.unique(row * image.tiles_x + column, return_inverse=True)
    rows = np.zeros(tiles.size, dtype=np.int64)
    np.maximum.at(rows, index, np.minimum(high_y[window] - row * tile_ny, tile_ny))
    width = np.minimum(tile_nx, nx - (tiles % image.tiles_x) * tile_nx)
    return WindowPlan(x0, y0, size, tiles, rows * width, np.stack([window, index], axis=1))


def paste_windows(image: TiledImage, plan: WindowPlan, tiles: NDArray[Any]) -> NDArray[Any]:
    """(window, y, x) pixels, zero outside the image, from the (tile, pixel) values of the plan's tiles.

    Rows of overlaps that are equally long are copied together, so that tiles of one image row cost no more than others.
    """
    out = np.zeros((plan.x0.size, plan.size, plan.size), dtype=tiles.dtype)
    (ny, nx), (tile_ny, tile_nx) = image.shape, image.tile_shape
    window, index = plan.parts.T
    tile_y0, tile_x0 = plan.tiles // image.tiles_x * tile_ny, plan.tiles % image.tiles_x * tile_nx
    width = np.minimum(tile_nx, nx - tile_x0)[index]
    tile_y0, tile_x0 = tile_y0[index], tile_x0[index]
    y0, x0 = plan.y0[window], plan.x0[window]
    low_y, high_y = np.maximum(y0, tile_y0), np.minimum(np.minimum(y0 + plan.size, tile_y0 + tile_ny), ny)
    low_x, high_x = np.maximum(x0, tile_x0), np.minimum(x0 + plan.size, tile_x0 + width)
    source = index * tiles.shape[1] + (low_y - tile_y0) * width + low_x - tile_x0
    target = (window * plan.size + low_y - y0) * plan.size + low_x - x0
    n_rows = high_y - low_y
    row = np.arange(n_rows.sum()) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    source = np.repeat(source, n_rows) + row * np.repeat(width, n_rows)
    target = np.repeat(target, n_rows) + row * plan.size
    length = np.repeat(high_x - low_x, n_rows)
    order = np.argsort(length, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(length[order])) + 1) if order.size else ():
        n_pixels = int(length[chosen[0]])
        _runs(out, n_pixels)[target[chosen]] = _runs(tiles, n_pixels)[source[chosen]]
    return out


def _runs(values: NDArray[Any], length: int) -> NDArray[Any]:
    """(start, length) view of every run of neighbours in a C-contiguous array."""
    return np.ndarray((values.size - length + 1, length), values.dtype, values, strides=(values.itemsize,) * 2)
