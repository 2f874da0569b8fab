"""Deflection of light, and its derivatives, by elliptical power laws and by external shear.

Lengths are arcsec in the pixel frame, +x along columns, +y along rows; angles run from +x to +y.
Einstein radii are those of the intermediate axis: with R**2 = q x'**2 + y'**2 / q the convergence is
(3 - slope) / 2 * (theta_e / R)**(slope - 1), and slope 2 is the singular isothermal ellipsoid (SIE),
whose critical curve encloses pi * theta_e**2 whatever the axis ratio.
SIE: Kormann, Schneider & Bartelmann (1994), A&A 284, 285.
Elliptical power law (EPL): Tessore & Metcalf (2015), A&A 580, A79, and its corrigendum.
"""

from __future__ import annotations

import math

from numba import njit

from pipeline.contracts.errors import ContractError

# Flattest convergence the EPL series is summed for; there it takes about 250 terms.
EPL_Q_MIN = 0.05

# Below this flattening f = sqrt(1 - q**2), atan(f a) / f is replaced by its series, exact to f**4 / 5.
_ROUND_FLATTENING = 1e-3
# Softening of the centre, far below any pixel and above the square root of the smallest double. [arcsec]
_CORE_ARCSEC = 1e-12
# Bound on the sum of the EPL terms left out, relative to the first.
_SERIES_TOLERANCE = 1e-12


@njit(cache=True, nogil=True, error_model="numpy")
def sie_deflection(
    x_arcsec: float, y_arcsec: float, theta_e_arcsec: float, q: float, phi_rad: float
) -> tuple[float, float]:
    """Deflection by a singular isothermal ellipsoid at the origin.

    Args:
        x_arcsec, y_arcsec: position relative to the lens centre. [arcsec]
        theta_e_arcsec: intermediate-axis Einstein radius, >= 0. [arcsec]
        q: axis ratio of the convergence, 0 < q <= 1; q -> 1 tends to the isothermal sphere.
        phi_rad: position angle of the major axis. [rad]

    Returns:
        (ax, ay), the vector to subtract from the image position; (0, 0) at the centre. [arcsec]

    Raises:
        ContractError: a lens parameter outside its range, or NaN.
    """
    _check_ellipsoid(theta_e_arcsec, q, phi_rad)
    cos_phi, sin_phi = math.cos(phi_rad), math.sin(phi_rad)
    along, across = cos_phi * x_arcsec + sin_phi * y_arcsec, cos_phi * y_arcsec - sin_phi * x_arcsec
    a_along, a_across = aligned_sie_deflection(
        along, across, sie_elliptical_radius(along, across, q), theta_e_arcsec * math.sqrt(q), sie_flattening(q)
    )
    return cos_phi * a_along - sin_phi * a_across, sin_phi * a_along + cos_phi * a_across


@njit(cache=True, nogil=True, error_model="numpy")
def sie_jacobian(
    x_arcsec: float, y_arcsec: float, theta_e_arcsec: float, q: float, phi_rad: float
) -> tuple[float, float, float]:
    """Derivatives of `sie_deflection`, a symmetric matrix with eigenvalues 2 kappa and 0.

    Args:
        x_arcsec, y_arcsec, theta_e_arcsec, q, phi_rad: as in `sie_deflection`.

    Returns:
        (d ax / dx, d ax / dy = d ay / dx, d ay / dy), dimensionless; finite but without meaning at the centre.

    Raises:
        ContractError: a lens parameter outside its range, or NaN.
    """
    _check_ellipsoid(theta_e_arcsec, q, phi_rad)
    cos_phi, sin_phi = math.cos(phi_rad), math.sin(phi_rad)
    along, across = cos_phi * x_arcsec + sin_phi * y_arcsec, cos_phi * y_arcsec - sin_phi * x_arcsec
    kappa = 0.5 * theta_e_arcsec * math.sqrt(q) / sie_elliptical_radius(along, across, q)
    r = math.sqrt(x_arcsec * x_arcsec + y_arcsec * y_arcsec + _CORE_ARCSEC * _CORE_ARCSEC)
    c, s = x_arcsec / r, y_arcsec / r
    gamma1 = -kappa * (c * c - s * s)
    return kappa + gamma1, -2.0 * kappa * c * s, kappa - gamma1


