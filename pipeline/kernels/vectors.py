"""Loops over arrays of float32 in vectors of VECTOR elements, whole or in part.

A kernel of them is straight-line vector code whatever the number of elements: numba's own loops leave up to four
vectors' length to scalar code, and check whether arrays overlap. The arithmetic is that of `lanes`; the functions of
`simd` take such vectors too.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from pipeline.kernels.lanes import (
    Lanes,
    address,
    call_llvm,
    constant,
    floats,
    operation,
    picker,
    splat,
    splatter,
    widened,
)

# Two registers: the operations of one fill the time that the other waits.
_REGISTER = 16
VECTOR = 2 * _REGISTER

FLOATS, MASK = floats(VECTOR), Lanes(types.boolean, VECTOR)

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_INTS = ir.VectorType(_INT, VECTOR)
# Sums in any order.
_FLAGS = ("nnan", "nsz", "reassoc")


def _load(builder: Any, place: Any) -> Any:
    value = builder.load(place)
    value.align = 4
    return value


def _load_where(builder: Any, place: Any, mask: Any) -> Any:
    zeros = ir.Constant(FLOATS.ir, [0.0] * VECTOR)
    align = ir.Constant(_INT, 4)
    return call_llvm(builder, f"llvm.masked.load.v{VECTOR}f32.p0", FLOATS.ir, [place, align, mask, zeros])


def _store_where(builder: Any, place: Any, mask: Any, value: Any) -> None:
    align = ir.Constant(_INT, 4)
    call_llvm(builder, f"llvm.masked.store.v{VECTOR}f32.p0", ir.VoidType(), [value, place, align, mask])


def _numbers() -> Any:
    return ir.Constant(_INTS, list(range(VECTOR)))


def _first(builder: Any, count: Any) -> Any:
    return builder.icmp_signed("<", _numbers(), splat(builder, builder.trunc(count, _INT), VECTOR))


def _is_whole(builder: Any, count: Any) -> Any:
    return builder.icmp_signed(">=", count, ir.Constant(count.type, VECTOR))


@operation
def load_lanes(_typing: Any, array: Any, _index: Any, _count: Any) -> Any:
    """(float32 array, index, count): elements from `index` on; those beyond the first `count` are 0 and not read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, signature.args[0], arguments[0], arguments[1], FLOATS.ir)
        with builder.if_else(_is_whole(builder, arguments[2]), likely=True) as (whole, part):
            with whole:
                everything = _load(builder, place)
                whole_block = builder.block
            with part:
                some = _load_where(builder, place, _first(builder, arguments[2]))
                part_block = builder.block
        result = builder.phi(FLOATS.ir)
        result.add_incoming(everything, whole_block)
        result.add_incoming(some, part_block)
        return result

    return FLOATS(array, types.int64, types.int64), generate


@operation
def store_lanes(_typing: Any, array: Any, _index: Any, _count: Any, value: Any) -> Any:
    """(float32 array, index, count, vector): store the first `count` elements from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, signature.args[0], arguments[0], arguments[1], FLOATS.ir)
        stored = widened(builder, arguments[3], VECTOR)
        with builder.if_else(_is_whole(builder, arguments[2]), likely=True) as (whole, part):
            with whole:
                builder.store(stored, place).align = 4
            with part:
                _store_where(builder, place, _first(builder, arguments[2]), stored)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), generate


@operation
def load_where(_typing: Any, array: Any, _index: Any, _mask: Any) -> Any:
    """(float32 array, index, mask): elements from `index` on; those not in the mask are 0 and not read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, signature.args[0], arguments[0], arguments[1], FLOATS.ir)
        return _load_where(builder, place, arguments[2])

    return FLOATS(array, types.int64, MASK), generate


@operation
def append_lanes(_typing: Any, array: Any, _index: Any, _mask: Any, value: Any) -> Any:
    """(float32 array, index, mask, vector): store the elements in the mask side by side from `index` on.

    The rest of the VECTOR elements from `index` on is overwritten with anything.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index, kind = arguments[1], ir.VectorType(_FLOAT, _REGISTER)
        name = f"llvm.experimental.vector.compress.v{_REGISTER}f32"
        for first in range(0, VECTOR, _REGISTER):
            place = address(context, builder, signature.args[0], arguments[0], index, kind)
            lanes = ir.Constant(ir.VectorType(_INT, _REGISTER), list(range(first, first + _REGISTER)))
            mask = builder.shuffle_vector(arguments[2], ir.Constant(MASK.ir, ir.Undefined), lanes)
            part = builder.shuffle_vector(arguments[3], ir.Constant(FLOATS.ir, ir.Undefined), lanes)
            packed = call_llvm(builder, name, kind, [part, mask, ir.Constant(kind, ir.Undefined)])
            builder.store(packed, place).align = 4
            bits = builder.zext(builder.bitcast(mask, ir.IntType(_REGISTER)), ir.IntType(64))
            index = builder.add(index, call_llvm(builder, "llvm.ctpop.i64", ir.IntType(64), [bits]))
        return context.get_dummy_value()

    return types.void(array, types.int64, MASK, value), generate


@operation
def load_quarters(_typing: Any, array: Any, _index: Any) -> Any:
    """(float32 array, index): the VECTOR / 4 elements from `index` on, each four times in a row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(_FLOAT, VECTOR // 4)
        few = _load(builder, address(context, builder, signature.args[0], arguments[0], arguments[1], kind))
        places = ir.Constant(_INTS, [k // 4 for k in range(VECTOR)])
        return builder.shuffle_vector(few, ir.Constant(kind, ir.Undefined), places)

    return FLOATS(array, types.int64), generate


# A vector whose element k is element k ^ 1, or k ^ 2, of another.
partner_1, partner_2 = picker([k ^ 1 for k in range(VECTOR)]), picker([k ^ 2 for k in range(VECTOR)])

lane_numbers, all_lanes = constant(range(VECTOR)), splatter(VECTOR)


@operation
def lanes_from(_typing: Any, _start: Any, _stop: Any) -> Any:
    """(start, stop): mask of the elements start <= k < stop."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        start, stop = (splat(builder, builder.trunc(argument, _INT), VECTOR) for argument in arguments)
        after = builder.icmp_signed(">=", _numbers(), start)
        return builder.and_(after, builder.icmp_signed("<", _numbers(), stop))

    return MASK(types.int64, types.int64), generate


def _bits(builder: Any, mask: Any) -> Any:
    return builder.bitcast(mask, ir.IntType(VECTOR))


@operation
def count_lanes(_typing: Any, _mask: Any) -> Any:
    """Number of elements in a mask, int64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = builder.zext(_bits(builder, arguments[0]), ir.IntType(64))
        return call_llvm(builder, "llvm.ctpop.i64", ir.IntType(64), [bits])

    return types.int64(MASK), generate


@operation
def any_lane(_typing: Any, _mask: Any) -> Any:
    """Whether a mask has any element."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = _bits(builder, arguments[0])
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(MASK), generate


@operation
def sum_lanes(_typing: Any, _value: Any) -> Any:
    """Sum of a vector, float32, in any order."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{VECTOR}f32"
        return call_llvm(builder, name, _FLOAT, [ir.Constant(_FLOAT, -0.0), arguments[0]], _FLAGS)

    return types.float32(FLOATS), generate
