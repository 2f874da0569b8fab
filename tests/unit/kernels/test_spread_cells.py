"""Deposition of cells against sums written out with the spreading profile."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.kernels.scratch import integration_tables, spread_stride
from pipeline.kernels.spread_cells import MOMENTS, collect_1, collect_2, collect_4, spread_moments
from pipeline.kernels.spreading import SPREAD_PX, spread_functions, spread_profile

SIZE = 16
STRIDE = spread_stride(SIZE)
TABLES = integration_tables()
COLLECT = {1: collect_1, 2: collect_2, 4: collect_4}
# Of the weights, times the largest weight of the other axis.
WEIGHT_ERROR = 1.1e-3
Floats = NDArray[np.float32]


class _Pixels:
    """Moments of the pixels of a stamp, and the list of those with light."""

    def __init__(self) -> None:
        self.moments = np.zeros(MOMENTS * SIZE * STRIDE, np.float32)
        self.list = np.full(64, -1)
        self.lit = 0

    def collect(self, order: int, flux: Floats, cells: list[tuple[int, int, float, float, float]]) -> None:
        """Cells given as row and column of their pixel, place in it and side."""
        i, j, x, y, side = (np.array(column) for column in zip(*cells, strict=True))
        x, y, side = x.astype(np.float32), y.astype(np.float32), side.astype(np.float32)
        self.lit = COLLECT[order](flux, x, y, side, i * STRIDE + j, self.moments, self.list, self.lit)

    def spread(self) -> Floats:
        stamp = _empty()
        spread_moments(self.list, self.lit, self.moments, STRIDE, TABLES.spread, stamp)
        assert (self.moments == 0.0).all()
        return stamp


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


def _fluxes(cells: int, order: int) -> Floats:
    return np.random.default_rng(order).uniform(0.2, 1.0, cells * order * order).astype(np.float32)


def _expected_cells(order: int, flux: Floats, cells: list[tuple[int, int, float, float, float]]) -> NDArray[np.float64]:
    """Every node of every cell as a point: brightness times Gauss-Legendre weights times the cell's area."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    a, b = (k.ravel() for k in np.mgrid[:order, :order])
    total = np.zeros((SIZE + 2 * SPREAD_PX, SIZE + 2 * SPREAD_PX))
    for (i, j, x, y, side), values in zip(cells, flux.reshape(len(cells), -1), strict=True):
        amount = values * weights[a] * weights[b] * 0.25 * side * side
        total += _expected(j + x + 0.5 * side * nodes[b], i + y + 0.5 * side * nodes[a], amount)
    return total


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.31, -0.47), (-0.4999, 0.4999), (0.5, -0.5)])
@pytest.mark.parametrize(("i", "j"), [(0, 0), (5, 9), (15, 15)])
def test_point_is_spread_over_five_by_five_pixels(x: float, y: float, i: int, j: int) -> None:
    """The profile at the point's position; corners of the stamp and edges of the pixel included."""
    pixels = _Pixels()
    pixels.collect(1, np.array([40.0], np.float32), [(i, j, x, y, 0.25)])
    result = _stamp(pixels.spread())
    expected = _expected(np.array([j + x]), np.array([i + y]), np.array([2.5]))
    assert np.abs(result - expected).max() < WEIGHT_ERROR * 2.5
    assert result.sum() == pytest.approx(2.5, rel=1e-6)
    assert np.count_nonzero(result) == 25


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("side", [1.0, 0.5, 0.125, 2.0**-14])
def test_every_node_is_spread_from_its_own_position(order: int, side: float) -> None:
    """Nodes count as brightness times weights times the cell's area, rows first, whatever cells came before."""
    edge = 0.5 - 0.5 * side
    cells = [(6, 7, edge, -0.5 * edge, side), (15, 0, -edge, edge, side), (6, 7, 0.0, edge, side)]
    flux, pixels = _fluxes(3, order), _Pixels()
    pixels.collect(order, flux, cells)
    assert list(pixels.list[: pixels.lit]) == [6 * STRIDE + 7, 15 * STRIDE]
    result, expected = _stamp(pixels.spread()), _expected_cells(order, flux, cells)
    assert np.abs(result - expected).max() < WEIGHT_ERROR * expected.sum()
    assert result.sum() == pytest.approx(expected.sum(), rel=1e-6)
    moment = [(stamp * np.arange(SIZE + 4)).sum() for stamp in (result, result.T, expected, expected.T)]
    assert moment[:2] == pytest.approx(moment[2:], rel=2e-4)


def test_moments_are_sums_over_nodes() -> None:
    """Of flux times function p of x and q of y, q major, over cells of all orders."""
    pixels, expected = _Pixels(), np.zeros((4, 4))
    for order, cell in ((1, (2, 3, 0.3, -0.2, 0.25)), (2, (2, 3, -0.25, 0.25, 0.5)), (4, (2, 3, 0.25, -0.25, 0.5))):
        flux = _fluxes(1, order)
        pixels.collect(order, flux, [cell])
        nodes, weights = np.polynomial.legendre.leggauss(order)
        x, y = (place + 0.5 * cell[4] * nodes for place in cell[2:4])
        amount = flux.reshape(order, order) * np.outer(weights, weights) * 0.25 * cell[4] ** 2
        expected += spread_functions(y).T @ amount @ spread_functions(x)
    assert pixels.lit == 1
    first = MOMENTS * pixels.list[0]
    assert pixels.moments[first : first + MOMENTS].reshape(4, 4) == pytest.approx(expected, abs=1e-6)


def test_dark_cells_leave_nothing_and_lit_pixels_are_spread_once() -> None:
    """A pixel listed again, having got no light at first, is spread once; a dark one adds nothing."""
    pixels = _Pixels()
    pixels.collect(1, np.zeros(2, np.float32), [(3, 3, 0.1, 0.1, 0.5), (8, 8, 0.1, 0.1, 0.5)])
    pixels.collect(1, np.full(1, 4.0, np.float32), [(3, 3, 0.1, 0.1, 0.5)])
    result = _stamp(pixels.spread())
    assert result.sum() == pytest.approx(1.0, rel=1e-6)
    assert np.count_nonzero(result) == 25
