"""The vector functions against float64 numpy, over the ranges that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.simd import (
    abs_f32,
    atan_and_ratio,
    exp2_f32,
    log2_f32,
    max_f32,
    min_f32,
    nearest_f32,
    rough_exp2_f32,
    rough_log2_f32,
    select_f32,
    sqrt_f32,
)
from pipeline.kernels.vectors import VECTOR, load_lanes, store_lanes

Floats = NDArray[np.float32]
_F = np.float32


@njit(error_model="numpy", fastmath=True)
def _log2(x: Floats, out: Floats) -> None:
    for k in range(0, x.size, VECTOR):
        store_lanes(out, k, x.size - k, log2_f32(load_lanes(x, k, x.size - k)))


@njit(error_model="numpy", fastmath=True)
def _exp2(x: Floats, out: Floats) -> None:
    for k in range(0, x.size, VECTOR):
        store_lanes(out, k, x.size - k, exp2_f32(load_lanes(x, k, x.size - k)))


@njit(error_model="numpy", fastmath=True)
def _rough(x: Floats, y: Floats, log: Floats, power: Floats) -> None:
    for k in range(0, x.size, VECTOR):
        store_lanes(log, k, x.size - k, rough_log2_f32(load_lanes(x, k, x.size - k)))
        store_lanes(power, k, x.size - k, rough_exp2_f32(load_lanes(y, k, x.size - k)))


@njit(error_model="numpy", fastmath=True)
def _scalars(x: Floats, out: Floats) -> None:
    for k in range(x.size):
        out[0, k], out[1, k] = log2_f32(x[k]), exp2_f32(x[k])
        out[2, k], out[3, k] = atan_and_ratio(x[k], _F(1.0), x[k], _F(3.0))


@njit(error_model="numpy", fastmath=True)
def _atan_and_ratio(y: Floats, x: Floats, angle: Floats, ratio: Floats) -> None:
    for k in range(0, x.size, VECTOR):
        left = x.size - k
        u, v = load_lanes(y, k, left), load_lanes(x, k, left)
        a, r = atan_and_ratio(u, v, v + abs_f32(u), v)
        store_lanes(angle, k, left, a)
        store_lanes(ratio, k, left, r)


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


def test_exp2_holds_its_error() -> None:
    """Within 2e-7 of the value between -126 and 126."""
    x = np.linspace(-126.0, 126.0, 100001).astype(np.float32)
    result = np.empty_like(x)
    _exp2(x, result)
    assert np.abs(result / np.exp2(x.astype(np.float64)) - 1.0).max() < 2e-7


def test_rough_functions_hold_their_errors() -> None:
    """Logarithm to 1.5e-4, power to a relative 1e-4."""
    x = np.exp2(np.linspace(-125.9, 127.9, 40001)).astype(np.float32)
    y = np.linspace(-125, 126, 40001, dtype=np.float32)
    log, power = np.empty_like(x), np.empty_like(x)
    _rough(x, y, log, power)
    assert np.abs(log - np.log2(x.astype(np.float64))).max() < 1.5e-4
    assert np.abs(power / np.exp2(y.astype(np.float64)) - 1.0).max() < 1e-4


def test_atan_holds_its_error_everywhere() -> None:
    """Within 2.5e-7 rad, odd, pi / 2 at large arguments, on both sides of 1; the ratio to 3e-7."""
    positive = np.concatenate([np.linspace(0.0, 6.0, 60001), np.logspace(-15, 15, 20001)]).astype(np.float32)
    y = np.concatenate([-positive, positive])
    x = np.tile(np.random.default_rng(4).uniform(0.1, 9.0, positive.size).astype(np.float32), 2)
    angle, ratio = np.empty_like(y), np.empty_like(y)
    _atan_and_ratio(y, x, angle, ratio)
    assert np.abs(angle - np.arctan2(y.astype(np.float64), x)).max() < 2.5e-7
    assert np.array_equal(angle[: positive.size], -angle[positive.size :])
    assert np.abs(ratio / (1.0 + np.abs(y.astype(np.float64)) / x) - 1.0).max() < 3e-7


def test_scalars_take_the_same_functions() -> None:
    """Logarithm, power, arc tangent and ratio of single numbers."""
    x = np.linspace(0.01, 5.0, 1000).astype(np.float32)
    out = np.empty((4, x.size), np.float32)
    _scalars(x, out)
    assert out == pytest.approx(np.array([np.log2(x), np.exp2(x), np.arctan(x), x / 3.0]), rel=5e-7, abs=3e-7)


def test_selection_and_rounding_equal_numpy() -> None:
    """Square root, nearest even integer, minimum, maximum and selection are exact."""
    generator = np.random.default_rng(3)
    x = np.concatenate([generator.normal(0.0, 40.0, 997), [0.5, 1.5, -2.5]]).astype(np.float32)
    y = generator.normal(0.0, 40.0, 1000).astype(np.float32)
    out = np.empty((5, x.size), np.float32)
    _simple(x, y, out)
    expected = [np.sqrt(np.abs(x)), np.rint(x), np.minimum(x, y), np.maximum(x, y), np.where(x > y, x, -7.0)]
    assert np.array_equal(out, np.array(expected, np.float32))
