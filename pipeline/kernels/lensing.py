"""Deflection of light by a singular isothermal ellipsoid and by external shear.

Lengths are arcsec in the pixel frame, +x along columns, +y along rows; angles run from +x to +y.
SIE: Kormann, Schneider & Bartelmann (1994), A&A 284, 285, in the intermediate-axis normalisation:
the critical curve encloses pi * theta_e**2 whatever the axis ratio.
"""

from __future__ import annotations

import math

from numba import njit

# Below this flattening f = sqrt(1 - q**2), atan(f a) / f is replaced by its series, exact to f**4 / 5.
_ROUND_FLATTENING = 1e-3
# Softening of the centre, far below any pixel and above the square root of the smallest double. [arcsec]
_CORE_ARCSEC = 1e-12


@njit(cache=True, nogil=True, error_model="numpy")
def sie_deflection(x: float, y: float, theta_e_arcsec: float, q: float, phi_rad: float) -> tuple[float, float]:
    """Deflection by a singular isothermal ellipsoid at the origin.

    Args:
        x, y: position relative to the lens centre. [arcsec]
        theta_e_arcsec: intermediate-axis Einstein radius, >= 0. [arcsec]
        q: axis ratio of the convergence, 0 < q <= 1; q -> 1 tends to the isothermal sphere.
        phi_rad: position angle of the major axis. [rad]

    Returns:
        (ax, ay), the vector to subtract from the image position; (0, 0) at the centre. [arcsec]
    """
    cos_phi, sin_phi = math.cos(phi_rad), math.sin(phi_rad)
    along, across = cos_phi * x + sin_phi * y, cos_phi * y - sin_phi * x
    a_along, a_across = aligned_sie_deflection(
        along, across, sie_elliptical_radius(along, across, q), theta_e_arcsec * math.sqrt(q), sie_flattening(q)
    )
    return cos_phi * a_along - sin_phi * a_across, sin_phi * a_along + cos_phi * a_across


@njit(cache=True, nogil=True, error_model="numpy")
def shear_deflection(x: float, y: float, gamma1: float, gamma2: float) -> tuple[float, float]:
    """Deflection by external shear about the origin, (g1 x + g2 y, g2 x - g1 y).

    Args:
        x, y: position relative to the centre of the shear. [arcsec]
        gamma1, gamma2: shear components, |gamma| < 1. A positive gamma1 deflects along x.

    Returns:
        (ax, ay). [arcsec]
    """
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


@njit(cache=True, nogil=True, error_model="numpy")
def sie_flattening(q: float) -> float:
    """Flattening f = sqrt(1 - q**2) of an axis ratio 0 < q <= 1."""
    return math.sqrt((1.0 - q) * (1.0 + q))


@njit(cache=True, nogil=True, error_model="numpy")
def sie_elliptical_radius(along: float, across: float, q: float) -> float:
    """Radius w = sqrt(q**2 along**2 + across**2), along the major axis; never 0; kappa = strength / (2 w), [arcsec]."""
    return math.sqrt(q * q * along * along + across * across + _CORE_ARCSEC * _CORE_ARCSEC)


@njit(cache=True, nogil=True, error_model="numpy")
def aligned_sie_deflection(
    along: float, across: float, w: float, strength: float, flattening: float
) -> tuple[float, float]:
    """SIE deflection in the frame of the major axis, for callers that keep the constants of one lens.

    Args:
        along, across: position along the major and the minor axis. [arcsec]
        w: `sie_elliptical_radius` of the position. [arcsec]
        strength: theta_e * sqrt(q). [arcsec]
        flattening: `sie_flattening` of q.

    Returns:
        strength / f * (atan(f along / w), atanh(f across / w)). [arcsec]
    """
    if flattening < _ROUND_FLATTENING:
        a, b, f2 = along / w, across / w, flattening * flattening / 3.0
        return strength * a * (1.0 - f2 * a * a), strength * b * (1.0 + f2 * b * b)
    scale = strength / flattening
    f_across = flattening * across
    return scale * math.atan(flattening * along / w), 0.5 * scale * math.log((w + f_across) / (w - f_across))
