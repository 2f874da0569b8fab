"""Vectors in kernels against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.lanes import constant
from pipeline.kernels.vectors import (
    VECTOR,
    all_lanes,
    any_lane,
    append_lanes,
    count_lanes,
    lane_numbers,
    lanes_from,
    load_lanes,
    load_quarters,
    load_where,
    partner_1,
    partner_2,
    store_lanes,
    sum_lanes,
)

Floats = NDArray[np.float32]
_F = np.float32
_squares = constant([float(k * k) for k in range(VECTOR)])


@njit(error_model="numpy")
def _arithmetic(x: Floats, y: Floats, out: Floats) -> None:
    u, v = load_lanes(x, 0, VECTOR), load_lanes(y, 0, VECTOR)
    w = u
    w += v
    w *= _F(2.0)
    w -= u
    w /= v
    for row, value in enumerate((u + v, u - v, u * v, u / v, _F(3.0) - u, u * _F(3.0), -u, w)):
        store_lanes(out, row * VECTOR, VECTOR, value)


@njit(error_model="numpy")
def _listed(x: Floats, low: float, high: float, kept: Floats) -> int:
    """Number of elements in (low, high], or equal to 0.25, which are in `kept`, after one of 9."""
    end = 1
    kept[0] = _F(9.0)
    for k in range(0, x.size, VECTOR):
        v = load_lanes(x, k, x.size - k)
        mask = (((v > _F(low)) & ~(v > _F(high))) | ((v <= _F(0.25)) & (v >= _F(0.25)))) & lanes_from(0, x.size - k)
        if any_lane(mask):
            append_lanes(kept, end, mask, v)
            end += count_lanes(mask)
    return end


@njit(error_model="numpy")
def _copy(x: Floats, start: int, count: int, out: Floats) -> None:
    store_lanes(out, start, count, load_lanes(x, start, count))


@njit(error_model="numpy")
def _part(x: Floats, start: int, stop: int, out: Floats) -> float:
    value = load_where(x, 0, lanes_from(start, stop))
    store_lanes(out, 0, VECTOR, value)
    return float(sum_lanes(value))


@njit(error_model="numpy")
def _places(x: Floats, out: Floats) -> None:
    v = load_lanes(x, 0, VECTOR)
    values = (partner_1(v), partner_2(v), load_quarters(x, 3), lane_numbers(), _squares(), all_lanes(x[5]))
    for row, value in enumerate(values):
        store_lanes(out, row * VECTOR, VECTOR, value)


def _random(count: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).uniform(0.1, 1.0, count).astype(np.float32)


def test_arithmetic_is_that_of_float32() -> None:
    """Operators on two vectors, on a vector and a number, and in place."""
    x, y, out = _random(VECTOR), _random(VECTOR, 2), np.empty((8, VECTOR), np.float32)
    _arithmetic(x, y, out.ravel())
    expected = np.array([x + y, x - y, x * y, x / y, 3 - x, 3 * x, -x, ((x + y) * 2 - x) / y])
    assert out == pytest.approx(expected, rel=3e-7)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100])
def test_masks_list_the_elements_they_hold(count: int) -> None:
    """In their order, side by side; the elements beyond the array's end are never listed."""
    x = _random(count, count)
    x[count // 2] = 0.25
    kept = np.zeros(count + 1 + VECTOR, np.float32)
    end = _listed(x, 0.4, 0.8, kept)
    expected = x[((x > 0.4) & (x <= 0.8)) | (x == 0.25)]
    assert np.array_equal(kept[:end], np.concatenate([[np.float32(9)], expected]))


@pytest.mark.parametrize("count", [0, 1, 7, 15, 16, 40])
def test_no_more_elements_are_stored_than_asked_for(count: int) -> None:
    """At any position; at most a vector."""
    x, out = _random(60), np.full(60, -1, np.float32)
    _copy(x, 5, count, out)
    expected = np.full(60, -1, np.float32)
    expected[5 : 5 + min(count, VECTOR)] = x[5 : 5 + min(count, VECTOR)]
    assert np.array_equal(out, expected)


@pytest.mark.parametrize(("start", "stop"), [(0, 16), (-3, 5), (4, 9), (12, 30), (9, 4)])
def test_loads_where_a_mask_says(start: int, stop: int) -> None:
    """Zero elsewhere; the sum is that of the elements."""
    x, out = _random(VECTOR), np.empty(VECTOR, np.float32)
    total = _part(x, start, stop, out)
    inside = (np.arange(VECTOR) >= start) & (np.arange(VECTOR) < stop)
    assert np.array_equal(out, np.where(inside, x, 0))
    assert total == pytest.approx(float(out.sum()), rel=1e-6)


def test_elements_change_places() -> None:
    """Partners at distance 1 and 2 within four; four elements four times each; constants."""
    x, out = _random(VECTOR), np.empty((6, VECTOR), np.float32)
    _places(x, out.ravel())
    k = np.arange(VECTOR)
    assert np.array_equal(out, np.array([x[k ^ 1], x[k ^ 2], x[3 + k // 4], k, k * k, np.full(VECTOR, x[5])]))
