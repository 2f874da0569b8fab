"""Critical curves and caustics of an elliptical power law in external shear.

Along a ray the derivatives of the deflection scale as s = r**(1 - slope), so the determinant of the lens
mapping is a quadratic in s whose roots are the critical radii, exact to rounding: the smaller s is the
tangential curve, the larger the radial one. The deflection and its derivatives at r = 1 give the rest.
Terms: Schneider, Ehlers & Falco (1992), Gravitational Lenses, ch. 5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.lensing import epl_convergence, epl_deflection, shear_deflection


class CriticalCurves(NamedTuple):
    """Closed polylines, (vertex + 1, 2) float64 x, y relative to the lens centre. [arcsec]

    `tangential_caustic` and `radial_caustic` are the vertices of the curves above them in the source plane,
    one by one. At slope 2 the radial curve has shrunk to the centre and its caustic is the cut, the image of
    an infinitely small circle around the centre. Above slope 2 both radial arrays are (0, 2): the deflection
    grows without bound at the centre, and a source at any distance has an image there.
    """

    tangential: NDArray[np.float64]
    tangential_caustic: NDArray[np.float64]
    radial: NDArray[np.float64]
    radial_caustic: NDArray[np.float64]


def critical_curves(
    theta_e_arcsec: float, q: float, phi_rad: float, slope: float, gamma1: float, gamma2: float, vertices: int = 2048
) -> CriticalCurves:
    """Trace where the magnification diverges, in the image plane and in the source plane.

    Vertices are equally spaced in the elliptical angle of the lens, counter-clockwise from its major axis,
    and lie on the curves to rounding; between them a chord stays within 5 a / vertices**2 of an ellipse of
    semi-major axis a.

    Args:
        theta_e_arcsec: intermediate-axis Einstein radius, > 0. [arcsec]
        q: axis ratio of the convergence, 0.05 <= q <= 1.
        phi_rad: position angle of the major axis. [rad]
        slope: logarithmic slope of the density in three dimensions, 1 < slope < 3; 2 is isothermal.
        gamma1, gamma2: external shear about the lens centre, |gamma| < 1; signs of `shear_deflection`.
        vertices: distinct points of each polyline, at least 3.

    Returns:
        The tangential and the radial critical curve with their caustics. [arcsec]

    Raises:
        ContractError: an argument outside its range, or NaN; a curve too large for a double.
    """
    if not theta_e_arcsec > 0.0:
        raise ContractError(f"critical_curves: expected theta_e_arcsec > 0, got {theta_e_arcsec}")
    if vertices < 3:
        raise ContractError(f"critical_curves: expected at least 3 vertices, got {vertices}")
    curves = np.empty((4, vertices + 1, 2), np.float64)
    _trace(theta_e_arcsec, q, phi_rad, slope, gamma1, gamma2, curves[:, :-1])
    curves[:, -1] = curves[:, 0]
    if slope > 2.0:
        curves[2:] = 0.0
    if not np.isfinite(curves).all():
        message = f"got slope {slope}, gamma1 {gamma1}, gamma2 {gamma2}"
        raise ContractError(f"critical_curves: expected a lens with curves of finite size, {message}")
    first_radial = vertices + 1 if slope > 2.0 else 0
    return CriticalCurves(curves[0], curves[1], curves[2, first_radial:], curves[3, first_radial:])


@njit(cache=True, nogil=True, error_model="numpy")
def _trace(
    theta_e: float, q: float, phi: float, slope: float, gamma1: float, gamma2: float, curves: NDArray[np.float64]
) -> None:
    """Fill (4, vertex, 2) with the two critical curves, each followed by its caustic."""
    degree = 2.0 - slope
    unsheared = 1.0 - gamma1 * gamma1 - gamma2 * gamma2
    for k in range(curves.shape[1]):
        eccentric = 2.0 * math.pi * k / curves.shape[1]
        along, across = math.cos(eccentric), q * math.sin(eccentric)
        angle = phi + math.atan2(across, along)
        c, s = math.cos(angle), math.sin(angle)
        ax, ay = epl_deflection(c, s, theta_e, q, phi, slope)
        radial, azimuthal = ax * c + ay * s, ay * c - ax * s
        # Derivatives of the deflection and shear along (r) and across (t) the ray.
        h_rr, h_rt = degree * radial, degree * azimuthal
        h_tt = 2.0 * epl_convergence(c, s, theta_e, q, phi, slope) - h_rr
        det_h = degree * (radial * h_tt - azimuthal * h_rt)
        shear_r = gamma1 * (c * c - s * s) + 2.0 * gamma2 * c * s
        shear_t = gamma2 * (c * c - s * s) - 2.0 * gamma1 * c * s
        # unsheared - 2 half s + det_h s**2 = 0.
        half = 0.5 * ((1.0 - shear_r) * h_tt + (1.0 + shear_r) * h_rr + 2.0 * shear_t * h_rt)
        sum_half = half + math.sqrt(max(half * half - unsheared * det_h, 0.0))
        for curve, inverse_s in ((0, sum_half / unsheared), (2, det_h / sum_half)):
            r = inverse_s ** (1.0 / (slope - 1.0))
            x, y = r * c, r * s
            shear_x, shear_y = shear_deflection(x, y, gamma1, gamma2)
            curves[curve, k] = (x, y)
            curves[curve + 1, k] = (x - shear_x - ax * r**degree, y - shear_y - ay * r**degree)
