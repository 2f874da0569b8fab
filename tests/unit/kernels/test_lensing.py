"""Elliptical lenses and shear against closed forms, finite differences and lenstronomy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel
from numpy.typing import NDArray
from scipy import special

from pipeline.contracts.errors import ContractError
from pipeline.kernels.lensing import (
    EPL_Q_MIN,
    aligned_sie_deflection,
    epl_convergence,
    epl_deflection,
    epl_jacobian,
    shear_deflection,
    sie_deflection,
    sie_elliptical_radius,
    sie_flattening,
    sie_jacobian,
)

POSITION = st.floats(-8.0, 8.0)
AXIS_RATIO = st.floats(0.2, 1.0)
ANGLE = st.floats(-math.pi, math.pi)
SLOPE = st.floats(1.05, 2.95)
STEP_ARCSEC = 1e-5
Deflection = Callable[[float, float], tuple[float, float]]


def _ellipticity(q: float, phi: float) -> tuple[float, float]:
    """Components (1 - q) / (1 + q) at the angle 2 phi, the convention of lenstronomy and Tractor."""
    ellipticity = (1 - q) / (1 + q)
    return ellipticity * math.cos(2 * phi), ellipticity * math.sin(2 * phi)


def _finite_difference(deflection: Deflection, x: float, y: float) -> NDArray[np.float64]:
    """Matrix d(alpha_i) / d(x_j) by central differences."""
    along_x = np.subtract(deflection(x + STEP_ARCSEC, y), deflection(x - STEP_ARCSEC, y))
    along_y = np.subtract(deflection(x, y + STEP_ARCSEC), deflection(x, y - STEP_ARCSEC))
    return np.stack([along_x, along_y], axis=1) / (2 * STEP_ARCSEC)


def _random_lenses(count: int, seed: int) -> Iterator[tuple[float, ...]]:
    """x, y, theta_e, q, phi, slope over the range of the kernels, at least 0.05 arcsec from the centre."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        radius, azimuth = generator.uniform(0.05, 8.0), generator.uniform(0, 2 * np.pi)
        place = (radius * math.cos(azimuth), radius * math.sin(azimuth))
        lens = (generator.uniform(0.3, 3.0), generator.uniform(0.2, 1.0), generator.uniform(0, np.pi))
        yield tuple(float(value) for value in (*place, *lens, generator.uniform(1.1, 2.9)))


def test_round_lens_deflects_by_theta_e() -> None:
    """The isothermal sphere deflects by theta_E towards the centre at every radius."""
    for x, y in ((0.3, 0.4), (-2.0, 1.0), (5.0, -7.0)):
        ax, ay = sie_deflection(x, y, 1.3, 1.0, 0.4)
        radius = math.hypot(x, y)
        assert (ax, ay) == pytest.approx((1.3 * x / radius, 1.3 * y / radius), rel=1e-12)


@pytest.mark.parametrize(
    ("q", "along", "across"), [(0.5, 0.855033, 1.075292), (0.7, 0.931856, 1.049234), (0.9, 0.981628, 1.016708)]
)
def test_axis_deflections_have_their_tabulated_values(q: float, along: float, across: float) -> None:
    """On the axes the deflection is sqrt(q)/f arccos(q) and sqrt(q)/f arccosh(1/q), at any radius."""
    flattening = math.sqrt(1 - q * q)
    for radius in (0.1, 1.0, 6.0):
        on_major, on_minor = sie_deflection(radius, 0.0, 1.0, q, 0.0)[0], sie_deflection(0.0, radius, 1.0, q, 0.0)[1]
        assert on_major == pytest.approx(along, abs=5e-7)
        assert on_minor == pytest.approx(across, abs=5e-7)
        assert on_major == pytest.approx(math.sqrt(q) / flattening * math.acos(q), rel=1e-12)
        assert on_minor == pytest.approx(math.sqrt(q) / flattening * math.acosh(1 / q), rel=1e-12)


@settings(deadline=None)
@given(x=POSITION, y=POSITION, phi=ANGLE)
def test_sie_tends_to_the_sphere(x: float, y: float, phi: float) -> None:
    """At q = 1 - 1e-6 the deflection differs from the sphere's by less than 1e-5."""
    nearly, exactly = sie_deflection(x, y, 1.0, 1.0 - 1e-6, phi), sie_deflection(x, y, 1.0, 1.0, phi)
    assert nearly == pytest.approx(exactly, abs=1e-5)


