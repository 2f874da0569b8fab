"""Rice decoding and dequantisation of FITS compressed image tiles (FITS Standard 4.0, section 10).

A tile is a bit stream, most significant bit first: the first pixel raw, then blocks of `block_size` pixel
differences. Each block starts with a code: all differences zero, all raw, or Rice coded with k low bits.
Differences are zigzag coded and add up modulo the pixel width. Quantised floats are then mapped back with the
scale and zero point of their tile, and with the dither of the standard's 10000 random numbers taken away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

# Bytes that must follow the last tile in a buffer: the decoder reads eight at a time, at most this far ahead.
BUFFER_PADDING_BYTES = 16

STATUS_OK = 0
STATUS_TRUNCATED = 1
STATUS_BAD_BLOCK = 2

NO_DITHER = 0
SUBTRACTIVE_DITHER_1 = 1
SUBTRACTIVE_DITHER_2 = 2

# A value of `blank` that no quantised pixel has: nothing is blank.
NO_BLANK = 1 << 40

DITHER_VALUES = 10000
_DITHERED_ZERO = -2147483646


def fits_random_values() -> NDArray[np.float32]:
    """(10000,) float32 in (0, 1): the random sequence of the FITS Standard 4.0, appendix I.

    Multiplicative congruence x -> 16807 x mod (2**31 - 1) from 1, divided by 2**31 - 1; the last x is 1043618065.
    """
    modulus = 2**31 - 1
    values = np.empty(DITHER_VALUES, dtype=np.float64)
    seed = 1
    for i in range(DITHER_VALUES):
        seed = seed * 16807 % modulus
        values[i] = seed / modulus
    return values.astype(np.float32)


_RANDOM = fits_random_values()
_FIRST_RANDOM = (_RANDOM * np.float32(500.0)).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def decode_rice_integers(
    buffer: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    pixels: NDArray[np.int64],
    block_size: int,
    byte_pix: int,
    out: NDArray[np.int32],
) -> NDArray[np.uint8]:
    """Decode Rice tiles to integers.

    Args:
        buffer: (byte,) uint8, the tiles' bytes, followed by at least BUFFER_PADDING_BYTES of anything.
        start: (tile,) int64 first byte of each tile in `buffer`.
        end: (tile,) int64 one past the last byte of each tile, at most len(buffer) - BUFFER_PADDING_BYTES.
        pixels: (tile,) int64 pixels wanted of each tile, counted from its first; at most out.shape[1].
        block_size: pixels per block, at least 1.
        byte_pix: width of a pixel in the stream, 1 (unsigned), 2 or 4. [byte]
        out: (tile, pixel) int32, filled up to `pixels`; what follows an error in a tile is undefined.

    Returns:
        (tile,) uint8: STATUS_OK, STATUS_TRUNCATED (stream ends early) or STATUS_BAD_BLOCK (impossible block code).
    """
    status = np.empty(start.size, np.uint8)
    for t in range(start.size):
        status[t] = _decode(buffer, start[t], end[t], pixels[t], block_size, byte_pix, out[t])
    return status


@njit(cache=True, nogil=True, error_model="numpy")
def decode_rice_floats(
    buffer: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    pixels: NDArray[np.int64],
    block_size: int,
    byte_pix: int,
    scale: NDArray[np.float64],
    zero: NDArray[np.float64],
    blank: NDArray[np.int64],
    dither: int,
    dither_row: NDArray[np.int64],
    out: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Decode Rice tiles of quantised floats, each tile's integers staying in cache between the two steps.

    Args:
        buffer: as in decode_rice_integers; so are start, end, pixels, block_size and byte_pix.
        start: see above.
        end: see above.
        pixels: see above.
        block_size: see above.
        byte_pix: see above.
        scale: (tile,) float64 as in dequantise; so are zero, blank, dither and dither_row.
        zero: (tile,) float64, see above.
        blank: (tile,) int64, see above.
        dither: see above.
        dither_row: (tile,) int64, see above.
        out: (tile, pixel) float32, filled up to `pixels`; a tile with an error is left as it was.

    Returns:
        (tile,) uint8 status as in decode_rice_integers.
    """
    status = np.empty(start.size, np.uint8)
    quantised = np.empty(out.shape[1], np.int32)
    for t in range(start.size):
        n = pixels[t]
        status[t] = _decode(buffer, start[t], end[t], n, block_size, byte_pix, quantised)
        if status[t] == STATUS_OK:
            dequantise(quantised[:n], scale[t], zero[t], blank[t], dither, dither_row[t], out[t, :n])
    return status


@njit(cache=True, nogil=True, error_model="numpy")
def dequantise(
    quantised: NDArray[np.int32],
    scale: float,
    zero: float,
    blank: int,
    dither: int,
    dither_row: int,
    out: NDArray[np.float32],
) -> None:
    """Map the integers of one tile to floats: (q - r + 0.5) scale + zero in float64, r the dither; FITS 4.0, 10.2.

    Args:
        quantised: (pixel,) int32 pixels of the tile in storage order, from its first.
        scale: ZSCALE of the tile.
        zero: ZZERO of the tile.
        blank: integer that stands for NaN, NO_BLANK for none.
        dither: NO_DITHER (q scale + zero), SUBTRACTIVE_DITHER_1, or SUBTRACTIVE_DITHER_2 (-2147483646 is exactly 0).
        dither_row: (tile number + ZDITHER0 - 1) mod 10000, the tile counted from 0; in [0, 10000).
        out: (pixel,) float32.
    """
    n = quantised.size
    if dither == NO_DITHER:
        for i in range(n):
            out[i] = np.nan if quantised[i] == blank else quantised[i] * scale + zero
        return
    zero_code = _DITHERED_ZERO if dither == SUBTRACTIVE_DITHER_2 else NO_BLANK
    row = dither_row
    done = 0
    while done < n:
        first = _FIRST_RANDOM[row]
        run = min(n - done, DITHER_VALUES - first)
        q = quantised[done : done + run]
        r = _RANDOM[first : first + run]
        o = out[done : done + run]
        for i in range(run):
            value = (q[i] - np.float64(r[i]) + 0.5) * scale + zero
            value = 0.0 if q[i] == zero_code else value
            o[i] = np.nan if q[i] == blank else value
        done += run
        row = row + 1 if row + 1 < DITHER_VALUES else 0


