"""Adaptive integration of one source component over the pixels of a stamp, spread for the PSF.

Every pixel is a cell. The order of its Gauss-Legendre rule (1, 2 or 4 nodes an axis) follows from the error that
`light` estimates; a cell for which four are too few is divided into four, and so on. Cells are divided a vector of
quarters at a time, and those of one order integrated together, so that every evaluation is part of a vector loop.
The side lengths of a cell in the source plane come from differences between neighbours, whatever the lens model.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.cell_quadrature import DIVIDED, FOURS, ONES, TWOS, integrate_cells
from pipeline.kernels.lanes import Mask, Vector, constant
from pipeline.kernels.light import (
    IMAGE,
    bright_radius,
    image_brightness,
    may_err,
    sees_image,
    sersic,
    sersic_brightness,
    too_coarse,
)
from pipeline.kernels.rays import ISOTHERMAL, isothermal, shoot, shoot_isothermal
from pipeline.kernels.scratch import Tables, Workspace
from pipeline.kernels.simd import abs_f32, max_f32, min_f32, nearest_f32, select_f32
from pipeline.kernels.spread_pixels import spread_pixels
from pipeline.kernels.vectors import (
    VECTOR,
    all_lanes,
    any_lane,
    append_lanes,
    count_lanes,
    lane_numbers,
    lanes_from,
    load_lanes,
    load_quarters,
    load_where,
    partner_1,
    partner_2,
    store_lanes,
    sum_lanes,
)

_F = np.float32
# Cells of this side are not divided. [px]
_LEAST_SIDE = _F(0.5**14)
# The cell with the lens centre, where the deflection jumps, is divided to this side if it is bright. [px]
_CENTRE_SIDE = _F(0.5**4)
# Squared extent that has a bright cell divided. [arcsec^2]
_JUMP = _F(1e6)
# Pixels that share the light of a point, about N_eff of the sharpest PSF.
_PSF_AREA_PX = 30.0
# Which way the quarters of a cell lie from its centre.
_right, _up = constant([-1.0, 1.0, -1.0, 1.0] * (VECTOR // 4)), constant([-1.0, -1.0, 1.0, 1.0] * (VECTOR // 4))


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
    pixel_x, pixel_y, src_x, src_y, extent2 = work.pixel_x, work.pixel_y, work.src_x, work.src_y, work.extent2
    for i in range(rows):
        y = all_lanes(_F((i0 + i - half) * pixel_scale_arcsec - lens_y_arcsec))
        for j in range(0, n, VECTOR):
            store_lanes(pixel_x, i * n + j, n - j, first_x + step * (lane_numbers() + _F(j)))
            store_lanes(pixel_y, i * n + j, n - j, y)
    shoot(kind, pixel_x, pixel_y, total, lens, field, src_x, src_y)
    for j in range(0, n, VECTOR):
        _footprints(src_x, src_y, rows, n, j, extent2)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _footprints(
    src_x: NDArray[np.float32], src_y: NDArray[np.float32], rows: int, n: int, j: int, extent2: NDArray[np.float32]
) -> None:
    """Summed squared lengths of the sides of pixels, those of VECTOR columns from column j on, from differences.

    A side is the larger of the differences to both neighbours. An edge of the box has one.
    """
    here, behind, ahead = lanes_from(0, n - j), lanes_from(1 - j, n - j), lanes_from(0, n - 1 - j)
    none = all_lanes(_F(0.0))
    x, y, above = load_where(src_x, j, here), load_where(src_y, j, here), none
    for i in range(rows):
        k = i * n + j
        dx, dy = x - load_where(src_x, k - 1, behind), y - load_where(src_y, k - 1, behind)
        before = select_f32(behind, dx * dx + dy * dy, none)
        dx, dy = x - load_where(src_x, k + 1, ahead), y - load_where(src_y, k + 1, ahead)
        after = select_f32(ahead, dx * dx + dy * dy, none)
        # Below the last row lies itself.
        below_k = min(i + 1, rows - 1) * n + j
        below_x, below_y = load_where(src_x, below_k, here), load_where(src_y, below_k, here)
        dx, dy = below_x - x, below_y - y
        below = dx * dx + dy * dy
        store_lanes(extent2, k, n - j, max_f32(before, after) + max_f32(above, below))
        x, y, above = below_x, below_y, below


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
    rows, n = box[1] - box[0], box[3] - box[2]
    total, brightness, limit = rows * n, work.brightness, _F(1.0)
    if profile == IMAGE:
        image_brightness(work.src_x, work.src_y, total, light, template, brightness)
        _list_image_pixels(light, total, work)
    else:
        sersic_brightness(work.src_x, work.src_y, total, light, brightness)
        peak = _peak_flux(brightness, work.extent2, total, pixel_scale_arcsec * pixel_scale_arcsec)
        limit = _F(tolerance * peak)
        centre = _bright_centre(work, box, pixel_scale_arcsec, limit)
        _list_pixels(light, limit, total, centre, work)
    spread_pixels(brightness, rows, n, tables.box, box[0] * work.stride + box[2], work.stride, spread)
    evaluations = np.float64(total)
    if work.counts[DIVIDED] > 0:
        evaluations += _divide(limit, light, kind, lens, field, pixel_scale_arcsec, work)
    evaluations += integrate_cells(
        profile, light, template, kind, lens, field,
        lens_x_arcsec, lens_y_arcsec, pixel_scale_arcsec, tables, work, spread,
    )  # fmt: skip
    return float(evaluations)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _peak_flux(brightness: NDArray[np.float32], extent2: NDArray[np.float32], total: int, pixel_area: float) -> float:
    """Flux that decides the peak after the PSF: all of a compact image, of an extended one what a PSF covers.

    From one sample a pixel, none of which counts more than the source at its magnification.
    """
    flux, power = all_lanes(_F(0.0)), all_lanes(_F(0.0))
    # The footprint is at most half the summed squares of its sides.
    twice_area = _F(2.0 * pixel_area)
    for k in range(0, total, VECTOR):
        cap = twice_area / max_f32(load_lanes(extent2, k, total - k), _F(1e-12))
        value = min_f32(load_lanes(brightness, k, total - k), cap)
        flux += value
        power += value * value
    whole = np.float64(sum_lanes(flux))
    if whole < 1.0:
        return 1.0
    return min(whole, _PSF_AREA_PX * np.float64(sum_lanes(power)) / whole)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _bright_centre(work: Workspace, box: tuple[int, int, int, int], pixel_scale: float, limit: np.float32) -> int:
    """Index of the pixel of the lens centre, -1 if it lies outside the box or is faint."""
    n, half = box[3] - box[2], _F(0.5 * pixel_scale)
    j = int(nearest_f32((half - work.pixel_x[0]) / _F(pixel_scale) - _F(0.5)))
    i = int(nearest_f32((half - work.pixel_y[0]) / _F(pixel_scale) - _F(0.5)))
    if 0 <= j < n and 0 <= i < box[1] - box[0] and work.brightness[i * n + j] > limit:
        return i * n + j
    return -1


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _append(
    end: int, mask: Mask, x: Vector, y: Vector, side: Vector,
    cell_x: NDArray[np.float32], cell_y: NDArray[np.float32], cell_side: NDArray[np.float32],
) -> int:  # fmt: skip
    """Add the cells in a mask to the list that ends there in the flattened arrays; where it ends then."""
    append_lanes(cell_x, end, mask, x)
    append_lanes(cell_y, end, mask, y)
    append_lanes(cell_side, end, mask, side)
    return end + int(count_lanes(mask))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _list_pixels(constants: NDArray[np.float64], limit: np.float32, total: int, centre: int, work: Workspace) -> None:
    """List the pixels that need more than one node in work.cells, how many they are in work.counts.

    Their brightness becomes 0. The pixel `centre` is divided whatever the estimate for a continuous deflection.
    """
    light, per_limit, whole = sersic(constants), _F(1.0) / limit, all_lanes(_F(1.0))
    bright = bright_radius(light, per_limit)
    pixel_x, pixel_y, all_x, all_y, all_extent2 = work.pixel_x, work.pixel_y, work.src_x, work.src_y, work.extent2
    cell_x, cell_y, cell_side, length = work.cell_x, work.cell_y, work.cell_side, work.cell_x.shape[1]
    brightness = work.brightness
    twos, fours, divided = TWOS * length, FOURS * length, DIVIDED * length
    for k in range(0, total, VECTOR):
        left = total - k
        src_x, src_y = load_lanes(all_x, k, left), load_lanes(all_y, k, left)
        extent2 = load_lanes(all_extent2, k, left)
        if k <= centre < k + VECTOR:
            extent2 = select_f32(lanes_from(centre - k, centre - k + 1), all_lanes(_JUMP), extent2)
        if not any_lane(may_err(src_x, src_y, extent2, light, bright)):
            continue
        one, two, four = too_coarse(src_x, src_y, extent2, light, all_lanes(per_limit))
        one &= lanes_from(0, left)
        four &= one
        two &= one
        store_lanes(brightness, k, left, select_f32(one, _F(0.0), load_lanes(brightness, k, left)))
        x, y = load_lanes(pixel_x, k, left), load_lanes(pixel_y, k, left)
        twos = _append(twos, one & ~two, x, y, whole, cell_x, cell_y, cell_side)
        fours = _append(fours, two & ~four, x, y, whole, cell_x, cell_y, cell_side)
        divided = _append(divided, four, x, y, whole, cell_x, cell_y, cell_side)
    work.counts[ONES], work.counts[TWOS] = 0, twos - TWOS * length
    work.counts[FOURS], work.counts[DIVIDED] = fours - FOURS * length, divided - DIVIDED * length


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _list_image_pixels(constants: NDArray[np.float64], total: int, work: Workspace) -> None:
    """`_list_pixels` for an image: all pixels that may see it need four nodes."""
    pixel_x, pixel_y, all_x, all_y, all_extent2 = work.pixel_x, work.pixel_y, work.src_x, work.src_y, work.extent2
    cell_x, cell_y, cell_side, first = work.cell_x, work.cell_y, work.cell_side, FOURS * work.cell_x.shape[1]
    fours, whole, brightness = first, all_lanes(_F(1.0)), work.brightness
    for k in range(0, total, VECTOR):
        left = total - k
        src_x, src_y = load_lanes(all_x, k, left), load_lanes(all_y, k, left)
        sees = sees_image(src_x, src_y, load_lanes(all_extent2, k, left), constants) & lanes_from(0, left)
        store_lanes(brightness, k, left, select_f32(sees, _F(0.0), load_lanes(brightness, k, left)))
        x, y = load_lanes(pixel_x, k, left), load_lanes(pixel_y, k, left)
        fours = _append(fours, sees, x, y, whole, cell_x, cell_y, cell_side)
    work.counts[ONES], work.counts[TWOS], work.counts[FOURS], work.counts[DIVIDED] = 0, 0, fours - first, 0


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _divide(
    limit: np.float32,
    constants: NDArray[np.float64],
    kind: int,
    lens_constants: NDArray[np.float64],
    field: NDArray[np.float32],
    pixel_scale: float,
    work: Workspace,
) -> float:
    """Divide the cells that ask for it into quarters, and the quarters that ask for it, and list all others.

    The list of cells to divide is a queue; a vector holds the quarters of VECTOR / 4 of its cells.
    """
    light, lens = sersic(constants), isothermal(lens_constants)
    per_limit, half_scale = _F(1.0) / limit, _F(0.5 * pixel_scale)
    cell_x, cell_y, cell_side, length = work.cell_x, work.cell_y, work.cell_side, work.cell_x.shape[1]
    child_x, child_y, child_src_x, child_src_y = work.child_x, work.child_y, work.child_src_x, work.child_src_y
    ones, twos = ONES * length, TWOS * length + work.counts[TWOS]
    fours, divided = FOURS * length + work.counts[FOURS], DIVIDED * length + work.counts[DIVIDED]
    done = DIVIDED * length
    while done < divided:
        longest = max(ones - ONES * length, twos - TWOS * length, fours - FOURS * length, divided - DIVIDED * length)
        if longest > length - 2 * VECTOR:
            raise ContractError("integrate_component: more cells than the workspace holds", longest)
        side = _F(0.5) * load_quarters(cell_side, done)
        quarter = half_scale * side
        x = load_quarters(cell_x, done) + quarter * _right()
        y = load_quarters(cell_y, done) + quarter * _up()
        if kind == ISOTHERMAL:
            src_x, src_y = shoot_isothermal(x, y, lens)
        else:
            store_lanes(child_x, 0, VECTOR, x)
            store_lanes(child_y, 0, VECTOR, y)
            shoot(kind, child_x, child_y, VECTOR, lens_constants, field, child_src_x, child_src_y)
            src_x, src_y = load_lanes(child_src_x, 0, VECTOR), load_lanes(child_src_y, 0, VECTOR)
        dx, dy = src_x - partner_1(src_x), src_y - partner_1(src_y)
        along = dx * dx + dy * dy
        dx, dy = src_x - partner_2(src_x), src_y - partner_2(src_y)
        across = dx * dx + dy * dy
        extent2 = max_f32(along, partner_2(along)) + max_f32(across, partner_1(across))
        central = (max_f32(abs_f32(x), abs_f32(y)) <= quarter) & (side > _CENTRE_SIDE)
        extent2 = select_f32(central, all_lanes(_JUMP), extent2)
        # A cell may err by the limit times its side, not its area: errors of many cells cancel.
        one, two, four = too_coarse(src_x, src_y, extent2, light, per_limit * side)
        listed = lanes_from(0, 4 * (divided - done))
        done = min(done + VECTOR // 4, divided)
        four &= side > _LEAST_SIDE
        ones = _append(ones, listed & ~one, x, y, side, cell_x, cell_y, cell_side)
        twos = _append(twos, listed & one & ~two, x, y, side, cell_x, cell_y, cell_side)
        fours = _append(fours, listed & two & ~four, x, y, side, cell_x, cell_y, cell_side)
        divided = _append(divided, listed & four, x, y, side, cell_x, cell_y, cell_side)
    work.counts[ONES], work.counts[TWOS] = ones - ONES * length, twos - TWOS * length
    work.counts[FOURS], work.counts[DIVIDED] = fours - FOURS * length, divided - DIVIDED * length
    return 4.0 * np.float64(divided - DIVIDED * length)
