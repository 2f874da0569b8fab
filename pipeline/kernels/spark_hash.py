"""Spark SQL's `xxhash64` over columns, bit for bit.

XXH64 (Collet 2012) of each value's little-endian bytes, the result of one column being the seed of the next and 42 the
seed of the first. Booleans and integers up to 32 bits are hashed as 4 bytes, longs and doubles as 8, floats as 4, texts
as UTF-8. A null leaves the hash as it is; -0.0 counts as 0.0 and every NaN as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

SPARK_SEED = 42
UNIFORM_STEPS = 1_000_000

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_5 = np.uint64(0x27D4EB2F165667C5)
_WORD_BITS = np.uint64(64)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_NAN_BITS: dict[int, np.signedinteger[Any]] = {4: np.int32(0x7FC00000), 8: np.int64(0x7FF8000000000000)}


@dataclass(frozen=True)
class TextColumn:
    """Texts as UTF-8 in one buffer; rows may share their bytes.

    Attributes:
        data: (byte,) uint8.
        starts, stops: (row,) int64, row i is data[starts[i]:stops[i]].
        valid: (row,) False where the text is null.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    valid: NDArray[np.bool_]

    @classmethod
    def of(cls, texts: Sequence[str | bytes | None]) -> TextColumn:
        """The column of these texts."""
        encoded = [text.encode() if isinstance(text, str) else text or b"" for text in texts]
        stops = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        valid = np.fromiter((text is not None for text in texts), np.bool_, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.r_[0, stops[:-1]][: len(encoded)], stops, valid)

    def take(self, rows: NDArray[np.integer[Any]]) -> TextColumn:
        """The texts of these rows, without copying their bytes."""
        return TextColumn(self.data, self.starts[rows], self.stops[rows], self.valid[rows])

    def __len__(self) -> int:
        return len(self.starts)


# Numbers as an array, masked where null; texts; a literal that every row has.
HashColumn: TypeAlias = "NDArray[Any] | TextColumn | int | str"


