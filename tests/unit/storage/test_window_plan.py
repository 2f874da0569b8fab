"""Windows and the tiles under them."""

from __future__ import annotations

import io

import numpy as np
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.storage.tile_table import TiledImage, parse_tiled_image
from pipeline.storage.window_plan import paste_windows, plan_windows

SHAPE = (70, 110)
PIXELS = np.arange(SHAPE[0] * SHAPE[1], dtype=np.int32).reshape(SHAPE)


def tiled() -> TiledImage:
    """A 70x110 px image in tiles of 30x50 px."""
    target = io.BytesIO()
    hdu = fits.CompImageHDU(PIXELS, compression_type="RICE_1", tile_shape=(30, 50))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(target)
    return parse_tiled_image(target.getvalue(), "a.fits")


IMAGE = tiled()


def padded(x0: int, y0: int, size: int) -> NDArray[np.int32]:
    """The window out of a zero-padded copy of the image."""
    margin = 400
    return np.pad(PIXELS, margin)[y0 + margin : y0 + margin + size, x0 + margin : x0 + margin + size]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(-130, 150), st.integers(-130, 150)), max_size=12), st.integers(1, 128))
def test_pasted_windows_are_cut_from_the_padded_image(corners: list[tuple[int, int]], size: int) -> None:
    """Windows anywhere, put together from the planned pixels only, equal slices of the padded image."""
    x0, y0 = np.array(corners, dtype=np.int64).reshape(-1, 2).T
    plan = plan_windows(IMAGE, x0, y0, size)
    tiles = np.full((plan.tiles.size, 30 * 50), -1, np.int32)
    for row, tile, pixels in zip(tiles, plan.tiles.tolist(), plan.pixels.tolist(), strict=True):
        top, bottom, left, right = IMAGE.tile_box(tile)
        assert 0 < pixels <= (bottom - top) * (right - left)
        row[:pixels] = PIXELS[top:bottom, left:right].ravel()[:pixels]
    stamps = paste_windows(IMAGE, plan, tiles)
    assert stamps.shape == (len(corners), size, size)
    for stamp, (x, y) in zip(stamps, corners, strict=True):
        assert np.array_equal(stamp, padded(x, y, size))


def test_plan_names_each_tile_once() -> None:
    """Overlapping windows share their tiles, and the lowest window decides how far down a tile is needed."""
    plan = plan_windows(IMAGE, np.array([45, 45, 0]), np.array([0, 12, 5]), 10)
    assert plan.tiles.tolist() == [0, 1]
    assert plan.pixels.tolist() == [22 * 50, 22 * 50]
    assert plan.parts.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]]


def test_plan_of_windows_outside_is_empty() -> None:
    """Windows that miss the image touch no tile."""
    plan = plan_windows(IMAGE, np.array([-10, 110, 3]), np.array([5, 5, 70]), 10)
    assert plan.tiles.size == plan.pixels.size == len(plan.parts) == 0