def test_round_series_joins_the_closed_form() -> None:
    """On both sides of the switch to the series the deflection agrees to 1e-11."""
    x, y = 0.7, -1.1
    for flattening in (0.9999e-3, 1.0001e-3):
        q = math.sqrt(1.0 - flattening**2)
        f, w = sie_flattening(q), sie_elliptical_radius(x, y, q)
        closed = (math.sqrt(q) / f * math.atan(f * x / w), math.sqrt(q) / f * math.atanh(f * y / w))
        assert aligned_sie_deflection(x, y, w, math.sqrt(q), f) == pytest.approx(closed, rel=1e-11)


@settings(deadline=None)
@given(q=AXIS_RATIO, phi=ANGLE)
def test_centre_is_finite(q: float, phi: float) -> None:
    """At the centre of the lens the deflection is zero, and next to it bounded."""
    assert sie_deflection(0.0, 0.0, 2.0, q, phi) == (0.0, 0.0)
    assert math.hypot(*sie_deflection(1e-9, -1e-9, 2.0, q, phi)) < 2.0 / math.sqrt(q) + 1e-9


@settings(deadline=None)
@given(x=POSITION, y=POSITION, q=AXIS_RATIO, phi=ANGLE)
def test_deflection_is_curl_free_with_the_convergence_as_half_divergence(
    x: float, y: float, q: float, phi: float
) -> None:
    """Finite differences give zero curl and a divergence of theta_E sqrt(q) / w."""
    x, y = (x + 9.0) / 2, (y + 9.0) / 2
    matrix = _finite_difference(lambda px, py: sie_deflection(px, py, 1.2, q, phi), x, y)
    along, across = x * math.cos(phi) + y * math.sin(phi), y * math.cos(phi) - x * math.sin(phi)
    assert matrix[1, 0] - matrix[0, 1] == pytest.approx(0.0, abs=1e-8)
    assert np.trace(matrix) == pytest.approx(1.2 * math.sqrt(q) / math.hypot(q * along, across), rel=1e-5)


@settings(deadline=None)
@given(x=POSITION, y=POSITION, gamma1=st.floats(-0.3, 0.3), gamma2=st.floats(-0.3, 0.3))
def test_shear_is_linear_traceless_and_symmetric(x: float, y: float, gamma1: float, gamma2: float) -> None:
    """The shear deflection is a symmetric traceless matrix times the position."""
    (a, b), (c, d) = shear_deflection(1.0, 0.0, gamma1, gamma2), shear_deflection(0.0, 1.0, gamma1, gamma2)
    assert a + d == 0.0
    assert b == c
    assert shear_deflection(x, y, gamma1, gamma2) == pytest.approx((a * x + c * y, b * x + d * y), abs=1e-12)


def test_deflection_equals_lenstronomy() -> None:
    """SIE plus shear agrees with lenstronomy's SIE and SHEAR to 1e-6 arcsec, with its sign of shear."""
    model = LensModel(["SIE", "SHEAR"])
    generator = np.random.default_rng(3)
    for _ in range(40):
        theta_e, q, phi = generator.uniform(0.3, 3.0), generator.uniform(0.3, 0.999), generator.uniform(0, np.pi)
        gamma1, gamma2 = generator.uniform(-0.1, 0.1, 2)
        x, y = generator.uniform(-6, 6, 2)
        e1, e2 = _ellipticity(q, phi)
        sie = {"theta_E": theta_e, "e1": e1, "e2": e2}
        expected = model.alpha(x, y, [sie, {"gamma1": gamma1, "gamma2": gamma2}])
        lens, shear = sie_deflection(x, y, theta_e, q, phi), shear_deflection(x, y, gamma1, gamma2)
        assert np.add(lens, shear) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("beta", [0.05, 0.4, 1.2, 1.6, 4.0])
