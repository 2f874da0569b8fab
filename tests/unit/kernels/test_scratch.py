"""Quadrature tables and the sizes of scratch arrays."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.scratch import MAX_CELLS, MAX_NODES, MAX_ORDER, integration_tables, spread_stride, workspace
from pipeline.kernels.simd import LANES
from pipeline.kernels.spreading import SPREAD_PX, spread_box, spread_table


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_rules_integrate_polynomials_over_a_unit_cell(order: int) -> None:
    """Order n integrates x**k over (-0.5, 0.5) exactly up to k = 2 n - 1, and no further."""
    tables = integration_tables()
    x, w = tables.nodes[order].astype(np.float64), tables.weights[order].astype(np.float64)
    for power in range(2 * order):
        exact = (1 - (-1) ** (power + 1)) / (2 ** (power + 1) * (power + 1))
        assert np.sum(w[:order] * x[:order] ** power) == pytest.approx(exact, abs=1e-7)
    exact = 1 / (4**order * (2 * order + 1))
    assert abs(np.sum(w * x ** (2 * order)) - exact) > 0.01 * exact
    assert (np.diff(x[:order]) > 0).all()
    assert (w[order:] == 0).all()


def test_tables_hold_the_spreading_weights() -> None:
    """The spreading table is flat and contiguous, as the vector code reads it."""
    tables = integration_tables()
    assert tables.nodes.shape == tables.weights.shape == (MAX_ORDER + 1, MAX_ORDER)
    assert np.array_equal(tables.spread, spread_table().ravel())
    assert tables.spread.flags.c_contiguous
    assert np.array_equal(tables.box, spread_box())


@pytest.mark.parametrize("size", [16, 64, 200])
def test_workspace_holds_every_pixel_in_every_list(size: int) -> None:
    """Lists of cells take all pixels of the stamp, children the most cells, and a row of the stamp its padding."""
    work = workspace(size)
    assert work.size == size
    assert work.stride == spread_stride(size) == size + 2 * SPREAD_PX + LANES
    for pixels in (work.pixel_x, work.src_y, work.brightness, work.extent2, work.order):
        assert pixels.shape == (size * size,)
    assert work.steps.size > size * size + size
    assert work.cell_x.shape == work.cell_y.shape
    assert work.cell_x.shape[0] == 4
    assert work.cell_x.shape[1] >= max(MAX_CELLS, size * size)
    assert work.child_x.shape == work.child_order.shape == (MAX_CELLS,)
    assert work.node_x.shape == work.node_flux.shape == (MAX_NODES,)
    assert MAX_NODES % MAX_ORDER**2 == 0
    assert {array.dtype for array in work if isinstance(array, np.ndarray)} == {np.dtype("f4"), np.dtype("i8")}
    assert len({id(array) for array in work if isinstance(array, np.ndarray)}) == len(work) - 2
