"""Adaptive integration of one source component over the pixels of a stamp, spread for the PSF.

Every pixel is a cell. The order of its Gauss-Legendre rule (1, 2 or 4 nodes an axis) follows from the error that
`light` estimates; a cell for which four are too few is divided into four, and so on. The cells of one depth are
divided together and those of one order integrated together, so that every evaluation is part of a long vector loop.
The side lengths of a cell in the source plane come from differences between neighbours, whatever the lens model.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.cell_quadrature import DIVIDED, FOURS, ONES, TWOS, integrate_cells
from pipeline.kernels.light import IMAGE, image_brightness, image_orders, sersic_brightness, sersic_orders
from pipeline.kernels.rays import shoot
from pipeline.kernels.scratch import MAX_CELLS, MAX_ORDER, Tables, Workspace
from pipeline.kernels.simd import abs_f32, max_f32, min_f32, nearest_f32, select_f32
from pipeline.kernels.spread_cells import spread_row

_F = np.float32
_MAX_DEPTH = 14
# The cell with the lens centre, where the deflection jumps, is divided to this depth if it is bright.
_CENTRE_DEPTH = 4
# Pixels that share the light of a point, about N_eff of the sharpest PSF.
_PSF_AREA_PX = 30.0


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def shoot_pixels(
    kind: int,
    lens: NDArray[np.float64],
    field: NDArray[np.float32],
    lens_x_arcsec: float,
    lens_y_arcsec: float,
    pixel_scale_arcsec: float,
    box: tuple[int, int, int, int],
    work: Workspace,
) -> None:
    """Source positions and footprints of the pixels of a box, row after row, into work.src_x, src_y, extent2.

    Args:
        kind, lens, field: lens model, as `rays.shoot` takes it.
        lens_x_arcsec, lens_y_arcsec: lens centre from the centre of pixel size // 2. [arcsec]
        pixel_scale_arcsec: > 0. [arcsec/px]
        box: first and last + 1 row, first and last + 1 column; at least 2 x 2 pixels.
        work: receives the result.
    """
    half = work.size // 2
    i0, i1, j0, j1 = box
    n, rows = j1 - j0, i1 - i0
    total = n * rows
    first_x = _F((j0 - half) * pixel_scale_arcsec - lens_x_arcsec)
    step = _F(pixel_scale_arcsec)
    for i in range(rows):
        x, y = work.pixel_x[i * n : (i + 1) * n], work.pixel_y[i * n : (i + 1) * n]
        value = _F((i0 + i - half) * pixel_scale_arcsec - lens_y_arcsec)
        for j in range(n):
            x[j] = first_x + step * _F(np.int32(j))
            y[j] = value
    shoot(kind, work.pixel_x, work.pixel_y, total, lens, field, work.src_x, work.src_y)
    _squared_steps(work.src_x, work.src_y, total, 1, work.steps)
    across = work.steps
    for i in range(1, rows + 1):
        across[i * n] = _F(0.0)
    before, after, extent2 = across[:total], across[1 : total + 1], work.extent2
    for k in range(total):
        extent2[k] = max_f32(before[k], after[k])
    _squared_steps(work.src_x, work.src_y, total, n, work.steps)
    before, after = work.steps[:total], work.steps[n : total + n]
    for k in range(total):
        extent2[k] += max_f32(before[k], after[k])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _squared_steps(
    x: NDArray[np.float32], y: NDArray[np.float32], total: int, shift: int, steps: NDArray[np.float32]
) -> None:
    """steps[k + shift] = squared distance of positions k and k + shift; 0 in the first and last `shift`."""
    for k in range(shift):
        steps[k] = _F(0.0)
        steps[total + k] = _F(0.0)
    ahead_x, ahead_y, inner = x[shift:total], y[shift:total], steps[shift:total]
    for k in range(total - shift):
        dx, dy = ahead_x[k] - x[k], ahead_y[k] - y[k]
        inner[k] = dx * dx + dy * dy


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def integrate_component(
    profile: int,
    light: NDArray[np.float64],
    template: NDArray[np.float32],
    kind: int,
    lens: NDArray[np.float64],
    field: NDArray[np.float32],
    lens_x_arcsec: float,
    lens_y_arcsec: float,
    pixel_scale_arcsec: float,
    box: tuple[int, int, int, int],
    tolerance: float,
    tables: Tables,
    work: Workspace,
    spread: NDArray[np.float32],
) -> float:
    """Add the lensed image of one component of unit flux to a spread stamp.

    Args:
        profile: light.SERSIC or light.IMAGE.
        light: its constants. template: (S, S) image of light.IMAGE, unused otherwise.
        kind, lens, field, lens_x_arcsec, lens_y_arcsec, pixel_scale_arcsec, box: as in `shoot_pixels`, called before.
        tolerance: largest flux error of a pixel over the flux that decides the peak, > 0.
        tables, work: from `scratch`.
        spread: flattened spread stamp, see `scratch.spread_stride`. The flux is added.

    Returns:
        Number of brightness evaluations.

    Raises:
        ContractError: more cells than the workspace holds, which no valid source needs.
    """
    total = (box[1] - box[0]) * (box[3] - box[2])
    if profile == IMAGE:
        image_brightness(work.src_x, work.src_y, total, light, template, work.brightness)
        image_orders(work.src_x, work.src_y, work.extent2, total, light, work.order)
        limit = _F(1.0)
    else:
        sersic_brightness(work.src_x, work.src_y, total, light, work.brightness)
        limit = _F(tolerance * _peak_flux(work, total, pixel_scale_arcsec * pixel_scale_arcsec))
        sersic_orders(work.src_x, work.src_y, work.extent2, total, light, _F(1.0), limit, work.order)
        _mark_lens_centre(work, box, pixel_scale_arcsec, limit)
    _spread_whole_pixels(work, box, tables.box, spread)
    _sort_pixels(work, box)
    evaluations = np.float64(total)
    for depth in range(1, _MAX_DEPTH + 1):
        if work.counts[DIVIDED] == 0:
            break
        evaluations += _divide(depth, limit, light, kind, lens, field, pixel_scale_arcsec, work)
    evaluations += integrate_cells(
        profile, light, template, kind, lens, field,
        lens_x_arcsec, lens_y_arcsec, pixel_scale_arcsec, tables, work, spread,
    )  # fmt: skip
    return float(evaluations)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _peak_flux(work: Workspace, total: int, pixel_area: float) -> float:
    """Flux that decides the peak after the PSF: all of a compact image, of an extended one what a PSF covers.

    From one sample a pixel, none of which counts more than the source at its magnification.
    """
    flux, power = _F(0.0), _F(0.0)
    # The footprint is at most half the summed squares of its sides.
    twice_area = _F(2.0 * pixel_area)
    brightness, extent2 = work.brightness, work.extent2
    for k in range(total):
        value = min_f32(brightness[k], twice_area / max_f32(extent2[k], _F(1e-12)))
        flux += value
        power += value * value
    if flux < _F(1.0):
        return 1.0
    return min(np.float64(flux), _PSF_AREA_PX * np.float64(power) / np.float64(flux))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _mark_lens_centre(work: Workspace, box: tuple[int, int, int, int], pixel_scale: float, limit: np.float32) -> None:
    """Have the pixel of the lens centre divided, whatever the estimate for a continuous deflection, if it is bright."""
    n, half = box[3] - box[2], _F(0.5 * pixel_scale)
    j = int(nearest_f32((half - work.pixel_x[0]) / _F(pixel_scale) - _F(0.5)))
    i = int(nearest_f32((half - work.pixel_y[0]) / _F(pixel_scale) - _F(0.5)))
    if 0 <= j < n and 0 <= i < box[1] - box[0] and work.brightness[i * n + j] > limit:
        work.order[i * n + j] = max_f32(work.order[i * n + j], _F(MAX_ORDER + 1))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _spread_whole_pixels(
    work: Workspace, box: tuple[int, int, int, int], taps: NDArray[np.float32], spread: NDArray[np.float32]
) -> None:
    """Spread the pixels of order 1, row by row."""
    i0, i1, j0, j1 = box
    n = j1 - j0
    values, row = work.row[: n + 8], work.row[n + 8 : 2 * n + 12]
    for j in range(n + 8):
        values[j] = _F(0.0)
    middle = values[4 : n + 4]
    for i in range(i1 - i0):
        order, brightness = work.order[i * n : (i + 1) * n], work.brightness[i * n : (i + 1) * n]
        for j in range(n):
            middle[j] = select_f32(order[j] < _F(1.5), brightness[j], _F(0.0))
        spread_row(values, n, taps, (i0 + i) * work.stride + j0, work.stride, row, spread)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _sort_pixels(work: Workspace, box: tuple[int, int, int, int]) -> None:
    """List the pixels of each order above 1 in work.cells, and how many they are in work.counts."""
    n = box[3] - box[2]
    work.counts[:] = 0
    for i in range(box[1] - box[0]):
        order = work.order[i * n : (i + 1) * n]
        highest = _F(0.0)
        for j in range(n):
            highest = max_f32(highest, order[j])
        if highest < _F(1.5):
            continue
        for j in range(n):
            if order[j] > _F(1.5):
                k = i * n + j
                _append(order[j], work.pixel_x[k], work.pixel_y[k], _F(1.0), work)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _append(order: np.float32, x: np.float32, y: np.float32, side: np.float32, work: Workspace) -> None:
    which = ONES if order < _F(1.5) else (TWOS if order < _F(2.5) else (FOURS if order < _F(4.5) else DIVIDED))
    index = work.counts[which]
    work.cell_x[which, index] = x
    work.cell_y[which, index] = y
    work.cell_side[which, index] = side
    work.counts[which] = index + 1


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _divide(
    depth: int,
    limit: np.float32,
    light: NDArray[np.float64],
    kind: int,
    lens: NDArray[np.float64],
    field: NDArray[np.float32],
    pixel_scale: float,
    work: Workspace,
) -> float:
    """Divide the cells that ask for it into quarters, which have the side 2**-depth, and list these."""
    count = int(work.counts[DIVIDED])
    total = 4 * count
    if total + work.counts.max() > MAX_CELLS:
        raise ContractError("integrate_component: more cells than the workspace holds, at depth", depth)
    side = 0.5**depth
    quarter = _F(0.5 * side * pixel_scale)
    x, y, src_x, src_y = work.child_x, work.child_y, work.child_src_x, work.child_src_y
    for k in range(count):
        centre_x, centre_y, first = work.cell_x[DIVIDED, k], work.cell_y[DIVIDED, k], 4 * k
        x[first] = centre_x - quarter
        x[first + 1] = centre_x + quarter
        x[first + 2] = centre_x - quarter
        x[first + 3] = centre_x + quarter
        y[first] = centre_y - quarter
        y[first + 1] = centre_y - quarter
        y[first + 2] = centre_y + quarter
        y[first + 3] = centre_y + quarter
    shoot(kind, x, y, total, lens, field, src_x, src_y)
    for k in range(count):
        a, b, c, d = 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3
        below = (src_x[b] - src_x[a]) ** 2 + (src_y[b] - src_y[a]) ** 2
        above = (src_x[d] - src_x[c]) ** 2 + (src_y[d] - src_y[c]) ** 2
        left = (src_x[c] - src_x[a]) ** 2 + (src_y[c] - src_y[a]) ** 2
        right = (src_x[d] - src_x[b]) ** 2 + (src_y[d] - src_y[b]) ** 2
        extent = max_f32(below, above) + max_f32(left, right)
        work.child_extent2[a] = extent
        work.child_extent2[b] = extent
        work.child_extent2[c] = extent
        work.child_extent2[d] = extent
    order = work.child_order
    sersic_orders(src_x, src_y, work.child_extent2, total, light, _F(side * side), _F(limit * side), order)
    if depth < _CENTRE_DEPTH:
        for k in range(total):
            if max_f32(abs_f32(x[k]), abs_f32(y[k])) <= quarter:
                order[k] = max_f32(order[k], _F(MAX_ORDER + 1))
    if depth == _MAX_DEPTH:
        for k in range(total):
            order[k] = min_f32(order[k], _F(MAX_ORDER))
    work.counts[DIVIDED] = 0
    for k in range(total):
        _append(order[k], x[k], y[k], _F(side), work)
    return total
