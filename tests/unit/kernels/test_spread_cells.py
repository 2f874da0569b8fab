"""Deposition of cells against sums written out with the spreading profile."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.scratch import integration_tables, spread_stride
from pipeline.kernels.simd import LANES
from pipeline.kernels.spread_cells import spread_centroid, spread_nodes, spread_point, spread_row
from pipeline.kernels.spreading import SPREAD_PX, spread_box, spread_profile

SIZE = 16
STRIDE = spread_stride(SIZE)
TABLES = integration_tables()
# The weights of the nearest tabulated position err by half a step of the table times the steepest slope of phi.
TABLE_ERROR = 3e-4
Floats = NDArray[np.float32]


@njit(error_model="numpy", fastmath=True)
def _point(x: float, y: float, flux: float, first: int, stride: int, table: Floats, spread: Floats) -> None:
    spread_point(np.float32(x), np.float32(y), np.float32(flux), first, stride, table, spread)


@njit(error_model="numpy", fastmath=True)
def _cell(
    centroid: bool, flux: Floats, e: int, order: int, nodes: Floats, weights: Floats, side: float, x: float, y: float,
    first: int, stride: int, table: Floats, along: Floats, spread: Floats,
) -> None:  # fmt: skip
    s, xs, ys = np.float32(side), np.float32(x), np.float32(y)
    if centroid:
        spread_centroid(flux, e, order, nodes, weights, s, xs, ys, first, stride, table, spread)
    else:
        spread_nodes(flux, e, order, nodes, weights, s, xs, ys, first, stride, table, along, spread)


def _empty() -> Floats:
    return np.zeros((SIZE + 2 * SPREAD_PX) * STRIDE, np.float32)


def _stamp(spread: Floats) -> NDArray[np.float64]:
    """The pixels that light may reach; the padding holds nothing."""
    full = spread.reshape(-1, STRIDE).astype(np.float64)
    assert (full[:, SIZE + 2 * SPREAD_PX :] == 0.0).all()
    return full[:, : SIZE + 2 * SPREAD_PX]


def _expected(x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points at positions [px] of the stamp, spread by the profile."""
    pixel = np.arange(-SPREAD_PX, SIZE + SPREAD_PX)
    rows, columns = spread_profile(pixel[:, None] - y), spread_profile(pixel[:, None] - x)
    return np.asarray((rows * flux) @ columns.T)


def _fluxes(order: int, seed: int) -> Floats:
    values = np.zeros(order * order + 6, np.float32)
    values[3 : 3 + order * order] = np.random.default_rng(seed).uniform(0.2, 1.0, order * order)
    return values


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.31, -0.47), (-0.4999, 0.4999), (0.5, -0.5)])
@pytest.mark.parametrize("pixel", [(0, 0), (5, 9), (15, 15)])
def test_point_is_spread_over_five_by_five_pixels(x: float, y: float, pixel: tuple[int, int]) -> None:
    """The profile at the point's position; corners of the stamp and edges of the pixel included."""
    spread = _empty()
    i, j = pixel
    _point(x, y, 2.5, i * STRIDE + j, STRIDE, TABLES.spread, spread)
    result = _stamp(spread)
    expected = _expected(np.array([j + x]), np.array([i + y]), np.array([2.5]))
    assert np.abs(result - expected).max() < TABLE_ERROR * 2.5
    assert result.sum() == pytest.approx(2.5, rel=1e-6)
    assert np.count_nonzero(result) == 25


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("side", [1.0, 0.5, 0.25])
def test_every_node_is_spread_from_its_own_position(order: int, side: float) -> None:
    """Nodes count as brightness times weights times the cell's area, rows first, begun at `e`."""
    flux, spread, e = _fluxes(order, order), _empty(), 3
    nodes, weights = TABLES.nodes[order], TABLES.weights[order]
    x, y, i, j = 0.5 - 0.5 * side, -0.25 * (1 - side), 6, 7
    along = np.zeros(4 * LANES, np.float32)
    arguments = (flux, e, order, nodes, weights, side, x, y, i * STRIDE + j, STRIDE, TABLES.spread, along, spread)
    _cell(False, *arguments)
    a, b = (k.ravel() for k in np.mgrid[:order, :order])
    amount = flux[e : e + order * order] * weights[a] * weights[b] * side * side
    expected = _expected(j + x + side * nodes[b], i + y + side * nodes[a], amount.astype(np.float64))
    assert np.abs(_stamp(spread) - expected).max() < TABLE_ERROR * amount.sum()
    assert _stamp(spread).sum() == pytest.approx(amount.sum(), rel=1e-6)
    _cell(False, *arguments)
    assert _stamp(spread).sum() == pytest.approx(2 * amount.sum(), rel=1e-6)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_centroid_keeps_flux_and_first_moment(order: int) -> None:
    """A small cell is spread from the centroid of its flux."""
    flux, spread, e, side, i, j = _fluxes(order, 9), _empty(), 3, 0.125, 4, 11
    nodes, weights = TABLES.nodes[order], TABLES.weights[order]
    along = np.zeros(4 * LANES, np.float32)
    arguments = (flux, e, order, nodes, weights, side, 0.2, -0.3, i * STRIDE + j, STRIDE, TABLES.spread, along, spread)
    _cell(True, *arguments)
    a, b = (k.ravel() for k in np.mgrid[:order, :order])
    amount = (flux[e : e + order * order] * weights[a] * weights[b]).astype(np.float64)
    x, y = j + 0.2 + side * amount @ nodes[b] / amount.sum(), i - 0.3 + side * amount @ nodes[a] / amount.sum()
    total = amount.sum() * side * side
    expected = _expected(np.array([x]), np.array([y]), np.array([total]))
    assert np.abs(_stamp(spread) - expected).max() < TABLE_ERROR * total
    assert _stamp(spread).sum() == pytest.approx(total, rel=1e-6)


def test_dark_cell_leaves_nothing() -> None:
    """A cell without light has no centroid and adds no NaN."""
    spread, along = _empty(), np.zeros(4 * LANES, np.float32)
    dark = np.zeros(16, np.float32)
    nodes, weights = TABLES.nodes[4], TABLES.weights[4]
    _cell(True, dark, 0, 4, nodes, weights, 0.125, 0.0, 0.0, 3, STRIDE, TABLES.spread, along, spread)
    assert (spread == 0.0).all()


@pytest.mark.parametrize("count", [1, 2, 5, SIZE])
def test_row_spreads_each_pixel_as_a_box(count: int) -> None:
    """A row equals the sum over its pixels of the outer product of the box weights; it adds and stays in its rows."""
    values = np.zeros(count + 8, np.float32)
    values[4 : 4 + count] = np.random.default_rng(count).uniform(size=count)
    spread, row = _empty(), np.zeros(count + 4, np.float32)
    i, j0 = 3, SIZE - count
    for _ in range(2):
        spread_row(values, count, spread_box(), i * STRIDE + j0, STRIDE, row, spread)
    box, expected = spread_box().astype(np.float64), np.zeros((SIZE + 4, SIZE + 4))
    for k in range(count):
        expected[i : i + 5, j0 + k : j0 + k + 5] += 2 * values[4 + k] * np.outer(box, box)
    assert _stamp(spread) == pytest.approx(expected, abs=1e-6)
