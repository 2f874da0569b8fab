"""Constant tables of the integration, and the arrays that one thread reuses from draw to draw."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.simd import LANES
from pipeline.kernels.spreading import SPREAD_FUNCTIONS, SPREAD_PX, spread_box, spread_coefficients
from pipeline.kernels.vectors import VECTOR

MAX_CELLS = 2**20
# Nodes that are evaluated at a time, whole cells of 16.
MAX_NODES = 2048


class Tables(NamedTuple):
    """Constants that do not depend on the draw.

    Attributes:
        spread: `spreading.spread_coefficients`, flattened.
        box: `spreading.spread_box`.
    """

    spread: NDArray[np.float32]
    box: NDArray[np.float32]


class Workspace(NamedTuple):
    """Scratch arrays for stamps of (size, size) pixels; not shared between threads.

    pixel_*, src_*, brightness and extent2 hold the pixels of a box, row after row; cell_* four lists of cells,
    child_* a vector of quarters of divided cells, node_* the positions at which brightness is evaluated; moments and
    lit are those of `spread_cells`, of which all moments are 0 between calls.
    """

    size: int
    stride: int
    pixel_x: NDArray[np.float32]
    pixel_y: NDArray[np.float32]
    src_x: NDArray[np.float32]
    src_y: NDArray[np.float32]
    brightness: NDArray[np.float32]
    extent2: NDArray[np.float32]
    counts: NDArray[np.int64]
    cell_x: NDArray[np.float32]
    cell_y: NDArray[np.float32]
    cell_side: NDArray[np.float32]
    child_x: NDArray[np.float32]
    child_y: NDArray[np.float32]
    child_src_x: NDArray[np.float32]
    child_src_y: NDArray[np.float32]
    node_x: NDArray[np.float32]
    node_y: NDArray[np.float32]
    node_src_x: NDArray[np.float32]
    node_src_y: NDArray[np.float32]
    node_flux: NDArray[np.float32]
    node_pixel: NDArray[np.int64]
    moments: NDArray[np.float32]
    lit: NDArray[np.int64]


def spread_stride(size: int) -> int:
    """Length of a row of the spread stamp, which has size + 2 SPREAD_PX rows.

    Pixel (i, j) is at index (i + SPREAD_PX) * stride + j + SPREAD_PX; the last LANES columns are padding. [px]
    """
    return size + 2 * SPREAD_PX + LANES


@lru_cache(maxsize=1)
def integration_tables() -> Tables:
    """The spreading weights that `cells.integrate_component` takes."""
    return Tables(spread_coefficients().ravel(), spread_box())


def workspace(size: int) -> Workspace:
    """Scratch arrays for stamps of (size, size) pixels; one per thread."""

    def floats(*shape: int) -> NDArray[np.float32]:
        # Begun at a cache line: vectors that lie across two take longer.
        count, line = math.prod(shape), 16
        memory = np.zeros(count + line, np.float32)
        first = -memory.ctypes.data % (4 * line) // 4
        return memory[first : first + count].reshape(shape)

    # A list may hold every pixel of the stamp.
    cells = max(MAX_CELLS, size * size) + 2 * VECTOR
    area = size * size
    return Workspace(
        size=size,
        stride=spread_stride(size),
        pixel_x=floats(area),
        pixel_y=floats(area),
        src_x=floats(area),
        src_y=floats(area),
        brightness=floats(area),
        extent2=floats(area),
        counts=np.zeros(4, np.int64),
        cell_x=floats(4, cells),
        cell_y=floats(4, cells),
        cell_side=floats(4, cells),
        child_x=floats(VECTOR),
        child_y=floats(VECTOR),
        child_src_x=floats(VECTOR),
        child_src_y=floats(VECTOR),
        node_x=floats(MAX_NODES),
        node_y=floats(MAX_NODES),
        node_src_x=floats(MAX_NODES),
        node_src_y=floats(MAX_NODES),
        node_flux=floats(MAX_NODES),
        node_pixel=np.zeros(MAX_NODES, np.int64),
        moments=floats(size * spread_stride(size) * SPREAD_FUNCTIONS**2),
        lit=np.zeros(3 * cells, np.int64),
    )
