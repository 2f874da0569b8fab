"""Brightness of one source component at source-plane positions, float32, in vectors.

A component has unit flux before lensing. Brightness is returned as flux per pixel area, so that a sum over
samples times their share of a pixel is a flux.

Sersic. Inside the radius of `sersic_core` the profile is replaced by a polynomial.

Image. Bilinear interpolation of a template of unit sum; brightness is value / pixel area, in the frame turned
by the position angle and mirrored along its minor axis if asked for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.lanes import Mask, Vector
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor
from pipeline.kernels.sersic_core import core_radius, set_polynomial
from pipeline.kernels.simd import (
    abs_f32,
    exp2_f32,
    log2_f32,
    max_f32,
    min_f32,
    rough_exp2_f32,
    rough_log2_f32,
    select_f32,
    sqrt_f32,
)
from pipeline.kernels.vectors import VECTOR, any_lane, load_lanes, store_lanes

SERSIC = 0
IMAGE = 1

LIGHT_CONSTANTS = 19

_F = np.float32
_LOG2_E = 1.4426950408889634
# Brightness, in flux per pixel area, that is zero: keeps subnormal numbers out of everything that follows.
_NEGLIGIBLE = _F(1e-12)
# Logarithmic slope beyond which a profile that steepens outwards holds no light that matters.
_STEEP_SLOPE = 4.0
# Half diagonal of a cell over the root of the sum of its squared sides, for a parallelogram at most.
_REACH = _F(0.7072)
# Positions that go through all passes while the first-level cache holds them, a multiple of VECTOR.
_BLOCK = 1024


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
            slope grows outwards, the radius where it is 4, else 0; 18 log2 of the brightness at the core's edge.
    """
    b = sersic_bn(n)
    core, inside = core_radius(n, b, core_share)
    centre = math.exp(b) / (sersic_flux_factor(n, b) * re_arcsec * re_arcsec * q) * pixel_area_arcsec2
    _set_frame(phi_rad - lens_phi_rad, 1.0 / re_arcsec, 1.0 / (q * re_arcsec), 1.0, constants)
    _set_offset(x_arcsec, y_arcsec, lens_phi_rad, constants)
    constants[6] = core * core
    constants[7] = math.log2(centre)
    constants[8] = b * _LOG2_E
    constants[9] = 0.5 / n
    constants[11] = b / n
    constants[17] = (_STEEP_SLOPE * n / b) ** n if n < 1.0 else 0.0
    edge = b * core ** (1.0 / n)
    constants[10] = set_polynomial(n, edge, inside, constants[12:17]) * core
    constants[18] = constants[7] - _LOG2_E * edge


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


