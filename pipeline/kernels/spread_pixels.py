"""Deposition of whole pixels on the spread stamp, each a box of even brightness: five taps down, five along rows."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.spreading import SPREAD_PX
from pipeline.kernels.vectors import VECTOR, lanes_from, load_lanes, load_where, store_lanes

# Rows that reach beyond the pixels, above and below together.
MARGIN_ROWS = 2 * SPREAD_PX


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def spread_pixels(
    values: NDArray[np.float32], rows: int, columns: int, taps: NDArray[np.float32], first: int, stride: int,
    down: NDArray[np.float32], spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread the pixels of a box.

    Args:
        values: ((rows + 2 MARGIN_ROWS) * columns or more,) fluxes of the pixels, row after row, behind and before
            MARGIN_ROWS rows of zeros.
        rows, columns: of the box.
        taps: `spreading.spread_box`.
        first: where the lowest row and column that the box reaches lie in `spread`, flattened, rows of `stride`.
        down: ((rows + MARGIN_ROWS) * columns or more,) scratch.
        spread: flattened spread stamp; the flux is added.
    """
    t0, t1, t2 = taps[2], taps[1], taps[0]
    n = columns
    total = (rows + MARGIN_ROWS) * n
    for k in range(0, total, VECTOR):
        left = total - k
        outer = load_lanes(values, k, left) + load_lanes(values, k + 4 * n, left)
        inner = load_lanes(values, k + n, left) + load_lanes(values, k + 3 * n, left)
        store_lanes(down, k, left, t2 * outer + t1 * inner + t0 * load_lanes(values, k + 2 * n, left))
    width = n + MARGIN_ROWS
    for j in range(0, width, VECTOR):
        in_0, in_1, in_2 = lanes_from(-j, n - j), lanes_from(1 - j, n + 1 - j), lanes_from(2 - j, n + 2 - j)
        in_3, in_4 = lanes_from(3 - j, n + 3 - j), lanes_from(4 - j, n + 4 - j)
        for i in range(rows + MARGIN_ROWS):
            k = i * n + j
            outer = load_where(down, k, in_0) + load_where(down, k - 4, in_4)
            inner = load_where(down, k - 1, in_1) + load_where(down, k - 3, in_3)
            total_flux = t2 * outer + t1 * inner + t0 * load_where(down, k - 2, in_2)
            target = first + i * stride + j
            store_lanes(spread, target, width - j, load_lanes(spread, target, width - j) + total_flux)
