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
        log_density = (a - 1.0) * math.log(b) - b - log_gamma
        step = (lower_gamma_fraction(a, b, log_gamma) - 0.5) / math.exp(log_density)
        b = max(b - step, 0.5 * b)
        if abs(step) < 1e-14 * b:
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
def lower_gamma_fraction(a: float, x: float, log_gamma: float) -> float:
    """Regularised P(a, x) by its power series, which converges fast for x < a + 1."""
    term = 1.0 / a
    total = term
    for k in range(1, 500):
        term *= x / (a + k)
        total += term
        if term < 1e-17 * total:
            break
    return total * math.exp(a * math.log(x) - x - log_gamma)
