"""Facts about colour stamps."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.contracts.errors import ContractError
from pipeline.report.stamps import (
    BAND_WEIGHT,
    Stretch,
    colour_channels,
    lupton_rgb,
    noise_stretch,
    peak_stretch,
    stamp_png,
)

STRETCH = Stretch(black=0.0, white=10.0)


def test_equal_channels_are_grey() -> None:
    """Three equal channels give a picture without colour, at every brightness."""
    plane = np.linspace(-1.0, 30.0, 64).reshape(8, 8)
    picture = lupton_rgb(np.stack([plane] * 3), STRETCH)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert np.ptp(picture, axis=2).max() == 0


def test_brightness_is_monotone_from_black_to_white() -> None:
    """Grey levels rise with flux, from 0 at black to 255 at white and beyond."""
    plane = np.linspace(-2.0, 12.0, 200)[None, :]
    grey = lupton_rgb(np.stack([plane] * 3), STRETCH)[0, :, 0].astype(int)
    assert (np.diff(grey) >= 0).all()
    assert (grey[0], grey[-1]) == (0, 255)
    assert np.unique(grey).size > 100


def test_colour_does_not_depend_on_brightness() -> None:
    """Channel ratios survive the stretch and the clipping of bright pixels."""
    scale = np.array([0.5, 2.0, 8.0, 40.0])[None, :]
    picture = lupton_rgb(np.stack([4.0 * scale, 2.0 * scale, 1.0 * scale]), STRETCH).astype(float)
    assert picture[..., 0] / picture[..., 1] == pytest.approx(2.0, rel=0.05)
    assert picture[..., 1] / picture[..., 2] == pytest.approx(2.0, rel=0.05)


def test_nan_pixels_are_dark_and_bad_shapes_refused() -> None:
    """NaN is drawn as zero flux; two channels are an error."""
    channels = np.zeros((3, 4, 4))
    channels[:, 1, 1] = np.nan
    assert lupton_rgb(channels, STRETCH).max() == 0
    with pytest.raises(ContractError, match="expected channels"):
        lupton_rgb(channels[:2], STRETCH)


def test_reddest_band_is_red_whatever_the_storage_order() -> None:
    """z, r and g become red, green and blue from any order of bands; one band becomes grey."""
    stamp = np.ones((3, 2, 2), np.float32)
    assert colour_channels(stamp, ("g", "r", "z"))[:, 0, 0].tolist() == [BAND_WEIGHT[band] for band in "zrg"]
    assert colour_channels(stamp, ("z", "g", "r"))[:, 0, 0].tolist() == [BAND_WEIGHT[band] for band in "zrg"]
    assert np.ptp(colour_channels(stamp[:1], ("r",))) == 0
    red, green, blue = colour_channels(stamp[:2], ("g", "z"))[:, 0, 0]
    assert green == pytest.approx(0.5 * (red + blue))


def test_stretch_follows_the_noise() -> None:
    """Twice the noise gives twice the limits; noise that is not known is an error."""
    sigma = np.full(3, 0.01, np.float32)
    one, two = noise_stretch(sigma, ("g", "r", "z")), noise_stretch(2 * sigma, ("g", "r", "z"))
    assert two.white == pytest.approx(2 * one.white)
    assert one.black < 0 < one.white
    with pytest.raises(ContractError, match="positive sky noise"):
        noise_stretch(np.full(3, np.nan, np.float32), ("g", "r", "z"))
    with pytest.raises(ContractError, match="black < white"):
        Stretch(1.0, 1.0)


def test_faint_arcs_fill_their_own_scale() -> None:
    """The picture of an arc does not depend on its flux; no flux at all is black."""
    arc = np.random.default_rng(3).uniform(0.0, 1.0, (3, 8, 8))
    bright, faint = (lupton_rgb(scale * arc, peak_stretch(scale * arc)) for scale in (1.0, 1e-3))
    assert (bright == faint).all()
    assert bright.max() > 200
    assert lupton_rgb(np.zeros((3, 8, 8)), peak_stretch(np.zeros((3, 8, 8)))).max() == 0


def test_png_has_the_first_row_at_the_bottom() -> None:
    """Row 0 of the stamp, the southern one, is the lowest of the picture; pixels become squares."""
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 1] = 255
    image = imread(io.BytesIO(stamp_png(picture, 3)))
    assert image.shape[:2] == (6, 6)
    assert (image[3:, 3:, :3] == 1.0).all()
    assert image[..., :3].sum() == 27
