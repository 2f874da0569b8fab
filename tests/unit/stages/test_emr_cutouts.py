"""Which cutouts the EMR system made stamps of, and the seeing it used."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.stages.emr_cutouts import emr_psfsize, has_emr_stamp


def test_a_stamp_needs_a_brick_and_a_pixel(make_cutouts: Callable[..., xr.Dataset]) -> None:
    """No brick, a corrupt brick and a window that misses the brick leave none; anything else does, also empty sky."""
    reason = np.zeros(7, np.uint8)
    reason[:2] = [REJECT_REASONS.index(name) for name in ("brick_missing", "brick_corrupt")]
    image, invvar = np.ones((2, 7, 3, 8, 8), np.float32)
    image[2] = invvar[2] = image[6] = 0.0
    image[3, :, :4] = 0.0
    image[4] = np.nan
    in_bounds = np.array([1, 1, 0, 0, 1, 1, 0], np.uint8)
    cutouts = make_cutouts(7, size=8, image=image, invvar=invvar, in_bounds=in_bounds, reject_reason=reason)
    assert has_emr_stamp(cutouts).tolist() == [False, False, False, True, True, True, True]


def test_seeing_falls_back_to_the_manifest() -> None:
    """Undefined, zero and impossible map values are replaced band by band."""
    cut = np.array([[1.1, np.nan, 0.0], [1.2, 9.0, 1.3]], np.float32)
    used = emr_psfsize(cut, np.full((2, 3), 1.5))
    np.testing.assert_array_equal(used, np.array([[1.1, 1.5, 1.5], [1.2, 1.5, 1.3]], np.float32))
    assert used.dtype == np.float32