def test_sphere_has_its_images_and_magnifications(beta: float) -> None:
    """Images lie at beta +- theta_E and 1/mu = 1 - theta_E / |theta|; one image is left from beta = theta_E on."""
    theta_e, azimuth = 1.3, 0.7
    c, s = math.cos(azimuth), math.sin(azimuth)
    grid = np.linspace(-8.0, 8.0, 4000)
    offsets = [t - beta - np.dot(sie_deflection(t * c, t * s, theta_e, 1.0, 0.0), (c, s)) for t in grid]
    crossings = grid[:-1][(np.diff(np.sign(offsets)) > 0) & (np.abs(np.diff(offsets)) < theta_e)]
    images = [beta + theta_e, beta - theta_e][: 2 if beta < theta_e else 1]
    assert np.sort(crossings) == pytest.approx(np.sort(images), abs=0.0041)

    total = 0.0
    for theta in images:
        source = np.subtract((theta * c, theta * s), sie_deflection(theta * c, theta * s, theta_e, 1.0, 0.0))
        assert source == pytest.approx(np.array([beta * c, beta * s]), abs=1e-12)
        xx, xy, yy = sie_jacobian(theta * c, theta * s, theta_e, 1.0, 0.0)
        magnification = 1.0 / ((1 - xx) * (1 - yy) - xy * xy)
        assert magnification == pytest.approx(abs(theta) / (abs(theta) - theta_e), rel=1e-9)
        total += abs(magnification)
    assert total == pytest.approx(2 * theta_e / beta if beta < theta_e else 1 + theta_e / beta, rel=1e-9)


