"""Deposition of integrated cells on the spread stamp, each node with the weights of its own position."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.simd import LANES, add_lanes_1, add_lanes_2, add_lanes_4, set_lanes_2, set_lanes_4
from pipeline.kernels.spreading import SPREAD_PX, SPREAD_STEPS

_F = np.float32
_ROWS = 2 * SPREAD_PX + 1


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _row(position_px: np.float32) -> int:
    """Where the weights of a position within its pixel begin in the table."""
    step = int((position_px + _F(0.5)) * _F(SPREAD_STEPS))
    return LANES * min(max(step, 0), SPREAD_STEPS - 1)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def spread_point(
    x_px: np.float32, y_px: np.float32, amount: np.float32, first: int, stride: int,
    table: NDArray[np.float32], spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread one flux from a position.

    Args:
        x_px, y_px: position from the centre of its pixel, in [-0.5, 0.5]. [px]
        amount: the flux.
        first: where the lowest row and column that it reaches lie in `spread`.
        stride: length of a row of `spread`.
        table: `spreading.spread_table`, flattened.
        spread: flattened spread stamp; the flux is added.
    """
    tx, ty = _row(x_px), _row(y_px)
    for g in range(_ROWS):
        add_lanes_1(spread, first + g * stride, table, tx, amount * table[ty + g])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def spread_centroid(
    brightness: NDArray[np.float32], e: int, order: int, nodes: NDArray[np.float32], weights: NDArray[np.float32],
    side: np.float32, x_px: np.float32, y_px: np.float32, first: int, stride: int,
    table: NDArray[np.float32], spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread a whole cell from the centroid of its flux. Arguments as in `spread_nodes`."""
    total, moment_x, moment_y = _F(0.0), _F(0.0), _F(0.0)
    for a in range(order):
        for b in range(order):
            value = brightness[e + a * order + b] * weights[a] * weights[b]
            total += value
            moment_x += value * nodes[b]
            moment_y += value * nodes[a]
    if total > _F(0.0):
        x, y = x_px + side * moment_x / total, y_px + side * moment_y / total
        spread_point(x, y, total * side * side, first, stride, table, spread)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def spread_nodes(
    brightness: NDArray[np.float32], e: int, order: int, nodes: NDArray[np.float32], weights: NDArray[np.float32],
    side: np.float32, x_px: np.float32, y_px: np.float32, first: int, stride: int,
    table: NDArray[np.float32], along: NDArray[np.float32], spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread the flux of every node of a cell: first along rows into `along`, then along columns.

    Args:
        brightness: (node,) brightness; the cell's nodes begin at `e`, rows first. [flux per pixel]
        order: nodes an axis: 1, 2 or 4.
        nodes, weights: of that order, in units of the cell's side.
        side: of the cell. [px]
        x_px, y_px: centre of the cell from the centre of its pixel. [px]
        first, stride, table, spread: as in `spread_point`.
        along: (4 * LANES,) scratch.
    """
    if order == 1:
        spread_point(x_px, y_px, brightness[e] * side * side, first, stride, table, spread)
    elif order == 2:
        w = _F(0.25) * side * side
        r0, r1 = _row(x_px + nodes[0] * side), _row(x_px + nodes[1] * side)
        set_lanes_2(along, 0, table, r0, r1, w * brightness[e], w * brightness[e + 1])
        set_lanes_2(along, LANES, table, r0, r1, w * brightness[e + 2], w * brightness[e + 3])
        y0, y1 = _row(y_px + nodes[0] * side), _row(y_px + nodes[1] * side)
        for g in range(_ROWS):
            add_lanes_2(spread, first + g * stride, along, 0, LANES, table[y0 + g], table[y1 + g])
    else:
        r0, r1 = _row(x_px + nodes[0] * side), _row(x_px + nodes[1] * side)
        r2, r3 = _row(x_px + nodes[2] * side), _row(x_px + nodes[3] * side)
        w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
        for a in range(4):
            w, k = side * side * weights[a], e + 4 * a
            f0, f1, f2, f3 = (
                w * w0 * brightness[k],
                w * w1 * brightness[k + 1],
                w * w2 * brightness[k + 2],
                w * w3 * brightness[k + 3],
            )
            set_lanes_4(along, a * LANES, table, r0, r1, r2, r3, f0, f1, f2, f3)
        y0, y1 = _row(y_px + nodes[0] * side), _row(y_px + nodes[1] * side)
        y2, y3 = _row(y_px + nodes[2] * side), _row(y_px + nodes[3] * side)
        for g in range(_ROWS):
            add_lanes_4(
                spread, first + g * stride, along, 0, LANES, 2 * LANES, 3 * LANES,
                table[y0 + g], table[y1 + g], table[y2 + g], table[y3 + g],
            )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def spread_row(
    values: NDArray[np.float32], count: int, taps: NDArray[np.float32], first: int, stride: int,
    row: NDArray[np.float32], spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread a row of pixels, each a box of even brightness, by five taps along the row, then along columns.

    Args:
        values: (count + 8,) float32, the row's fluxes from index 4 on, zeros on both sides.
        count: pixels of the row.
        taps: `spreading.spread_box`.
        first: where the lowest row and column that the row reaches lie in `spread`, flattened, rows of `stride`.
        row: (count + 4,) scratch.
    """
    t0, t1, t2 = taps[2], taps[1], taps[0]
    n = count + 4
    a, b, c, d, e = values[:n], values[1 : n + 1], values[2 : n + 2], values[3 : n + 3], values[4 : n + 4]
    for j in range(n):
        row[j] = t2 * (a[j] + e[j]) + t1 * (b[j] + d[j]) + t0 * c[j]
    for g in range(_ROWS):
        target, weight = spread[first + g * stride : first + g * stride + n], taps[g]
        for j in range(n):
            target[j] += weight * row[j]
