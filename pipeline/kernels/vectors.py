"""Vectors of 16 float32 for numba: the arithmetic of one register, and loads and stores of whole or part vectors.

A kernel of them is straight-line vector code whatever the number of elements: numba's own loops leave up to four
vectors' length to scalar code, and check whether arrays overlap. `+ - * /` and comparisons work on two vectors, or a
vector and an np.float32; comparisons give masks, which `& | ~` combine. The functions of `simd` take vectors too.
Arrays are contiguous and positions counted in elements, not checked.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

VECTOR = 32

# What annotations call a vector of float32, and a mask.
Vector = Any
Mask = Any

_FLOAT, _INT, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)
# Sums in any order.
_FLAGS = ("nnan", "nsz", "reassoc")


class LanesType(types.Type):
    """Numba's type of a vector whose elements are numba type `element`."""

    def __init__(self, element: Any, element_ir: Any) -> None:
        super().__init__(name=f"Lanes({element}, {VECTOR})")
        self.element = element
        self.ir = ir.VectorType(element_ir, VECTOR)


FLOATS = LanesType(types.float32, _FLOAT)
INTS = LanesType(types.int32, _INT)
MASK = LanesType(types.boolean, _BIT)

_OPERANDS = (FLOATS, INTS, MASK, types.float32, types.int32, types.boolean)
_UNARY = (operator.neg, operator.invert)
# What numba does not annotate.
_infer_global: Any = infer_global
_lower_builtin: Any = lower_builtin
_signature: Any = signature
_register_model: Any = register_model


@_register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:
        super().__init__(manager, kind, kind.ir)  # type: ignore[no-untyped-call]


