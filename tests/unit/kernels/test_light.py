"""Brightness of source components, the orders chosen for their cells, and arcs of image sources."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage, signal

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import LENS_PHI, LENS_Q, LENS_X, LENS_Y, SRC_X, SRC_Y, THETA_E, ArcDraws
from pipeline.kernels.light import (
    LIGHT_CONSTANTS,
    bright_radius,
    image_brightness,
    may_err,
    sees_image,
    sersic,
    sersic_brightness,
    set_image,
    set_sersic,
    too_coarse,
)
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor
from pipeline.kernels.psf import StampPsf, psf_fwhm_arcsec, psf_kernel
from pipeline.kernels.render import StampGrid, render_arcs
from pipeline.kernels.simd import select_f32
from pipeline.kernels.vectors import VECTOR, all_lanes, load_lanes, store_lanes

GRID = StampGrid(64, PIXEL_SCALE_ARCSEC)
Floats = NDArray[np.float32]
# re, n, q, phi, x, y of a source, and the angle of the lens
SOURCES = [
    (0.2, 1.0, 0.6, 0.4, 0.05, -0.1, 0.9),
    (0.5, 4.0, 0.9, 2.0, 0.0, 0.0, 0.0),
    (0.1, 0.5, 0.3, 1.1, 0.2, 0.1, 2.5),
]
Source = tuple[float, float, float, float, float, float, float]


def _constants(source: Source, area: float = 1.0, core_share: float = 5e-3) -> NDArray[np.float64]:
    constants = np.zeros(LIGHT_CONSTANTS)
    re, n, q, phi, x, y, lens_phi = source
    set_sersic(re, n, q, phi, x, y, lens_phi, area, core_share, constants)
    return constants


@njit(error_model="numpy", fastmath=True)
def _orders(
    x: Floats, y: Floats, extent2: Floats, constants: NDArray[np.float64], per_tolerance: np.float32, order: Floats
) -> None:
    """1, 2, 4 or 5: the lowest order that is not too coarse; 0 where `may_err` rules out more than one node."""
    light = sersic(constants)
    bright = bright_radius(light, per_tolerance)
    for k in range(0, x.size, VECTOR):
        left = x.size - k
        u, v, size = load_lanes(x, k, left), load_lanes(y, k, left), load_lanes(extent2, k, left)
        one, two, four = too_coarse(u, v, size, light, all_lanes(per_tolerance))
        value = select_f32(one, all_lanes(np.float32(2)), all_lanes(np.float32(1)))
        value = select_f32(four, np.float32(5), select_f32(two, np.float32(4), value))
        store_lanes(order, k, left, select_f32(may_err(u, v, size, light, bright) | one, value, np.float32(0)))


@njit(error_model="numpy", fastmath=True)
def _sees_image(x: Floats, y: Floats, extent2: Floats, constants: NDArray[np.float64], seen: Floats) -> None:
    for k in range(0, x.size, VECTOR):
        left = x.size - k
        u, v, size = load_lanes(x, k, left), load_lanes(y, k, left), load_lanes(extent2, k, left)
        store_lanes(
            seen, k, left, select_f32(sees_image(u, v, size, constants), all_lanes(np.float32(1)), np.float32(0))
        )


def _brightness(source: Source, x: NDArray[np.float64], y: NDArray[np.float64], core_share: float = 5e-3) -> Floats:
    """Brightness per arcsec^2 at offsets from the source in the pixel frame, turned to the lens's as rays are."""
    c, s = math.cos(source[6]), math.sin(source[6])
    along, across = (c * x + s * y).astype(np.float32).ravel(), (c * y - s * x).astype(np.float32).ravel()
    out = np.empty_like(along)
    sersic_brightness(along, across, along.size, _constants(source, core_share=core_share), out)
    return out.reshape(x.shape)


