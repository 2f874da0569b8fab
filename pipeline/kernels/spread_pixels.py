"""Deposition of whole pixels on the spread stamp, each a box of even brightness: five taps along rows, five down."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.lanes import Vector
from pipeline.kernels.spreading import SPREAD_PX
from pipeline.kernels.vectors import VECTOR, all_lanes, lanes_from, load_lanes, load_where, store_lanes

_F = np.float32
# Pixels that a row or a column reaches beyond its own, at both ends together.
_BEYOND = 2 * SPREAD_PX


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def spread_pixels(
    values: NDArray[np.float32], rows: int, columns: int, taps: NDArray[np.float32], first: int, stride: int,
    spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread the pixels of a box.

    Args:
        values: (rows * columns or more,) fluxes of the pixels, row after row.
        rows, columns: of the box, >= 1.
        taps: `spreading.spread_box`.
        first: where the lowest row and column that the box reaches lie in `spread`, flattened, rows of `stride`.
        spread: flattened spread stamp; the flux is added.
    """
    t0, t1, t2 = taps[2], taps[1], taps[0]
    n, none = columns, all_lanes(_F(0.0))
    for j in range(0, n + _BEYOND, VECTOR):
        in_0, in_1, in_2 = lanes_from(-j, n - j), lanes_from(1 - j, n + 1 - j), lanes_from(2 - j, n + 2 - j)
        in_3, in_4 = lanes_from(3 - j, n + 3 - j), lanes_from(4 - j, n + 4 - j)
        width, target = n + _BEYOND - j, first + j
        row_1 = row_2 = row_3 = row_4 = none
        for i in range(rows):
            k = i * n + j
            outer = load_where(values, k, in_0) + load_where(values, k - 4, in_4)
            inner = load_where(values, k - 1, in_1) + load_where(values, k - 3, in_3)
            row_0 = t2 * outer + t1 * inner + t0 * load_where(values, k - 2, in_2)
            _add(t2 * (row_0 + row_4) + t1 * (row_1 + row_3) + t0 * row_2, target, width, spread)
            row_1, row_2, row_3, row_4 = row_0, row_1, row_2, row_3
            target += stride
        for _ in range(_BEYOND):
            _add(t2 * row_4 + t1 * (row_1 + row_3) + t0 * row_2, target, width, spread)
            row_1, row_2, row_3, row_4 = none, row_1, row_2, row_3
            target += stride


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _add(value: Vector, target: int, count: int, spread: NDArray[np.float32]) -> None:
    store_lanes(spread, target, count, load_lanes(spread, target, count) + value)
