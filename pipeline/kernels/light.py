"""Brightness of one source component at source-plane positions, float32, one vector loop per profile.

A component has unit flux before lensing. Brightness is returned as flux per pixel area, so that a sum over
samples times their share of a pixel is a flux.

Sersic cusp. Inside the radius r0 that holds a small share of the flux the profile is replaced by a polynomial in
t = 1 - (r / r0)**2, continuous at r0: the cusp itself is far below any PSF and would ask for endless division. The
polynomial keeps the integral over the area, that is the flux, and the integral along a radius, which is what the
magnification near a caustic weighs; it is the sum of two of t, t**2, t**4, t**8, t**16.

Image. Bilinear interpolation of a template of unit sum; brightness is value / pixel area, in the frame turned
by the position angle and mirrored along its minor axis if asked for.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.profiles import lower_gamma_fraction, sersic_bn, sersic_flux_factor
from pipeline.kernels.simd import exp2_f32, log2_f32, max_f32, min_f32, select_f32, sqrt_f32

SERSIC = 0
IMAGE = 1

LIGHT_CONSTANTS = 18

_F = np.float32
_LOG2_E = 1.4426950408889634
# Brightness, in flux per pixel area, that is zero: keeps subnormal numbers out of everything that follows.
_NEGLIGIBLE = _F(1e-12)
# Logarithmic slope beyond which a profile that steepens outwards holds no light that matters.
_STEEP_SLOPE = 4.0
# Half diagonal of a cell over the root of the sum of its squared sides, for a parallelogram at most.
_REACH = _F(0.7072)


@njit(cache=True, nogil=True, error_model="numpy")
def set_sersic(
    re_arcsec: float,
    n: float,
    q: float,
    phi_rad: float,
    x_arcsec: float,
    y_arcsec: float,
    lens_phi_rad: float,
    pixel_area_arcsec2: float,
    core_share: float,
    constants: NDArray[np.float64],
) -> None:
    """Fill the constants of a Sersic component.

    Args:
        re_arcsec: half-light radius along the major axis, > 0. [arcsec]
        n: Sersic index, 0.3 <= n <= 8.
        q: axis ratio, 0 < q <= 1.
        phi_rad: position angle of the major axis, from +x to +y. [rad]
        x_arcsec, y_arcsec: offset of the component from the source position, pixel frame. [arcsec]
        lens_phi_rad: angle of the frame that `rays.shoot` returns. [rad]
        pixel_area_arcsec2: area of a pixel. [arcsec^2]
        core_share: flux inside the core radius, 0 < share < 0.5.
        constants: (LIGHT_CONSTANTS,) receives: 0-3 turn and scale to units of Re, 4-5 offset in them, 6 squared core
            radius, 7 log2 of the central flux per pixel area, 8 b log2(e), 9 1/(2n), 10 radius within which the core
            is flat, 11 b/n, 12-16 coefficients of t, t**2, t**4, t**8, t**16; 17 for n < 1, whose
            slope grows outwards, the radius where it is 4, else 0.
    """
    b = sersic_bn(n)
    core, inside = _core(n, b, core_share)
    centre = math.exp(b) / (sersic_flux_factor(n, b) * re_arcsec * re_arcsec * q) * pixel_area_arcsec2
    _set_frame(phi_rad - lens_phi_rad, 1.0 / re_arcsec, 1.0 / (q * re_arcsec), 1.0, constants)
    _set_offset(x_arcsec, y_arcsec, lens_phi_rad, constants)
    constants[6] = core * core
    constants[7] = math.log2(centre)
    constants[8] = b * _LOG2_E
    constants[9] = 0.5 / n
    constants[11] = b / n
    constants[17] = (_STEEP_SLOPE * n / b) ** n if n < 1.0 else 0.0
    constants[10] = _set_polynomial(n, b * core ** (1.0 / n), inside, constants[12:17]) * core


@njit(cache=True, nogil=True, error_model="numpy")
def set_image(
    image_size: int,
    image_scale_arcsec: float,
    phi_rad: float,
    mirror: float,
    x_arcsec: float,
    y_arcsec: float,
    lens_phi_rad: float,
    pixel_area_arcsec2: float,
    constants: NDArray[np.float64],
) -> None:
    """Fill the constants of an image component.

    Args:
        image_size: side S of the (S, S) template. [px]
        image_scale_arcsec: its pixel scale, > 0. [arcsec/px]
        phi_rad: angle of the template's +x axis, from +x to +y of the stamp. [rad]
        mirror: 1, or -1 to mirror the template's y axis.
        x_arcsec, y_arcsec, lens_phi_rad, pixel_area_arcsec2: as in `set_sersic`.
        constants: (LIGHT_CONSTANTS,) receives: 0-5 as in `set_sersic`, in template pixels from its centre;
            6 the half side S / 2 - 1/2, 7 pixel area over template pixel area.
    """
    _set_frame(phi_rad - lens_phi_rad, 1.0 / image_scale_arcsec, 1.0 / image_scale_arcsec, mirror, constants)
    _set_offset(x_arcsec, y_arcsec, lens_phi_rad, constants)
    constants[6] = 0.5 * (image_size - 1)
    constants[7] = pixel_area_arcsec2 / (image_scale_arcsec * image_scale_arcsec)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def sersic_brightness(
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    brightness: NDArray[np.float32],
) -> None:
    """Brightness at source-plane positions from `rays.shoot`. [flux / pixel area]"""
    a, b, c, d = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    u0, v0, core2 = _F(constants[4]), _F(constants[5]), _F(constants[6])
    centre, steepness, power = _F(constants[7]), _F(constants[8]), _F(constants[9])
    p1, p2, p4, p8, p16 = (
        _F(constants[12]), _F(constants[13]), _F(constants[14]), _F(constants[15]), _F(constants[16]),
    )  # fmt: skip
    per_core2 = _F(1.0) / core2
    for k in range(count):
        u = a * src_x_arcsec[k] + b * src_y_arcsec[k] - u0
        v = c * src_x_arcsec[k] + d * src_y_arcsec[k] - v0
        r2 = u * u + v * v
        value = exp2_f32(centre - steepness * exp2_f32(power * log2_f32(max_f32(r2, core2))))
        t = max_f32(_F(1.0) - r2 * per_core2, _F(0.0))
        t2 = t * t
        t4 = t2 * t2
        t8 = t4 * t4
        value *= _F(1.0) + p1 * t + p2 * t2 + p4 * t4 + p8 * t8 + p16 * t8 * t8
        brightness[k] = select_f32(value > _NEGLIGIBLE, value, _F(0.0))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def sersic_orders(
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
    extent2: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    cell_share: np.float32,
    tolerance: np.float32,
    order: NDArray[np.float32],
) -> None:
    """Gauss-Legendre order that keeps the flux error of each cell below a tolerance.

    The error of order k is estimated with the largest brightness that the cell may reach, at the radius R - d of its
    nearest point, d bounding the cell's half diagonal in the source plane, and with the steepest slope, which lies
    there too or, for n < 1, further out. With D = (g^2 + g) / R^2, g = -dlnI/dlnR, and h^2 the summed squared sides,
    the leading terms of the rules of order 1, 2 and 4 are I (D h^2)^k / (24, 4320, 1.8e9).

    Args:
        src_x_arcsec, src_y_arcsec: cell centres in the source plane. [arcsec]
        extent2: summed squared lengths of the cell's two sides in the source plane. [arcsec^2]
        count: number of cells.
        constants: from `set_sersic`.
        cell_share: area of a cell over the area of a pixel.
        tolerance: largest flux error of a cell. [source flux]
        order: receives 1, 2 or 4; 5 if the cell must be divided.
    """
    a, b, c, d = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    u0, v0, core = _F(constants[4]), _F(constants[5]), _F(constants[10])
    centre, steepness, power, slope = _F(constants[7]), _F(constants[8]), _F(constants[9]), _F(constants[11])
    # Largest stretch from arcsec to units of Re: the minor axis.
    stretch2 = c * c + d * d
    per_tolerance = cell_share / tolerance
    steep = _F(constants[17])
    for k in range(count):
        u = a * src_x_arcsec[k] + b * src_y_arcsec[k] - u0
        v = c * src_x_arcsec[k] + d * src_y_arcsec[k] - v0
        h2 = extent2[k] * stretch2
        radius, reach = sqrt_f32(u * u + v * v), _REACH * sqrt_f32(h2)
        near = max_f32(radius - reach, core)
        radial = exp2_f32(power * log2_f32(near * near))
        amount = exp2_f32(centre - steepness * radial) * per_tolerance
        order[k] = _order(amount, slope * radial, near, h2)
    if steep > _F(0.0):
        for k in range(count):
            u = a * src_x_arcsec[k] + b * src_y_arcsec[k] - u0
            v = c * src_x_arcsec[k] + d * src_y_arcsec[k] - v0
            h2 = extent2[k] * stretch2
            radius, reach = sqrt_f32(u * u + v * v), _REACH * sqrt_f32(h2)
            near = max_f32(radius - reach, core)
            far = max_f32(near, min_f32(radius + reach, steep))
            amount = exp2_f32(centre - steepness * exp2_f32(power * log2_f32(near * near))) * per_tolerance
            order[k] = max_f32(order[k], _order(amount, slope * exp2_f32(power * log2_f32(far * far)), far, h2))


@njit(inline="always", fastmath=True)
def _order(amount: np.float32, g: np.float32, radius: np.float32, h2: np.float32) -> np.float32:
    """Order for a cell of a flux, in units of its tolerance, and a logarithmic slope g at a radius."""
    x = (g * g + g) / (radius * radius) * h2
    error_1 = amount * min_f32(x * _F(1.0 / 24.0), _F(1.0))
    error_2 = min_f32(error_1 * x * _F(1.0 / 180.0), amount)
    error_4 = min_f32(error_2 * x * x * _F(1.0 / (467.0 * 882.0)), amount)
    value = select_f32(error_4 > _F(1.0), _F(5.0), _F(4.0))
    value = select_f32(error_2 > _F(1.0), value, _F(2.0))
    return _F(select_f32(error_1 > _F(1.0), value, _F(1.0)))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def image_brightness(
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    image: NDArray[np.float32],
    brightness: NDArray[np.float32],
) -> None:
    """Brightness at source-plane positions from `rays.shoot`; 0 outside the template. [flux / pixel area]"""
    a, b, c, d = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    half, scale = _F(constants[6]), _F(constants[7])
    u0, v0 = half - _F(constants[4]), half - _F(constants[5])
    size = image.shape[0]
    last = _F(size - 1)
    flat = image.reshape(size * size)
    for k in range(count):
        u = a * src_x_arcsec[k] + b * src_y_arcsec[k] + u0
        v = c * src_x_arcsec[k] + d * src_y_arcsec[k] + v0
        if _F(0.0) <= u < last and _F(0.0) <= v < last:
            column, row = np.uint32(u), np.uint32(v)
            first = np.uint32(row * np.uint32(size) + column)
            fu, fv = u - _F(column), v - _F(row)
            below = flat[first] + fu * (flat[first + np.uint32(1)] - flat[first])
            after = np.uint32(first + np.uint32(size))
            above = flat[after] + fu * (flat[after + np.uint32(1)] - flat[after])
            brightness[k] = scale * (below + fv * (above - below))
        else:
            brightness[k] = _F(0.0)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def image_orders(
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
    extent2: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    order: NDArray[np.float32],
) -> None:
    """1 for a cell that cannot reach the template, 4 for one that may. Arguments as in `sersic_orders`."""
    a, b, c, d = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    u0, v0, half = _F(constants[4]), _F(constants[5]), _F(constants[6])
    stretch2 = c * c + d * d
    for k in range(count):
        u = a * src_x_arcsec[k] + b * src_y_arcsec[k] - u0
        v = c * src_x_arcsec[k] + d * src_y_arcsec[k] - v0
        reach = _REACH * sqrt_f32(extent2[k] * stretch2) + half
        outside = max_f32(max_f32(u, -u), max_f32(v, -v)) > reach
        order[k] = select_f32(outside, _F(1.0), _F(4.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _core(n: float, b: float, share: float) -> tuple[float, float]:
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
def _set_polynomial(n: float, x: float, inside: float, coefficients: NDArray[np.float64]) -> float:
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


@njit(cache=True, nogil=True, error_model="numpy")
def _set_frame(phi_rad: float, along: float, across: float, mirror: float, constants: NDArray[np.float64]) -> None:
    c, s = math.cos(phi_rad), math.sin(phi_rad)
    constants[0] = c * along
    constants[1] = s * along
    constants[2] = -s * across * mirror
    constants[3] = c * across * mirror


@njit(cache=True, nogil=True, error_model="numpy")
def _set_offset(x_arcsec: float, y_arcsec: float, lens_phi_rad: float, constants: NDArray[np.float64]) -> None:
    c, s = math.cos(lens_phi_rad), math.sin(lens_phi_rad)
    along, across = c * x_arcsec + s * y_arcsec, c * y_arcsec - s * x_arcsec
    constants[4] = constants[0] * along + constants[1] * across
    constants[5] = constants[2] * along + constants[3] * across
