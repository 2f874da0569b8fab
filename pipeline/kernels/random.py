"""Keyed random numbers: Philox4x32-10, a pure function of (seed, task, purpose, attempt, slot).

No state is carried, so a task draws the same numbers on any worker, in any order, after any retry.
Generator: Salmon, Moraes, Dror & Shaw (2011), SC'11, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

# A Python int or a numpy unsigned integer; kernels convert it to the width they need.
Word: TypeAlias = int | np.unsignedinteger[Any]

PURPOSE_PRIOR = 1
PURPOSE_TARGET = 2
PURPOSE_ACCEPT = 3
PURPOSE_PILOT = 4
PURPOSE_WEIGHT = 5
PURPOSE_NOISE = 6

_ROUNDS = 10
_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
_PURPOSE_SHIFT = np.uint64(16)
_SLOT_BITS = np.uint64(0xFFFF)
_ONE = np.uint64(1)


def task_keys(task_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Counter words of tasks: the 8-byte blake2b digest of each UTF-8 id, read little-endian.

    Args:
        task_ids: identifiers; the key depends on the text only, not on the position.

    Returns:
        (task,) uint64 keys. Two of 1e7 distinct ids collide with probability 3e-6.
    """
    digests = b"".join(hashlib.blake2b(task_id.encode(), digest_size=8).digest() for task_id in task_ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


@njit(cache=True, nogil=True, error_model="numpy")
def philox4x32(
    c0: Word, c1: Word, c2: Word, c3: Word, k0: Word, k1: Word
) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """One Philox4x32-10 block.

    Args:
        c0, c1, c2, c3: counter words, uint32.
        k0, k1: key words, uint32.

    Returns:
        Four uint32, uniform and independent over distinct (counter, key).
    """
    # Words are kept in uint64, so that a product of two is exact and no operation mixes signedness.
    w0, w1, w2, w3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for _ in range(_ROUNDS):
        product0 = _MULTIPLIER_0 * w0
        product1 = _MULTIPLIER_1 * w2
        w0 = (product1 >> _WORD_BITS) ^ w1 ^ key0
        w1 = product1 & _LOW_WORD
        w2 = (product0 >> _WORD_BITS) ^ w3 ^ key1
        w3 = product0 & _LOW_WORD
        key0 = (key0 + _WEYL_0) & _LOW_WORD
        key1 = (key1 + _WEYL_1) & _LOW_WORD
    return np.uint32(w0), np.uint32(w1), np.uint32(w2), np.uint32(w3)


@njit(cache=True, nogil=True, error_model="numpy")
def keyed_uniform(run_seed: Word, task_key: Word, purpose: Word, attempt: Word, slot: Word) -> float:
    """A uniform double in the open interval (0, 1).

    Args:
        run_seed: seed of the run, 0 <= seed < 2**64.
        task_key: key of the task, from `task_keys`.
        purpose: one of the PURPOSE_* constants, 0 <= purpose < 2**16.
        attempt: attempt number, 0 <= attempt < 2**32.
        slot: which number of the attempt, 0 <= slot < 2**16.

    Returns:
        An odd multiple of 2**-53, so neither 0 nor 1 and symmetric about 1/2. It shares its block
        with the `keyed_normal` of equal arguments: use a slot for one or the other, not both.
    """
    w0, w1, _, _ = _keyed_block(run_seed, task_key, purpose, attempt, slot)
    return _open_unit(w0, w1)


@njit(cache=True, nogil=True, error_model="numpy")
def keyed_normal(run_seed: Word, task_key: Word, purpose: Word, attempt: Word, slot: Word) -> float:
    """A standard normal double: Box & Muller (1958) on the two uniforms of one block.

    Args:
        run_seed, task_key, purpose, attempt, slot: as in `keyed_uniform`.

    Returns:
        Mean 0, variance 1, |value| < 8.6.
    """
    w0, w1, w2, w3 = _keyed_block(run_seed, task_key, purpose, attempt, slot)
    radius = math.sqrt(-2.0 * math.log(_open_unit(w0, w1)))
    return radius * math.cos(2.0 * math.pi * _open_unit(w2, w3))


@njit(cache=True, nogil=True, error_model="numpy")
def _keyed_block(
    run_seed: Word, task_key: Word, purpose: Word, attempt: Word, slot: Word
) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    seed, task = np.uint64(run_seed), np.uint64(task_key)
    use = ((np.uint64(purpose) << _PURPOSE_SHIFT) | (np.uint64(slot) & _SLOT_BITS)) & _LOW_WORD
    return philox4x32(
        np.uint32(task & _LOW_WORD),
        np.uint32(task >> _WORD_BITS),
        np.uint32(attempt),
        np.uint32(use),
        np.uint32(seed & _LOW_WORD),
        np.uint32(seed >> _WORD_BITS),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _open_unit(high: np.uint32, low: np.uint32) -> float:
    bits = (np.uint64(high) << np.uint64(21)) | (np.uint64(low) >> np.uint64(11))
    return np.float64(bits | _ONE) * 2.0**-53