class Sersic(NamedTuple):
    """Constants of the functions of vectors below, from `sersic`."""

    a: np.float32
    b: np.float32
    c: np.float32
    d: np.float32
    u0: np.float32
    v0: np.float32
    core2: np.float32
    per_core2: np.float32
    centre: np.float32
    steepness: np.float32
    power: np.float32
    flat: np.float32
    slope: np.float32
    p1: np.float32
    p2: np.float32
    p4: np.float32
    p8: np.float32
    p16: np.float32
    steep: np.float32
    near_core: np.float32
    stretch2: np.float32


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def sersic(constants: NDArray[np.float64]) -> Sersic:
    """The constants that `set_sersic` has filled."""
    c, d = constants[2], constants[3]
    return Sersic(
        _F(constants[0]), _F(constants[1]), _F(c), _F(d), _F(constants[4]), _F(constants[5]),
        _F(constants[6]), _F(1.0 / constants[6]), _F(constants[7]), _F(constants[8]), _F(constants[9]),
        _F(constants[10]), _F(constants[11]), _F(constants[12]), _F(constants[13]), _F(constants[14]),
        _F(constants[15]), _F(constants[16]), _F(constants[17]),
        # Logarithm of the brightness a little outside the core.
        _F(constants[18] - 0.01),
        # Largest stretch from arcsec to units of Re: the minor axis.
        _F(c * c + d * d),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _squared_radius(src_x: Vector, src_y: Vector, light: Sersic) -> Vector:
    u = light.a * src_x + light.b * src_y - light.u0
    v = light.c * src_x + light.d * src_y - light.v0
    return u * u + v * v


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def sersic_brightness(
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    brightness: NDArray[np.float32],
) -> None:
    """Brightness at source-plane positions from `rays.shoot`. [flux / pixel area]

    Three passes, which hand on by `brightness`: a processor works ahead through short chains of operations only.
    """
    light = sersic(constants)
    for start in range(0, count, _BLOCK):
        stop = min(count, start + _BLOCK)
        for k in range(start, stop, VECTOR):
            left = stop - k
            r2 = _squared_radius(load_lanes(src_x_arcsec, k, left), load_lanes(src_y_arcsec, k, left), light)
            store_lanes(brightness, k, left, light.power * log2_f32(max_f32(r2, light.core2)))
        for k in range(start, stop, VECTOR):
            left = stop - k
            radial = exp2_f32(load_lanes(brightness, k, left))
            store_lanes(brightness, k, left, max_f32(light.centre - light.steepness * radial, _F(-126.0)))
        for k in range(start, stop, VECTOR):
            left = stop - k
            exponent = load_lanes(brightness, k, left)
            value = exp2_f32(exponent)
            if any_lane(exponent > light.near_core):
                r2 = _squared_radius(load_lanes(src_x_arcsec, k, left), load_lanes(src_y_arcsec, k, left), light)
                value *= _core_factor(r2, light)
            store_lanes(brightness, k, left, select_f32(value > _NEGLIGIBLE, value, _F(0.0)))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _core_factor(r2: Vector, light: Sersic) -> Vector:
    """Brightness over that of the core's edge inside the core, 1 outside."""
    t = max_f32(_F(1.0) - r2 * light.per_core2, _F(0.0))
    t2 = t * t
    t4 = t2 * t2
    t8 = t4 * t4
    return (_F(1.0) + light.p1 * t + light.p2 * t2) + t4 * (light.p4 + light.p8 * t4 + light.p16 * t4 * t8)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def too_coarse(
    src_x_arcsec: Vector, src_y_arcsec: Vector, extent2: Vector, light: Sersic, per_tolerance: Vector
) -> tuple[Mask, Mask, Mask]:
    """Masks of the cells for which the Gauss-Legendre rules of order 1, 2 and 4 err by more than a tolerance.

    The error of order k is estimated with the largest brightness that the cell may reach, at the radius R - d of its
    nearest point, d bounding the cell's half diagonal in the source plane, and with the steepest slope, which lies
    there too or, for n < 1, further out. With D = (g^2 + g) / R^2, g = -dlnI/dlnR, and h^2 the summed squared sides,
    the leading terms of the rules of order 1, 2 and 4 are I (D h^2)^k / (24, 4320, 1.8e9).

    Args:
        src_x_arcsec, src_y_arcsec: cell centres in the source plane. [arcsec]
        extent2: summed squared lengths of the cell's two sides in the source plane. [arcsec^2]
        light: from `sersic`.
        per_tolerance: area of a cell, in pixels, over the largest flux error of a cell. [1 / source flux]

    Returns:
        The masks; each contains the next.
    """
    h2 = extent2 * light.stretch2
    radius, reach = sqrt_f32(_squared_radius(src_x_arcsec, src_y_arcsec, light)), _REACH * sqrt_f32(h2)
    near = max_f32(radius - reach, light.flat)
    radial = rough_exp2_f32(light.power * rough_log2_f32(near * near))
    amount = rough_exp2_f32(max_f32(light.centre - light.steepness * radial, _F(-125.0))) * per_tolerance
    ones, twos, fours = _errs(amount, light.slope * radial, near, h2)
    if light.steep > _F(0.0):
        far = max_f32(near, min_f32(radius + reach, light.steep))
        slope = light.slope * rough_exp2_f32(light.power * rough_log2_f32(far * far))
        more_1, more_2, more_4 = _errs(amount, slope, far, h2)
        ones, twos, fours = ones | more_1, twos | more_2, fours | more_4
    return ones, twos, fours


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _errs(amount: Vector, g: Vector, radius: Vector, h2: Vector) -> tuple[Mask, Mask, Mask]:
    """`too_coarse` for cells of a flux, in units of their tolerance, and a logarithmic slope g at a radius."""
    x = (g * g + g) / (radius * radius) * h2
    error_1 = amount * min_f32(x * _F(1.0 / 24.0), _F(1.0))
    error_2 = min_f32(error_1 * x * _F(1.0 / 180.0), amount)
    error_4 = min_f32(error_2 * x * x * _F(1.0 / (467.0 * 882.0)), amount)
    return error_1 > _F(1.0), error_2 > _F(1.0), error_4 > _F(1.0)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def bright_radius(light: Sersic, per_tolerance: np.float32) -> np.float32:
    """Radius beyond which a cell of any shape errs by less than its tolerance, in units of Re, a little too large."""
    radial = (light.centre + log2_f32(_F(1.05) * per_tolerance)) / light.steepness
    if radial <= _F(0.0):
        return _F(0.0)
    exponent = log2_f32(radial) / (_F(2.0) * light.power)
    return exp2_f32(min_f32(max_f32(exponent, _F(-126.0)), _F(60.0)))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def may_err(src_x_arcsec: Vector, src_y_arcsec: Vector, extent2: Vector, light: Sersic, bright: np.float32) -> Mask:
    """Mask of the cells whose nearest point lies within `bright_radius`: no other is in a mask of `too_coarse`."""
    reach = bright + _REACH * sqrt_f32(extent2 * light.stretch2)
    return _squared_radius(src_x_arcsec, src_y_arcsec, light) < reach * reach


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


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def sees_image(src_x_arcsec: Vector, src_y_arcsec: Vector, extent2: Vector, constants: NDArray[np.float64]) -> Mask:
    """Mask of the cells that may reach the template. Arguments as in `too_coarse`, constants from `set_image`."""
    a, b, c, d = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    u0, v0, half = _F(constants[4]), _F(constants[5]), _F(constants[6])
    u, v = a * src_x_arcsec + b * src_y_arcsec - u0, c * src_x_arcsec + d * src_y_arcsec - v0
    reach = _REACH * sqrt_f32(extent2 * (c * c + d * d)) + half
    return max_f32(abs_f32(u), abs_f32(v)) <= reach


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
