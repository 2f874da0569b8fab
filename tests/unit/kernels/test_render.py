"""Lensed images against closed-form magnifications, brute force and lenstronomy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.lensing import shear_deflection, sie_deflection
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor
from pipeline.kernels.render import render_unit_arc

SIZE = 64
SCALE_ARCSEC = 0.262
# theta_e, lens_q, lens_phi, gamma1, gamma2, lens_x, lens_y, src_x, src_y, src_re, src_n, src_q, src_phi
Draw = tuple[float, float, float, float, float, float, float, float, float, float, float, float, float]


def _draws(count: int, seed: int) -> list[Draw]:
    """Lenses and sources over the whole range of the priors, down to compact cuspy sources."""
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(count):
        theta_e = generator.uniform(0.3, 3.0)
        shear, shear_angle = generator.uniform(0.0, 0.1), generator.uniform(0.0, np.pi)
        offset, azimuth = theta_e * math.sqrt(generator.uniform()), generator.uniform(0.0, 2 * np.pi)
        draw = (
            theta_e,
            generator.uniform(0.3, 1.0),
            generator.uniform(0.0, np.pi),
            shear * math.cos(2 * shear_angle),
            shear * math.sin(2 * shear_angle),
            *generator.uniform(-0.131, 0.131, 2),
            offset * math.cos(azimuth),
            offset * math.sin(azimuth),
            math.exp(generator.uniform(math.log(0.05), math.log(0.6))),
            generator.uniform(0.5, 4.0),
            generator.uniform(0.3, 1.0),
            generator.uniform(0.0, np.pi),
        )
        draws.append(tuple(float(value) for value in draw))
    return draws  # type: ignore[return-value]


def _render(draw: Draw, supersampling: int = 4, size: int = SIZE) -> NDArray[np.float64]:
    return render_unit_arc(*draw, size, SCALE_ARCSEC, supersampling).astype(np.float64)


def _simple(theta_e: float, x: float, y: float, re: float, n: float) -> Draw:
    """A round source behind an isothermal sphere at the origin of the stamp."""
    return (theta_e, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, x, y, re, n, 1.0, 0.0)


@njit(nogil=True)
def _brightness(x: float, y: float, draw: Draw, b: float) -> tuple[float, float]:
    """Source brightness over that at Re, and distance to the source centre, seen from lens-centred (x, y)."""
    ax, ay = sie_deflection(x, y, draw[0], draw[1], draw[2])
    sx, sy = shear_deflection(x, y, draw[3], draw[4])
    p, s = x - ax - sx - draw[7], y - ay - sy - draw[8]
    u = math.cos(draw[12]) * p + math.sin(draw[12]) * s
    v = (math.cos(draw[12]) * s - math.sin(draw[12]) * p) / draw[11]
    radius = math.hypot(u, v)
    return math.exp(-b * ((radius / draw[9]) ** (1.0 / draw[10]) - 1.0)), radius


@njit(nogil=True)
def _brute_force(draw: Draw, size: int, scale: float, samples: int, cusp_samples: int) -> NDArray[np.float64]:
    """Midpoint sum of samples**2 cells per pixel; cells at the cusp, where it fails, get cusp_samples**2 more."""
    b = sersic_bn(draw[10])
    norm = 1.0 / (sersic_flux_factor(draw[10], b) * draw[9] * draw[9] * draw[11])
    cell, image = scale / samples, np.zeros((size, size))
    for i in range(size * samples):
        y = (i + 0.5) * cell - (size // 2 + 0.5) * scale - draw[6]
        for j in range(size * samples):
            x = (j + 0.5) * cell - (size // 2 + 0.5) * scale - draw[5]
            value, radius = _brightness(x, y, draw, b)
            if cusp_samples > 1 and radius < 4.0 * cell / draw[11]:
                value = 0.0
                for k in range(cusp_samples * cusp_samples):
                    dx = ((k % cusp_samples + 0.5) / cusp_samples - 0.5) * cell
                    dy = ((k // cusp_samples + 0.5) / cusp_samples - 0.5) * cell
                    value += _brightness(x + dx, y + dy, draw, b)[0] / cusp_samples**2
            image[i // samples, j // samples] += value * norm * cell * cell
    return image


def test_unlensed_source_has_unit_flux() -> None:
    """With theta_E = 0 and no shear the stamp holds the flux that the profile has inside it."""
    for n, flux in ((0.5, 1.0), (1.0, 1.0), (2.5, 1.0)):
        assert _render(_simple(0.0, 0.1, -0.2, 0.3, n)).sum() == pytest.approx(flux, abs=1e-3)


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(-0.131, 0.131),
    y=st.floats(-0.131, 0.131),
    n=st.floats(0.5, 4.0),
    q=st.floats(0.3, 1.0),
    phi=st.floats(0.0, 3.14),
)
def test_compact_source_is_never_lost(x: float, y: float, n: float, q: float, phi: float) -> None:
    """A source of Re = 0.05 arcsec keeps its flux to 1 % wherever it falls between pixel centres."""
    draw = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, x, y, 0.05, n, q, phi)
    assert _render(draw).sum() == pytest.approx(1.0, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(angle=st.floats(0.0, 6.28), beta=st.floats(0.2, 0.9))
def test_compact_images_keep_their_magnification(angle: float, beta: float) -> None:
    """A source of Re = 0.02 arcsec at beta behind a sphere has both images, 2 theta_E / beta in total."""
    theta_e = 1.37
    image = _render(_simple(theta_e, theta_e * beta * math.cos(angle), theta_e * beta * math.sin(angle), 0.02, 0.5))
    assert image.sum() == pytest.approx(2.0 / beta, rel=5e-3)


def test_image_next_to_the_lens_centre_is_found() -> None:
    """A point-like source at 0.85 to 0.99 theta_E keeps its faint image in the pixel of the lens, to 2e-3."""
    generator = np.random.default_rng(0)
    for _ in range(600):
        beta, angle, theta_e = generator.uniform(0.85, 0.99), generator.uniform(0.0, 6.28), generator.uniform(0.5, 2.0)
        x, y = theta_e * beta * math.cos(angle), theta_e * beta * math.sin(angle)
        lens_x, lens_y = generator.uniform(-0.131, 0.131, 2)
        image = _render((theta_e, 1.0, 0.0, 0.0, 0.0, lens_x, lens_y, x, y, 0.003, 0.5, 1.0, 0.0))
        assert image.sum() == pytest.approx(2.0 / beta, rel=2e-3)


@pytest.mark.parametrize(
    ("n", "re", "magnification"), [(1.0, 0.2, 25.1752), (1.0, 0.3, 16.7835), (0.5, 0.15, 29.5133), (2.0, 0.3, 22.4734)]
)
def test_on_axis_ring_has_its_magnification(n: float, re: float, magnification: float) -> None:
    """A source on the axis of a sphere of 1.5 arcsec is magnified by 2 theta_E b^n Gamma(n) / (Re Gamma(2n))."""
    closed = 2 * 1.5 * sersic_bn(n) ** n * math.gamma(n) / (re * math.gamma(2 * n))
    assert closed == pytest.approx(magnification, rel=5e-6)
    assert _render(_simple(1.5, 0.0, 0.0, re, n)).sum() == pytest.approx(magnification, rel=4e-3)


def test_gaussian_ring_has_its_magnification() -> None:
    """A Gaussian source of width sigma on the axis is magnified by sqrt(2 pi) theta_E / sigma."""
    sigma_arcsec = 0.1
    half_light_arcsec = sigma_arcsec * math.sqrt(2 * math.log(2))
    image = _render(_simple(1.5, 0.0, 0.0, half_light_arcsec, 0.5))
    assert image.sum() == pytest.approx(2.5066 * 1.5 / sigma_arcsec, rel=2e-3)


def test_compact_source_has_two_images_of_known_place_and_flux() -> None:
    """Behind a sphere the images lie at theta_E +- beta, with fluxes theta_E / beta +- 1."""
    theta_e, beta = 1.5, 0.524
    scale_arcsec = 0.04
    image = render_unit_arc(*_simple(theta_e, beta, 0.0, 0.02, 1.0), 129, scale_arcsec, 4).astype(np.float64)
    x_arcsec = (np.arange(129) - 64) * scale_arcsec
    for side, place, flux in (
        (x_arcsec > 0, theta_e + beta, theta_e / beta + 1),
        (x_arcsec < 0, beta - theta_e, theta_e / beta - 1),
    ):
        half = image[:, side]
        assert half.sum() == pytest.approx(flux, rel=0.01)
        assert half.sum(axis=0) @ x_arcsec[side] / half.sum() == pytest.approx(place, abs=0.004)


def test_surface_brightness_is_conserved() -> None:
    """No pixel is brighter than the centre of the source, and a large arc reaches it."""
    draw = (1.5, 0.8, 0.3, 0.02, -0.03, 0.0, 0.0, 0.1, 0.0, 0.6, 0.5, 0.9, 0.0)
    b = sersic_bn(0.5)
    centre = math.exp(b) / (sersic_flux_factor(0.5, b) * 0.6**2 * 0.9) * SCALE_ARCSEC**2
    assert 0.9 * centre < _render(draw).max() <= centre * (1 + 1e-6)


@pytest.mark.parametrize("seed", [1, 2])
def test_render_equals_brute_force(seed: int) -> None:
    """Over 64 draws flux errs by at most 1 % and every pixel by at most 2 % of the peak, at supersampling 4."""
    for draw in _draws(32, seed):
        expected = _brute_force(draw, 40, SCALE_ARCSEC, 32, 16)
        result = _render(draw, size=40)
        assert result.sum() == pytest.approx(expected.sum(), rel=0.01)
        assert result.max() == pytest.approx(expected.max(), rel=0.02)
        assert np.abs(result - expected).max() <= 0.02 * expected.max()


def test_error_falls_with_supersampling() -> None:
    """The median flux error falls from supersampling 1 over 2 and 4 to 8."""
    draws = _draws(30, 5)
    exact = np.array([_render(draw, 48).sum() for draw in draws])
    errors = [
        np.median([abs(_render(draw, s).sum() / e - 1) for draw, e in zip(draws, exact, strict=True)])
        for s in (1, 2, 4, 8)
    ]
    assert errors[0] > 10 * errors[1]
    assert errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-3


def test_supersampling_one_is_the_midpoint_rule() -> None:
    """At supersampling 1 each pixel is the brightness at its centre times its area."""
    for draw in _draws(5, 9):
        assert _render(draw, 1) == pytest.approx(_brute_force(draw, SIZE, SCALE_ARCSEC, 1, 1), rel=1e-5, abs=1e-11)


def test_render_equals_lenstronomy() -> None:
    """Images agree with lenstronomy to 1 % of the peak.

    lenstronomy measures Re as sqrt(a b), so it gets Re sqrt(q); it approximates b_n by 1.9992 n - 0.3271,
    which is 0.4 % off at n = 1, hence a tolerance beyond quadrature; flux is fixed with its own b_n.
    """
    size, half = 41, 20 * SCALE_ARCSEC
    frame = {
        "image_data": np.zeros((size, size)),
        "ra_at_xy_0": -half,
        "dec_at_xy_0": -half,
        "transform_pix2angle": np.eye(2) * SCALE_ARCSEC,
    }
    for theta_e, q, phi, g1, g2, n, re in (
        (1.4, 0.7, 0.5, 0.04, -0.03, 1.0, 0.35),
        (1.0, 0.55, 2.1, -0.05, 0.02, 1.5, 0.4),
    ):
        src_q, src_phi, lens_x, lens_y, src_x, src_y = 0.6, 1.1, 0.1, -0.07, 0.25, 0.12
        ours = _render((theta_e, q, phi, g1, g2, lens_x, lens_y, src_x, src_y, re, n, src_q, src_phi), size=size)
        b, radius = 1.9992 * n - 0.3271, re * math.sqrt(src_q)
        model = ImageModel(
            ImageData(**frame),
            PSF(psf_type="NONE"),
            lens_model_class=LensModel(["SIE", "SHEAR"]),
            source_model_class=LightModel(["SERSIC_ELLIPSE"]),
            kwargs_numerics={"supersampling_factor": 12},
        )
        e_lens, e_src = (1 - q) / (1 + q), (1 - src_q) / (1 + src_q)
        lens = {
            "theta_E": theta_e,
            "e1": e_lens * math.cos(2 * phi),
            "e2": e_lens * math.sin(2 * phi),
            "center_x": lens_x,
            "center_y": lens_y,
        }
        source = {
            "amp": 1.0 / (sersic_flux_factor(n, b) * radius**2),
            "R_sersic": radius,
            "n_sersic": n,
            "e1": e_src * math.cos(2 * src_phi),
            "e2": e_src * math.sin(2 * src_phi),
            "center_x": lens_x + src_x,
            "center_y": lens_y + src_y,
        }
        shear = {"gamma1": g1, "gamma2": g2, "ra_0": lens_x, "dec_0": lens_y}
        theirs = model.image([lens, shear], [source])
        assert np.abs(ours - theirs).max() < 0.01 * ours.max()
        assert ours.sum() == pytest.approx((theirs).sum(), rel=5e-3)


def test_quarter_turn_equals_rot90() -> None:
    """Turning lens, shear and source by 90 degrees turns an odd stamp by 90 degrees."""
    for draw in _draws(6, 7):
        te, q, phi, g1, g2, _, _, x, y, re, n, src_q, src_phi = draw
        original = _render((te, q, phi, g1, g2, 0.0, 0.0, x, y, re, n, src_q, src_phi), size=65)
        turned = _render(
            (te, q, phi + np.pi / 2, -g1, -g2, 0.0, 0.0, -y, x, re, n, src_q, src_phi + np.pi / 2), size=65
        )
        assert np.abs(turned - np.rot90(original, -1)).max() < 1e-3 * original.max()


def test_image_is_scale_invariant() -> None:
    """Scaling every length and the pixel by 1.7 leaves the image as it is."""
    for draw in _draws(6, 8):
        lengths = {0, 5, 6, 7, 8, 9}
        scaled = [value * 1.7 if index in lengths else value for index, value in enumerate(draw)]
        arguments: Any = (*scaled, SIZE, SCALE_ARCSEC * 1.7, 4)
        larger = render_unit_arc(*arguments)
        assert np.abs(larger - _render(draw)).max() < 1e-3 * larger.max()


def test_lens_offset_by_a_pixel_shifts_the_image() -> None:
    """Moving the lens by (+1, -2) px moves the image so, which fixes axis order and origin."""
    draw = (1.2, 0.7, 0.5, 0.03, 0.01, 0.0, 0.0, 0.3, 0.1, 0.3, 1.0, 0.7, 0.2)
    moved = (*draw[:5], SCALE_ARCSEC, -2 * SCALE_ARCSEC, *draw[7:])
    expected, result = _render(draw), _render(moved)
    assert np.abs(result[:-2, 1:] - expected[2:, :-1]).max() < 1e-3 * expected.max()


def test_origin_is_the_centre_of_the_middle_pixel() -> None:
    """A compact unlensed source at the origin lies in pixel (size // 2, size // 2); +x is along columns."""
    for size in (64, 65):
        image = _render(_simple(0.0, 0.0, 0.0, 0.02, 0.5), size=size)
        assert image.argmax() == (size // 2) * size + size // 2
        assert image[size // 2, size // 2] > 0.999
    image = _render(_simple(0.0, 3 * SCALE_ARCSEC, -SCALE_ARCSEC, 0.02, 0.5))
    assert image[31, 35] > 0.999


def test_image_is_deterministic_float32_without_subnormals() -> None:
    """Two renderings are equal to the bit; values are finite, not negative, and zero or normal numbers."""
    for draw in _draws(8, 11):
        image = render_unit_arc(*draw, SIZE, SCALE_ARCSEC, 4)
        assert image.dtype == np.float32
        assert image.shape == (SIZE, SIZE)
        assert np.array_equal(image, render_unit_arc(*draw, SIZE, SCALE_ARCSEC, 4))
        assert np.isfinite(image).all()
        assert ((image == 0) | (image >= np.finfo(np.float32).tiny)).all()


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, -1.0, "theta_e_arcsec"),
        (0, math.nan, "theta_e_arcsec"),
        (1, 0.0, "lens_q"),
        (1, 1.1, "lens_q"),
        (3, 1.0, "gamma"),
        (7, math.nan, "finite"),
        (9, 0.0, "src_re_arcsec"),
        (10, 9.0, "Sersic index"),
        (11, math.nan, "src_q"),
    ],
)
def test_scene_outside_its_range_is_refused(index: int, value: float, message: str) -> None:
    """Each argument outside its range, or NaN, is a ContractError that names it and shows the value."""
    arguments: Any = [*_simple(1.0, 0.1, 0.1, 0.2, 1.0), SIZE, SCALE_ARCSEC, 4]
    arguments[index] = value
    with pytest.raises(ContractError, match=message):
        render_unit_arc(*arguments)
