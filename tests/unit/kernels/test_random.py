"""Philox against its published known answers; the keyed draws against their distributions."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray
from scipy import stats

from pipeline.kernels import random

ONES = 0xFFFFFFFF
WORD64 = st.integers(0, 2**64 - 1)
WORD16 = st.integers(0, 2**16 - 1)


@njit(nogil=True)
def _many(kind: int, count: int) -> NDArray[np.float64]:
    values = np.empty(count)
    for i in range(count):
        if kind == 0:
            values[i] = random.keyed_uniform(7, i, 1, 0, 0)
        else:
            values[i] = random.keyed_normal(7, i, 1, 0, 0)
    return values


# kat_vectors of Random123 (Salmon et al. 2011): philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Zero, all-ones and pi inputs give the Random123 words, for Python ints and for uint32."""
    words: Any = counter + key
    assert tuple(int(word) for word in random.philox4x32(*words)) == expected
    words = tuple(np.uint32(word) for word in words)
    assert tuple(int(word) for word in random.philox4x32(*words)) == expected


def test_keyed_uniform_uses_the_documented_counter_and_key() -> None:
    """The layout is key (seed lo, hi), counter (task lo, hi, attempt, purpose << 16 | slot)."""
    seed, task = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    w0, w1, _, _ = random.philox4x32(0x76543210, 0xFEDCBA98, 9, (3 << 16) | 5, 0x89ABCDEF, 0x01234567)
    expected = (((w0 << 32 | w1) >> 11) | 1) / 2**53
    assert random.keyed_uniform(seed, task, 3, 9, 5) == expected


@settings(deadline=None)
@given(seed=WORD64, task=WORD64, purpose=WORD16, attempt=st.integers(0, 2**32 - 1), slot=WORD16)
def test_keyed_draws_are_bounded_and_repeatable(seed: int, task: int, purpose: int, attempt: int, slot: int) -> None:
    """Uniforms lie strictly inside (0, 1), normals are finite, and equal keys give equal numbers."""
    key = (np.uint64(seed), np.uint64(task), np.uint32(purpose), np.uint32(attempt), np.uint32(slot))
    uniform, normal = random.keyed_uniform(*key), random.keyed_normal(*key)
    assert 0.0 < uniform < 1.0
    assert abs(normal) < 8.6
    assert (uniform, normal) == (random.keyed_uniform(*key), random.keyed_normal(*key))


def test_signed_and_unsigned_key_types_agree() -> None:
    """A key given as a Python int or as a numpy unsigned integer draws the same number."""
    as_int = random.keyed_uniform(5, 2**63 - 5, 1, 2, 3)
    assert as_int == random.keyed_uniform(np.uint64(5), np.uint64(2**63 - 5), np.uint32(1), np.uint32(2), np.uint32(3))


def test_every_key_part_changes_the_draw() -> None:
    """Seed, task (both halves), purpose, attempt and slot each select another number."""
    keys = [(1, 1, 1, 1, 1), (2, 1, 1, 1, 1), (1 + 2**32, 1, 1, 1, 1), (1, 2, 1, 1, 1), (1, 1 + 2**32, 1, 1, 1)]
    keys += [(1, 1, 2, 1, 1), (1, 1, 1, 2, 1), (1, 1, 1, 1, 2)]
    assert len({random.keyed_uniform(*key) for key in keys}) == len(keys)


def test_keyed_uniform_is_uniform() -> None:
    """Over 200,000 tasks the uniforms pass a Kolmogorov-Smirnov test and are serially uncorrelated."""
    values = _many(0, 200_000)
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


def test_keyed_normal_is_standard_normal() -> None:
    """Over 200,000 tasks the normals pass a Kolmogorov-Smirnov test with the right kurtosis."""
    values = _many(1, 200_000)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert stats.kurtosis(values) == pytest.approx(0.0, abs=0.05)


def test_task_keys_are_little_endian_blake2b() -> None:
    """A key is the little-endian value of the id's 8-byte digest, whatever its place in the list."""
    keys = random.task_keys(["a", "task-é", "b"])
    assert keys.dtype == np.uint64
    expected = int.from_bytes(hashlib.blake2b("task-é".encode(), digest_size=8).digest(), "little")
    assert int(keys[1]) == expected
    assert keys[1] == random.task_keys(["task-é"])[0]
    assert random.task_keys([]).shape == (0,)


def test_purposes_are_distinct() -> None:
    """No two purposes share a stream."""
    purposes = [value for name, value in vars(random).items() if name.startswith("PURPOSE_")]
    assert sorted(purposes) == [1, 2, 3, 4, 5, 6]