def _radius(source: Source, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    re, _, q, phi, x0, y0, _ = source
    c, s = math.cos(phi), math.sin(phi)
    u, v = c * (x - x0) + s * (y - y0), c * (y - y0) - s * (x - x0)
    return np.asarray(np.hypot(u, v / q) / re)


def _profile(source: Source, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sersic brightness of unit flux at radii in units of Re. [1/arcsec^2]"""
    b = sersic_bn(source[1])
    centre = math.exp(b) / (sersic_flux_factor(source[1], b) * source[0] ** 2 * source[2])
    return np.asarray(centre * np.exp(-b * radius ** (1.0 / source[1])))


@pytest.mark.parametrize("source", SOURCES)
def test_sersic_brightness_outside_the_core_is_the_profile(source: Source) -> None:
    """To 3e-5 of the value, over the decades that matter, at any angle and offset of the component."""
    x, y = np.random.default_rng(2).normal(0.0, 1.5 * source[0], (2, 4000))
    radius = _radius(source, x, y)
    outside = radius**2 > _constants(source)[6] * (1 + 1e-6)
    exact = _profile(source, radius)[outside]
    shown = exact > 1e-6 * exact.max()
    assert _brightness(source, x, y)[outside][shown] == pytest.approx(exact[shown], rel=3e-5)


@pytest.mark.parametrize("share", [1e-3, 2e-2])
@pytest.mark.parametrize("source", SOURCES)
def test_softened_core_keeps_its_flux_and_joins(source: Source, share: float) -> None:
    """The core holds its share of the flux exactly, is finite at the centre and continuous at its radius."""
    core = math.sqrt(_constants(source, core_share=share)[6])
    re, _, q, phi, x0, y0, _ = source
    r = core * (np.arange(2000) + 0.5) / 2000
    x, y = x0 + re * r * math.cos(phi), y0 + re * r * math.sin(phi)
    value = _brightness(source, x, y, share).astype(np.float64)
    assert np.sum(value * 2 * math.pi * r * core / 2000) * re * re * q == pytest.approx(share, rel=2e-3)
    assert (np.diff(value) <= 1e-6 * value[0]).all()
    assert value[-1] == pytest.approx(float(_profile(source, np.array(core))), rel=5e-3)


def test_negligible_light_is_zero() -> None:
    """No brightness is subnormal: beyond the profile's reach it is exactly zero."""
    x = np.linspace(0.0, 60.0, 5000)
    value = _brightness(SOURCES[0], x, np.zeros_like(x))
    assert (value[-1000:] == 0.0).all()
    assert ((value == 0.0) | (value > 1e-12)).all()


@pytest.mark.parametrize("source", SOURCES)
def test_order_keeps_the_error_of_a_cell_below_its_tolerance(source: Source) -> None:
    """On a plain grid of square cells, the rule of the chosen order errs by at most twice the tolerance."""
    side, tolerance = 0.06, 1e-4
    axis = side * np.arange(-12, 13)
    x, y = (grid.ravel() for grid in np.meshgrid(axis + source[4], axis + source[5]))
    c, s = math.cos(source[6]), math.sin(source[6])
    along, across = (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)
    extent2, order = np.full(x.size, 2 * side**2, np.float32), np.empty(x.size, np.float32)
    constants = _constants(source, side**2)
    _orders(along, across, extent2, constants, np.float32(1 / tolerance), order)
    assert set(np.unique(order)) <= {0.0, 1.0, 2.0, 4.0, 5.0}
    assert len(np.unique(order)) >= 3
    order = np.maximum(order, 1)

    def integral(k: int, nodes_per_side: int) -> float:
        nodes, weights = np.polynomial.legendre.leggauss(nodes_per_side)
        dx, dy = np.meshgrid(0.5 * side * nodes, 0.5 * side * nodes)
        value = _brightness(source, x[k] + dx, y[k] + dy).astype(np.float64)
        return float(np.sum(value * np.outer(weights, weights)) * 0.25 * side**2)

    for k in range(x.size):
        if order[k] < 5:
            assert abs(integral(k, int(order[k])) - integral(k, 32)) <= 2 * tolerance + 3e-5 * integral(k, 32)


def test_orders_rise_with_demand() -> None:
    """A smaller tolerance, or a larger cell, never lowers the order; the cusp is always divided."""
    x = np.linspace(-2.0, 2.0, 401).astype(np.float32)
    y, small, large = np.zeros_like(x), np.full_like(x, 0.01), np.full_like(x, 0.1)
    constants, out = _constants((0.3, 4.0, 0.7, 0.0, 0.0, 0.0, 0.0), 0.07), np.empty((3, x.size), np.float32)
    for row, (extent2, tolerance) in enumerate(((small, 1e-3), (small, 1e-5), (large, 1e-5))):
        _orders(x, y, extent2, constants, np.float32(1 / tolerance), out[row])
    assert (out[1] >= out[0]).all()
    assert (out[2] >= out[1]).all()
    assert out[1].sum() > out[0].sum()
    assert out[1, 200] == 5.0


def _image_values(template: Floats, x: NDArray[np.float64], y: NDArray[np.float64], *frame: float) -> Floats:
    """Brightness per arcsec^2 of a template of 0.1 arcsec per pixel; frame is phi, mirror, x, y, lens_phi."""
    constants, out = np.zeros(LIGHT_CONSTANTS), np.empty(x.size, np.float32)
    phi, mirror, x0, y0, lens_phi = frame
    set_image(template.shape[0], 0.1, phi, mirror, x0, y0, lens_phi, 1.0, constants)
    image_brightness(x.astype(np.float32), y.astype(np.float32), x.size, constants, template, out)
    return out


def test_image_brightness_is_bilinear_in_surface_brightness() -> None:
    """Value over pixel area at pixel centres, the mean half-way, zero outside the centres of the outermost pixels."""
    template = np.random.default_rng(5).uniform(size=(6, 6)).astype(np.float32)
    template /= template.sum()
    row, column = (k.ravel() for k in np.mgrid[:5, :5])
    place = (column - 2.5) * 0.1 + 1e-6, (row - 2.5) * 0.1 + 1e-6
    assert _image_values(template, *place, 0.0, 1.0, 0.0, 0.0, 0.0) == pytest.approx(
        template[:5, :5].ravel() / 0.01, rel=1e-3
    )
    middle = _image_values(template, place[0] + 0.05, place[1] + 0.05, 0.0, 1.0, 0.0, 0.0, 0.0)
    mean = (template[:-1, :-1] + template[1:, :-1] + template[:-1, 1:] + template[1:, 1:]) / 0.04
    assert middle == pytest.approx(mean.ravel(), rel=1e-3)
    outside = np.array([-0.26, 0.26, 0.0, 5.0]), np.array([0.0, 0.0, 0.2501, -5.0])
    assert (_image_values(template, *outside, 0.0, 1.0, 0.0, 0.0, 0.0) == 0.0).all()


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_image_frame_turns_then_mirrors(mirror: float) -> None:
    """Template position (u, v) lies at offset + R(phi) (u, mirror v), seen from a frame turned by lens_phi."""
    template = np.random.default_rng(6).uniform(size=(8, 8)).astype(np.float32)
    generator = np.random.default_rng(7)
    u, v = generator.uniform(-0.33, 0.33, (2, 50))
    phi, lens_phi, x0, y0 = 0.7, 1.9, 0.12, -0.2
    x = x0 + math.cos(phi) * u - math.sin(phi) * mirror * v
    y = y0 + math.sin(phi) * u + math.cos(phi) * mirror * v
    along, across = math.cos(lens_phi) * x + math.sin(lens_phi) * y, math.cos(lens_phi) * y - math.sin(lens_phi) * x
    expected = _image_values(template, u, v, 0.0, 1.0, 0.0, 0.0, 0.0)
    assert _image_values(template, along, across, phi, mirror, x0, y0, lens_phi) == pytest.approx(expected, rel=1e-4)


def test_cells_that_see_the_template_are_marked() -> None:
    """Those that may overlap it, and no others."""
    constants, seen = np.zeros(LIGHT_CONSTANTS), np.empty(5, np.float32)
    set_image(21, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, constants)
    x, y = np.array([0.0, 0.99, 1.1, 3.0, 0.0], np.float32), np.array([0.0, 0.99, 0.0, 0.0, -1.5], np.float32)
    _sees_image(x, y, np.full(5, 0.08, np.float32), constants, seen)
    assert seen.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def _gaussian(size: int, sigma_px: float, q: float = 1.0, phi: float = 0.0) -> NDArray[np.float64]:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    u, v = math.cos(phi) * x + math.sin(phi) * y, math.cos(phi) * y - math.sin(phi) * x
    return np.asarray(np.exp(-0.5 * (u**2 + (v / q) ** 2) / sigma_px**2))


def test_image_flux_does_not_depend_on_pixel_scales(
    make_image_arc: Callable[..., ArcDraws], integrate: Callable[..., tuple[NDArray[np.float64], float]]
) -> None:
    """An unlensed template of unit sum has unit flux at any pixel scale, of the stamp and of its own."""
    for template_scale in (0.03, 0.06):
        draws = make_image_arc(_gaussian(65, 8.0, 0.6, 0.4), template_scale, 0.8)
        for size, scale in ((96, 0.1), (64, 0.262), (160, 0.05)):
            assert integrate(draws, size, scale)[0][0] == pytest.approx(1.0, abs=2e-3)


def test_doubling_the_template_scale_quarters_its_brightness(
    make_image_arc: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """At a fixed unit sum, the peak of a well-resolved image falls to a quarter."""
    scale = 0.05
    psf, grid = make_psf([0.15], pixel_scale_arcsec=scale), StampGrid(64, scale)
    peaks = [
        render_arcs(make_image_arc(_gaussian(61, 8.0), 0.05 * factor), psf, grid)[0, 0].max() for factor in (1.0, 2.0)
    ]
    # The PSF widens both: sigma^2 of a pixel-scale PSF against 0.4 and 0.8 arcsec.
    assert peaks[1] / peaks[0] == pytest.approx(0.25, rel=0.04)


@pytest.mark.parametrize("theta_e_arcsec", [0.0, 1.2])
def test_image_of_a_gaussian_equals_the_analytic_source(
    theta_e_arcsec: float,
    make_arcs: Callable[..., ArcDraws],
    make_image_arc: Callable[..., ArcDraws],
    make_psf: Callable[..., StampPsf],
) -> None:
    """An elliptical Gaussian as a finely sampled image turned by phi equals Sersic n = 0.5 of that angle."""
    sigma_arcsec, q, phi, psf = 0.3, 0.5, 0.6, make_psf([1.1])
    expected = render_arcs(
        make_arcs(
            theta_e_arcsec=theta_e_arcsec, lens_q=0.7, lens_phi_rad=1.0, src_x_arcsec=0.2, src_y_arcsec=0.1, src_n=0.5,
            src_re_arcsec=sigma_arcsec * math.sqrt(2 * math.log(2)), src_q=q, src_phi_rad=phi,
        ), psf, GRID,
    )[0, 0]  # fmt: skip
    lens = {THETA_E: theta_e_arcsec, LENS_Q: 0.7, LENS_PHI: 1.0, SRC_X: 0.2, SRC_Y: 0.1}
    template = _gaussian(121, 15.0, q, 0.0)
    result = render_arcs(make_image_arc(template, 0.02, phi, 1.0, lens), psf, GRID)[0, 0]
    assert np.abs(result - expected).max() < 3e-3 * expected.max()
    drawn_turned = render_arcs(make_image_arc(_gaussian(121, 15.0, q, phi), 0.02, 0.0, 1.0, lens), psf, GRID)[0, 0]
    assert np.abs(drawn_turned - expected).max() < 3e-3 * expected.max()
    mirrored = render_arcs(make_image_arc(_gaussian(121, 15.0, q, -phi), 0.02, 0.0, -1.0, lens), psf, GRID)[0, 0]
    assert np.abs(mirrored - drawn_turned).max() < 1e-4 * expected.max()


def test_template_axes_are_those_of_the_stamp(
    make_image_arc: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """Unlensed, row and column of a lopsided template run along rows and columns; mirror flips the rows alone."""
    template = np.zeros((81, 81))
    template[40, 40], template[40, 70], template[55, 40] = 1.0, 0.6, 0.3
    template = ndimage.gaussian_filter(template, 2.0)
    psf = make_psf([1.0])
    plain = render_arcs(make_image_arc(template, 0.1), psf, GRID)[0, 0].astype(np.float64)
    flipped = render_arcs(make_image_arc(template, 0.1, 0.0, -1.0), psf, GRID)[0, 0]
    turned = render_arcs(make_image_arc(template, 0.1, math.pi / 2), psf, GRID)[0, 0]
    axis = (np.arange(64) - 32) * PIXEL_SCALE_ARCSEC
    assert plain.sum(axis=0) @ axis == pytest.approx(3.0 * 0.6 / 1.9, abs=0.01)
    assert plain.sum(axis=1) @ axis == pytest.approx(1.5 * 0.3 / 1.9, abs=0.01)
    peak = plain.max()
    assert np.abs(flipped[:0:-1] - plain[1:]).max() < 1e-4 * peak
    assert np.abs(turned[1:, 1:] - np.rot90(plain[1:, 1:], -1)).max() < 1e-3 * peak
    assert np.abs(plain - plain[::-1]).max() > 0.05 * peak


def test_image_arc_equals_lenstronomy_interpol(
    make_image_arc: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """A clumpy galaxy behind an SIE: lenstronomy's brightness on a grid of 10 x 10 per pixel, to 0.7 % of the peak."""
    generator = np.random.default_rng(8)
    template = _gaussian(96, 12.0, 0.7, 0.4)
    for _ in range(6):
        template += 0.5 * np.roll(_gaussian(96, 3.0), generator.integers(-20, 20, 2), (0, 1))
    scale, theta_e, q, phi = 0.03, 1.3, 0.7, 0.5
    lens = {THETA_E: theta_e, LENS_Q: q, LENS_PHI: phi, LENS_X: 0.07, LENS_Y: -0.04, SRC_X: 0.15, SRC_Y: -0.1}
    result = render_arcs(make_image_arc(template, scale, 0.9, 1.0, lens), make_psf([1.2]), GRID)[0, 0]
    fine = 10
    axis = ((np.arange(64 * fine) + 0.5) / fine - 32.5) * PIXEL_SCALE_ARCSEC
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    e = (1 - q) / (1 + q)
    sie = {"theta_E": theta_e, "e1": e * math.cos(2 * phi), "e2": e * math.sin(2 * phi)}
    sie |= {"center_x": 0.07, "center_y": -0.04}
    source = {"image": template / template.sum() / scale**2, "amp": 1.0, "center_x": 0.22, "center_y": -0.14}
    source |= {"phi_G": 0.9, "scale": scale}
    beta = LensModel(["SIE"]).ray_shooting(x, y, [sie])
    brightness = LightModel(["INTERPOL"]).surface_brightness(*beta, [source]).reshape(64 * fine, 64 * fine)
    fwhm = float(psf_fwhm_arcsec(1.2, "moffat", 3.5))
    kernel = psf_kernel(fwhm, "moffat", 3.5, 24 * fine, PIXEL_SCALE_ARCSEC / fine)
    blurred = signal.fftconvolve(brightness * PIXEL_SCALE_ARCSEC**2, kernel, mode="same")
    # The pixel's centre lies between fine samples: the mean of the four around it.
    half = fine // 2
    expected = np.mean([blurred[half - i :: fine, half - j :: fine] for i in (0, 1) for j in (0, 1)], axis=0)
    assert np.abs(result - expected).max() < 7e-3 * expected.max()
    assert result.sum() == pytest.approx(expected.sum(), rel=5e-3)
