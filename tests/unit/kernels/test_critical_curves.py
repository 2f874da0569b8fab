"""Critical curves and caustics against closed forms, lenstronomy's magnifications and image counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.critical_curves import critical_curves
from pipeline.kernels.lensing import epl_deflection, shear_deflection, sie_deflection

Lens = tuple[float, float, float, float, float, float]

# theta_e, q, phi, slope, gamma1, gamma2
LENSES: list[Lens] = [
    (1.4, 0.7, 0.3, 2.0, 0.0, 0.0),
    (1.4, 0.3, 2.1, 2.0, 0.07, -0.04),
    (0.8, 0.9, 1.0, 1.6, -0.05, 0.02),
    (3.0, 0.5, 0.0, 1.3, 0.02, 0.03),
    (2.2, 0.4, 1.7, 1.95, 0.1, 0.1),
    (1.0, 0.6, 0.9, 2.5, 0.05, 0.0),
]


@njit(nogil=True)
def _sources(
    x: NDArray[np.float64], y: NDArray[np.float64], lens: Lens
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Source positions of image positions."""
    source_x, source_y = np.empty_like(x), np.empty_like(y)
    for k in range(x.size):
        ax, ay = epl_deflection(x.flat[k], y.flat[k], lens[0], lens[1], lens[2], lens[3])
        shear_x, shear_y = shear_deflection(x.flat[k], y.flat[k], lens[4], lens[5])
        source_x.flat[k] = x.flat[k] - ax - shear_x
        source_y.flat[k] = y.flat[k] - ay - shear_y
    return source_x, source_y


def _inverse_magnifications(points: NDArray[np.float64], lens: Lens) -> NDArray[np.float64]:
    """Determinant of the lens mapping by lenstronomy."""
    theta_e, q, phi, slope, gamma1, gamma2 = lens
    ellipticity = (1 - q) / (1 + q)
    epl = {"theta_E": theta_e, "gamma": slope}
    epl |= {"e1": ellipticity * math.cos(2 * phi), "e2": ellipticity * math.sin(2 * phi)}
    model = LensModel(["EPL", "SHEAR"])
    shear = {"gamma1": gamma1, "gamma2": gamma2}
    return 1.0 / np.asarray(model.magnification(points[:, 0], points[:, 1], [epl, shear]), dtype=np.float64)


