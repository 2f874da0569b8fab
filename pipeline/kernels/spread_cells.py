"""Collection of integrated cells as moments of their pixels, and deposition of these on the spread stamp.

The weights with which a sample at (x, y) of its pixel is spread are sums of products of `spreading`'s functions, p of x
and q of y. So a cell adds, for each of these products, the sum over its samples of flux times product to the moments of
its pixel: 16 numbers, one vector. A pixel is spread once, when all its cells are collected.

Moments are kept at MOMENTS * first on, q major, where `first` is the index in the flattened spread stamp of the lowest
row and column that the pixel reaches. Fluxes of a cell are those of Gauss-Legendre nodes, rows first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.lanes import constant, loader, picker, splatter, storer
from pipeline.kernels.simd import LANES
from pipeline.kernels.spreading import BENDS_2, BENDS_4, SPREAD_FUNCTIONS, SPREAD_PX

MOMENTS = SPREAD_FUNCTIONS * SPREAD_FUNCTIONS

_F = np.float32
_ROWS = 2 * SPREAD_PX + 1
_ALL = range(MOMENTS)


def _functions(numbers: Sequence[int]) -> Callable[..., Any]:
    """A compiled function (vector) -> in each lane the spreading function of this number, 0 to 3, of its position."""
    even, odd = constant([k % 2 == 0 for k in numbers]), constant([k % 2 == 1 for k in numbers])
    low, high = constant([k < 2 for k in numbers]), constant([BENDS_2[k] if k < 2 else 1.0 for k in numbers])
    top = constant([BENDS_4[k] if k < 2 else BENDS_2[k] for k in numbers])

    @njit(nogil=True, error_model="numpy", fastmath=True, forceinline=True)
    def values(x: Any) -> Any:
        x2 = x * x
        return (x * odd() + even()) * (low() + x2 * (high() + x2 * top()))

    return values


_load_4, _load_8, _load_16 = loader(4), loader(8), loader(16)
_store_8, _store_16, _splat, _zeros = storer(8), storer(16), splatter(16), constant([0.0] * MOMENTS)

# Lane k of a vector of 16 is (k // 4, k % 4), outer and inner number: (q, p) for moments.
_functions_outer, _functions_inner = _functions([k // 4 for k in _ALL]), _functions([k % 4 for k in _ALL])
_inner_0, _inner_1, _inner_2, _inner_3 = (picker([4 * (k // 4) + n for k in _ALL]) for n in range(4))
_outer_0, _outer_1, _outer_2, _outer_3 = (picker([4 * n + k % 4 for k in _ALL]) for n in range(4))

_x, _w = np.polynomial.legendre.leggauss(4)
_nodes_outer, _nodes_inner = constant([0.5 * _x[k // 4] for k in _ALL]), constant([0.5 * _x[k % 4] for k in _ALL])
_weights = constant([0.25 * _w[k // 4] * _w[k % 4] for k in _ALL])

# Both axes of a cell of order 2 in one vector: along x the functions of node 0, of node 1, then along y.
_x = np.polynomial.legendre.leggauss(2)[0]
_nodes_both = constant([0.5 * _x[k // 4 % 2] for k in _ALL])
_along_x, _along_y = constant([k < 8 for k in _ALL]), constant([k >= 8 for k in _ALL])
_x_0, _x_1 = picker([k % 4 for k in _ALL]), picker([4 + k % 4 for k in _ALL])
_y_0, _y_1 = picker([8 + k // 4 for k in _ALL]), picker([12 + k // 4 for k in _ALL])
_all_0, _all_1, _all_2, _all_3 = (picker([n] * MOMENTS) for n in range(4))

# Rows of LANES weights, two at a time: those of q and q + 1.
_below_0, _below_1, _below_2, _below_3 = (picker([4 * (k // 8) + p for k in _ALL]) for p in range(4))
_above_0, _above_1, _above_2, _above_3 = (picker([8 + 4 * (k // 8) + p for k in _ALL]) for p in range(4))
_twice, _even, _odd = picker([k % 8 for k in _ALL]), picker(range(8)), picker(range(8, 16))
_first_half, _second_half = _along_x, _along_y


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def collect_1(
    brightness: NDArray[np.float32], x_px: NDArray[np.float32], y_px: NDArray[np.float32], side_px: NDArray[np.float32],
    first: NDArray[np.int64], moments: NDArray[np.float32], pixels: NDArray[np.int64], lit: int,
) -> int:  # fmt: skip
    """Add cells of one sample to the moments of their pixels.

    Args:
        brightness: (node,) brightness of the cells' nodes, cell after cell. [flux per pixel]
        x_px, y_px: (cell,) centres of the cells from the centres of their pixels. [px]
        side_px: (cell,) sides of the cells. [px]
        first: (cell,) of the cells' pixels.
        moments: of all pixels.
        pixels: receives `first` of the pixels that had no light so far, from `lit` on; has room for all cells.
        lit: how many pixels with light are listed. A pixel that gets none may be listed more than once.

    Returns:
        `lit` after these cells.
    """
    for k in range(side_px.size):
        x, y, at = x_px[k], y_px[k], MOMENTS * first[k]
        pixels[lit] = first[k]
        lit += moments[at] == _F(0.0)
        values = _functions_inner(_splat(x)) * _functions_outer(_splat(y))
        side = side_px[k]
        _store_16(moments, at, _load_16(moments, at) + values * (brightness[k] * side * side))
    return lit


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def collect_2(
    brightness: NDArray[np.float32], x_px: NDArray[np.float32], y_px: NDArray[np.float32], side_px: NDArray[np.float32],
    first: NDArray[np.int64], moments: NDArray[np.float32], pixels: NDArray[np.int64], lit: int,
) -> int:  # fmt: skip
    """Add cells of 2 x 2 samples to the moments of their pixels. Arguments as in `collect_1`."""
    for k in range(side_px.size):
        x, y, at = x_px[k], y_px[k], MOMENTS * first[k]
        pixels[lit] = first[k]
        lit += moments[at] == _F(0.0)
        side = side_px[k]
        values = _functions_inner(_along_x() * x + _along_y() * y + _nodes_both() * side)
        x0, x1 = _x_0(values), _x_1(values)
        flux = _load_4(brightness, 4 * k) * (_F(0.25) * side * side)
        below = _all_0(flux) * x0 + _all_1(flux) * x1
        above = _all_2(flux) * x0 + _all_3(flux) * x1
        _store_16(moments, at, _load_16(moments, at) + below * _y_0(values) + above * _y_1(values))
    return lit


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def collect_4(
    brightness: NDArray[np.float32], x_px: NDArray[np.float32], y_px: NDArray[np.float32], side_px: NDArray[np.float32],
    first: NDArray[np.int64], moments: NDArray[np.float32], pixels: NDArray[np.int64], lit: int,
) -> int:  # fmt: skip
    """Add cells of 4 x 4 samples to the moments of their pixels. Arguments as in `collect_1`."""
    for k in range(side_px.size):
        x, y, at = x_px[k], y_px[k], MOMENTS * first[k]
        pixels[lit] = first[k]
        lit += moments[at] == _F(0.0)
        side = side_px[k]
        flux = _load_16(brightness, 16 * k) * (_weights() * (side * side))
        px = _functions_inner(_nodes_outer() * side + _splat(x))
        py = _functions_outer(_nodes_inner() * side + _splat(y))
        # Lanes of `along`: row of samples, p.
        along = (_inner_0(flux) * _outer_0(px) + _inner_1(flux) * _outer_1(px)) + (
            _inner_2(flux) * _outer_2(px) + _inner_3(flux) * _outer_3(px)
        )
        total = (_inner_0(py) * _outer_0(along) + _inner_1(py) * _outer_1(along)) + (
            _inner_2(py) * _outer_2(along) + _inner_3(py) * _outer_3(along)
        )
        _store_16(moments, at, _load_16(moments, at) + total)
    return lit


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def spread_moments(
    pixels: NDArray[np.int64], count: int, moments: NDArray[np.float32], stride: int,
    weights: NDArray[np.float32], spread: NDArray[np.float32],
) -> None:  # fmt: skip
    """Spread the moments of pixels, and set them to 0.

    Args:
        pixels: (count or more,) `first` of each; of a pixel named twice all is spread the first time.
        count: how many.
        moments: of all pixels.
        stride: length of a row of `spread`.
        weights: `spreading.spread_coefficients`, flattened.
        spread: flattened spread stamp; the flux is added.
    """
    t0, t1 = _twice(_load_8(weights, 0)), _twice(_load_8(weights, LANES))
    t2, t3 = _twice(_load_8(weights, 2 * LANES)), _twice(_load_8(weights, 3 * LANES))
    # Weights of the rows: of even functions in the first half, which rows g and 4 - g share, of odd ones in the second.
    a0, b0 = _halves(weights[0], weights[LANES]), _halves(weights[2 * LANES], weights[3 * LANES])
    a1, b1 = _halves(weights[1], weights[LANES + 1]), _halves(weights[2 * LANES + 1], weights[3 * LANES + 1])
    a2, b2 = _halves(weights[2], weights[LANES + 2]), _halves(weights[2 * LANES + 2], weights[3 * LANES + 2])
    for k in range(count):
        first = pixels[k]
        m = _load_16(moments, MOMENTS * first)
        _store_16(moments, MOMENTS * first, _zeros())
        below = (_below_0(m) * t0 + _below_1(m) * t1) + (_below_2(m) * t2 + _below_3(m) * t3)
        above = (_above_0(m) * t0 + _above_1(m) * t1) + (_above_2(m) * t2 + _above_3(m) * t3)
        outer, inner, middle = below * a0 + above * b0, below * a1 + above * b1, below * a2 + above * b2
        _add_row(spread, first, _even(outer) + _odd(outer))
        _add_row(spread, first + stride, _even(inner) + _odd(inner))
        _add_row(spread, first + 2 * stride, _even(middle))
        _add_row(spread, first + 3 * stride, _even(inner) - _odd(inner))
        _add_row(spread, first + 4 * stride, _even(outer) - _odd(outer))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _halves(even: np.float32, odd: np.float32) -> Any:
    return _first_half() * even + _second_half() * odd


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _add_row(spread: NDArray[np.float32], at: int, row: Any) -> None:
    _store_8(spread, at, _load_8(spread, at) + row)
