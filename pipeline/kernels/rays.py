"""Ray shooting in bulk: image positions to the source plane, float32, in vectors.

Positions are relative to the lens centre in the pixel frame. Source positions are relative to the source
and stay in the frame of the lens's major axis, which spares a rotation; `pipeline.kernels.light` undoes it.
float32 holds 8 arcsec to 5e-7 arcsec, a thousandth of the smallest source. The scalar float64 forms, which
define the models, are in `pipeline.kernels.lensing`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.lanes import Vector
from pipeline.kernels.simd import atan_and_ratio, exp2_f32, log2_f32, max_f32, sqrt_f32
from pipeline.kernels.vectors import VECTOR, load_lanes, store_lanes

ISOTHERMAL = 0
POWER_LAW = 1
FIELD = 2

LENS_CONSTANTS = 18

_F = np.float32
_HALF_LN_2 = 0.34657359027997264
# Flattening below which the lens is as good as round: the deflection then errs by 1.3e-5 of theta_E.
_MIN_FLATTENING = 4e-3
_SERIES_ERROR = 1e-7
_SERIES_TERMS_MAX = 64
# Positions that go through all passes while the first-level cache holds them, a multiple of VECTOR.
_BLOCK = 1024


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


class Isothermal(NamedTuple):
    """Constants of `shoot_isothermal`, from `isothermal`.

    c, s: rotation to the major axis, times the flattening f. along_2, across_2: factors of the squared positions in
    that frame in the squared elliptical radius. along_*, across_*: the source position without the lens's deflection.
    scale, log_scale: of the arc tangent and the base-2 logarithm of the deflection.
    """

    c: np.float32
    s: np.float32
    along_2: np.float32
    across_2: np.float32
    along_x: np.float32
    along_y: np.float32
    along_0: np.float32
    across_x: np.float32
    across_y: np.float32
    across_0: np.float32
    scale: np.float32
    log_scale: np.float32


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def isothermal(constants: NDArray[np.float64]) -> Isothermal:
    """The constants that `set_lens` has filled, for kind ISOTHERMAL."""
    c, s, g1, g2, f = constants[0], constants[1], constants[2], constants[3], constants[7]
    per_f2 = 1.0 / (f * f)
    return Isothermal(
        _F(f * c), _F(f * s), _F(constants[6] * per_f2), _F(per_f2),
        _F((1.0 - g1) * c + g2 * s), _F((1.0 - g1) * s - g2 * c), _F(constants[4]),
        _F(-(1.0 + g1) * s - g2 * c), _F((1.0 + g1) * c - g2 * s), _F(constants[5]),
        _F(constants[8]), _F(constants[8] * _HALF_LN_2),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def shoot_isothermal(x: Vector, y: Vector, lens: Isothermal) -> tuple[Vector, Vector]:
    """`shoot` of a vector of positions."""
    src_x, ratio = _along(x, y, _radius(x, y, lens), lens)
    return src_x, _across(x, y, ratio, lens)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _radius(x: Vector, y: Vector, lens: Isothermal) -> Vector:
    """Elliptical radius."""
    along, across = lens.c * x + lens.s * y, lens.c * y - lens.s * x
    return sqrt_f32(lens.along_2 * (along * along) + (lens.across_2 * (across * across) + _F(1e-20)))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _along(x: Vector, y: Vector, radius: Vector, lens: Isothermal) -> tuple[Vector, Vector]:
    """Source position along the major axis, and what `_across` needs the logarithm of."""
    along, across = lens.c * x + lens.s * y, lens.c * y - lens.s * x
    # Added to 1 rather than divided as a whole, for the ratio of a nearly round lens is all but 1.
    angle, above_half = atan_and_ratio(along, radius, across, radius - across)
    source = lens.along_x * x + (lens.along_y * y - lens.along_0) - lens.scale * angle
    return source, _F(1.0) + _F(2.0) * above_half


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _across(x: Vector, y: Vector, ratio: Vector, lens: Isothermal) -> Vector:
    return lens.across_x * x + (lens.across_y * y - lens.across_0) - lens.log_scale * log2_f32(ratio)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _shoot_isothermal(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    count: int,
    lens: Isothermal,
    src_x: NDArray[np.float32],
    src_y: NDArray[np.float32],
) -> None:
    """Three passes, which hand on by src_y: a processor works ahead through short chains of operations only."""
    for start in range(0, count, _BLOCK):
        stop = min(count, start + _BLOCK)
        for k in range(start, stop, VECTOR):
            left = stop - k
            store_lanes(src_y, k, left, _radius(load_lanes(x, k, left), load_lanes(y, k, left), lens))
        for k in range(start, stop, VECTOR):
            left = stop - k
            radius = load_lanes(src_y, k, left)
            along, ratio = _along(load_lanes(x, k, left), load_lanes(y, k, left), radius, lens)
            store_lanes(src_x, k, left, along)
            store_lanes(src_y, k, left, ratio)
        for k in range(start, stop, VECTOR):
            left = stop - k
            ratio = load_lanes(src_y, k, left)
            store_lanes(src_y, k, left, _across(load_lanes(x, k, left), load_lanes(y, k, left), ratio, lens))


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
    if kind == ISOTHERMAL:
        _shoot_isothermal(x, y, count, isothermal(constants), src_x_arcsec, src_y_arcsec)
    elif kind == FIELD:
        _shoot_field(x, y, count, constants, field, src_x_arcsec, src_y_arcsec)
    else:
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
    """Series of Tessore & Metcalf (2015), A&A 580, A79, eq. 29."""
    c, s, g1, g2 = _F(constants[0]), _F(constants[1]), _F(constants[2]), _F(constants[3])
    along_0, across_0 = _F(constants[4]), _F(constants[5])
    m00, m11 = _F(1.0) - g1, _F(1.0) + g1
    amplitude, exponent, q = _F(constants[9]), _F(constants[10]), _F(constants[11])
    flat, steepness, terms = constants[12], constants[13], int(constants[14])
    factors = np.empty(_SERIES_TERMS_MAX, np.float32)
    for term in range(1, terms):
        factors[term] = -flat * (2.0 * term - 2.0 + steepness) / (2.0 * term + 2.0 - steepness)
    for k in range(0, count, VECTOR):
        xs, ys = load_lanes(x, k, count - k), load_lanes(y, k, count - k)
        along, across = c * xs + s * ys, c * ys - s * xs
        squashed = q * along
        r2 = max_f32(squashed * squashed + across * across, _F(1e-20))
        inverse = _F(1.0) / sqrt_f32(r2)
        term_x, term_y = squashed * inverse, across * inverse
        deflection = amplitude * exp2_f32(exponent * log2_f32(r2))
        cos_2phi = term_x * term_x - term_y * term_y
        sin_2phi = _F(2.0) * term_x * term_y
        sum_x, sum_y = term_x, term_y
        for term in range(1, terms):
            tx = factors[term] * (cos_2phi * term_x - sin_2phi * term_y)
            term_y = factors[term] * (sin_2phi * term_x + cos_2phi * term_y)
            term_x = tx
            sum_x += term_x
            sum_y += term_y
        store_lanes(src_x_arcsec, k, count - k, m00 * along - g2 * across - deflection * sum_x - along_0)
        store_lanes(src_y_arcsec, k, count - k, m11 * across - g2 * along - deflection * sum_y - across_0)


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
