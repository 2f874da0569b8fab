"""Sersic constants against scipy and tabulated values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from pipeline.contracts.errors import ContractError
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor


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
