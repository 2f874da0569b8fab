"""Short vectors in registers against the same arithmetic in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError
from numpy.typing import NDArray

from pipeline.kernels.lanes import constant, loader, picker, splatter, storer

Floats = NDArray[np.float32]
_load_4, _load_16, _store_4, _store_16, _splat_16 = loader(4), loader(16), storer(4), storer(16), splatter(16)
_reversed, _middle, _ramp = picker(range(15, -1, -1)), picker([6, 7, 8, 9]), constant([0.5 * k for k in range(16)])


@njit(error_model="numpy")
def _combine(x: Floats, at: int, y: Floats, scale: np.float32, out: Floats) -> None:
    a, b = _load_16(x, at), _load_16(y, 0)
    _store_16(out, 3, a * b - _reversed(a) * scale + _splat_16(scale) + _ramp())
    _store_4(out, 24, scale - _middle(a + np.float32(1.0)))


@njit(error_model="numpy")
def _mixed(x: Floats) -> None:
    _store_16(x, 0, _load_16(x, 0) + _load_4(x, 0))


@njit(error_model="numpy")
def _double(x: Floats) -> None:
    _store_16(x, 0, _load_16(x, 0) * 2.0)


def test_lanes_are_combined_one_by_one() -> None:
    """Loads and stores at unaligned places, sums, differences, products, scalars and lanes in another order."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=40).astype(np.float32), generator.normal(size=16).astype(np.float32)
    out, scale = np.full(32, 7.0, np.float32), np.float32(1.7)
    _combine(x, 5, y, scale, out)
    a = x[5:21]
    expected = np.full(32, 7.0)
    expected[3:19] = a * y - a[::-1] * scale + scale + 0.5 * np.arange(16)
    expected[24:28] = scale - (a[6:10] + 1.0)
    assert out == pytest.approx(expected, abs=2e-6)
    assert np.array_equal(out == 7.0, expected == 7.0)


@pytest.mark.parametrize("function", [_mixed, _double])
def test_what_would_lose_width_is_refused(function: object) -> None:
    """Neither vectors of two lengths nor a float64, which would need half as long ones, are combined."""
    with pytest.raises(TypingError):
        function(np.zeros(16, np.float32))  # type: ignore[operator]
