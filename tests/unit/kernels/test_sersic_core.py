"""The softened cusp: its radius holds the share asked for, and the polynomial keeps both integrals of the profile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special

from pipeline.kernels.profiles import sersic_bn
from pipeline.kernels.sersic_core import core_radius, set_polynomial

INDICES = [0.3, 0.5, 1.0, 2.5, 4.0, 8.0]


@pytest.mark.parametrize("n", INDICES)
@pytest.mark.parametrize("share", [1e-4, 5e-3, 0.05])
def test_core_holds_its_share(n: float, share: float) -> None:
    """The share is the regularised incomplete gamma function of 2n; the second result is the mean over the edge."""
    b = sersic_bn(n)
    radius, inside = core_radius(n, b, share)
    x = b * radius ** (1.0 / n)
    assert special.gammainc(2.0 * n, x) == pytest.approx(share, rel=1e-6)
    mean = integrate.quad(lambda r: 2.0 * r * math.exp(x - b * (r * radius) ** (1.0 / n)), 0.0, 1.0)[0]
    assert inside == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("n", INDICES)
def test_polynomial_keeps_the_flux(n: float) -> None:
    """One at the edge, positive inside, and the mean over the disc of the profile, whatever its index."""
    b = sersic_bn(n)
    radius, inside = core_radius(n, b, 5e-3)
    coefficients = np.zeros(5)
    flat = set_polynomial(n, b * radius ** (1.0 / n), inside, coefficients)
    assert 0.0 < flat < 1.0

    def value(r: float) -> float:
        t = 1.0 - r * r
        return 1.0 + float(coefficients @ [t, t**2, t**4, t**8, t**16])

    assert value(1.0) == 1.0
    assert min(value(r) for r in np.linspace(0.0, 1.0, 50)) >= 1.0 - 1e-12
    assert integrate.quad(lambda r: 2.0 * r * value(r), 0.0, 1.0)[0] == pytest.approx(inside, rel=1e-9)


@pytest.mark.parametrize("n", [0.8, 1.0, 2.0])
def test_polynomial_keeps_the_integral_along_a_radius(n: float) -> None:
    """What the magnification near a caustic weighs, where two powers of t suffice for it."""
    b = sersic_bn(n)
    radius, inside = core_radius(n, b, 5e-3)
    x, coefficients = b * radius ** (1.0 / n), np.zeros(5)
    set_polynomial(n, x, inside, coefficients)
    along = integrate.quad(lambda r: math.exp(x - b * (r * radius) ** (1.0 / n)), 0.0, 1.0, limit=200)[0]
    powers = (1.0, 2.0, 4.0, 8.0, 16.0)
    own = 1.0 + sum(c * 0.5 * special.beta(0.5, m + 1.0) for c, m in zip(coefficients, powers, strict=True))
    assert own == pytest.approx(along, rel=1e-6)
