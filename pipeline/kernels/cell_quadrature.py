"""Gauss-Legendre integration of the lists of cells of each order, and their deposition on the spread stamp."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.lanes import constant, splatter, storer
from pipeline.kernels.light import IMAGE, image_brightness, sersic_brightness
from pipeline.kernels.rays import shoot
from pipeline.kernels.scratch import MAX_NODES, Tables, Workspace
from pipeline.kernels.simd import nearest_f32
from pipeline.kernels.spread_cells import collect_1, collect_2, collect_4, spread_moments

# Lists of cells in the workspace: of order 2, of order 4, to be divided, of order 1.
TWOS, FOURS, DIVIDED, ONES = 0, 1, 2, 3

_F = np.float32
# Numbers of a vector.
_WIDTH = 16

_store_4, _store_16, _splat_4, _splat_16 = storer(4), storer(16), splatter(4), splatter(16)
_x = 0.5 * np.polynomial.legendre.leggauss(2)[0]
_across_2, _along_2 = constant([_x[k % 2] for k in range(4)]), constant([_x[k // 2] for k in range(4)])
_x = 0.5 * np.polynomial.legendre.leggauss(4)[0]
_across_4, _along_4 = constant([_x[k % 4] for k in range(16)]), constant([_x[k // 4] for k in range(16)])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def integrate_cells(
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
    """Integrate the listed cells of orders 1, 2 and 4 and spread their flux.

    Arguments as in `cells.integrate_component`.

    Returns:
        Number of brightness evaluations.
    """
    per_scale, scale, stride = _F(1.0 / pixel_scale_arcsec), _F(pixel_scale_arcsec), np.int32(work.stride)
    origin_x = _F(lens_x_arcsec / pixel_scale_arcsec + work.size // 2)
    origin_y = _F(lens_y_arcsec / pixel_scale_arcsec + work.size // 2)
    brightness, moments = work.node_flux, work.moments
    evaluations, lit = 0.0, 0
    for order in (1, 2, 4):
        which = ONES if order == 1 else (TWOS if order == 2 else FOURS)
        count, per_cell = work.counts[which], order * order
        block = MAX_NODES // per_cell
        evaluations += count * per_cell
        for start in range(0, count, block):
            n = min(block, count - start)
            cells = slice(start, start + n)
            x, y, side = work.cell_x[which, cells], work.cell_y[which, cells], work.cell_side[which, cells]
            _place_nodes(order, x, y, side, scale, work.node_x, work.node_y)
            # Up to whole vectors; what is beyond the nodes is not read.
            nodes = -(-n * per_cell // _WIDTH) * _WIDTH
            _evaluate(
                profile, light, template, kind, lens, field, nodes,
                work.node_x, work.node_y, work.node_src_x, work.node_src_y, brightness,
            )  # fmt: skip
            x_px, y_px, first = work.node_x[:n], work.node_y[:n], work.node_pixel[:n]
            for k in range(n):
                # From the lens in arcsec to pixels of the stamp, then from the pixel's centre.
                j_px, i_px = x[k] * per_scale + origin_x, y[k] * per_scale + origin_y
                j, i = nearest_f32(j_px), nearest_f32(i_px)
                x_px[k], y_px[k] = j_px - j, i_px - i
                first[k] = np.int32(i) * stride + np.int32(j)
            if order == 1:
                lit = collect_1(brightness, x_px, y_px, side, first, moments, work.lit, lit)
            elif order == 2:
                lit = collect_2(brightness, x_px, y_px, side, first, moments, work.lit, lit)
            else:
                lit = collect_4(brightness, x_px, y_px, side, first, moments, work.lit, lit)
    spread_moments(work.lit, lit, moments, work.stride, tables.spread, spread)
    return evaluations


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _place_nodes(
    order: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    side: NDArray[np.float32],
    scale: np.float32,
    node_x: NDArray[np.float32],
    node_y: NDArray[np.float32],
) -> None:
    """Positions of the nodes of cells, rows first."""
    if order == 1:
        for k in range(side.size):
            node_x[k] = x[k]
            node_y[k] = y[k]
    elif order == 2:
        for k in range(side.size):
            _store_4(node_x, 4 * k, _across_2() * (side[k] * scale) + _splat_4(x[k]))
            _store_4(node_y, 4 * k, _along_2() * (side[k] * scale) + _splat_4(y[k]))
    else:
        for k in range(side.size):
            _store_16(node_x, 16 * k, _across_4() * (side[k] * scale) + _splat_16(x[k]))
            _store_16(node_y, 16 * k, _along_4() * (side[k] * scale) + _splat_16(y[k]))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _evaluate(
    profile: int,
    light: NDArray[np.float64],
    template: NDArray[np.float32],
    kind: int,
    lens: NDArray[np.float64],
    field: NDArray[np.float32],
    count: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    src_x: NDArray[np.float32],
    src_y: NDArray[np.float32],
    brightness: NDArray[np.float32],
) -> None:
    """Brightness at the first `count` positions (x, y); src_x and src_y receive their source positions."""
    shoot(kind, x, y, count, lens, field, src_x, src_y)
    if profile == IMAGE:
        image_brightness(src_x, src_y, count, light, template, brightness)
    else:
        sersic_brightness(src_x, src_y, count, light, brightness)