@settings(deadline=None)
@given(x=st.floats(0.05, 8.0), y=st.floats(-8.0, 8.0), q=st.floats(0.2, 0.99))
def test_sie_has_the_closed_form(x: float, y: float, q: float) -> None:
    """With x along the major axis alpha = theta_E sqrt(q)/f (atan(f x/w), atanh(f y/w)) and 1/mu = 1 - 2 kappa."""
    f, w = math.sqrt(1 - q * q), math.hypot(q * x, y)
    scale = 1.7 * math.sqrt(q) / f
    expected = (scale * math.atan(f * x / w), scale * math.atanh(f * y / w))
    assert sie_deflection(x, y, 1.7, q, 0.0) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    xx, xy, yy = sie_jacobian(x, y, 1.7, q, 0.0)
    kappa = 1.7 * math.sqrt(q) / (2 * w)
    assert 0.5 * (xx + yy) == pytest.approx(kappa, rel=1e-12)
    assert (1 - xx) * (1 - yy) - xy * xy == pytest.approx(1 - 2 * kappa, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("slope", [1.3, 1.8, 2.0, 2.6])
def test_deflection_scales_with_the_lens(slope: float) -> None:
    """Scaling positions and theta_E by c scales the deflection by c; positions alone by c**(2 - slope)."""
    x, y, theta_e, q, phi = 0.7, -1.9, 1.1, 0.55, 0.8
    base, jacobian = epl_deflection(x, y, theta_e, q, phi, slope), epl_jacobian(x, y, theta_e, q, phi, slope)
    for c in (0.01, 3.7):
        together = epl_deflection(c * x, c * y, c * theta_e, q, phi, slope)
        assert together == pytest.approx((c * base[0], c * base[1]), rel=1e-11)
        assert epl_jacobian(c * x, c * y, c * theta_e, q, phi, slope) == pytest.approx(jacobian, rel=1e-11)
        alone = epl_deflection(c * x, c * y, theta_e, q, phi, slope)
        assert alone == pytest.approx((c ** (2 - slope) * base[0], c ** (2 - slope) * base[1]), rel=1e-11)
    assert sie_deflection(3 * x, 3 * y, 3 * theta_e, q, phi) == pytest.approx(
        tuple(3 * a for a in sie_deflection(x, y, theta_e, q, phi)), rel=1e-12
    )


def test_deflection_turns_with_the_lens() -> None:
    """Turning position and lens by 90 degrees turns the deflection; half a turn of the lens changes nothing."""
    for x, y, theta_e, q, phi, slope in _random_lenses(20, seed=6):
        for turned, plain in (
            (sie_deflection(-y, x, theta_e, q, phi + math.pi / 2), sie_deflection(x, y, theta_e, q, phi)),
            (epl_deflection(-y, x, theta_e, q, phi + math.pi / 2, slope), epl_deflection(x, y, theta_e, q, phi, slope)),
            (shear_deflection(-y, x, -0.03, -0.05), shear_deflection(x, y, 0.03, 0.05)),
        ):
            assert turned == pytest.approx((-plain[1], plain[0]), rel=1e-10, abs=1e-12)
        half_turn = epl_deflection(x, y, theta_e, q, phi + math.pi, slope)
        assert half_turn == pytest.approx(epl_deflection(x, y, theta_e, q, phi, slope), rel=1e-10, abs=1e-12)


def test_isothermal_power_law_is_the_sie() -> None:
    """At slope 2 deflection and derivatives of the EPL are those of the SIE to 1e-11."""
    for x, y, theta_e, q, phi, _ in _random_lenses(60, seed=8):
        assert epl_deflection(x, y, theta_e, q, phi, 2.0) == pytest.approx(
            sie_deflection(x, y, theta_e, q, phi), abs=1e-11 * theta_e
        )
        scale = theta_e / math.hypot(x, y) / q
        assert epl_jacobian(x, y, theta_e, q, phi, 2.0) == pytest.approx(
            sie_jacobian(x, y, theta_e, q, phi), abs=1e-11 * scale
        )


@settings(deadline=None)
@given(x=POSITION, y=POSITION, phi=ANGLE, slope=SLOPE)
def test_epl_tends_to_the_round_power_law(x: float, y: float, phi: float, slope: float) -> None:
    """At q = 1 alpha = theta_E (r / theta_E)**(2 - slope), and q = 1 - 1e-6 differs by less than 1e-5 of it."""
    radius = math.hypot(x, y)
    if radius < 1e-6:
        return
    size = 1.3 * (radius / 1.3) ** (2 - slope)
    exact = (size * x / radius, size * y / radius)
    assert epl_deflection(x, y, 1.3, 1.0, phi, slope) == pytest.approx(exact, rel=1e-10, abs=1e-12)
    assert epl_deflection(x, y, 1.3, 1.0 - 1e-6, phi, slope) == pytest.approx(exact, abs=1e-5 * size)


@settings(deadline=None)
@given(q=AXIS_RATIO, phi=ANGLE, slope=SLOPE)
def test_epl_is_finite_at_the_centre(q: float, phi: float, slope: float) -> None:
    """At the centre the deflection is zero, the derivatives finite; a lens of theta_E = 0 deflects nowhere."""
    assert epl_deflection(0.0, 0.0, 2.0, q, phi, slope) == (0.0, 0.0)
    assert np.isfinite(epl_deflection(1e-13, -1e-13, 2.0, q, phi, slope)).all()
    assert np.isfinite(epl_jacobian(0.0, 0.0, 2.0, q, phi, slope)).all()
    assert np.isfinite(sie_jacobian(0.0, 0.0, 2.0, q, phi)).all()
    assert epl_deflection(0.4, -0.3, 0.0, q, phi, slope) == (0.0, 0.0)
    assert epl_jacobian(0.4, -0.3, 0.0, q, phi, slope) == (0.0, 0.0, 0.0)


def test_epl_series_equals_the_hypergeometric_function() -> None:
    """Down to q = 0.05 the sum agrees with scipy's 2F1 of Tessore & Metcalf's eq. 23 to 1e-10."""
    for q in (EPL_Q_MIN, 0.1, 0.4, 0.999):
        for slope in (1.1, 1.7, 2.4, 2.9):
            t = slope - 1
            for angle in np.linspace(0.0, 2 * np.pi, 9):
                z = complex(q * math.cos(angle), math.sin(angle))
                omega = special.hyp2f1(1.0, t / 2, 2 - t / 2, -(1 - q) / (1 + q) * z / z.conjugate())
                alpha = 2 / (1 + q) * (math.sqrt(q) / abs(z)) ** t * z * omega
                found = epl_deflection(math.cos(angle), math.sin(angle), 1.0, q, 0.0, slope)
                assert found == pytest.approx((alpha.real, alpha.imag), abs=1e-10)


def test_derivatives_are_those_of_the_deflection() -> None:
    """Analytic derivatives agree with central differences; the trace is 2 kappa and the curl zero."""
    for x, y, theta_e, q, phi, slope in _random_lenses(60, seed=10):
        kappa = epl_convergence(x, y, theta_e, q, phi, slope)
        c, s = math.cos(phi), math.sin(phi)
        r2 = q * (c * x + s * y) ** 2 + (c * y - s * x) ** 2 / q
        assert kappa == pytest.approx((3 - slope) / 2 * (theta_e**2 / r2) ** ((slope - 1) / 2), rel=1e-10)
        lens = (theta_e, q, phi)
        for jacobian, matrix, trace in (
            (
                sie_jacobian(x, y, *lens),
                _finite_difference(lambda px, py, lens=lens: sie_deflection(px, py, *lens), x, y),  # type: ignore[misc]
                2 * epl_convergence(x, y, *lens, 2.0),
            ),
            (
                epl_jacobian(x, y, *lens, slope),
                _finite_difference(lambda px, py, a=(*lens, slope): epl_deflection(px, py, *a), x, y),  # type: ignore[misc]
                2 * kappa,
            ),
        ):
            scale = np.abs(matrix).max()
            expected = np.array([[jacobian[0], jacobian[1]], [jacobian[1], jacobian[2]]])
            assert matrix == pytest.approx(expected, abs=1e-6 * scale + 1e-9)
            assert jacobian[0] + jacobian[2] == pytest.approx(trace, rel=1e-10)


def test_epl_equals_lenstronomy() -> None:
    """Deflection, convergence and derivatives agree with lenstronomy's EPL to 1e-8 for any q and slope."""
    model = LensModel(["EPL"])
    for x, y, theta_e, q, phi, slope in _random_lenses(200, seed=12):
        e1, e2 = _ellipticity(q, phi)
        arguments = [{"theta_E": theta_e, "gamma": slope, "e1": e1, "e2": e2}]
        alpha = epl_deflection(x, y, theta_e, q, phi, slope)
        assert alpha == pytest.approx(model.alpha(x, y, arguments), rel=1e-8, abs=1e-8)
        xx, xy, _, yy = model.hessian(x, y, arguments)
        assert epl_jacobian(x, y, theta_e, q, phi, slope) == pytest.approx((xx, xy, yy), rel=1e-8, abs=1e-8)
        kappa = epl_convergence(x, y, theta_e, q, phi, slope)
        assert kappa == pytest.approx(model.kappa(x, y, arguments), rel=1e-8)
        isothermal = [{**arguments[0], "gamma": 2.0}]
        xx, xy, _, yy = model.hessian(x, y, isothermal)
        assert sie_jacobian(x, y, theta_e, q, phi) == pytest.approx((xx, xy, yy), rel=1e-8, abs=1e-8)
        assert sie_deflection(x, y, theta_e, q, phi) == pytest.approx(model.alpha(x, y, isothermal), abs=1e-8)


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ((-1.0, 0.7, 0.0, 2.0), "theta_e_arcsec >= 0.*-1.0"),
        ((math.nan, 0.7, 0.0, 2.0), "theta_e_arcsec >= 0.*nan"),
        ((1.0, 0.0, 0.0, 2.0), r"q in \(0, 1\].*0.0"),
        ((1.0, 1.01, 0.0, 2.0), r"q in \(0, 1\].*1.01"),
        ((1.0, 0.7, math.inf, 2.0), "finite phi_rad.*inf"),
        ((1.0, 0.04, 0.0, 2.0), r"q in \[0.05, 1\].*0.04"),
        ((1.0, 0.7, 0.0, 1.0), r"slope in \(1, 3\).*1.0"),
        ((1.0, 0.7, 0.0, 3.0), r"slope in \(1, 3\).*3.0"),
        ((1.0, 0.7, 0.0, math.nan), r"slope in \(1, 3\).*nan"),
    ],
)
def test_lens_outside_its_range_is_refused(lens: tuple[float, float, float, float], message: str) -> None:
    """A lens parameter outside its range is a ContractError that names the range and the value."""
    for power_law in (epl_deflection, epl_jacobian, epl_convergence):
        with pytest.raises(ContractError, match=message):
            power_law(0.3, 0.4, *lens)
    if "slope" not in message and "0.05" not in message:
        for isothermal in (sie_deflection, sie_jacobian):
            with pytest.raises(ContractError, match=message):
                isothermal(0.3, 0.4, *lens[:3])


def test_shear_of_one_is_refused() -> None:
    """External shear of |gamma| >= 1, or NaN, is a ContractError."""
    for gamma in ((0.8, 0.7), (-1.0, 0.0), (math.nan, 0.0)):
        with pytest.raises(ContractError, match=r"\|gamma\| < 1"):
            shear_deflection(0.3, 0.4, *gamma)
