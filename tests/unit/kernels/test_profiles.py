"""Sersic constants against scipy and tabulated values, and what lenses make of the profiles.

Lensed fluxes are plain sums over samples of the scalar deflections, so they check the equations alone.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray
from scipy import integrate, special

from pipeline.contracts.errors import ContractError
from pipeline.kernels.lensing import epl_deflection, shear_deflection
from pipeline.kernels.profiles import lower_gamma_series, sersic_bn, sersic_flux_factor

PIXEL_ARCSEC = 0.262
SIZE = 101
# theta_e, q, phi, slope, gamma1, gamma2
Lens = tuple[float, float, float, float, float, float]
# x, y, q, phi
Source = tuple[float, float, float, float]


@njit(nogil=True)
def _source_radii(lens: Lens, source: Source, size: int, scale: float, samples: int) -> NDArray[np.float64]:
    """Elliptical source radius seen at samples**2 points of each pixel, (size * samples, size * samples). [arcsec]

    The lens is at the centre of the middle pixel. A sample that falls on it sees nothing: inf.
    """
    radii = np.empty((size * samples, size * samples))
    step, middle = scale / samples, (size // 2 + 0.5) * scale
    c, s = math.cos(source[3]), math.sin(source[3])
    for i in range(size * samples):
        y = (i + 0.5) * step - middle
        for j in range(size * samples):
            x = (j + 0.5) * step - middle
            ax, ay = epl_deflection(x, y, lens[0], lens[1], lens[2], lens[3])
            shear_x, shear_y = shear_deflection(x, y, lens[4], lens[5])
            p, t = x - ax - shear_x - source[0], y - ay - shear_y - source[1]
            radii[i, j] = math.hypot(c * p + s * t, (c * t - s * p) / source[2])
            if lens[0] > 0.0 and math.hypot(x, y) < 1e-6 * step:
                radii[i, j] = np.inf
    return radii


def _sphere(theta_e: float) -> Lens:
    return (theta_e, 1.0, 0.0, 2.0, 0.0, 0.0)


def _round(x: float = 0.0, y: float = 0.0) -> Source:
    return (x, y, 1.0, 0.0)


def _sersic(radii: NDArray[np.float64], re: float, n: float, q: float = 1.0) -> NDArray[np.float64]:
    """Surface brightness of a Sersic source of unit flux. [arcsec**-2]"""
    b = sersic_bn(n)
    at_re = 1.0 / (sersic_flux_factor(n, b) * re**2 * q)
    return np.asarray(at_re * np.exp(-b * ((radii / re) ** (1 / n) - 1)), dtype=np.float64)


def _image(brightness: NDArray[np.float64], scale: float, samples: int) -> NDArray[np.float64]:
    """Flux per pixel, the mean of its samples times its area."""
    size = brightness.shape[0] // samples
    means = brightness.reshape(size, samples, size, samples).mean(axis=(1, 3))
    return np.asarray(means * scale**2, dtype=np.float64)


@pytest.mark.parametrize(
    ("n", "b", "factor"),
    [
        (0.5, 0.693147, 9.06472),
        (1.0, 1.678347, 11.94849),
        (1.5, 2.674060, 14.29280),
        (2.0, 3.672061, 16.31088),
        (2.5, 4.670909, 18.10815),
        (4.0, 7.669249, 22.66523),
    ],
)
def test_sersic_constants_have_their_tabulated_values(n: float, b: float, factor: float) -> None:
    """b_n and the total-flux factor agree with the tables to all their digits."""
    assert sersic_bn(n) == pytest.approx(b, abs=6e-7)
    assert sersic_flux_factor(n, sersic_bn(n)) == pytest.approx(factor, abs=6e-6)


@settings(deadline=None)
@given(n=st.floats(0.3, 8.0))
def test_sersic_bn_equals_scipy(n: float) -> None:
    """b_n solves P(2n, b) = 1/2 to a relative error of 1e-9."""
    assert sersic_bn(n) == pytest.approx(special.gammaincinv(2 * n, 0.5), rel=1e-9)


@pytest.mark.parametrize("a", [0.6, 1.0, 3.3, 16.0])
def test_lower_gamma_series_equals_scipy(a: float) -> None:
    """The series of P(a, x) agrees with scipy to 1e-12 below x = a + 1."""
    for x in (1e-3 * a, 0.5 * a, a, a + 0.9):
        fraction = lower_gamma_series(a, x) * math.exp(a * math.log(x) - x - math.lgamma(a))
        assert fraction == pytest.approx(special.gammainc(a, x), rel=1e-12)


@pytest.mark.parametrize("n", [0.5, 1.0, 3.3])
def test_flux_factor_is_the_integral_of_the_profile(n: float) -> None:
    """The factor equals the numerical integral of 2 pi R I(R) for I_e = Re = 1, half of it inside Re."""
    b = sersic_bn(n)

    def annulus(radius: float) -> float:
        return 2 * math.pi * radius * math.exp(-b * (radius ** (1 / n) - 1))

    inner, outer = integrate.quad(annulus, 0, 1)[0], integrate.quad(annulus, 1, np.inf)[0]
    assert inner + outer == pytest.approx(sersic_flux_factor(n, b), rel=1e-6)
    assert inner == pytest.approx(outer, rel=1e-6)


@pytest.mark.parametrize("n", [0.29, 8.01, -1.0, math.nan])
def test_sersic_index_outside_its_range_is_refused(n: float) -> None:
    """An index outside 0.3 to 8, or NaN, is a ContractError that names the range and the value."""
    with pytest.raises(ContractError, match=r"n in \[0.3, 8\].*" + str(n)):
        sersic_bn(n)


def test_the_linear_approximation_misses_the_half_light_radius() -> None:
    """At n = 0.5 the formula 2n - 1/3 is 3.8 % off and leaves 48.66 % of the light inside Re; b_n leaves half."""
    linear = 2 * 0.5 - 1 / 3
    assert linear / sersic_bn(0.5) - 1 == pytest.approx(-0.038, abs=5e-4)
    assert special.gammainc(2 * 0.5, linear) == pytest.approx(0.4866, abs=5e-5)
    for n in (0.3, 0.5, 0.8, 1.0, 4.0, 8.0):
        assert special.gammainc(2 * n, sersic_bn(n)) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("n", "q", "phi"), [(0.5, 1.0, 0.0), (1.0, 0.6, 0.4), (2.0, 0.4, 2.0)])
def test_unlensed_source_keeps_its_flux(n: float, q: float, phi: float) -> None:
    """With theta_E = 0 the stamp adds up to the flux put in, to 1e-3, whatever the pixel scale."""
    lens, source = (0.0, 0.7, 0.3, 2.0, 0.0, 0.0), (0.11, -0.2, q, phi)
    for scale in (PIXEL_ARCSEC / 2, PIXEL_ARCSEC):
        brightness = _sersic(_source_radii(lens, source, SIZE, scale, 16), 0.3, n, q)
        assert _image(brightness, scale, 16).sum() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("samples", "total"), [(1, 18.45), (4, 19.79), (8, 20.04)])
def test_uniform_disc_has_its_magnification(samples: int, total: float) -> None:
    """A disc of 0.3 arcsec behind a sphere of 1.5 arcsec is magnified 4 theta_E / R = 20; coarse sums miss by 8 %."""
    theta_e, radius = 1.5, 0.3
    disc = (_source_radii(_sphere(theta_e), _round(), SIZE, PIXEL_ARCSEC, samples) < radius) / (math.pi * radius**2)
    flux = _image(disc, PIXEL_ARCSEC, samples).sum()
    assert flux == pytest.approx(total, abs=5.1e-3)
    assert flux == pytest.approx(4 * theta_e / radius, rel={1: 0.08, 4: 0.011, 8: 0.0025}[samples])


@pytest.mark.parametrize(
    ("n", "re", "magnification", "sums"),
    [
        (1.0, 0.2, 25.1752, {1: 24.39, 4: 25.155, 8: 25.174}),
        (1.0, 0.3, 16.7835, {4: 16.778}),
        (0.5, 0.15, 29.5133, {4: 29.513}),
        (2.0, 0.3, 22.4734, {4: 22.403}),
    ],
)
def test_on_axis_source_has_its_magnification(
    n: float, re: float, magnification: float, sums: dict[int, float]
) -> None:
    """Behind the centre of a sphere mu = 2 theta_E b**n Gamma(n) / (Re Gamma(2n)); 4 samples suffice."""
    closed = 2 * 1.5 * sersic_bn(n) ** n * math.gamma(n) / (re * math.gamma(2 * n))
    assert closed == pytest.approx(magnification, abs=6e-5)
    for samples, total in sums.items():
        brightness = _sersic(_source_radii(_sphere(1.5), _round(), SIZE, PIXEL_ARCSEC, samples), re, n)
        flux = _image(brightness, PIXEL_ARCSEC, samples).sum()
        assert flux == pytest.approx(total, abs=6e-3 if samples == 1 else 6e-4)
        assert samples == 1 or flux == pytest.approx(closed, rel=4e-3)


def test_gaussian_on_the_axis_has_its_magnification() -> None:
    """A Gaussian of width sigma, n = 0.5 with Re = sqrt(2 ln 2) sigma, is magnified 2.5066 theta_E / sigma."""
    theta_e, sigma = 1.5, 0.12
    re = sigma * math.sqrt(2 * math.log(2))
    closed = 2 * theta_e * sersic_bn(0.5) ** 0.5 * math.gamma(0.5) / (re * math.gamma(1.0))
    assert closed == pytest.approx(math.sqrt(2 * math.pi) * theta_e / sigma, rel=1e-9)
    assert math.sqrt(2 * math.pi) == pytest.approx(2.5066, abs=5e-5)
    brightness = _sersic(_source_radii(_sphere(theta_e), _round(), SIZE, PIXEL_ARCSEC, 8), re, 0.5)
    assert _image(brightness, PIXEL_ARCSEC, 8).sum() == pytest.approx(closed, rel=1e-6)


def test_compact_source_off_the_axis_has_two_images() -> None:
    """A source of Re = 0.02 arcsec at beta has peaks at beta +- theta_E and 2 theta_E / beta times its flux."""
    theta_e, beta, scale = 1.5, 0.5, 0.02
    brightness = _sersic(_source_radii(_sphere(theta_e), _round(beta), 251, scale, 4), 0.02, 1.0)
    image = _image(brightness, scale, 4)
    x = (np.arange(251) - 125) * scale
    assert image.sum() == pytest.approx(2 * theta_e / beta, rel=2e-3)
    for side, place, flux in ((x > 0, beta + theta_e, theta_e / beta + 1), (x < 0, beta - theta_e, theta_e / beta - 1)):
        half = image[:, side]
        row, column = np.unravel_index(int(half.argmax()), half.shape)
        assert (x[row], x[side][column]) == pytest.approx((0.0, place), abs=0.5 * scale)
        assert half.sum() == pytest.approx(flux, rel=2e-3)


def test_lensing_conserves_surface_brightness() -> None:
    """The brightest sample is the centre of the source, and a sample is as bright as the source where it looks."""
    lens, source = (1.5, 0.7, 0.4, 2.1, 0.03, -0.02), (0.1, -0.05, 0.8, 1.0)
    peak = float(_sersic(np.array(0.0), 0.4, 0.7, 0.8))
    brightness = _sersic(_source_radii(lens, source, 31, PIXEL_ARCSEC, 16), 0.4, 0.7, 0.8)
    assert 0.999 * peak < brightness.max() <= peak
    assert _image(brightness, PIXEL_ARCSEC, 16).max() <= peak * PIXEL_ARCSEC**2


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_images_do_not_depend_on_the_unit_of_angle(factor: float) -> None:
    """Scaling theta_E, Re, source position and pixel by one factor leaves the flux of every pixel."""
    lens, source = (1.2, 0.6, 0.4, 1.9, 0.03, -0.02), (0.2, -0.3, 0.7, 1.0)
    small = _sersic(_source_radii(lens, source, 41, PIXEL_ARCSEC, 4), 0.3, 1.3, 0.7)
    lens, source = (factor * 1.2, *lens[1:]), (factor * 0.2, factor * -0.3, *source[2:])
    large = _sersic(_source_radii(lens, source, 41, factor * PIXEL_ARCSEC, 4), factor * 0.3, 1.3, 0.7)
    expected = _image(small, PIXEL_ARCSEC, 4)
    assert _image(large, factor * PIXEL_ARCSEC, 4) == pytest.approx(expected, abs=1e-9 * expected.max())


def test_images_turn_with_the_scene() -> None:
    """Turning lens, source and shear by 90 degrees from +x to +y turns the image; rows count along +y."""
    plain = _source_radii((1.2, 0.6, 0.4, 1.9, 0.03, -0.02), (0.2, -0.3, 0.7, 1.0), 41, PIXEL_ARCSEC, 3)
    quarter = math.pi / 2
    turned = _source_radii(
        (1.2, 0.6, 0.4 + quarter, 1.9, -0.03, 0.02), (0.3, 0.2, 0.7, 1.0 + quarter), 41, PIXEL_ARCSEC, 3
    )
    assert turned[np.isfinite(turned)].size == turned.size - 1
    images = [_image(_sersic(radii, 0.3, 1.3, 0.7), PIXEL_ARCSEC, 3) for radii in (plain, turned)]
    assert images[1] == pytest.approx(np.rot90(images[0], k=-1), abs=1e-9 * images[0].max())
