"""Short vectors of float32 in registers, for straight-line code where a loop would be too short to vectorise.

`Lanes(n)` is a numba type: n numbers that one instruction, or a few on narrower machines, handles at once. Compiled
functions load, combine and store them; `+`, `-` and `*` work lane by lane, a float32 beside a vector counting as
that many equal ones, and a product and a sum may be fused. Positions in arrays are not checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

_FLOAT = ir.FloatType()
_FLAGS = ("contract",)


class Lanes(types.Type):
    """numba's type of a vector of `count` float32."""

    def __init__(self, count: int) -> None:
        """`count` is a power of two."""
        self.count = count
        super().__init__(f"Lanes({count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, ir.VectorType(_FLOAT, kind.count))  # type: ignore[no-untyped-call]


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    empty = ir.Constant(ir.VectorType(_FLOAT, count), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))


def _register(symbol: Any, instruction: str) -> None:
    @infer_global(symbol)  # type: ignore[no-untyped-call]
    class _Template(AbstractTemplate):
        def generic(self, arguments: Any, _keywords: Any) -> Any:
            vectors = {kind for kind in arguments if isinstance(kind, Lanes)}
            if len(arguments) == 2 and len(vectors) == 1 and vectors.union(arguments) <= vectors | {types.float32}:
                return vectors.pop()(*arguments)
            return None

    def lower(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = signature.return_type.count
        left, right = (
            value if isinstance(kind, Lanes) else _splat(builder, value, count)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        return getattr(builder, instruction)(left, right, flags=_FLAGS)

    for kinds in ((Lanes, Lanes), (Lanes, types.Float), (types.Float, Lanes)):
        lower_builtin(symbol, *kinds)(lower)  # type: ignore[no-untyped-call]


_register(operator.add, "fadd")
_register(operator.sub, "fsub")
_register(operator.mul, "fmul")


def _address(context: Any, builder: Any, kind: Any, array: Any, position: Any, count: int) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), ir.VectorType(_FLOAT, count).as_pointer())


def loader(count: int) -> Callable[..., Any]:
    """A compiled function (array, position) -> array[position : position + count], float32 and contiguous."""

    @intrinsic
    def load(_typing: Any, array: Any, _position: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array_, position = arguments
            value = builder.load(_address(context, builder, signature.args[0], array_, position, count))
            value.align = 4
            return value

        return Lanes(count)(array, types.int64), generate

    return load


def storer(count: int) -> Callable[..., Any]:
    """A compiled function (array, position, vector) that sets array[position : position + count]."""

    @intrinsic
    def store(_typing: Any, array: Any, _position: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array_, position, value = arguments
            address = _address(context, builder, signature.args[0], array_, position, count)
            builder.store(value, address).align = 4
            return context.get_dummy_value()

        return types.void(array, types.int64, vector), generate

    return store


def splatter(count: int) -> Callable[..., Any]:
    """A compiled function (number) -> vector of `count` times this number."""

    @intrinsic
    def splat(_typing: Any, _number: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return _splat(builder, arguments[0], count)

        return Lanes(count)(types.float32), generate

    return splat


def picker(lanes: Sequence[int]) -> Callable[..., Any]:
    """A compiled function (vector) -> vector of these of its lanes."""

    @intrinsic
    def pick(_typing: Any, vector: Any) -> Any:
        def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            empty = ir.Constant(ir.VectorType(_FLOAT, signature.args[0].count), ir.Undefined)
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
            return builder.shuffle_vector(arguments[0], empty, mask)

        return Lanes(len(lanes))(vector), generate

    return pick


def constant(values: Sequence[float]) -> Callable[..., Any]:
    """A compiled function () -> vector of these numbers."""

    @intrinsic
    def number(_typing: Any) -> Any:
        def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
            return ir.Constant(ir.VectorType(_FLOAT, len(values)), [float(value) for value in values])

        return Lanes(len(values))(), generate

    return number