def _emit_leading_zeros(_context: Any, word: Any) -> Any:  # noqa: ARG001 - numba reads the name
    """Number of zero bits above the highest set bit of a uint64; 64 for 0."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bit = ir.IntType(1)
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64), bit])
        function = builder.module.declare_intrinsic("llvm.ctlz", [ir.IntType(64)], fnty=kind)
        return builder.call(function, [arguments[0], ir.Constant(bit, 0)])

    return types.uint64(types.uint64), generate


def _emit_big_endian_word(_context: Any, array: Any, position: Any) -> Any:  # noqa: ARG001 - numba reads the name
    """uint64 of the eight bytes of a uint8 array from `position` on, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.gep(data, [arguments[1]], source_etype=ir.IntType(8))
        word = builder.load(pointer, typ=ir.IntType(64))
        word.align = 1
        return builder.call(builder.module.declare_intrinsic("llvm.bswap", [ir.IntType(64)]), [word])

    return types.uint64(array, types.int64), generate


_leading_zeros: Any = intrinsic(_emit_leading_zeros)
_big_endian_word: Any = intrinsic(_emit_big_endian_word)


@njit(cache=True, nogil=True, error_model="numpy")
def _decode(
    buffer: NDArray[np.uint8],
    start: int,
    end: int,
    pixels: int,
    block_size: int,
    byte_pix: int,
    out: NDArray[np.int32],
) -> int:
    """Decode one tile; see decode_rice_integers.

    `word` holds the next bits of the stream, the first in its highest bit, `have` of them valid and never more than
    63; `position` is the next byte to load. Bits below the valid ones are true stream bits or zero, so that a
    refill may set them again.
    """
    raw_bits = 8 * byte_pix
    code_bits = 5 if byte_pix == 4 else 4 if byte_pix == 2 else 3
    raw_code = 25 if byte_pix == 4 else 14 if byte_pix == 2 else 6
    limit = end + 8

    word = _big_endian_word(buffer, start)
    last = np.uint32(word >> np.uint64(64 - raw_bits))
    word <<= np.uint64(raw_bits)
    have = 64 - raw_bits
    position = start + 8

    done = 0
    while done < pixels:
        if position > limit:
            return STATUS_TRUNCATED
        word |= _big_endian_word(buffer, position) >> np.uint64(have)
        position += (63 - have) >> 3
        have |= 56
        low_bits: Any = np.int64(word >> np.uint64(64 - code_bits)) - 1
        word <<= np.uint64(code_bits)
        have -= code_bits
        stop = min(done + block_size, pixels)
        if low_bits > raw_code:
            return STATUS_BAD_BLOCK
        if low_bits < 0:
            for i in range(done, stop):
                out[i] = np.int32(last)
        elif low_bits == raw_code:
            for i in range(done, stop):
                if position > limit:
                    return STATUS_TRUNCATED
                word |= _big_endian_word(buffer, position) >> np.uint64(have)
                position += (63 - have) >> 3
                have |= 56
                zigzag = np.uint32(word >> np.uint64(64 - raw_bits))
                word <<= np.uint64(raw_bits)
                have -= raw_bits
                last = np.uint32(last + ((zigzag >> np.uint32(1)) ^ -(zigzag & np.uint32(1))))
                out[i] = np.int32(last)
        else:
            for i in range(done, stop):
                if position > limit:
                    return STATUS_TRUNCATED
                word |= _big_endian_word(buffer, position) >> np.uint64(have)
                position += (63 - have) >> 3
                have |= 56
                zeros = np.int64(_leading_zeros(word))
                run = 0
                while zeros > 30:
                    # A long run: take 30 zeros at a time, so that terminator and low bits stay within the word.
                    run += 30
                    word <<= np.uint64(30)
                    have -= 30
                    if position > limit:
                        return STATUS_TRUNCATED
                    word |= _big_endian_word(buffer, position) >> np.uint64(have)
                    position += (63 - have) >> 3
                    have |= 56
                    zeros = np.int64(_leading_zeros(word))
                high = np.uint64(run + zeros - 1) << np.uint64(low_bits)
                zigzag = np.uint32(high + (word >> np.uint64(63 - zeros - low_bits)))
                used = zeros + 1 + low_bits
                word <<= np.uint64(used)
                have -= used
                last = np.uint32(last + ((zigzag >> np.uint32(1)) ^ -(zigzag & np.uint32(1))))
                out[i] = np.int32(last)
        done = stop
    if byte_pix == 2:
        for i in range(pixels):
            out[i] = np.int16(out[i])
    elif byte_pix == 1:
        for i in range(pixels):
            out[i] = np.uint8(out[i])
    return STATUS_OK if 8 * position - have <= 8 * end else STATUS_TRUNCATED
