"""Softened cusp of a Sersic profile.

Inside the radius r0 that holds a small share of the flux the profile is replaced by a polynomial in
t = 1 - (r / r0)**2, continuous at r0: the cusp itself is far below any PSF and would ask for endless division. The
polynomial keeps the integral over the area, that is the flux, and the integral along a radius, which is what the
magnification near a caustic weighs; it is the sum of two of t, t**2, t**4, t**8, t**16.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.profiles import lower_gamma_fraction


@njit(cache=True, nogil=True, error_model="numpy")
def core_radius(n: float, b: float, share: float) -> tuple[float, float]:
    """Radius, in units of Re, that holds a small share of the flux, and its flux over that of its edge brightness.

    Newton's method on x = b R**(1/n).
    """
    a = 2.0 * n
    log_gamma = math.lgamma(a)
    x = math.exp((math.log(share * a) + log_gamma) / a)
    for _ in range(20):
        density = math.exp((a - 1.0) * math.log(x) - x - log_gamma)
        step = (lower_gamma_fraction(a, x, log_gamma) - share) / density
        x = max(x - step, 0.5 * x)
        if abs(step) < 1e-12 * x:
            break
    flat = math.exp(a * math.log(x) - x - log_gamma) / a
    return float((x / b) ** n), lower_gamma_fraction(a, x, log_gamma) / flat


@njit(cache=True, nogil=True, error_model="numpy")
def set_polynomial(n: float, x: float, inside: float, coefficients: NDArray[np.float64]) -> float:
    """Coefficients of the core, in units of the brightness at its edge, b R**(1/n) = x there.

    Args:
        inside: flux of the core over that of its edge brightness, >= 1.
        coefficients: (5,) receives those of t, t**2, t**4, t**8, t**16.

    Returns:
        Radius over the core's within which the polynomial is flat.
    """
    area = 0.5 * (inside - 1.0)
    line = n * math.exp(x - n * math.log(x) + math.lgamma(n)) * lower_gamma_fraction(n, x, math.lgamma(n)) - 1.0
    # Integral along a radius over integral over the area, of t**m: sqrt(pi) Gamma(m + 2) / Gamma(m + 3/2).
    lower_ratio, lower = 8.0 / 3.0, 0
    coefficients[:] = 0.0
    for index in range(1, 5):
        m = 2.0**index
        ratio = math.sqrt(math.pi) * math.exp(math.lgamma(m + 2.0) - math.lgamma(m + 1.5))
        if line <= ratio * area or index == 4:
            weight = min(max((line / max(area, 1e-12) - lower_ratio) / (ratio - lower_ratio), 0.0), 1.0)
            coefficients[lower] = (1.0 - weight) * area * 2.0 * (2.0**lower + 1.0)
            coefficients[index] = weight * area * 2.0 * (m + 1.0)
            return 1.0 / math.sqrt(2.0 * m)
        lower_ratio, lower = ratio, index
    return 1.0
