"""Spreading tables and the sizes of scratch arrays."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.scratch import MAX_CELLS, MAX_NODES, integration_tables, spread_stride, workspace
from pipeline.kernels.simd import LANES
from pipeline.kernels.spreading import SPREAD_FUNCTIONS, SPREAD_PX, spread_box, spread_coefficients
from pipeline.kernels.vectors import VECTOR


def test_tables_hold_the_spreading_weights() -> None:
    """The coefficients of the weights are flat and contiguous, as the vector code reads them."""
    tables = integration_tables()
    assert np.array_equal(tables.spread, spread_coefficients().ravel())
    assert tables.spread.flags.c_contiguous
    assert np.array_equal(tables.box, spread_box())


@pytest.mark.parametrize("size", [16, 64, 200])
def test_workspace_holds_every_pixel_in_every_list(size: int) -> None:
    """Lists of cells take all pixels of the stamp, and a vector more; a row of the stamp has its padding."""
    work = workspace(size)
    assert work.size == size
    assert work.stride == spread_stride(size) == size + 2 * SPREAD_PX + LANES
    for pixels in (work.pixel_x, work.src_y, work.brightness, work.extent2):
        assert pixels.shape == (size * size,)
    assert work.cell_x.shape == work.cell_y.shape
    assert work.cell_x.shape[0] == 4
    assert work.cell_x.shape[1] >= max(MAX_CELLS, size * size) + VECTOR
    assert work.child_x.shape == work.child_src_x.shape == (VECTOR,)
    assert work.node_x.shape == work.node_flux.shape == (MAX_NODES,)
    assert MAX_NODES % 16 == 0
    assert work.moments.size == size * work.stride * SPREAD_FUNCTIONS**2
    assert work.lit.size >= 3 * work.cell_x.shape[1]
    assert work.node_pixel.shape == (MAX_NODES,)
    vectors = [array for array in work if isinstance(array, np.ndarray) and array.dtype == np.float32]
    assert all(array.ctypes.data % 64 == 0 and array.flags.c_contiguous for array in vectors)
    assert {array.dtype for array in work if isinstance(array, np.ndarray)} == {np.dtype("f4"), np.dtype("i8")}
    assert len({id(array) for array in work if isinstance(array, np.ndarray)}) == len(work) - 2
