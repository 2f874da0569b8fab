"""Branch-free float32 elementary functions that LLVM turns into vector instructions.

Numba calls libm for exp, log and atan, one element at a time; these are polynomials on the bits of the
number, inlined into the loop that uses them. Coefficients: Moshier, Cephes mathematical library (netlib).
Constants are float32 literals throughout, because one float64 operand would halve the vector width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 8

_F = np.float32
_I = np.int32
_LOG2_E = _F(1.4426950408889634)
_SQRT_HALF_BITS = _I(0x3F3504F3)
_MANTISSA_BITS = _I(23)
_HALF_PI = _F(1.5707963267948966)
_QUARTER_PI = _F(0.7853981633974483)
_TAN_3_PI_8 = _F(2.414213562373095)
_TAN_PI_8 = _F(0.41421356237309503)


def _unary_intrinsic(name: str) -> Callable[..., Any]:
    @intrinsic
    def operation(_typing: Any, _x: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.call(builder.module.declare_intrinsic(name, [ir.FloatType()]), arguments)

        return types.float32(types.float32), generate

    return operation


def _binary_intrinsic(name: str) -> Callable[..., Any]:
    @intrinsic
    def operation(_typing: Any, _x: Any, _y: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            kind = ir.FloatType()
            function = builder.module.declare_intrinsic(name, [kind], fnty=ir.FunctionType(kind, [kind, kind]))
            return builder.call(function, arguments)

        return types.float32(types.float32, types.float32), generate

    return operation


sqrt_f32 = _unary_intrinsic("llvm.sqrt")
abs_f32 = _unary_intrinsic("llvm.fabs")
nearest_f32 = _unary_intrinsic("llvm.nearbyint")
min_f32 = _binary_intrinsic("llvm.minnum")
max_f32 = _binary_intrinsic("llvm.maxnum")


def _bitcast_intrinsic(source: Any, target: Any, target_ir: Any) -> Callable[..., Any]:
    @intrinsic
    def cast(_typing: Any, _x: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], target_ir)

        return target(source), generate

    return cast


_bits_of = _bitcast_intrinsic(types.float32, types.int32, ir.IntType(32))
_float_of = _bitcast_intrinsic(types.int32, types.float32, ir.FloatType())


def _select_intrinsic() -> Callable[..., Any]:
    """`yes if condition else no` on float32, without a branch."""

    @intrinsic
    def select(_typing: Any, _condition: Any, _yes: Any, _no: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            condition = arguments[0]
            if condition.type.width != 1:
                condition = builder.trunc(condition, ir.IntType(1))
            return builder.select(condition, arguments[1], arguments[2])

        return types.float32(types.boolean, types.float32, types.float32), generate

    return select


select_f32 = _select_intrinsic()


@njit(inline="always", fastmath=True)
def log2_f32(x: np.float32) -> np.float32:
    """Base-2 logarithm of a normal float32 > 0; absolute error below 2e-7 plus one rounding."""
    bits = _bits_of(x)
    exponent = (bits - _SQRT_HALF_BITS) >> _MANTISSA_BITS
    t = _float_of(bits - (exponent << _MANTISSA_BITS)) - _F(1.0)
    p = _F(7.0376836292e-2)
    p = p * t + _F(-1.1514610310e-1)
    p = p * t + _F(1.1676998740e-1)
    p = p * t + _F(-1.2420140846e-1)
    p = p * t + _F(1.4249322787e-1)
    p = p * t + _F(-1.6668057665e-1)
    p = p * t + _F(2.0000714765e-1)
    p = p * t + _F(-2.4999993993e-1)
    p = p * t + _F(3.3333331174e-1)
    square = t * t
    return _F((t * square * p - _F(0.5) * square + t) * _LOG2_E + _F(exponent))


@njit(inline="always", fastmath=True)
def exp2_f32(x: np.float32) -> np.float32:
    """2**x of a float32, x clamped to [-126, 126]; relative error below 2e-7."""
    clamped = min_f32(max_f32(x, _F(-126.0)), _F(126.0))
    whole = nearest_f32(clamped)
    t = clamped - whole
    p = _F(1.535336188319500e-4)
    p = p * t + _F(1.339887440266574e-3)
    p = p * t + _F(9.618437357674640e-3)
    p = p * t + _F(5.550332471162809e-2)
    p = p * t + _F(2.402264791363012e-1)
    p = p * t + _F(6.931472028550421e-1)
    p = p * t + _F(1.0)
    return _F(_float_of(_bits_of(p) + (_I(whole) << _MANTISSA_BITS)))


@njit(inline="always", fastmath=True)
def atan_f32(x: np.float32) -> np.float32:
    """Arc tangent of any finite float32; absolute error below 2e-7. [rad]"""
    size = abs_f32(x)
    large, middle = size > _TAN_3_PI_8, size > _TAN_PI_8
    numerator = select_f32(large, _F(-1.0), select_f32(middle, size - _F(1.0), size))
    denominator = select_f32(large, size, select_f32(middle, size + _F(1.0), _F(1.0)))
    offset = select_f32(large, _HALF_PI, select_f32(middle, _QUARTER_PI, _F(0.0)))
    t = numerator / denominator
    w = t * t
    p = _F(8.05374449538e-2)
    p = p * w + _F(-1.38776856032e-1)
    p = p * w + _F(1.99777106478e-1)
    p = p * w + _F(-3.33329491539e-1)
    angle = offset + (p * w * t + t)
    return _F(select_f32(x < _F(0.0), -angle, angle))
