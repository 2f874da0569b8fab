"""Products of matrices of a few dozen rows and columns, float32, in blocks of the result that stay in registers.

An element is one chain of fused multiply-adds in the order of the inner index, whatever the CPU's vectors hold, so its
bits depend on nothing but the matrices. A BLAS takes other routines on other CPUs, may divide a product among threads,
and on matrices this small reaches half its speed.

Matrices are flat arrays; a place in one is the index of its first element and a stride from row to row. Rows of blocks
overlap at the end of the result, where elements are computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numpy.typing import NDArray

from pipeline.kernels.lanes import call_llvm, floats, operation, splat

# Floats of a vector, and registers for vectors: blocks of 27 or 24 sums fill 32 registers, of 12 sums 16.
_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))
_LANES = 16 if _WIDE else 8
_NARROW = 8
_ROWS, _MIRRORED_ROWS = (9, 6) if _WIDE else (4, 3)
_COLUMNS = 3 * _LANES
_MIRRORED_COLUMNS = 2 * _LANES

# What a result needs at least: rows of a product and of a mirrored one, columns of half a mirrored one.
MIN_ROWS = 9
MIN_MIRRORED_ROWS = 6
MIN_HALF = _NARROW
# Columns of the right matrix come in multiples of this, zeros at the end.
COLUMN_STEP = 48

_INDEX = types.int64


def _at(builder: Any, place: Any, offset: Any) -> Any:
    return builder.gep(place, [ir.Constant(ir.IntType(64), offset) if isinstance(offset, int) else offset])


def _data(context: Any, builder: Any, signature: Any, arguments: Any, index: int) -> Any:
    return context.make_array(signature.args[index])(context, builder, arguments[index]).data


def _sums(
    builder: Any, rows: int, vectors: int, lanes: int, left: Any, left_stride: Any, right: Any, right_stride: Any,
    inner: Any,
) -> list[list[Any]]:  # fmt: skip
    """Sums over `inner` rows of left[k, r] * right[k, v * lanes : (v + 1) * lanes], [r][v]."""
    vector = floats(lanes).ir
    zeros = ir.Constant(vector, [0.0] * lanes)
    with builder.goto_entry_block():
        sums = [[builder.alloca(vector) for _ in range(vectors)] for _ in range(rows)]
    for row in sums:
        for place in row:
            builder.store(zeros, place)
    with cgutils.for_range(builder, inner) as loop:
        left_row = _at(builder, left, builder.mul(loop.index, left_stride))
        right_row = _at(builder, right, builder.mul(loop.index, right_stride))
        columns = []
        for v in range(vectors):
            columns.append(builder.load(builder.bitcast(_at(builder, right_row, v * lanes), vector.as_pointer())))
            columns[v].align = 4
        for r, row in enumerate(sums):
            factor = splat(builder, builder.load(_at(builder, left_row, r)), lanes)
            for column, place in zip(columns, row, strict=True):
                terms = [factor, column, builder.load(place)]
                builder.store(call_llvm(builder, f"llvm.fma.v{lanes}f32", vector, terms), place)
    return [[builder.load(place) for place in row] for row in sums]


def _block(rows: int, vectors: int, lanes: int) -> Callable[..., Any]:
    """out[r, c] = sum of left[k, r] right[k, c] of a block; of its columns the first `columns` are written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, out = (_data(context, builder, signature, arguments, index) for index in (0, 4, 7))
        _, left_first, left_stride, inner, _, right_first, right_stride, _, first, stride, columns = arguments
        sums = _sums(
            builder, rows, vectors, lanes, _at(builder, left, left_first), left_stride,
            _at(builder, right, right_first), right_stride, inner,
        )  # fmt: skip
        vector, name = floats(lanes).ir, f"llvm.masked.store.v{lanes}f32.p0"
        numbers, align = ir.VectorType(ir.IntType(64), lanes), ir.Constant(ir.IntType(32), 4)
        count = splat(builder, columns, lanes)
        for v in range(vectors):
            places = ir.Constant(numbers, list(range(v * lanes, (v + 1) * lanes)))
            written = builder.icmp_signed("<", places, count)
            for r in range(rows):
                row = _at(builder, out, builder.add(first, builder.mul(stride, ir.Constant(ir.IntType(64), r))))
                place = builder.bitcast(_at(builder, row, v * lanes), vector.as_pointer())
                call_llvm(builder, name, ir.VoidType(), [sums[r][v], place, align, written])
        return context.get_dummy_value()

    @operation
    def block(
        _typing: Any, left: Any, _left_first: Any, _left_stride: Any, _inner: Any, right: Any, _right_first: Any,
        _right_stride: Any, out: Any, _first: Any, _stride: Any, _columns: Any,
    ) -> Any:  # fmt: skip
        places = [_INDEX] * 3
        return types.void(left, *places, right, _INDEX, _INDEX, out, *places), generate

    return block


