"""Branch-free float32 elementary functions that LLVM turns into vector instructions.

Numba calls libm for exp, log and atan, one element at a time; these are polynomials on the bits of the
number, inlined into the loop that uses them, with the coefficients of least largest error.
Constants are float32 literals throughout, because one float64 operand would halve the vector width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from pipeline.kernels.lanes import Lanes, call_llvm, floats, operation, widened

LANES = 8

_F = np.float32
_I = np.int32
_LOG2_E = _F(1.4426950408889634)
_SQRT_HALF_BITS = _I(0x3F3504F3)
_MANTISSA_BITS = _I(23)
_HALF_PI = _F(1.5707963267948966)


def _name(name: str, kind: Any) -> str:
    """Full name of an LLVM intrinsic for float32 or a vector of it."""
    return f"{name}.v{kind.count}f32" if isinstance(kind, Lanes) else f"{name}.f32"


def _unary_intrinsic(name: str) -> Callable[..., Any]:
    @operation
    def function(_typing: Any, x: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return call_llvm(builder, _name(name, x), arguments[0].type, list(arguments))

        return x(x), generate

    return function


def _binary_intrinsic(name: str) -> Callable[..., Any]:
    @operation
    def function(_typing: Any, x: Any, y: Any) -> Any:
        result: Any = next((kind for kind in (x, y) if isinstance(kind, Lanes)), types.float32)

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            if not isinstance(result, Lanes):
                return call_llvm(builder, _name(name, result), arguments[0].type, list(arguments))
            wide = [widened(builder, argument, result.count) for argument in arguments]
            return call_llvm(builder, _name(name, result), result.ir, wide, ("nnan", "nsz"))

        return result(x, y), generate

    return function


sqrt_f32 = _unary_intrinsic("llvm.sqrt")
abs_f32 = _unary_intrinsic("llvm.fabs")
nearest_f32 = _unary_intrinsic("llvm.nearbyint")
min_f32 = _binary_intrinsic("llvm.minnum")
max_f32 = _binary_intrinsic("llvm.maxnum")
copysign_f32 = _binary_intrinsic("llvm.copysign")


def _conversion_intrinsic(name: str, source: Any, target: Any) -> Callable[..., Any]:
    """A method of the LLVM builder from one numba type to another, or from a vector of it to a vector of the other."""

    @operation
    def convert(_typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(arguments[0], context.get_value_type(signature.return_type))

        return (Lanes(target, x.count)(x) if isinstance(x, Lanes) else target(source)), generate

    return convert


_bits_of = _conversion_intrinsic("bitcast", types.float32, types.int32)
_float_of = _conversion_intrinsic("bitcast", types.int32, types.float32)
_to_int = _conversion_intrinsic("fptosi", types.float32, types.int32)
_to_float = _conversion_intrinsic("sitofp", types.int32, types.float32)


@operation
def select_f32(_typing: Any, condition: Any, yes: Any, no: Any) -> Any:
    """(condition, yes, no): `yes if condition else no` on float32, without a branch; by a mask, lane by lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        chooser, one, other = arguments
        if isinstance(condition, Lanes):
            return builder.select(chooser, *(widened(builder, value, condition.count) for value in (one, other)))
        if chooser.type.width != 1:
            chooser = builder.trunc(chooser, ir.IntType(1))
        return builder.select(chooser, one, other)

    if isinstance(condition, Lanes):
        return floats(condition.count)(condition, yes, no), generate
    return types.float32(types.boolean, types.float32, types.float32), generate


# Polynomials are summed pairwise, for these chains of operations wait more than they work.


@njit(inline="always", fastmath=True)
def log2_f32(x: np.float32) -> np.float32:
    """Base-2 logarithm of a normal float32 > 0; absolute error below 2e-7 plus one rounding."""
    bits = _bits_of(x)
    exponent = (bits - _SQRT_HALF_BITS) >> _MANTISSA_BITS
    t = _float_of(bits - (exponent << _MANTISSA_BITS)) - _F(1.0)
    t2 = t * t
    low = (_F(1.442694962) - _F(7.213527887e-1) * t) + t2 * (_F(4.809232473e-1) - _F(3.602396031e-1) * t)
    high = (_F(2.870985108e-1) - _F(2.488771638e-1) * t) + t2 * (_F(2.340441675e-1) - _F(1.458130435e-1) * t)
    value: np.float32 = t * (low + t2 * t2 * high) + _to_float(exponent)
    return value


@njit(inline="always", fastmath=True)
def exp2_f32(x: np.float32) -> np.float32:
    """2**x of a float32 in [-126, 126]; relative error below 2e-7."""
    whole = nearest_f32(x)
    t = x - whole
    t2 = t * t
    low = (_F(1.0) + _F(6.931469776e-1) * t) + t2 * (_F(2.402224212e-1) + _F(5.550733715e-2) * t)
    p = low + t2 * t2 * (_F(9.671511172e-3) + _F(1.326472992e-3) * t)
    value: np.float32 = _float_of(_bits_of(p) + (_to_int(whole) << _MANTISSA_BITS))
    return value


@njit(inline="always", fastmath=True)
def rough_log2_f32(x: np.float32) -> np.float32:
    """`log2_f32` to 1.5e-4, for estimates."""
    bits = _bits_of(x)
    exponent = (bits - _SQRT_HALF_BITS) >> _MANTISSA_BITS
    t = _float_of(bits - (exponent << _MANTISSA_BITS)) - _F(1.0)
    p = (_F(1.4417942) - _F(7.2483213e-1) * t) + t * t * (_F(5.1717988e-1) - _F(3.2988742e-1) * t)
    value: np.float32 = t * p + _to_float(exponent)
    return value


@njit(inline="always", fastmath=True)
def rough_exp2_f32(x: np.float32) -> np.float32:
    """2**x of a float32 in [-125, 126] to a relative 1e-4, for estimates."""
    whole = nearest_f32(x)
    t = x - whole
    p = (_F(0.99992807) + _F(6.9326099e-1) * t) + t * t * (_F(2.4261112e-1) + _F(5.5171669e-2) * t)
    value: np.float32 = _float_of(_bits_of(p) + (_to_int(whole) << _MANTISSA_BITS))
    return value


@njit(inline="always", fastmath=True)
def atan_and_ratio(
    y: np.float32, x: np.float32, numerator: np.float32, denominator: np.float32
) -> tuple[np.float32, np.float32]:
    """Arc tangent of y / x, x > 0, to 2.5e-7 rad, and numerator / denominator, with one division. [rad]

    The products of numbers of the two pairs must be normal float32.
    """
    size = abs_f32(y)
    larger = max_f32(size, x)
    inverse = _F(1.0) / (larger * denominator)
    t = min_f32(size, x) * denominator * inverse
    w = t * t
    w2 = w * w
    low = (_F(-3.333239176e-1) + _F(1.997421667e-1) * w) + w2 * (_F(-1.404134220e-1) + _F(9.968511871e-2) * w)
    p = low + w2 * w2 * ((_F(-6.020366999e-2) + _F(2.473443936e-2) * w) - w2 * _F(4.822637878e-3))
    angle = t + t * w * p
    angle = select_f32(size > x, _HALF_PI - angle, angle)
    return copysign_f32(angle, y), numerator * larger * inverse
