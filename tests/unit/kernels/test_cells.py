"""Integration over cells: closed forms of lensed flux, evaluations spent, and what is left where no light falls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.arc_draws import THETA_E, ArcDraws
from pipeline.kernels.cells import integrate_component, shoot_pixels
from pipeline.kernels.light import LIGHT_CONSTANTS, SERSIC, set_sersic
from pipeline.kernels.profiles import sersic_bn
from pipeline.kernels.rays import ISOTHERMAL, LENS_CONSTANTS, set_lens, shoot
from pipeline.kernels.scratch import integration_tables, spread_stride, workspace
from pipeline.kernels.spreading import SPREAD_PX

Integrate = Callable[..., tuple[NDArray[np.float64], float]]
NO_FIELD = np.zeros((2, 4, 4), np.float32)
NO_TEMPLATE = np.zeros((2, 2), np.float32)


def _lens(theta_e: float, src_x: float = 0.0, src_y: float = 0.0) -> NDArray[np.float64]:
    constants = np.zeros(LENS_CONSTANTS)
    set_lens(ISOTHERMAL, theta_e, 0.7, 0.5, 2.0, 0.05, -0.02, src_x, src_y, constants)
    return constants


def _light(re: float, n: float, scale: float, lens_phi: float = 0.5) -> NDArray[np.float64]:
    constants = np.zeros(LIGHT_CONSTANTS)
    set_sersic(re, n, 0.8, 0.3, 0.0, 0.0, lens_phi, scale**2, 5e-3, constants)
    return constants


def _spread(
    lens: NDArray[np.float64], light: NDArray[np.float64], tolerance: float, size: int = 32, scale: float = 0.262
) -> tuple[NDArray[np.float32], float]:
    work, box = workspace(size), (0, size, 0, size)
    spread = np.zeros((size + 2 * SPREAD_PX) * work.stride, np.float32)
    shoot_pixels(ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, scale, box, work)
    evaluations = integrate_component(
        SERSIC, light, NO_TEMPLATE, ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, scale, box, tolerance,
        integration_tables(), work, spread,
    )  # fmt: skip
    return spread.reshape(-1, work.stride), evaluations


def test_pixels_are_shot_from_their_centres_with_their_footprints() -> None:
    """Row after row of the box; extent2 is the larger of the differences to both neighbours, along and across."""
    size, scale, box, lens = 32, 0.262, (3, 29, 5, 30), _lens(1.1, 0.2, 0.1)
    work = workspace(size)
    shoot_pixels(ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, scale, box, work)
    row, column = np.mgrid[box[0] : box[1], box[2] : box[3]] - size // 2
    x, y = (column * scale - 0.05).astype(np.float32).ravel(), (row * scale + 0.03).astype(np.float32).ravel()
    u, v = np.empty_like(x), np.empty_like(y)
    shoot(ISOTHERMAL, x, y, x.size, lens, NO_FIELD, u, v)
    assert work.src_x[: x.size] == pytest.approx(u, abs=2e-6)
    assert work.src_y[: x.size] == pytest.approx(v, abs=2e-6)
    u, v = u.reshape(row.shape), v.reshape(row.shape)
    sides = []
    for axis in (0, 1):
        step = np.diff(u, axis=axis) ** 2 + np.diff(v, axis=axis) ** 2
        pad = [(1, 0) if k == axis else (0, 0) for k in (0, 1)], [(0, 1) if k == axis else (0, 0) for k in (0, 1)]
        sides.append(np.maximum(np.pad(step, pad[0]), np.pad(step, pad[1])))
    assert work.extent2[: x.size].reshape(row.shape) == pytest.approx(sides[0] + sides[1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("n", "re", "magnification"), [(1.0, 0.2, 25.1752), (1.0, 0.3, 16.7837), (0.5, 0.15, 29.5133), (2.0, 0.3, 22.4820)]
)
def test_on_axis_ring_has_its_magnification(
    n: float, re: float, magnification: float, make_arcs: Callable[..., ArcDraws], integrate: Integrate
) -> None:
    """A source behind the centre of a sphere of 1.5 arcsec: 2 theta_E b^n Gamma(n) / (Re Gamma(2n)), to 3e-3."""
    closed = 2 * 1.5 * sersic_bn(n) ** n * math.gamma(n) / (re * math.gamma(2 * n))
    assert closed == pytest.approx(magnification, rel=5e-4)
    draws = make_arcs(theta_e_arcsec=1.5, src_re_arcsec=re, src_n=n)
    for size, scale in ((96, 0.15), (64, 0.262)):
        assert integrate(draws, size, scale)[0][0] == pytest.approx(closed, rel=3e-3)


def test_uniform_disc_has_its_magnification(make_image_arc: Callable[..., ArcDraws], integrate: Integrate) -> None:
    """A disc of 0.3 arcsec behind the centre of a sphere of 1.5 arcsec is magnified 4 theta_E / R = 20 times."""
    y, x = np.mgrid[:301, :301] - 150
    template = (np.hypot(x, y) <= 120).astype(np.float64)
    radius_px = math.sqrt(template.sum() / math.pi)
    draws = make_image_arc(template, 0.3 / radius_px, lens={THETA_E: 1.5})
    assert integrate(draws, 128, 0.04)[0][0] == pytest.approx(20.0, rel=3e-3)
    assert integrate(draws, 64, 0.1)[0][0] == pytest.approx(20.0, rel=2e-2)


@pytest.mark.parametrize("re", [0.05, 0.01])
def test_point_like_source_is_magnified_by_two_theta_e_over_beta(
    re: float, make_arcs: Callable[..., ArcDraws], integrate: Integrate
) -> None:
    """Both images of a compact Gaussian source behind a sphere, wherever they fall between pixel centres."""
    beta, angle = np.meshgrid(np.array([0.4, 0.6, 0.8]), np.linspace(0.0, 6.0, 9))
    theta_e = 1.37
    draws = make_arcs(
        theta_e_arcsec=theta_e, src_x_arcsec=(beta * theta_e * np.cos(angle)).ravel(),
        src_y_arcsec=(beta * theta_e * np.sin(angle)).ravel(), src_re_arcsec=re, src_n=0.5,
        lens_x_arcsec=0.07, lens_y_arcsec=-0.11,
    )  # fmt: skip
    assert integrate(draws, 64, 0.262)[0] == pytest.approx(2.0 / beta.ravel(), rel=4e-3)


def test_unlensed_source_has_unit_flux(make_arcs: Callable[..., ArcDraws], integrate: Integrate) -> None:
    """With theta_E = 0 all the flux is there to 1e-3, for any profile, size and position between pixels."""
    generator = np.random.default_rng(11)
    draws = make_arcs(
        src_x_arcsec=generator.uniform(-0.2, 0.2, 60), src_y_arcsec=generator.uniform(-0.2, 0.2, 60),
        src_re_arcsec=np.exp(generator.uniform(math.log(0.02), math.log(0.5), 60)),
        src_n=generator.uniform(0.5, 2.5, 60), src_q=generator.uniform(0.3, 1.0, 60),
    )  # fmt: skip
    assert integrate(draws, 128, 0.262)[0] == pytest.approx(np.ones(60), abs=1e-3)


def test_smaller_tolerance_costs_more_and_errs_less() -> None:
    """Evaluations rise and the largest error falls from tolerance to tolerance."""
    lens, light = _lens(1.1, 0.25, 0.05), _light(0.12, 2.5, 0.262)
    exact, _ = _spread(lens, light, 1e-7)
    runs = [_spread(lens, light, tolerance) for tolerance in (3e-2, 1e-3, 3e-5)]
    errors = [float(np.abs(spread - exact).max() / exact.max()) for spread, _ in runs]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    assert runs[0][1] < runs[1][1] < runs[2][1]
    assert runs[0][1] >= 32 * 32


def test_flux_is_added_and_stays_out_of_the_padding() -> None:
    """A second component adds to the first; columns beyond the spread stamp hold zeros."""
    lens, size = _lens(1.1, 0.25, 0.05), 32
    spread, _ = _spread(lens, _light(0.2, 1.0, 0.262), 1e-4)
    assert (spread[:, size + 2 * SPREAD_PX :] == 0.0).all()
    assert spread.shape == (size + 2 * SPREAD_PX, spread_stride(size))
    work, box = workspace(size), (0, size, 0, size)
    twice = np.zeros(spread.size, np.float32)
    shoot_pixels(ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, 0.262, box, work)
    for _ in range(2):
        integrate_component(
            SERSIC, _light(0.2, 1.0, 0.262), NO_TEMPLATE, ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, 0.262, box, 1e-4,
            integration_tables(), work, twice,
        )  # fmt: skip
    assert twice.reshape(spread.shape) == pytest.approx(2 * spread, rel=1e-5, abs=1e-7)


def test_light_outside_the_box_is_left_out() -> None:
    """Only pixels of the box are integrated: two halves of a stamp add up to the whole."""
    lens, light, size = _lens(1.1, 0.25, 0.05), _light(0.3, 1.0, 0.262), 32
    whole, _ = _spread(lens, light, 1e-5)
    work, halves = workspace(size), np.zeros(whole.size, np.float32)
    for box in ((0, size, 0, 13), (0, size, 13, size)):
        shoot_pixels(ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, 0.262, box, work)
        integrate_component(
            SERSIC, light, NO_TEMPLATE, ISOTHERMAL, lens, NO_FIELD, 0.05, -0.03, 0.262, box, 1e-5,
            integration_tables(), work, halves,
        )  # fmt: skip
    assert halves.reshape(whole.shape) == pytest.approx(whole, abs=1e-3 * float(whole.max()))


def test_every_pixel_of_a_large_stamp_may_need_four_nodes(
    make_image_arc: Callable[..., ArcDraws], integrate: Integrate
) -> None:
    """A template that covers all of 200 x 200 pixels, more than one block of cells, keeps its flux."""
    y, x = np.mgrid[:256, :256] - 127.5
    draws = make_image_arc(np.exp(-0.5 * (x**2 + y**2) / 30**2), 0.1)
    assert integrate(draws, 200, 0.1)[0][0] == pytest.approx(1.0, abs=2e-3)


def test_cells_beyond_the_workspace_are_refused() -> None:
    """A tolerance that asks for more cells than fit is a ContractError, not a write out of bounds."""
    with pytest.raises(ContractError, match="more cells"):
        _spread(_lens(1.1), _light(0.5, 6.0, 0.262), 1e-30, size=512)
