"""Lists of cells: their flux, place and count."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.kernels.cell_quadrature import FOURS, ONES, TWOS, integrate_cells
from pipeline.kernels.light import LIGHT_CONSTANTS, SERSIC, set_sersic
from pipeline.kernels.rays import ISOTHERMAL, LENS_CONSTANTS, set_lens
from pipeline.kernels.scratch import integration_tables, spread_stride, workspace
from pipeline.kernels.spreading import SPREAD_PX

SIZE, SCALE_ARCSEC = 16, 0.25
LISTS = {1: ONES, 2: TWOS, 4: FOURS}


def _integrate(order: int, depth: int, x_px: float, y_px: float) -> tuple[NDArray[np.float32], float]:
    """One cell of a wide source without a lens, centred (x_px, y_px) from the centre of pixel SIZE // 2."""
    lens, light = np.zeros(LENS_CONSTANTS), np.zeros(LIGHT_CONSTANTS)
    set_lens(ISOTHERMAL, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, lens)
    set_sersic(1.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, SCALE_ARCSEC**2, 1e-3, light)
    work, tables = workspace(SIZE), integration_tables()
    spread = np.zeros((SIZE + 2 * SPREAD_PX, spread_stride(SIZE)), np.float32)
    work.cell_x[LISTS[order], 0], work.cell_y[LISTS[order], 0] = x_px * SCALE_ARCSEC, y_px * SCALE_ARCSEC
    work.cell_side[LISTS[order], 0] = 0.5**depth
    empty = np.zeros((2, 4, 4), np.float32)
    work.counts[LISTS[order]] = 1
    evaluations = integrate_cells(
        SERSIC, light, empty[0], ISOTHERMAL, lens, empty, 0.0, 0.0, SCALE_ARCSEC, tables, work,
        spread.reshape(-1),
    )  # fmt: skip
    return spread, evaluations


def _exact_flux(x_px: float, y_px: float, side_px: float) -> float:
    """Integral of the Gaussian exp(-b r**2) b / pi over the cell, by 64 Gauss-Legendre nodes an axis."""
    b = np.log(2.0)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    axis = [
        np.exp(-b * ((centre + 0.5 * side_px * nodes) * SCALE_ARCSEC) ** 2) @ weights * 0.5 * side_px * SCALE_ARCSEC
        for centre in (x_px, y_px)
    ]
    return float(axis[0] * axis[1] * b / np.pi)


@pytest.mark.parametrize(("order", "tolerance"), [(1, 2e-2), (2, 1e-4), (4, 3e-6)])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_flux_of_a_cell(order: int, tolerance: float, depth: int) -> None:
    """A cell holds the integral of the brightness to the order's error, at order**2 evaluations."""
    centre = {0: (2.0, -1.0), 1: (2.25, -0.75), 4: (2.03125, -1.09375)}[depth]
    spread, evaluations = _integrate(order, depth, *centre)
    assert evaluations == order**2
    assert spread.sum(dtype=np.float64) == pytest.approx(_exact_flux(*centre, 0.5**depth), rel=tolerance)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_light_lies_where_the_cell_is(order: int, depth: int) -> None:
    """The centroid of the spread light is that of the cell, to a few hundredths of a pixel."""
    x_px, y_px = {0: (2.0, -1.0), 1: (2.25, -0.75), 4: (2.03125, -1.09375)}[depth]
    spread, _ = _integrate(order, depth, x_px, y_px)
    rows, columns = np.indices(spread.shape)
    first = SIZE // 2 + SPREAD_PX
    assert (spread * (columns - first)).sum() / spread.sum() == pytest.approx(x_px, abs=0.05)
    assert (spread * (rows - first)).sum() / spread.sum() == pytest.approx(y_px, abs=0.05)
