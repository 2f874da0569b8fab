"""The vector functions against float64 numpy, over the ranges that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.simd import (
    abs_f32,
    atan_f32,
    exp2_f32,
    log2_f32,
    max_f32,
    min_f32,
    nearest_f32,
    select_f32,
    sqrt_f32,
)

Floats = NDArray[np.float32]


@njit(error_model="numpy", fastmath=True)
def _log2(x: Floats, out: Floats) -> None:
    for k in range(x.size):
        out[k] = log2_f32(x[k])


@njit(error_model="numpy", fastmath=True)
def _exp2(x: Floats, out: Floats) -> None:
    for k in range(x.size):
        out[k] = exp2_f32(x[k])


@njit(error_model="numpy", fastmath=True)
def _atan(x: Floats, out: Floats) -> None:
    for k in range(x.size):
        out[k] = atan_f32(x[k])


@njit(error_model="numpy")
def _simple(x: Floats, y: Floats, out: NDArray[np.float32]) -> None:
    for k in range(x.size):
        out[0, k] = sqrt_f32(abs_f32(x[k]))
        out[1, k] = nearest_f32(x[k])
        out[2, k] = min_f32(x[k], y[k])
        out[3, k] = max_f32(x[k], y[k])
        out[4, k] = select_f32(x[k] > y[k], x[k], np.float32(-7.0))


def test_log2_holds_its_error_over_all_normal_numbers() -> None:
    """Within 2e-7 plus one rounding, from the smallest to the largest normal float32, and exact at powers of two."""
    x = np.concatenate([np.exp2(np.linspace(-125.9, 127.9, 40001)), np.linspace(0.5, 2.0, 40001)]).astype(np.float32)
    result = np.empty_like(x)
    _log2(x, result)
    exact = np.log2(x.astype(np.float64))
    assert (np.abs(result - exact) <= 2e-7 + np.abs(exact) * 2.0**-23).all()
    powers = np.exp2(np.arange(-126, 128)).astype(np.float32)
    result = np.empty_like(powers)
    _log2(powers, result)
    assert np.array_equal(result, np.arange(-126, 128))


def test_exp2_holds_its_error_and_is_clamped() -> None:
    """Within 2e-7 of the value between -126 and 126; never zero, subnormal or infinite beyond."""
    x = np.linspace(-126.0, 126.0, 100001).astype(np.float32)
    result = np.empty_like(x)
    _exp2(x, result)
    assert np.abs(result / np.exp2(x.astype(np.float64)) - 1.0).max() < 2e-7
    beyond = np.array([-1e30, -127.0, -126.0, 126.0, 127.0, 1e30], np.float32)
    result = np.empty_like(beyond)
    _exp2(beyond, result)
    assert result == pytest.approx([2.0**-126] * 3 + [2.0**126] * 3, rel=2e-7)


def test_atan_holds_its_error_everywhere() -> None:
    """Within 2e-7 rad, odd, pi / 2 at large arguments, on all three branches of the range reduction."""
    positive = np.concatenate([np.linspace(0.0, 6.0, 60001), np.logspace(-30, 30, 20001)]).astype(np.float32)
    x = np.concatenate([-positive, positive])
    result = np.empty_like(x)
    _atan(x, result)
    assert np.abs(result - np.arctan(x.astype(np.float64))).max() < 2e-7
    assert np.array_equal(result[: positive.size], -result[positive.size :])


def test_selection_and_rounding_equal_numpy() -> None:
    """Square root, nearest even integer, minimum, maximum and selection are exact."""
    generator = np.random.default_rng(3)
    x = np.concatenate([generator.normal(0.0, 40.0, 997), [0.5, 1.5, -2.5]]).astype(np.float32)
    y = generator.normal(0.0, 40.0, 1000).astype(np.float32)
    out = np.empty((5, x.size), np.float32)
    _simple(x, y, out)
    expected = [np.sqrt(np.abs(x)), np.rint(x), np.minimum(x, y), np.maximum(x, y), np.where(x > y, x, -7.0)]
    assert np.array_equal(out, np.array(expected, np.float32))