def _operation(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.extending.intrinsic`, to a type checker a function of any arguments."""
    return cast("Callable[..., Any]", intrinsic(implementation))


def splat(builder: Any, scalar: Any) -> Any:
    """A vector whose elements all are an LLVM scalar."""
    vector = ir.VectorType(scalar.type, VECTOR)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, VECTOR), [0] * VECTOR))


def widened(builder: Any, value: Any) -> Any:
    """An LLVM value as it is if it is a vector, else `splat`."""
    return value if isinstance(value.type, ir.VectorType) else splat(builder, value)


def _define(operation: Any, takes: Callable[[Any], bool], result: LanesType, emit: Callable[..., Any]) -> None:
    """Let an operator of Python take operands of the numba types that `takes` says."""

    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            return _signature(result, *args) if takes(tuple(args)) and not kws else None

    def lower(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return emit(builder, *(widened(builder, argument) for argument in arguments))

    _infer_global(operation)(Template)
    for kinds in itertools.product(*[_OPERANDS] * (1 if operation in _UNARY else 2)):
        if takes(kinds):
            _lower_builtin(operation, *kinds)(lower)


def _two(kind: LanesType) -> Callable[[Any], bool]:
    """Two vectors of a kind, or one and a scalar of its elements."""
    return lambda kinds: kinds in ((kind, kind), (kind, kind.element), (kind.element, kind))


def _method(name: str, *before: str) -> Callable[..., Any]:
    """The method of that name of the LLVM builder."""
    return lambda builder, *operands: getattr(builder, name)(*before, *operands)


def _define_all() -> None:
    for name, method in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
        for form in (name, f"i{name}"):
            _define(getattr(operator, form), _two(FLOATS), FLOATS, _method(method))
    for name, method in (("add", "add"), ("sub", "sub"), ("lshift", "shl"), ("rshift", "ashr")):
        _define(getattr(operator, name), _two(INTS), INTS, _method(method))
    for name, symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
        _define(getattr(operator, name), _two(FLOATS), MASK, _method("fcmp_ordered", symbol))
    for name in ("and_", "or_"):
        for form in (name, f"i{name.removesuffix('_')}"):
            _define(getattr(operator, form), _two(MASK), MASK, _method(name))
    _define(operator.neg, lambda kinds: kinds == (FLOATS,), FLOATS, _method("fneg"))
    _define(operator.invert, lambda kinds: kinds == (MASK,), MASK, _method("not_"))


_define_all()


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def call_llvm(builder: Any, name: str, result: Any, arguments: list[Any], fastmath: tuple[str, ...] = ()) -> Any:
    """Call an LLVM intrinsic by its full name, arguments and result of any LLVM types."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments, fastmath=fastmath)


def _load(builder: Any, address: Any) -> Any:
    value = builder.load(address)
    value.align = 4
    return value


def _load_where(builder: Any, address: Any, mask: Any) -> Any:
    zeros = ir.Constant(FLOATS.ir, [0.0] * VECTOR)
    align = ir.Constant(_INT, 4)
    return call_llvm(builder, f"llvm.masked.load.v{VECTOR}f32.p0", FLOATS.ir, [address, align, mask, zeros])


def _store_where(builder: Any, address: Any, mask: Any, value: Any) -> None:
    align = ir.Constant(_INT, 4)
    call_llvm(builder, f"llvm.masked.store.v{VECTOR}f32.p0", ir.VoidType(), [value, address, align, mask])


def _numbers() -> Any:
    return ir.Constant(INTS.ir, list(range(VECTOR)))


def _first(builder: Any, count: Any) -> Any:
    return builder.icmp_signed("<", _numbers(), splat(builder, builder.trunc(count, _INT)))


def _is_whole(builder: Any, count: Any) -> Any:
    return builder.icmp_signed(">=", count, ir.Constant(count.type, VECTOR))


@_operation
def load_lanes(_typing: Any, array: Any, _index: Any, _count: Any) -> Any:
    """(float32 array, index, count): elements from `index` on; those beyond the first `count` are 0 and not read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], FLOATS.ir)
        with builder.if_else(_is_whole(builder, arguments[2]), likely=True) as (whole, part):
            with whole:
                everything = _load(builder, address)
                whole_block = builder.block
            with part:
                some = _load_where(builder, address, _first(builder, arguments[2]))
                part_block = builder.block
        result = builder.phi(FLOATS.ir)
        result.add_incoming(everything, whole_block)
        result.add_incoming(some, part_block)
        return result

    return FLOATS(array, types.int64, types.int64), generate


@_operation
def store_lanes(_typing: Any, array: Any, _index: Any, _count: Any, value: Any) -> Any:
    """(float32 array, index, count, vector): store the first `count` elements from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], FLOATS.ir)
        stored = widened(builder, arguments[3])
        with builder.if_else(_is_whole(builder, arguments[2]), likely=True) as (whole, part):
            with whole:
                builder.store(stored, address).align = 4
            with part:
                _store_where(builder, address, _first(builder, arguments[2]), stored)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), generate


@_operation
def load_where(_typing: Any, array: Any, _index: Any, _mask: Any) -> Any:
    """(float32 array, index, mask): elements from `index` on; those not in the mask are 0 and not read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], FLOATS.ir)
        return _load_where(builder, address, arguments[2])

    return FLOATS(array, types.int64, MASK), generate


@_operation
def append_lanes(_typing: Any, array: Any, _index: Any, _mask: Any, value: Any) -> Any:
    """(float32 array, index, mask, vector): store the elements in the mask side by side from `index` on.

    The rest of the VECTOR elements from `index` on is overwritten with anything.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half, half_mask = ir.VectorType(_FLOAT, 16), ir.VectorType(_BIT, 16)
        index = arguments[1]
        for first in range(0, VECTOR, 16):
            address = _address(context, builder, signature.args[0], arguments[0], index, half)
            places = ir.Constant(ir.VectorType(_INT, 16), list(range(first, first + 16)))
            mask = builder.shuffle_vector(arguments[2], ir.Constant(MASK.ir, ir.Undefined), places)
            value = builder.shuffle_vector(arguments[3], ir.Constant(FLOATS.ir, ir.Undefined), places)
            undefined = ir.Constant(half, ir.Undefined)
            packed = call_llvm(builder, "llvm.experimental.vector.compress.v16f32", half, [value, mask, undefined])
            builder.store(packed, address).align = 4
            bits = builder.zext(builder.bitcast(mask, ir.IntType(16)), ir.IntType(64))
            index = builder.add(index, call_llvm(builder, "llvm.ctpop.i64", ir.IntType(64), [bits]))
        return context.get_dummy_value()

    return types.void(array, types.int64, MASK, value), generate


@_operation
def load_quarters(_typing: Any, array: Any, _index: Any) -> Any:
    """(float32 array, index): the VECTOR / 4 elements from `index` on, each four times in a row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(_FLOAT, VECTOR // 4)
        few = _load(builder, _address(context, builder, signature.args[0], arguments[0], arguments[1], kind))
        places = ir.Constant(INTS.ir, [k // 4 for k in range(VECTOR)])
        return builder.shuffle_vector(few, ir.Constant(kind, ir.Undefined), places)

    return FLOATS(array, types.int64), generate


def _partner_intrinsic(distance: int) -> Callable[..., Any]:
    @_operation
    def partner(_typing: Any, _value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            places = ir.Constant(INTS.ir, [k ^ distance for k in range(VECTOR)])
            return builder.shuffle_vector(arguments[0], ir.Constant(FLOATS.ir, ir.Undefined), places)

        return FLOATS(FLOATS), generate

    return partner


# A vector whose element k is element k ^ 1, or k ^ 2, of another.
partner_1, partner_2 = _partner_intrinsic(1), _partner_intrinsic(2)


def constant_lanes(values: list[float]) -> Callable[..., Any]:
    """A function for kernels, without arguments, that is a vector of these VECTOR numbers."""

    @_operation
    def constant(_typing: Any) -> Any:
        def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
            return ir.Constant(FLOATS.ir, values)

        return FLOATS(), generate

    return constant


lane_numbers = constant_lanes([float(k) for k in range(VECTOR)])


@_operation
def lanes_from(_typing: Any, _start: Any, _stop: Any) -> Any:
    """(start, stop): mask of the elements start <= k < stop."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        start, stop = (splat(builder, builder.trunc(argument, _INT)) for argument in arguments)
        after = builder.icmp_signed(">=", _numbers(), start)
        return builder.and_(after, builder.icmp_signed("<", _numbers(), stop))

    return MASK(types.int64, types.int64), generate


def _bits(builder: Any, mask: Any) -> Any:
    return builder.bitcast(mask, ir.IntType(VECTOR))


@_operation
def count_lanes(_typing: Any, _mask: Any) -> Any:
    """Number of elements in a mask, int64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = builder.zext(_bits(builder, arguments[0]), ir.IntType(64))
        return call_llvm(builder, "llvm.ctpop.i64", ir.IntType(64), [bits])

    return types.int64(MASK), generate


@_operation
def any_lane(_typing: Any, _mask: Any) -> Any:
    """Whether a mask has any element."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = _bits(builder, arguments[0])
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(MASK), generate


@_operation
def sum_lanes(_typing: Any, _value: Any) -> Any:
    """Sum of a vector, float32, in any order."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{VECTOR}f32"
        return call_llvm(builder, name, _FLOAT, [ir.Constant(_FLOAT, -0.0), arguments[0]], _FLAGS)

    return types.float32(FLOATS), generate


@_operation
def all_lanes(_typing: Any, _scalar: Any) -> Any:
    """A vector whose elements all are a float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return splat(builder, arguments[0])

    return FLOATS(types.float32), generate