@njit(cache=True, nogil=True, error_model="numpy")
def epl_deflection(
    x_arcsec: float, y_arcsec: float, theta_e_arcsec: float, q: float, phi_rad: float, slope: float
) -> tuple[float, float]:
    """Deflection by an elliptical power law at the origin, to 1e-12 of its first term.

    Tessore & Metcalf (2015), eqs. 22 and 23, with the hypergeometric function as its series.

    Args:
        x_arcsec, y_arcsec: position relative to the lens centre. [arcsec]
        theta_e_arcsec: intermediate-axis Einstein radius, >= 0. [arcsec]
        q: axis ratio of the convergence, 0.05 <= q <= 1.
        phi_rad: position angle of the major axis. [rad]
        slope: logarithmic slope of the density in three dimensions, 1 < slope < 3; 2 is isothermal.

    Returns:
        (ax, ay), the vector to subtract from the image position; (0, 0) at the centre. [arcsec]

    Raises:
        ContractError: a lens parameter outside its range, or NaN.
    """
    _check_power_law(theta_e_arcsec, q, phi_rad, slope)
    cos_phi, sin_phi = math.cos(phi_rad), math.sin(phi_rad)
    along, across = cos_phi * x_arcsec + sin_phi * y_arcsec, cos_phi * y_arcsec - sin_phi * x_arcsec
    a_along, a_across = _aligned_epl_deflection(along, across, theta_e_arcsec, q, slope)
    return cos_phi * a_along - sin_phi * a_across, sin_phi * a_along + cos_phi * a_across


@njit(cache=True, nogil=True, error_model="numpy")
def epl_convergence(
    x_arcsec: float, y_arcsec: float, theta_e_arcsec: float, q: float, phi_rad: float, slope: float
) -> float:
    """Surface density over the critical one of the lens of `epl_deflection`, half the divergence of that.

    Args:
        x_arcsec, y_arcsec, theta_e_arcsec, q, phi_rad, slope: as in `epl_deflection`.

    Returns:
        kappa >= 0, dimensionless; finite at the centre, where it is set by the softening.

    Raises:
        ContractError: a lens parameter outside its range, or NaN.
    """
    _check_power_law(theta_e_arcsec, q, phi_rad, slope)
    cos_phi, sin_phi = math.cos(phi_rad), math.sin(phi_rad)
    along, across = cos_phi * x_arcsec + sin_phi * y_arcsec, cos_phi * y_arcsec - sin_phi * x_arcsec
    w = sie_elliptical_radius(along, across, q)
    return 0.5 * (3.0 - slope) * float((theta_e_arcsec * math.sqrt(q) / w) ** (slope - 1.0))


@njit(cache=True, nogil=True, error_model="numpy")
def epl_jacobian(
    x_arcsec: float, y_arcsec: float, theta_e_arcsec: float, q: float, phi_rad: float, slope: float
) -> tuple[float, float, float]:
    """Derivatives of `epl_deflection`, from the deflection and the convergence.

    The deflection is homogeneous of degree 2 - slope in the radius, which gives one column of the
    matrix, and its trace is 2 kappa: Tessore & Metcalf (2015), eq. 17 of the corrigendum.

    Args:
        x_arcsec, y_arcsec, theta_e_arcsec, q, phi_rad, slope: as in `epl_deflection`.

    Returns:
        (d ax / dx, d ax / dy = d ay / dx, d ay / dy), dimensionless; finite but without meaning at the centre.

    Raises:
        ContractError: a lens parameter outside its range, or NaN.
    """
    ax, ay = epl_deflection(x_arcsec, y_arcsec, theta_e_arcsec, q, phi_rad, slope)
    kappa = epl_convergence(x_arcsec, y_arcsec, theta_e_arcsec, q, phi_rad, slope)
    r = math.sqrt(x_arcsec * x_arcsec + y_arcsec * y_arcsec + _CORE_ARCSEC * _CORE_ARCSEC)
    c, s = x_arcsec / r, y_arcsec / r
    gamma1 = (2.0 - slope) * (ax * c - ay * s) / r - kappa * (c * c - s * s)
    gamma2 = (2.0 - slope) * (ay * c + ax * s) / r - 2.0 * kappa * c * s
    return kappa + gamma1, gamma2, kappa - gamma1


