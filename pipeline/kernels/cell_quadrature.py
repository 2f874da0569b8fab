"""Gauss-Legendre integration of lists of cells of one order, and their deposition on the spread stamp."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.light import IMAGE, image_brightness, sersic_brightness
from pipeline.kernels.rays import shoot
from pipeline.kernels.scratch import MAX_NODES, Tables, Workspace
from pipeline.kernels.simd import nearest_f32
from pipeline.kernels.spread_cells import spread_centroid, spread_nodes

# Lists of cells in the workspace: of order 2, of order 4, to be divided, of order 1.
TWOS, FOURS, DIVIDED, ONES = 0, 1, 2, 3

_F = np.float32
# Side up to which a cell is spread from its centroid, its inner structure being far below a pixel. [px]
_CENTROID_SIDE_PX = _F(0.126)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def integrate_cells(
    order: int,
    count: int,
    profile: int,
    light: NDArray[np.float64],
    template: NDArray[np.float32],
    kind: int,
    lens: NDArray[np.float64],
    field: NDArray[np.float32],
    lens_x_arcsec: float,
    lens_y_arcsec: float,
    pixel_scale_arcsec: float,
    tables: Tables,
    work: Workspace,
    spread: NDArray[np.float32],
) -> float:
    """Integrate the first `count` cells of the list of one order and spread their flux; the number of evaluations."""
    which = ONES if order == 1 else (TWOS if order == 2 else FOURS)
    per_cell = order * order
    nodes, weights = tables.nodes[order], tables.weights[order]
    cell_x, cell_y, cell_side = work.cell_x[which], work.cell_y[which], work.cell_side[which]
    block = MAX_NODES // per_cell
    per_scale = _F(1.0 / pixel_scale_arcsec)
    origin_x = _F(lens_x_arcsec / pixel_scale_arcsec + work.size // 2)
    origin_y = _F(lens_y_arcsec / pixel_scale_arcsec + work.size // 2)
    scale = _F(pixel_scale_arcsec)
    for start in range(0, count, block):
        stop = min(count, start + block)
        _place_nodes(order, start, stop, cell_x, cell_y, cell_side, nodes, scale, work.node_x, work.node_y)
        e = (stop - start) * per_cell
        shoot(kind, work.node_x, work.node_y, e, lens, field, work.node_src_x, work.node_src_y)
        if profile == IMAGE:
            image_brightness(work.node_src_x, work.node_src_y, e, light, template, work.node_flux)
        else:
            sersic_brightness(work.node_src_x, work.node_src_y, e, light, work.node_flux)
        e = 0
        for k in range(start, stop):
            # Cell centre in pixels of the stamp, then from its pixel's centre.
            x, y = cell_x[k] * per_scale + origin_x, cell_y[k] * per_scale + origin_y
            j, i = nearest_f32(x), nearest_f32(y)
            x -= j
            y -= i
            side = cell_side[k]
            first = int(i) * work.stride + int(j)
            if side < _CENTROID_SIDE_PX:
                spread_centroid(
                    work.node_flux, e, order, nodes, weights, side, x, y, first, work.stride, tables.spread, spread
                )
            else:
                spread_nodes(
                    work.node_flux, e, order, nodes, weights, side, x, y, first, work.stride, tables.spread,
                    work.along, spread,
                )  # fmt: skip
            e += per_cell
    return count * per_cell


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _place_nodes(
    order: int,
    start: int,
    stop: int,
    cell_x: NDArray[np.float32],
    cell_y: NDArray[np.float32],
    cell_side: NDArray[np.float32],
    nodes: NDArray[np.float32],
    scale: np.float32,
    node_x: NDArray[np.float32],
    node_y: NDArray[np.float32],
) -> None:
    """Positions of the nodes of cells start .. stop - 1, rows first; written out, the runs being too short to loop."""
    if order == 1:
        for k in range(start, stop):
            node_x[k - start] = cell_x[k]
            node_y[k - start] = cell_y[k]
    elif order == 2:
        outer = nodes[1] * scale
        for k in range(start, stop):
            x, y, e = cell_x[k], cell_y[k], 4 * (k - start)
            far = outer * cell_side[k]
            node_x[e] = x - far
            node_x[e + 1] = x + far
            node_x[e + 2] = x - far
            node_x[e + 3] = x + far
            node_y[e] = y - far
            node_y[e + 1] = y - far
            node_y[e + 2] = y + far
            node_y[e + 3] = y + far
    else:
        inner, outer = nodes[2] * scale, nodes[3] * scale
        for k in range(start, stop):
            x, y, e = cell_x[k], cell_y[k], 16 * (k - start)
            near, far = inner * cell_side[k], outer * cell_side[k]
            for a in range(0, 16, 4):
                node_x[e + a] = x - far
                node_x[e + a + 1] = x - near
                node_x[e + a + 2] = x + near
                node_x[e + a + 3] = x + far
            for b in range(4):
                node_y[e + b] = y - far
                node_y[e + b + 4] = y - near
                node_y[e + b + 8] = y + near
                node_y[e + b + 12] = y + far
