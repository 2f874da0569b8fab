"""SIE and shear against closed forms and against lenstronomy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel

from pipeline.kernels.lensing import (
    aligned_sie_deflection,
    shear_deflection,
    sie_deflection,
    sie_elliptical_radius,
    sie_flattening,
)

POSITION = st.floats(-8.0, 8.0)
AXIS_RATIO = st.floats(0.2, 1.0)
ANGLE = st.floats(-math.pi, math.pi)
STEP_ARCSEC = 1e-5


def _jacobian_det(x: float, y: float, lens: tuple[float, float, float], gamma: tuple[float, float]) -> float:
    """Determinant of d(source)/d(image) by central differences of the deflection."""
    columns = []
    for dx, dy in ((STEP_ARCSEC, 0.0), (0.0, STEP_ARCSEC)):
        ends = []
        for sign in (1.0, -1.0):
            px, py = x + sign * dx, y + sign * dy
            ax, ay = sie_deflection(px, py, *lens)
            sx, sy = shear_deflection(px, py, *gamma)
            ends.append((px - ax - sx, py - ay - sy))
        columns.append(((ends[0][0] - ends[1][0]) / 2 / STEP_ARCSEC, (ends[0][1] - ends[1][1]) / 2 / STEP_ARCSEC))
    return columns[0][0] * columns[1][1] - columns[1][0] * columns[0][1]


def _critical_radius(angle: float, lens: tuple[float, float, float], gamma: tuple[float, float]) -> float:
    """Radius at which the Jacobian changes sign along a ray, by bisection."""
    low, high = 0.05, 5.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _jacobian_det(middle * math.cos(angle), middle * math.sin(angle), lens, gamma) < 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


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
    east, west = sie_deflection(x + STEP_ARCSEC, y, 1.2, q, phi), sie_deflection(x - STEP_ARCSEC, y, 1.2, q, phi)
    north, south = sie_deflection(x, y + STEP_ARCSEC, 1.2, q, phi), sie_deflection(x, y - STEP_ARCSEC, 1.2, q, phi)
    curl = (east[1] - west[1] - north[0] + south[0]) / (2 * STEP_ARCSEC)
    divergence = (east[0] - west[0] + north[1] - south[1]) / (2 * STEP_ARCSEC)
    along, across = x * math.cos(phi) + y * math.sin(phi), y * math.cos(phi) - x * math.sin(phi)
    assert curl == pytest.approx(0.0, abs=1e-8)
    assert divergence == pytest.approx(1.2 * math.sqrt(q) / math.hypot(q * along, across), rel=1e-5)


@pytest.mark.parametrize("q", [0.4, 0.7, 1.0])
def test_critical_curve_encloses_the_area_of_theta_e(q: float) -> None:
    """The area inside the critical curve is pi theta_E squared for every axis ratio."""
    angles = (np.arange(180) + 0.5) * 2 * np.pi / 180
    radii = np.array([_critical_radius(float(angle), (1.4, q, 0.3), (0.0, 0.0)) for angle in angles])
    assert np.pi * np.mean(radii**2) == pytest.approx(np.pi * 1.4**2, rel=1e-6)


def test_shear_moves_the_critical_curve() -> None:
    """A sphere with gamma1 = 0.05 has critical points at 0.95238 on x and 1.05263 on y."""
    assert _critical_radius(0.0, (1.0, 1.0, 0.0), (0.05, 0.0)) == pytest.approx(1 / 1.05, rel=1e-6)
    assert _critical_radius(math.pi / 2, (1.0, 1.0, 0.0), (0.05, 0.0)) == pytest.approx(1 / 0.95, rel=1e-6)


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
        ellipticity = (1 - q) / (1 + q)
        sie = {"theta_E": theta_e, "e1": ellipticity * np.cos(2 * phi), "e2": ellipticity * np.sin(2 * phi)}
        expected = model.alpha(x, y, [sie, {"gamma1": gamma1, "gamma2": gamma2}])
        lens, shear = sie_deflection(x, y, theta_e, q, phi), shear_deflection(x, y, gamma1, gamma2)
        assert np.add(lens, shear) == pytest.approx(np.array(expected), abs=1e-6)