def spark_xxhash64(*columns: HashColumn, seeds: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Hash of every row over the columns in order.

    Args:
        columns: (row,) arrays of bool, int8..int64, float32 or float64, masked where null; texts; or literals, an int
            being a 32-bit one.
        seeds: (row,) hash over columns before these; None if there are none.

    Returns:
        (row,) int64.

    Raises:
        ValueError: columns of different lengths, no column or seeds with a length, or a type Spark does not hash so.
    """
    lengths = {len(column) for column in columns if not isinstance(column, int | str)}
    lengths |= set() if seeds is None else {len(seeds)}
    if len(lengths) != 1:
        raise ValueError(f"expected columns of one length, got {sorted(lengths)}")
    (n_rows,) = lengths
    hashes = np.full(n_rows, SPARK_SEED, np.int64) if seeds is None else np.ascontiguousarray(seeds, np.int64)
    for column in columns:
        hashes = _chain(hashes, column)
    return hashes


def hash_modulo(hashes: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    """Spark's `pmod(abs(hash), divisor)`, 0 <= result < divisor; the absolute value of the smallest long is itself."""
    return np.abs(hashes) % divisor


def hash_uniform(hashes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers 0, 1e-6 ... 0.999999 from hashes: the last six decimals of their absolute values."""
    return hash_modulo(hashes, UNIFORM_STEPS) / np.float64(UNIFORM_STEPS)


def _chain(hashes: NDArray[np.int64], column: HashColumn) -> NDArray[np.int64]:
    if isinstance(column, str):
        column = TextColumn.of([column]).take(np.zeros(len(hashes), np.int64))
    if isinstance(column, TextColumn):
        chained = chain_bytes(hashes, column.data, column.starts, column.stops)
        return np.where(column.valid, chained, hashes)
    if isinstance(column, int):
        return np.asarray(chain_ints(hashes, np.full(len(hashes), column, np.int32)))
    values = np.ma.getdata(column)
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "bif" or (size == 2 and kind == "f") or size > 8:
        raise ValueError(f"expected bool, int8..int64, float32 or float64, got {values.dtype}")
    if kind == "f":
        values = _bits(values)
    if size == 8:
        chained = chain_longs(hashes, np.ascontiguousarray(values, np.int64))
    else:
        chained = chain_ints(hashes, np.ascontiguousarray(values, np.int32))
    return np.where(np.ma.getmaskarray(column), hashes, chained)


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    nan = _NAN_BITS[values.dtype.itemsize]
    # Adding 0.0 turns -0.0 into 0.0.
    bits = np.ascontiguousarray(values + values.dtype.type(0.0)).view(type(nan))
    bits[np.isnan(values)] = nan
    return bits


@njit(cache=True, nogil=True, error_model="numpy")
def chain_ints(seeds: NDArray[np.int64], values: NDArray[np.int32]) -> NDArray[np.int64]:
    """XXH64 of each 4-byte value with its own seed. Arrays (row,), C-contiguous; returns (row,) int64."""
    out = np.empty_like(seeds)
    for row in range(seeds.size):
        word = np.uint64(values[row]) & _LOW_WORD
        state = np.uint64(seeds[row]) + _PRIME_5 + np.uint64(4)
        out[row] = np.int64(_avalanche(_mix_int(state, word)))
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def chain_longs(seeds: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """XXH64 of each 8-byte value with its own seed. Arrays (row,), C-contiguous; returns (row,) int64."""
    out = np.empty_like(seeds)
    for row in range(seeds.size):
        state = np.uint64(seeds[row]) + _PRIME_5 + np.uint64(8)
        out[row] = np.int64(_avalanche(_mix_long(state, np.uint64(values[row]))))
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def chain_bytes(
    seeds: NDArray[np.int64], data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """XXH64 of data[starts[i]:stops[i]] with seeds[i]. Index arrays (row,), C-contiguous; returns (row,) int64."""
    out = np.empty_like(seeds)
    for row in range(seeds.size):
        seed = np.uint64(seeds[row])
        position, stop = starts[row], stops[row]
        length = np.uint64(stop - position)
        if stop - position >= 32:
            lane_1, lane_2 = seed + _PRIME_1 + _PRIME_2, seed + _PRIME_2
            lane_3, lane_4 = seed, seed - _PRIME_1
            while position + 32 <= stop:
                lane_1 = _round(lane_1, _word(data, position, 8))
                lane_2 = _round(lane_2, _word(data, position + 8, 8))
                lane_3 = _round(lane_3, _word(data, position + 16, 8))
                lane_4 = _round(lane_4, _word(data, position + 24, 8))
                position += 32
            state = _rotate(lane_1, 1) + _rotate(lane_2, 7) + _rotate(lane_3, 12) + _rotate(lane_4, 18)
            for lane in (lane_1, lane_2, lane_3, lane_4):
                state = (state ^ _round(np.uint64(0), lane)) * _PRIME_1 + _PRIME_4
        else:
            state = seed + _PRIME_5
        state += length
        while position + 8 <= stop:
            state = _mix_long(state, _word(data, position, 8))
            position += 8
        if position + 4 <= stop:
            state = _mix_int(state, _word(data, position, 4))
            position += 4
        while position < stop:
            state = _rotate(state ^ (np.uint64(data[position]) * _PRIME_5), 11) * _PRIME_1
            position += 1
        out[row] = np.int64(_avalanche(state))
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _word(data: NDArray[np.uint8], position: int, size: int) -> np.uint64:
    word = np.uint64(0)
    for index in range(size):
        word |= np.uint64(data[position + index]) << np.uint64(8 * index)
    return word


@njit(cache=True, nogil=True, error_model="numpy")
def _rotate(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> (_WORD_BITS - np.uint64(bits)))


@njit(cache=True, nogil=True, error_model="numpy")
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(lane + word * _PRIME_2, 31) * _PRIME_1


@njit(cache=True, nogil=True, error_model="numpy")
def _mix_long(state: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(state ^ _round(np.uint64(0), word), 27) * _PRIME_1 + _PRIME_4


@njit(cache=True, nogil=True, error_model="numpy")
def _mix_int(state: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(state ^ (word * _PRIME_1), 23) * _PRIME_2 + _PRIME_3


@njit(cache=True, nogil=True, error_model="numpy")
def _avalanche(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> np.uint64(33))) * _PRIME_2
    state = (state ^ (state >> np.uint64(29))) * _PRIME_3
    return state ^ (state >> np.uint64(32))
