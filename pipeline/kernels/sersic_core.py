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

from pipeline.kernels.profiles import lower_gamma_series

# Integral along a radius over integral over the area, of t**m, for m = 1, 2, 4, 8, 16.
_RATIOS = tuple(math.sqrt(math.pi) * math.gamma(m + 2.0) / math.gamma(m + 1.5) for m in (1, 2, 4, 8, 16))
# Relative step of Newton's method after which no other is needed.
_LAST_STEP = 1e-6


@njit(cache=True, nogil=True, error_model="numpy")
def core_radius(n: float, b: float, share: float) -> tuple[float, float]:
    """Radius, in units of Re, that holds a small share of the flux, and its flux over that of its edge brightness.

    Newton's method on x = b R**(1/n).
    """
    a = 2.0 * n
    log_gamma = math.lgamma(a)
    # The first two terms of the series for the share.
    x = math.exp((math.log(share * a) + log_gamma) / a)
    x += x * x / (a + 1.0)
    for _ in range(20):
        step = x * (lower_gamma_series(a, x) - share * math.exp(x + log_gamma - a * math.log(x)))
        x = max(x - step, 0.5 * x)
        if abs(step) < _LAST_STEP * x:
            break
    return float((x / b) ** n), a * lower_gamma_series(a, x)


@njit(cache=True, nogil=True, error_model="numpy")
def set_polynomial(n: float, x: float, inside: float, coefficients: NDArray[np.float64]) -> float:
    """Coefficients of the core, in units of the brightness at its edge, b R**(1/n) = x there.

    Args:
        inside: flux of the core over that of its edge brightness, >= 1.
        coefficients: (5,) receives those of t, t**2, t**4, t**8, t**16.

    Returns:
        Radius over the core's within which the polynomial is flat.
    """
    area, line = 0.5 * (inside - 1.0), n * lower_gamma_series(n, x) - 1.0
    coefficients[:] = 0.0
    index = 1
    while index < 4 and line > _RATIOS[index] * area:
        index += 1
    lower, m = index - 1, 2.0**index
    weight = (line / max(area, 1e-12) - _RATIOS[lower]) / (_RATIOS[index] - _RATIOS[lower])
    weight = min(max(weight, 0.0), 1.0)
    coefficients[lower] = (1.0 - weight) * area * (m + 2.0)
    coefficients[index] = weight * area * 2.0 * (m + 1.0)
    return 1.0 / math.sqrt(2.0 * m)
