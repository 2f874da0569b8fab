"""Copying stamps from where they lie in memory to a batch, compiled and without the interpreter's lock.

A stamp is named by its address: stamps of a batch lie in many mapped files, and one call copies them all.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

import pipeline.kernels  # noqa: F401 - chooses the folder of compiled code

_PIXEL_BYTES = 4
# Every bit of the exponent: infinite or not a number.
_NOT_FINITE = 0x7F800000
_WITHOUT_SIGN = 0x7FFFFFFF

_UINT32_POINTER: Any = getattr(types, "CPointer")(types.uint32)  # noqa: B009 - numba does not type it


def _emit_copy_bytes(_context: Any, target: Any, source: Any, count: Any) -> Any:  # noqa: ARG001 - numba reads names
    """Copy `count` bytes between two addresses."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        ends = [builder.inttoptr(address, pointer) for address in arguments[:2]]
        memcpy = builder.module.declare_intrinsic("llvm.memcpy", [pointer, pointer, ir.IntType(64)])
        builder.call(memcpy, [*ends, arguments[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _emit_pixel_pointer(_context: Any, address: Any) -> Any:  # noqa: ARG001 - numba reads the name
    """An address as a pointer to uint32."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(_UINT32_POINTER))

    return _UINT32_POINTER(types.int64), generate


_copy_bytes: Any = intrinsic(_emit_copy_bytes)
_pixel_pointer: Any = intrinsic(_emit_pixel_pointer)
_carray: Any = getattr(numba, "carray")  # noqa: B009 - numba does not export it


@njit(cache=True, nogil=True)
def gather_stamps(address: NDArray[np.int64], chosen: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """Copy stamps, in order.

    Args:
        address: (example) where each stamp lies; its memory must stay mapped during the call.
        chosen: (stamp) examples to copy.
        out: (stamp, band, y, x) contiguous, filled.
    """
    stamp_bytes = out[0].size * _PIXEL_BYTES
    target = out.ctypes.data
    for number in range(chosen.size):
        _copy_bytes(target + number * stamp_bytes, address[chosen[number]], stamp_bytes)


@njit(cache=True, nogil=True)
def count_not_finite(address: NDArray[np.int64], n_pixels: int) -> int:
    """Number of stamps that hold a pixel which is infinite or not a number.

    Args:
        address: (stamp) where each stamp lies.
        n_pixels: float32 pixels of a stamp.
    """
    broken = 0
    for number in range(address.size):
        pixels = _carray(_pixel_pointer(address[number]), (n_pixels,))
        largest = np.uint32(0)
        for value in pixels:
            largest = max(largest, value & np.uint32(_WITHOUT_SIGN))
        if largest >= _NOT_FINITE:
            broken += 1
    return broken
