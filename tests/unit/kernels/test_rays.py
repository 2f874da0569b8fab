"""Bulk ray shooting against the scalar definitions of the lens models, and arcs by sampled deflections."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import FIELD_STEP, FIELD_X, FIELD_Y, KIND, ArcDraws
from pipeline.kernels.lensing import epl_deflection, shear_deflection, sie_deflection
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.rays import FIELD, ISOTHERMAL, LENS_CONSTANTS, POWER_LAW, set_lens, shoot
from pipeline.kernels.render import StampGrid, render_arcs

NO_FIELD = np.zeros((2, 4, 4), np.float32)
GRID = StampGrid(64, PIXEL_SCALE_ARCSEC)
# theta_e, q, phi, gamma1, gamma2, src_x, src_y
LENSES = [
    (1.3, 0.7, 0.4, 0.03, -0.05, 0.21, -0.13),
    (3.0, 0.3, 2.2, -0.08, 0.06, -0.4, 0.9),
    (0.3, 0.999, 1.0, 0.0, 0.0, 0.0, 0.1),
    (1.7, 1.0, 0.8, 0.1, 0.0, 0.0, 0.0),
    (0.0, 0.5, 0.3, 0.02, 0.01, 0.3, 0.3),
]
Lens = tuple[float, float, float, float, float, float, float]


def _positions(seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Positions over a stamp and close to the lens centre."""
    generator = np.random.default_rng(seed)
    x, y = generator.uniform(-8.4, 8.4, (2, 700))
    x[:100] *= 0.01
    y[:100] *= 0.01
    return x.astype(np.float32), y.astype(np.float32)


