"""Deposition of whole pixels against a convolution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from pipeline.kernels.spread_pixels import spread_pixels
from pipeline.kernels.spreading import spread_box


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (7, 12), (13, 28), (5, 33), (20, 61)])
def test_pixels_are_convolved_with_the_taps_and_added(rows: int, columns: int) -> None:
    """Every pixel of a box of any shape adds the outer product of the taps; all else stays as it is."""
    generator = np.random.default_rng(rows)
    flux = generator.uniform(size=(rows, columns)).astype(np.float32)
    before = generator.uniform(size=(rows + 10, columns + 20)).astype(np.float32)
    spread, taps = before.ravel().copy(), spread_box()
    spread_pixels(flux.ravel(), rows, columns, taps, 3 * (columns + 20) + 7, columns + 20, spread)
    expected = before.astype(np.float64)
    expected[3 : rows + 7, 7 : columns + 11] += signal.convolve2d(flux, np.outer(taps, taps))
    assert spread.reshape(before.shape) == pytest.approx(expected, abs=1e-6)
    untouched = np.ones(before.shape, bool)
    untouched[3 : rows + 7, 7 : columns + 11] = False
    assert np.array_equal(spread.reshape(before.shape)[untouched], before[untouched])
