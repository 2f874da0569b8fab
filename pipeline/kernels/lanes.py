"""Short vectors in registers, for straight-line code where a loop would be too short to vectorise.

`Lanes(element, count)` is a numba type: `count` numbers that one instruction, or a few on narrower machines, handles at
once. Compiled functions load, combine and store them. `+ - * /` and comparisons work lane by lane, a float32 beside a
vector counting as that many equal ones, and a product and a sum may be fused; comparisons give masks, which
`& | ~` combine. Arrays are contiguous; positions in them are counted in elements and not checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

# What annotations call a vector of float32, and a mask.
Vector = Any
Mask = Any

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLAGS = ("contract",)
_ELEMENTS = {types.float32: _FLOAT, types.int32: _INT, types.boolean: ir.IntType(1)}
# What numba does not annotate.
_infer_global: Any = infer_global
_lower_builtin: Any = lower_builtin
_register_model: Any = register_model


class Lanes(types.Type):
    """Numba's type of a vector of `count` elements: float32, int32 or boolean, which is a mask."""

    def __init__(self, element: Any, count: int) -> None:
        """`count` is a power of two."""
        self.element, self.count = element, count
        self.ir = ir.VectorType(_ELEMENTS[element], count)
        super().__init__(name=f"Lanes({element}, {count})")


def floats(count: int) -> Lanes:
    """The type of so many float32."""
    return Lanes(types.float32, count)


@_register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.ir)  # type: ignore[no-untyped-call]


def operation(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.extending.intrinsic`, to a type checker a function of any arguments."""
    return cast("Callable[..., Any]", intrinsic(implementation))


def splat(builder: Any, scalar: Any, count: int) -> Any:
    """An LLVM vector of `count` times an LLVM scalar."""
    empty = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INT, count), [0] * count))


def widened(builder: Any, value: Any, count: int) -> Any:
    """An LLVM value as it is if it is a vector, else `splat`."""
    return value if isinstance(value.type, ir.VectorType) else splat(builder, value, count)


def call_llvm(builder: Any, name: str, result: Any, arguments: list[Any], fastmath: tuple[str, ...] = ()) -> Any:
    """Call an LLVM intrinsic by its full name, arguments and result of any LLVM types."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments, fastmath=fastmath)


def address(context: Any, builder: Any, array_type: Any, array: Any, position: Any, vector: Any) -> Any:
    """Pointer to the LLVM vector that begins at a position of an array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), vector.as_pointer())


def _define(symbol: Any, methods: dict[Any, str], before: tuple[Any, ...] = (), result: Any = None) -> None:
    """Let an operator of Python take vectors, or a vector and a number of its elements.

    methods: of the LLVM builder, by element. before: what they take before the operands. result: the element of the
    result if it is another.
    """

    @_infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, arguments: Any, _keywords: Any) -> Any:
            vectors = {kind for kind in arguments if isinstance(kind, Lanes)}
            if len(vectors) != 1:
                return None
            kind = vectors.pop()
            if kind.element not in methods or not {kind, kind.element}.issuperset(arguments):
                return None
            return Lanes(result or kind.element, kind.count)(*arguments)

    def lower(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = next(kind for kind in signature.args if isinstance(kind, Lanes))
        operands = (widened(builder, argument, kind.count) for argument in arguments)
        return getattr(builder, methods[kind.element])(*before, *operands)

    if symbol in {operator.neg, operator.invert}:
        _lower_builtin(symbol, Lanes)(lower)
        return
    _lower_builtin(symbol, Lanes, Lanes)(lower)
    for element in methods:
        _lower_builtin(symbol, Lanes, element)(lower)
        _lower_builtin(symbol, element, Lanes)(lower)


def _define_all() -> None:
    number, whole, truth = types.float32, types.int32, types.boolean
    for name, methods in (
        ("add", {number: "fadd", whole: "add"}),
        ("sub", {number: "fsub", whole: "sub"}),
        ("mul", {number: "fmul"}),
        ("truediv", {number: "fdiv"}),
        ("and_", {truth: "and_"}),
        ("or_", {truth: "or_"}),
    ):
        _define(getattr(operator, name), methods)
        _define(getattr(operator, f"i{name.removesuffix('_')}"), methods)
    for name, symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
        _define(getattr(operator, name), {number: "fcmp_ordered"}, before=(symbol,), result=truth)
    _define(operator.lshift, {whole: "shl"})
    _define(operator.rshift, {whole: "ashr"})
    _define(operator.neg, {number: "fneg"})
    _define(operator.invert, {truth: "not_"})


_define_all()


def loader(count: int) -> Callable[..., Any]:
    """A compiled function (array, position) -> array[position : position + count], float32."""

    @operation
    def load(_typing: Any, array: Any, _position: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind, (values, position) = signature.return_type.ir, arguments
            value = builder.load(address(context, builder, signature.args[0], values, position, kind))
            value.align = 4
            return value

        return floats(count)(array, types.int64), generate

    return load


def storer(count: int) -> Callable[..., Any]:
    """A compiled function (array, position, vector) that sets array[position : position + count]."""

    @operation
    def store(_typing: Any, array: Any, _position: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            target, position, value = arguments
            place = address(context, builder, signature.args[0], target, position, value.type)
            builder.store(value, place).align = 4
            return context.get_dummy_value()

        return (types.void(array, types.int64, vector), generate) if vector == floats(count) else None

    return store


def splatter(count: int) -> Callable[..., Any]:
    """A compiled function (number) -> vector of `count` times this number."""

    @operation
    def all_lanes(_typing: Any, _number: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return splat(builder, arguments[0], count)

        return floats(count)(types.float32), generate

    return all_lanes


def picker(lanes: Sequence[int]) -> Callable[..., Any]:
    """A compiled function (vector) -> vector of these of its lanes."""

    @operation
    def pick(_typing: Any, vector: Any) -> Any:
        def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            places = ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes))
            return builder.shuffle_vector(arguments[0], ir.Constant(signature.args[0].ir, ir.Undefined), places)

        return floats(len(lanes))(vector), generate

    return pick


def constant(values: Sequence[float]) -> Callable[..., Any]:
    """A compiled function () -> vector of these numbers."""

    @operation
    def numbers(_typing: Any) -> Any:
        def generate(_context: Any, _builder: Any, signature: Any, _arguments: Any) -> Any:
            return ir.Constant(signature.return_type.ir, [float(value) for value in values])

        return floats(len(values))(), generate

    return numbers
