"""Ray shooting in bulk: image positions to the source plane, float32, one vector loop per lens model.

Positions are relative to the lens centre in the pixel frame. Source positions are relative to the source
and stay in the frame of the lens's major axis, which spares a rotation; `pipeline.kernels.light` undoes it.
float32 holds 8 arcsec to 5e-7 arcsec, a thousandth of the smallest source. The scalar float64 forms, which
define the models, are in `pipeline.kernels.lensing`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.simd import atan_f32, exp2_f32, log2_f32, max_f32, sqrt_f32

ISOTHERMAL = 0
POWER_LAW = 1
FIELD = 2

LENS_CONSTANTS = 18

_F = np.float32
_HALF_LN_2 = _F(0.34657359027997264)
# Flattening below which the lens is as good as round: the deflection then errs by 1.3e-5 of theta_E.
_MIN_FLATTENING = 4e-3
_SERIES_ERROR = 1e-7
_SERIES_TERMS_MAX = 64


@njit(cache=True, nogil=True, error_model="numpy")
def set_lens(
    kind: int,
    theta_e_arcsec: float,
    q: float,
    phi_rad: float,
    slope: float,
    gamma1: float,
    gamma2: float,
    src_x_arcsec: float,
    src_y_arcsec: float,
    constants: NDArray[np.float64],
) -> None:
    """Fill the constants of one lens and its source position for `shoot`.

    Args:
        kind: ISOTHERMAL or POWER_LAW; for FIELD only the rotation and the source position are used.
        theta_e_arcsec: intermediate-axis Einstein radius, >= 0. [arcsec]
        q: axis ratio of the convergence, 0 < q <= 1.
        phi_rad: position angle of the major axis, from +x to +y. [rad]
        slope: density slope of POWER_LAW, 1 < slope < 3; 2 is isothermal.
        gamma1, gamma2: external shear about the lens, |gamma| < 1.
        src_x_arcsec, src_y_arcsec: source relative to the lens. [arcsec]
        constants: (LENS_CONSTANTS,) receives the constants.
    """
    c, s = math.cos(phi_rad), math.sin(phi_rad)
    c2, s2 = math.cos(2.0 * phi_rad), math.sin(2.0 * phi_rad)
    flattening = max(math.sqrt((1.0 - q) * (1.0 + q)), _MIN_FLATTENING)
    constants[0] = c
    constants[1] = s
    constants[2] = c2 * gamma1 + s2 * gamma2
    constants[3] = c2 * gamma2 - s2 * gamma1
    constants[4] = c * src_x_arcsec + s * src_y_arcsec
    constants[5] = c * src_y_arcsec - s * src_x_arcsec
    constants[6] = q * q
    constants[7] = flattening
    constants[8] = theta_e_arcsec * math.sqrt(q) / flattening
    if kind == POWER_LAW:
        steepness = slope - 1.0
        flat = (1.0 - q) / (1.0 + q)
        # deflection = amplitude * R**(1 - steepness) * series, R = sqrt(q**2 x**2 + y**2)
        constants[9] = 2.0 / (1.0 + q) * (theta_e_arcsec * math.sqrt(q)) ** steepness
        constants[10] = 0.5 * (1.0 - steepness)
        constants[11] = q
        constants[12] = flat
        constants[13] = steepness
        terms = 1
        size = 1.0
        while size > _SERIES_ERROR and terms < _SERIES_TERMS_MAX:
            size *= flat * abs(2.0 * terms - 2.0 + steepness) / (2.0 * terms + 2.0 - steepness)
            terms += 1
        constants[14] = terms


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def shoot(
    kind: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    field: NDArray[np.float32],
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
) -> None:
    """Map image positions to the source plane.

    Args:
        kind: ISOTHERMAL, POWER_LAW or FIELD.
        x, y: (count or more,) float32 positions relative to the lens, pixel frame. [arcsec]
        count: how many of them.
        constants: from `set_lens`.
        field: (2, n, n) deflection samples of kind FIELD, see `_shoot_field`; unused otherwise. [arcsec]
        src_x_arcsec, src_y_arcsec: (count or more,) receive the offset from the source centre, along and across the
            lens's major axis. [arcsec]
    """
    if kind == FIELD:
        _shoot_field(x, y, count, constants, field, src_x_arcsec, src_y_arcsec)
        return
    c, s, g1, g2 = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    along_0, across_0 = _F(constants[4]), _F(constants[5])
    m00, m11 = _F(1.0) - g1, _F(1.0) + g1
    q2, flattening, scale = _F(constants[6]), _F(constants[7]), _F(constants[8])
    if kind == ISOTHERMAL:
        half_scale = scale * _HALF_LN_2
        for k in range(count):
            along = c * x[k] + s * y[k]
            across = c * y[k] - s * x[k]
            w = sqrt_f32(q2 * along * along + across * across + _F(1e-20))
            f_across = flattening * across
            src_x_arcsec[k] = m00 * along - g2 * across - scale * atan_f32(flattening * along / w) - along_0
            src_y_arcsec[k] = (
                m11 * across - g2 * along - half_scale * log2_f32((w + f_across) / (w - f_across)) - across_0
            )
        return
    _shoot_power_law(x, y, count, constants, src_x_arcsec, src_y_arcsec)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _shoot_power_law(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
) -> None:
    """Series of Tessore & Metcalf (2015), A&A 580, A79, eq. 29, its terms one vector pass each."""
    c, s, g1, g2 = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    along_0, across_0 = _F(constants[4]), _F(constants[5])
    m00, m11 = _F(1.0) - g1, _F(1.0) + g1
    amplitude, exponent, q = _F(constants[9]), _F(constants[10]), _F(constants[11])
    flat, steepness, terms = constants[12], constants[13], int(constants[14])
    block = 256
    deflection = np.empty(block, np.float32)
    cos_2phi, sin_2phi = np.empty(block, np.float32), np.empty(block, np.float32)
    term_x, term_y = np.empty(block, np.float32), np.empty(block, np.float32)
    sum_x, sum_y = np.empty(block, np.float32), np.empty(block, np.float32)
    for start in range(0, count, block):
        n = min(block, count - start)
        xs, ys = x[start : start + n], y[start : start + n]
        out_x, out_y = src_x_arcsec[start : start + n], src_y_arcsec[start : start + n]
        for k in range(n):
            along = q * (c * xs[k] + s * ys[k])
            across = c * ys[k] - s * xs[k]
            r2 = max_f32(along * along + across * across, _F(1e-20))
            inverse = _F(1.0) / sqrt_f32(r2)
            cp, sp = along * inverse, across * inverse
            deflection[k] = amplitude * exp2_f32(exponent * log2_f32(r2))
            cos_2phi[k] = cp * cp - sp * sp
            sin_2phi[k] = _F(2.0) * cp * sp
            term_x[k] = cp
            term_y[k] = sp
            sum_x[k] = cp
            sum_y[k] = sp
        for term in range(1, terms):
            factor = _F(-flat * (2.0 * term - 2.0 + steepness) / (2.0 * term + 2.0 - steepness))
            for k in range(n):
                tx = factor * (cos_2phi[k] * term_x[k] - sin_2phi[k] * term_y[k])
                ty = factor * (sin_2phi[k] * term_x[k] + cos_2phi[k] * term_y[k])
                term_x[k] = tx
                term_y[k] = ty
                sum_x[k] += tx
                sum_y[k] += ty
        for k in range(n):
            along = c * xs[k] + s * ys[k]
            across = c * ys[k] - s * xs[k]
            out_x[k] = m00 * along - g2 * across - deflection[k] * sum_x[k] - along_0
            out_y[k] = m11 * across - g2 * along - deflection[k] * sum_y[k] - across_0


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _shoot_field(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    count: int,
    constants: NDArray[np.float64],
    field: NDArray[np.float32],
    src_x_arcsec: NDArray[np.float32],
    src_y_arcsec: NDArray[np.float32],
) -> None:
    """Catmull-Rom interpolation of a sampled deflection, shear included.

    field[0], field[1] are the deflections along +x and +y at positions (first + step * column,
    first_y + step * row) relative to the lens; constants 15, 16, 17 hold first, first_y, 1 / step.
    """
    c, s = _F(constants[0]), _F(constants[1])
    along_0, across_0 = _F(constants[4]), _F(constants[5])
    first_x, first_y, per_step = constants[15], constants[16], constants[17]
    last = field.shape[1] - 3
    wx, wy = np.empty(4), np.empty(4)
    for k in range(count):
        u, v = (x[k] - first_x) * per_step, (y[k] - first_y) * per_step
        column, row = min(max(int(u), 1), last), min(max(int(v), 1), last)
        _catmull_rom(u - column, wx)
        _catmull_rom(v - row, wy)
        ax = ay = 0.0
        for i in range(4):
            for j in range(4):
                weight = wy[i] * wx[j]
                ax += weight * field[0, row - 1 + i, column - 1 + j]
                ay += weight * field[1, row - 1 + i, column - 1 + j]
        bx, by = x[k] - _F(ax), y[k] - _F(ay)
        src_x_arcsec[k] = c * bx + s * by - along_0
        src_y_arcsec[k] = c * by - s * bx - across_0


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, inline="always")
def _catmull_rom(t: float, weights: NDArray[np.float64]) -> None:
    weights[0] = 0.5 * t * (t * (2.0 - t) - 1.0)
    weights[1] = 0.5 * (t * t * (3.0 * t - 5.0) + 2.0)
    weights[2] = 0.5 * t * (t * (4.0 - 3.0 * t) + 1.0)
    weights[3] = 0.5 * t * t * (t - 1.0)