def _area(curve: NDArray[np.float64]) -> float:
    """Signed area inside a closed polyline, positive if counter-clockwise."""
    x, y = curve.T
    return float(0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _image_count(source: tuple[float, float], lens: Lens, half_width: float = 3.5, cells: int = 801) -> int:
    """Images of a point, as the triangles of a fine grid that cover it once mapped to the source plane.

    The 0.1 arcsec around a lens of slope 2 or more are left out: at its centre the mapping is not continuous.
    """
    edges = np.linspace(-half_width, half_width, cells + 1)
    x, y = np.meshgrid(edges, edges)
    sx, sy = _sources(x, y, lens)
    p = np.stack([sx - source[0], sy - source[1]], axis=-1)
    count = 0
    for a, b, c in ((p[:-1, :-1], p[:-1, 1:], p[1:, 1:]), (p[:-1, :-1], p[1:, 1:], p[1:, :-1])):
        sides = [u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0] > 0 for u, v in ((a, b), (b, c), (c, a))]
        inside = (sides[0] == sides[1]) & (sides[1] == sides[2])
        if lens[3] >= 2.0:
            hole = slice(cells // 2 - 5, cells // 2 + 6)
            inside[hole, hole] = False
        count += int(inside.sum())
    return count


@pytest.mark.parametrize("lens", LENSES)
def test_magnification_changes_sign_on_the_curves(lens: Lens) -> None:
    """1e-5 arcsec inside and outside every vertex lenstronomy's parity differs, with the signs of each curve."""
    curves = critical_curves(*lens, vertices=256)
    for curve, sign_inside in ((curves.tangential, -1.0), (curves.radial, 1.0)):
        if lens[3] >= 2.0 and sign_inside > 0:
            continue
        radius = np.hypot(curve[:, 0], curve[:, 1])[:, np.newaxis]
        inside = _inverse_magnifications(curve * (1 - 1e-5 / radius), lens)
        outside = _inverse_magnifications(curve * (1 + 1e-5 / radius), lens)
        assert (np.sign(inside) == sign_inside).all()
        assert (np.sign(outside) == -sign_inside).all()


@pytest.mark.parametrize("lens", LENSES)
def test_caustics_are_the_curves_in_the_source_plane(lens: Lens) -> None:
    """Every caustic vertex is the lens mapping of the vertex of its curve, and every polyline is closed."""
    curves = critical_curves(*lens, vertices=100)
    pairs = [(curves.tangential, curves.tangential_caustic)]
    if lens[3] < 2.0:
        pairs.append((curves.radial, curves.radial_caustic))
    for curve, caustic in pairs:
        assert curve.shape == caustic.shape == (101, 2)
        assert (curve[0] == curve[-1]).all()
        assert (caustic[0] == caustic[-1]).all()
        mapped = np.stack(_sources(curve[:, 0], curve[:, 1], lens), axis=1)
        assert caustic == pytest.approx(mapped, abs=1e-10)


@pytest.mark.parametrize("q", [0.05, 0.4, 0.7, 1.0])
def test_isothermal_curve_is_an_ellipse_of_the_area_of_theta_e(q: float) -> None:
    """Without shear the SIE curve is q x**2 + y**2 / q = theta_E**2, of area pi theta_E**2 for every axis ratio."""
    theta_e, phi = 1.4, 0.3
    curve = critical_curves(theta_e, q, phi, 2.0, 0.0, 0.0, vertices=4096).tangential
    assert _area(curve) == pytest.approx(math.pi * theta_e**2, rel=1e-6)
    along = curve[:, 0] * math.cos(phi) + curve[:, 1] * math.sin(phi)
    across = curve[:, 1] * math.cos(phi) - curve[:, 0] * math.sin(phi)
    assert q * along**2 + across**2 / q == pytest.approx(np.full(along.size, theta_e**2), rel=1e-10)


@pytest.mark.parametrize("q", [0.3, 0.6, 0.9])
def test_isothermal_caustic_has_its_cusps(q: float) -> None:
    """Cusps lie on the axes at theta_E (1/sqrt q - alpha_x) and theta_E (sqrt q - alpha_y), and turn the other way."""
    theta_e, f = 1.2, math.sqrt(1 - q * q)
    curves = critical_curves(theta_e, q, 0.0, 2.0, 0.0, 0.0, vertices=400)
    on_major = 1 / math.sqrt(q) - math.sqrt(q) / f * math.acos(q)
    on_minor = math.sqrt(q) - math.sqrt(q) / f * math.acosh(1 / q)
    assert curves.tangential_caustic[0] == pytest.approx([theta_e * on_major, 0.0], abs=1e-10)
    assert curves.tangential_caustic[100] == pytest.approx([0.0, theta_e * on_minor], abs=1e-10)
    assert _area(curves.tangential_caustic) < 0.0 < _area(curves.radial_caustic)


def test_isothermal_cut_is_the_image_of_a_small_circle() -> None:
    """The radial caustic at slope 2 is where a circle of 1e-7 arcsec around the centre is mapped."""
    lens = (1.4, 0.3, 2.1, 2.0, 0.07, -0.04)
    curves = critical_curves(*lens, vertices=64)
    assert (curves.radial == 0.0).all()
    for k, cut in enumerate(curves.radial_caustic):
        eccentric = 2 * math.pi * k / 64
        angle = lens[2] + math.atan2(lens[1] * math.sin(eccentric), math.cos(eccentric))
        ax, ay = sie_deflection(1e-7 * math.cos(angle), 1e-7 * math.sin(angle), *lens[:3])
        assert cut == pytest.approx([-ax, -ay], abs=1e-8)


def test_sphere_has_circles() -> None:
    """The isothermal sphere: circle of theta_E, point caustic, and the cut a circle of theta_E."""
    curves = critical_curves(1.3, 1.0, 0.4, 2.0, 0.0, 0.0)
    for circle in (curves.tangential, curves.radial_caustic):
        assert np.hypot(circle[:, 0], circle[:, 1]) == pytest.approx(np.full(2049, 1.3), rel=1e-12)
    assert np.abs(curves.tangential_caustic).max() < 1e-12
    assert np.abs(curves.radial).max() == 0.0


@pytest.mark.parametrize("slope", [1.1, 1.5, 1.9, 2.0, 2.4, 2.9])
def test_round_power_law_has_its_radii(slope: float) -> None:
    """Tangential curve at theta_E; radial one at theta_E (2 - slope)**(1 / t), its caustic t / (2 - slope) as wide."""
    theta_e, t = 1.7, slope - 1
    curves = critical_curves(theta_e, 1.0, 0.0, slope, 0.0, 0.0, vertices=64)
    assert np.hypot(*curves.tangential.T) == pytest.approx(np.full(65, theta_e), rel=1e-10)
    assert np.abs(curves.tangential_caustic).max() < 1e-9
    if slope > 2.0:
        assert curves.radial.shape == curves.radial_caustic.shape == (0, 2)
        return
    radius = theta_e * (2 - slope) ** (1 / t)
    caustic = t * theta_e * (2 - slope) ** (1 / t - 1)
    assert np.hypot(*curves.radial.T) == pytest.approx(np.full(65, radius), rel=1e-10)
    assert np.hypot(*curves.radial_caustic.T) == pytest.approx(np.full(65, caustic), rel=1e-10)


@pytest.mark.parametrize(("gamma", "on_x", "on_y"), [(0.05, 0.95238, 1.05263), (0.2, 1 / 1.2, 1 / 0.8)])
def test_shear_moves_the_curve_and_opens_the_caustic(gamma: float, on_x: float, on_y: float) -> None:
    """A sphere with gamma1: curve at theta_E / (1 +- gamma1) on x, y; cusps at 2 gamma1 theta_E / (1 +- gamma1)."""
    curves = critical_curves(1.0, 1.0, 0.0, 2.0, gamma, 0.0, vertices=400)
    assert curves.tangential[0] == pytest.approx([on_x, 0.0], abs=5e-6)
    assert curves.tangential[100] == pytest.approx([0.0, on_y], abs=5e-6)
    assert curves.tangential[0, 0] == pytest.approx(1 / (1 + gamma), rel=1e-11)
    assert curves.tangential[100, 1] == pytest.approx(1 / (1 - gamma), rel=1e-11)
    assert curves.tangential_caustic[0] == pytest.approx([-2 * gamma / (1 + gamma), 0.0], abs=1e-11)
    assert curves.tangential_caustic[100] == pytest.approx([0.0, 2 * gamma / (1 - gamma)], abs=1e-11)


def test_radial_caustic_tends_to_the_cut() -> None:
    """From slope 2 - 1e-5 to slope 2 no vertex of any polyline moves by more than 3e-4 arcsec."""
    for nearly, exactly in zip(
        critical_curves(1.0, 0.5, 0.3, 2.0 - 1e-5, 0.03, 0.04),
        critical_curves(1.0, 0.5, 0.3, 2.0, 0.03, 0.04),
        strict=True,
    ):
        assert nearly == pytest.approx(exactly, abs=3e-4)


def test_polylines_stay_on_the_curves_between_vertices() -> None:
    """At the default number of vertices chords of a 3 arcsec lens of q = 0.3 miss the curve by less than 1e-5."""
    coarse, fine = (critical_curves(3.0, 0.3, 0.7, 2.0, 0.04, 0.0, vertices=n).tangential for n in (2048, 4096))
    middles = 0.5 * (coarse[:-1] + coarse[1:])
    assert np.hypot(*(middles - fine[1::2]).T).max() < 1e-5
    assert coarse == pytest.approx(fine[::2], abs=1e-12)


@pytest.mark.parametrize("slope", [1.6, 2.0, 2.5])
def test_curves_scale_and_turn_with_the_lens(slope: float) -> None:
    """theta_E scales all polylines; turning lens and shear by 90 degrees turns them."""
    plain = critical_curves(1.0, 0.6, 0.4, slope, 0.05, 0.02, vertices=64)
    scaled = critical_curves(2.5, 0.6, 0.4, slope, 0.05, 0.02, vertices=64)
    turned = critical_curves(1.0, 0.6, 0.4 + math.pi / 2, slope, -0.05, -0.02, vertices=64)
    for one, large, quarter in zip(plain, scaled, turned, strict=True):
        assert large == pytest.approx(2.5 * one, abs=1e-10)
        assert quarter == pytest.approx(np.stack([-one[:, 1], one[:, 0]], axis=1), abs=1e-10)


@pytest.mark.parametrize("slope", [1.5, 2.0])
def test_caustics_separate_image_counts(slope: float) -> None:
    """Inwards the radial caustic adds two images, one of which the cut lacks; the tangential caustic adds two."""
    lens = (1.2, 0.9, 0.5, slope, 0.03, -0.02)
    curves = critical_curves(*lens, vertices=36)
    counts = (5, 3, 1) if slope < 2.0 else (4, 2, 1)
    for k in (1, 8, 14, 22, 30):
        fold, outer = curves.tangential_caustic[k], curves.radial_caustic[k]
        assert np.hypot(*fold) < 0.8 * np.hypot(*outer)
        assert _image_count(tuple(0.93 * fold), lens) == counts[0]
        assert _image_count(tuple(1.07 * fold), lens) == counts[1]
        assert _image_count(tuple(0.9 * outer), lens) == counts[1]
        assert _image_count(tuple(1.05 * outer), lens) == counts[2]


@pytest.mark.parametrize(
    ("lens", "vertices", "message"),
    [
        ((0.0, 0.7, 0.0, 2.0, 0.0, 0.0), 64, "theta_e_arcsec > 0, got 0.0"),
        ((math.nan, 0.7, 0.0, 2.0, 0.0, 0.0), 64, "theta_e_arcsec > 0, got nan"),
        ((1.0, 0.7, 0.0, 2.0, 0.0, 0.0), 2, "at least 3 vertices, got 2"),
        ((1.0, 0.01, 0.0, 2.0, 0.0, 0.0), 64, r"q in \[0.05, 1\].*0.01"),
        ((1.0, 0.7, 0.0, 3.1, 0.0, 0.0), 64, r"slope in \(1, 3\).*3.1"),
        ((1.0, 0.7, 0.0, 2.0, 0.8, 0.7), 64, r"\|gamma\| < 1.*0.8"),
        ((1.0, 0.7, 0.0, 1.0001, 0.3, 0.0), 64, "curves of finite size, got slope 1.0001"),
    ],
)
def test_lens_without_curves_is_refused(lens: Lens, vertices: int, message: str) -> None:
    """An argument outside its range, or a curve beyond the doubles, is a ContractError that names it."""
    with pytest.raises(ContractError, match=message):
        critical_curves(*lens, vertices=vertices)