def _shoot(
    kind: int, lens: Lens, slope: float, x: NDArray[np.float32], y: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Source offsets turned back to the pixel frame."""
    constants = np.zeros(LENS_CONSTANTS)
    theta_e, q, phi, gamma1, gamma2, src_x, src_y = lens
    set_lens(kind, theta_e, q, phi, slope, gamma1, gamma2, src_x, src_y, constants)
    along, across = np.empty_like(x), np.empty_like(y)
    shoot(kind, x, y, x.size, constants, NO_FIELD, along, across)
    c, s = math.cos(phi), math.sin(phi)
    return c * along.astype(np.float64) - s * across, s * along.astype(np.float64) + c * across


@pytest.mark.parametrize("lens", LENSES)
def test_isothermal_rays_equal_the_scalar_model(lens: Lens) -> None:
    """The position less deflection, shear and source, to 1e-5 arcsec; a round lens to 2e-5 theta_e."""
    x, y = _positions()
    theta_e, q, phi, gamma1, gamma2, src_x, src_y = lens
    result = _shoot(ISOTHERMAL, lens, 2.0, x, y)
    allowed = 1e-5 if q < 1.0 else 2e-5 * theta_e
    for k in range(x.size):
        ax, ay = sie_deflection(float(x[k]), float(y[k]), theta_e, q, phi)
        sx, sy = shear_deflection(float(x[k]), float(y[k]), gamma1, gamma2)
        assert result[0][k] == pytest.approx(x[k] - ax - sx - src_x, abs=allowed)
        assert result[1][k] == pytest.approx(y[k] - ay - sy - src_y, abs=allowed)


@pytest.mark.parametrize("slope", [1.2, 1.7, 2.0, 2.3, 2.8])
@pytest.mark.parametrize("lens", LENSES)
def test_power_law_rays_equal_the_scalar_model(lens: Lens, slope: float) -> None:
    """To 1e-5 arcsec, and 2e-6 of the deflection where a steep profile makes that large."""
    x, y = _positions()
    theta_e, q, phi, gamma1, gamma2, src_x, src_y = lens
    result = _shoot(POWER_LAW, lens, slope, x, y)
    for k in range(x.size):
        ax, ay = epl_deflection(float(x[k]), float(y[k]), theta_e, q, phi, slope)
        sx, sy = shear_deflection(float(x[k]), float(y[k]), gamma1, gamma2)
        allowed = 1e-5 + 2e-6 * math.hypot(ax, ay)
        assert result[0][k] == pytest.approx(x[k] - ax - sx - src_x, abs=allowed)
        assert result[1][k] == pytest.approx(y[k] - ay - sy - src_y, abs=allowed)


@pytest.mark.parametrize("kind", [ISOTHERMAL, POWER_LAW])
def test_centre_of_the_lens_is_finite(kind: int) -> None:
    """The exact centre maps to a finite position; lanes beyond `count` are left alone."""
    constants = np.zeros(LENS_CONSTANTS)
    set_lens(kind, 1.0, 0.6, 0.3, 1.5, 0.0, 0.0, 0.1, 0.2, constants)
    zero, out = np.zeros(4, np.float32), np.full((2, 4), 9.0, np.float32)
    shoot(kind, zero, zero, 3, constants, NO_FIELD, out[0], out[1])
    assert np.abs(out[:, :3]).max() < 2.0
    assert (out[:, 3] == 9.0).all()


def _sampled(lens: Lens, step: float, half_width: float) -> tuple[NDArray[np.float32], float]:
    """Deflection of an isothermal lens with shear on a grid about the lens, and its first position."""
    first = -half_width
    axis = first + step * np.arange(math.ceil(2 * half_width / step) + 1)
    field = np.empty((2, axis.size, axis.size), np.float32)
    for i, y in enumerate(axis):
        for j, x in enumerate(axis):
            ax, ay = sie_deflection(x, y, *lens[:3])
            sx, sy = shear_deflection(x, y, lens[3], lens[4])
            field[:, i, j] = ax + sx, ay + sy
    return field, first


def test_field_rays_equal_its_samples_and_are_exact_for_quadratics() -> None:
    """Catmull-Rom weights pass through the samples and reproduce a deflection quadratic in x and y."""
    step, first_x, first_y, n = 0.25, -4.0, -3.0, 30
    constants = np.zeros(LENS_CONSTANTS)
    set_lens(FIELD, 0.0, 1.0, 0.7, 2.0, 0.0, 0.0, 0.3, -0.2, constants)
    constants[15:18] = first_x, first_y, 1.0 / step
    column, row = first_x + step * np.arange(n), first_y + step * np.arange(n)

    def bend(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([0.1 + 0.2 * x - 0.05 * x * y + 0.02 * y * y, -0.3 + 0.03 * x * x - 0.1 * y])

    field = bend(*np.meshgrid(column, row)).astype(np.float32)
    generator = np.random.default_rng(4)
    x = generator.uniform(column[1], column[-2], 300).astype(np.float32)
    y = generator.uniform(row[1], row[-2], 300).astype(np.float32)
    along, across = np.empty_like(x), np.empty_like(y)
    shoot(FIELD, x, y, x.size, constants, field, along, across)
    ax, ay = bend(x.astype(np.float64), y.astype(np.float64))
    bx, by = x - ax - 0.3, y - ay + 0.2
    c, s = math.cos(0.7), math.sin(0.7)
    assert along == pytest.approx(c * bx + s * by, abs=3e-6)
    assert across == pytest.approx(c * by - s * bx, abs=3e-6)


def test_power_law_of_slope_two_renders_the_isothermal_arc(
    random_arcs: Callable[[int, int], ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """The series at slope 2 gives the arcs of the closed form to 1e-3 of the peak."""
    draws, psf = random_arcs(24, 5), make_psf([1.3, 1.2, 1.1])
    assert (draws.lens[:, KIND] == ISOTHERMAL).all()
    isothermal = render_arcs(draws, psf, GRID)
    series = draws.lens.copy()
    series[:, KIND] = POWER_LAW
    result = render_arcs(draws._replace(lens=series), psf, GRID)
    peak = isothermal.max(axis=(1, 2, 3))
    assert (np.abs(result - isothermal).max(axis=(1, 2, 3)) < 1e-3 * peak).all()
    assert not np.array_equal(result, isothermal)


def test_sampled_deflection_renders_the_arc_of_its_lens(
    make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """An SIE with shear sampled every 0.0655 arcsec gives its arc to 0.5 % of the peak, lens off centre."""
    lens = (1.5, 0.7, 0.4, 0.03, -0.05, 0.31, -0.13)
    draws = make_arcs(
        theta_e_arcsec=lens[0], lens_q=lens[1], lens_phi_rad=lens[2], gamma1=lens[3], gamma2=lens[4],
        src_x_arcsec=lens[5], src_y_arcsec=lens[6], lens_x_arcsec=0.09, lens_y_arcsec=-0.05, src_re_arcsec=0.25,
    )  # fmt: skip
    expected = render_arcs(draws, make_psf([1.2]), GRID)[0, 0]
    step = PIXEL_SCALE_ARCSEC / 4
    field, first = _sampled(lens, step, 8.9)
    row = draws.lens.copy()
    row[0, [KIND, FIELD_X, FIELD_Y, FIELD_STEP]] = FIELD, first, first, step
    result = render_arcs(draws._replace(lens=row, fields=field[None]), make_psf([1.2]), GRID)[0, 0]
    y, x = np.mgrid[:64, :64] - 32
    away = np.hypot(x, y) > 2
    assert np.abs(result - expected)[away].max() < 5e-3 * expected.max()
    assert result.sum() == pytest.approx(expected.sum(), rel=5e-3)


def test_each_sample_reads_its_own_field(make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]) -> None:
    """Constant deflections move the unlensed source, by another amount in every sample."""
    draws = make_arcs(src_x_arcsec=[0.0, 0.0, 0.0], src_re_arcsec=0.2)
    shift = np.array([[0.0, 0.0], [2 * PIXEL_SCALE_ARCSEC, 0.0], [0.0, -3 * PIXEL_SCALE_ARCSEC]])
    fields = np.broadcast_to(shift[:, :, None, None], (3, 2, 20, 20)).astype(np.float32)
    row = draws.lens.copy()
    row[:, [KIND, FIELD_X, FIELD_Y, FIELD_STEP]] = FIELD, -9.5, -9.5, 1.0
    moved = render_arcs(draws._replace(lens=row, fields=fields), make_psf([1.2]), GRID)[:, 0]
    peaks = [tuple(int(k) for k in np.unravel_index(image.argmax(), image.shape)) for image in moved]
    assert peaks == [(32, 32), (32, 34), (29, 32)]