@njit(cache=True, nogil=True, error_model="numpy")
def shear_deflection(x_arcsec: float, y_arcsec: float, gamma1: float, gamma2: float) -> tuple[float, float]:
    """Deflection by external shear about the origin, (g1 x + g2 y, g2 x - g1 y).

    Args:
        x_arcsec, y_arcsec: position relative to the centre of the shear. [arcsec]
        gamma1, gamma2: shear components, |gamma| < 1. A positive gamma1 deflects along x.

    Returns:
        (ax, ay). [arcsec]

    Raises:
        ContractError: |gamma| >= 1, or NaN.
    """
    if not gamma1 * gamma1 + gamma2 * gamma2 < 1.0:
        raise ContractError("external shear: expected |gamma| < 1, got gamma1, gamma2", gamma1, gamma2)
    return gamma1 * x_arcsec + gamma2 * y_arcsec, gamma2 * x_arcsec - gamma1 * y_arcsec


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


@njit(cache=True, nogil=True, error_model="numpy")
def _aligned_epl_deflection(along: float, across: float, theta_e: float, q: float, slope: float) -> tuple[float, float]:
    """EPL deflection in the frame of the major axis, the sum of harmonics of the elliptical angle."""
    w = sie_elliptical_radius(along, across, q)
    term_c, term_s = q * along / w, across / w
    turn_c, turn_s = term_c * term_c - term_s * term_s, 2.0 * term_c * term_s
    flattening = (1.0 - q) / (1.0 + q)
    sum_c, sum_s = term_c, term_s
    # 2 - t of the paper, whose t = slope - 1 is the slope of the convergence.
    complement = 3.0 - slope
    bound = flattening / (1.0 - flattening)
    order = 0.0
    while bound > _SERIES_TOLERANCE:
        order += 2.0
        factor = -flattening * (order - complement) / (order + complement)
        term_c, term_s = factor * (turn_c * term_c - turn_s * term_s), factor * (turn_s * term_c + turn_c * term_s)
        sum_c += term_c
        sum_s += term_s
        bound *= -factor
    amplitude = 2.0 / (1.0 + q) * (theta_e * math.sqrt(q)) ** (slope - 1.0) * w ** (2.0 - slope)
    return amplitude * sum_c, amplitude * sum_s


@njit(cache=True, nogil=True, error_model="numpy")
def _check_ellipsoid(theta_e_arcsec: float, q: float, phi_rad: float) -> None:
    if not 0.0 <= theta_e_arcsec < math.inf:
        raise ContractError("elliptical lens: expected a finite theta_e_arcsec >= 0, got", theta_e_arcsec)
    if not 0.0 < q <= 1.0:
        raise ContractError("elliptical lens: expected an axis ratio q in (0, 1], got", q)
    if not math.isfinite(phi_rad):
        raise ContractError("elliptical lens: expected a finite phi_rad, got", phi_rad)


@njit(cache=True, nogil=True, error_model="numpy")
def _check_power_law(theta_e_arcsec: float, q: float, phi_rad: float, slope: float) -> None:
    _check_ellipsoid(theta_e_arcsec, q, phi_rad)
    if not q >= EPL_Q_MIN:
        raise ContractError("elliptical power law: expected an axis ratio q in [0.05, 1], got", q)
    if not 1.0 < slope < 3.0:
        raise ContractError("elliptical power law: expected a slope in (1, 3), got", slope)