def _mirrored_block(rows: int, vectors: int, lanes: int) -> Callable[..., Any]:
    """Even + odd product to columns from `middle` on, even - odd product mirrored to those before `middle`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, evens, odds, out = (_data(context, builder, signature, arguments, index) for index in (0, 5, 6, 9))
        _, left_first, left_stride, odd_first, inner, _, _, half, column, _, middle, stride = arguments
        evens, odds = _at(builder, evens, column), _at(builder, odds, column)
        even_left, odd_left = _at(builder, left, left_first), _at(builder, left, odd_first)
        even = _sums(builder, rows, vectors, lanes, even_left, left_stride, evens, half, inner)
        fewer = builder.sub(inner, ir.Constant(ir.IntType(64), 1))
        odd = _sums(builder, rows, vectors, lanes, odd_left, left_stride, odds, half, fewer)
        vector = floats(lanes).ir
        undefined = ir.Constant(vector, ir.Undefined)
        reverse = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(reversed(range(lanes))))
        for r in range(rows):
            centre = _at(builder, out, builder.add(middle, builder.mul(stride, ir.Constant(ir.IntType(64), r))))
            after, before = _at(builder, centre, column), _at(builder, centre, builder.neg(column))
            for v in range(vectors):
                total = builder.fadd(even[r][v], odd[r][v])
                rest = builder.shuffle_vector(builder.fsub(even[r][v], odd[r][v]), undefined, reverse)
                above, below = _at(builder, after, v * lanes), _at(builder, before, -(v + 1) * lanes)
                builder.store(total, builder.bitcast(above, vector.as_pointer())).align = 4
                builder.store(rest, builder.bitcast(below, vector.as_pointer())).align = 4
        return context.get_dummy_value()

    @operation
    def block(
        _typing: Any, left: Any, _left_first: Any, _left_stride: Any, _odd_first: Any, _inner: Any, even: Any, odd: Any,
        _half: Any, _column: Any, out: Any, _middle: Any, _stride: Any,
    ) -> Any:  # fmt: skip
        places = [_INDEX] * 4
        return types.void(left, *places, even, odd, _INDEX, _INDEX, out, _INDEX, _INDEX), generate

    return block


_wide_block = _block(_ROWS, 3, _LANES)
_thin_block = _block(_ROWS, 1, _LANES)
_wide_mirrored_block = _mirrored_block(_MIRRORED_ROWS, 2, _LANES)
_narrow_mirrored_block = _mirrored_block(_MIRRORED_ROWS, 1, _NARROW)


@njit(cache=True, nogil=True, error_model="numpy")
def product(
    left: NDArray[np.float32], left_first: int, left_stride: int, inner: int, right: NDArray[np.float32],
    right_stride: int, rows: int, columns: int, out: NDArray[np.float32], first: int, stride: int,
) -> None:  # fmt: skip
    """out[r, c] = sum over k < inner of left[k, r] * right[k, c].

    Args:
        left: (inner, rows) matrix from `left_first` on, rows `left_stride` apart.
        inner: terms of a sum.
        right: (inner, right_stride) matrix, right_stride a multiple of COLUMN_STEP.
        rows: >= MIN_ROWS. columns: <= right_stride.
        out: (rows, columns) matrix from `first` on, rows `stride` apart; what lies between them stays.
    """
    for column in range(0, columns, _COLUMNS):
        rest = columns - column
        for row in range(0, rows, _ROWS):
            r = min(row, rows - _ROWS)
            if rest > _LANES:
                _wide_block(
                    left, left_first + r, left_stride, inner, right, column, right_stride,
                    out, first + r * stride + column, stride, rest,
                )  # fmt: skip
            else:
                _thin_block(
                    left, left_first + r, left_stride, inner, right, column, right_stride,
                    out, first + r * stride + column, stride, rest,
                )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def mirrored_product(
    left: NDArray[np.float32], left_first: int, left_stride: int, odd_first: int, inner: int,
    even: NDArray[np.float32], odd: NDArray[np.float32], half: int, rows: int, out: NDArray[np.float32],
    first: int, stride: int,
) -> None:  # fmt: skip
    """Sums of even and odd functions of the column, which `even` and `odd` hold for one side of the middle.

    out[r, half + c] = e + o and out[r, half - 1 - c] = e - o, where e is the sum over k < inner of
    left[k, r] * even[k, c] and o that over k < inner - 1 of left_odd[k, r] * odd[k, c].

    Args:
        left: two matrices, rows `left_stride` apart: (inner, rows) from `left_first` on, (inner - 1, rows), the
            left_odd above, from `odd_first` on.
        inner: even functions.
        even, odd: (inner, half) and (inner - 1, half) matrices, half >= MIN_HALF.
        rows: >= MIN_MIRRORED_ROWS.
        out: (rows, 2 half) matrix from `first` on, rows `stride` apart.
    """
    wide = half >= _MIRRORED_COLUMNS
    width = _MIRRORED_COLUMNS if wide else _NARROW
    for column in range(0, half, width):
        c = min(column, half - width)
        for row in range(0, rows, _MIRRORED_ROWS):
            r = min(row, rows - _MIRRORED_ROWS)
            middle = first + r * stride + half
            if wide:
                _wide_mirrored_block(
                    left, left_first + r, left_stride, odd_first + r, inner, even, odd, half, c, out, middle, stride
                )
            else:
                _narrow_mirrored_block(
                    left, left_first + r, left_stride, odd_first + r, inner, even, odd, half, c, out, middle, stride
                )
