from __future__ import annotations

import numpy as np

from pipeline.training.gather import count_not_finite, gather_stamps


def test_stamps_are_copied_from_their_addresses_in_order() -> None:
    """Stamps of two arrays, one of them at an address that only float32 is aligned to, in any order and repeated."""
    generator = np.random.default_rng(1)
    plain = generator.normal(size=(4, 3, 5, 5)).astype(np.float32)
    shifted = np.frombuffer(b"\0" * 4 + generator.normal(size=300).astype(np.float32).tobytes(), np.float32, offset=4)
    shifted = shifted.reshape(4, 3, 5, 5)
    address = np.concatenate([array.ctypes.data + np.arange(4) * array[0].nbytes for array in (plain, shifted)])
    chosen = np.array([6, 1, 1, 4, 0])
    out = np.zeros((5, 3, 5, 5), np.float32)
    gather_stamps(address, chosen, out)
    np.testing.assert_array_equal(out, np.concatenate([plain, shifted])[chosen])


def test_pixels_that_are_not_finite_are_counted_per_stamp() -> None:
    """NaN of either sign and both infinities count once a stamp; the largest float32 and zeros do not."""
    stamps = np.zeros((6, 3, 5, 5), np.float32)
    stamps[0] = np.finfo(np.float32).max
    stamps[1] = -np.finfo(np.float32).max
    stamps[2, 0, 0, :2] = np.nan
    stamps[3, 2, 4, 4] = -np.inf
    stamps[4, 1, 2, 3] = np.copysign(np.float32(np.nan), np.float32(-1))
    address = stamps.ctypes.data + np.arange(6) * stamps[0].nbytes
    assert count_not_finite(address, 75) == 3
