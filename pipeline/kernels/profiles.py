"""Constants of the Sersic profile I(R) = I_e exp(-b ((R / Re)**(1/n) - 1)).

Re is the half-light radius along the major axis and R**2 = x'**2 + (y' / q)**2.
Formulae: Graham & Driver (2005), PASA 22, 118; start value: Ciotti & Bertin (1999), A&A 352, 447.
"""

from __future__ import annotations

import math

from numba import njit

from pipeline.contracts.errors import ContractError

SERSIC_N_MIN = 0.3
SERSIC_N_MAX = 8.0

# Relative step of Newton's method after which no other is needed.
_LAST_STEP = 1e-6


@njit(cache=True, nogil=True, error_model="numpy")
def sersic_bn(n: float) -> float:
    """Find the b that makes Re the half-light radius: gamma(2n, b) = Gamma(2n) / 2.

    Args:
        n: Sersic index, 0.3 <= n <= 8.

    Returns:
        b to a relative error below 1e-9.

    Raises:
        ContractError: n outside its range, or NaN.
    """
    if not SERSIC_N_MIN <= n <= SERSIC_N_MAX:
        raise ContractError("sersic_bn: expected a Sersic index n in [0.3, 8], got", n)
    a = 2.0 * n
    b = a - 1.0 / 3.0 + 4.0 / (405.0 * n) + 46.0 / (25515.0 * n * n)
    log_gamma = math.lgamma(a)
    for _ in range(30):
        step = b * (lower_gamma_series(a, b) - 0.5 * math.exp(b + log_gamma - a * math.log(b)))
        b = max(b - step, 0.5 * b)
        # The next step would be its square.
        if abs(step) < _LAST_STEP * b:
            break
    return b


@njit(cache=True, nogil=True, error_model="numpy")
def sersic_flux_factor(n: float, b: float) -> float:
    """Total flux over I_e Re**2 q, namely 2 pi n e**b Gamma(2n) / b**(2n).

    Args:
        n: Sersic index, > 0.
        b: `sersic_bn(n)`, > 0.

    Returns:
        The dimensionless factor; I_e = flux / (factor * Re**2 * q).
    """
    return 2.0 * math.pi * n * math.exp(b + math.lgamma(2.0 * n) - 2.0 * n * math.log(b))


@njit(cache=True, nogil=True, error_model="numpy")
def lower_gamma_series(a: float, x: float) -> float:
    """Regularised P(a, x) over x**a exp(-x) / Gamma(a), to 1e-13, by a power series that is short for x < a + 1."""
    term = 1.0 / a
    total = term
    for k in range(1, 500):
        term *= x / (a + k)
        total += term
        if term < 1e-14 * total:
            break
    return total
