"""Colour pictures of stamps: the asinh stretch of Lupton et al. (2004, PASP 116, 133) and PNG encoding."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import BANDS

# Relative weight of each band, so that an early-type galaxy at redshift 0.5 is yellow-red and the sky is grey.
BAND_WEIGHT = {"g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2}
_BLACK_SIGMAS = 1.5
_WHITE_SIGMAS = 50.0
_SOFTENING = 9.0


@dataclass(frozen=True)
class Stretch:
    """Limits of the asinh stretch, in weighted flux: 0 is shown at `black` and below, 1 at `white`.

    Attributes:
        black: shown black.
        white: mean of the three channels that is shown white; larger than `black`.
        softening: Q of Lupton et al.; the stretch is linear below (white - black) / Q, logarithmic above.
    """

    black: float
    white: float
    softening: float = _SOFTENING

    def __post_init__(self) -> None:
        if not (self.white > self.black and self.softening > 0):
            raise ContractError(f"stretch: expected black < white and softening > 0, got {self}")


def colour_channels(stamp: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.float64]:
    """Weighted red, green and blue of a stamp: its reddest, middle and bluest band; equal for a single band.

    Args:
        stamp: (band, y, x). [nmgy]
        bands: names in the order of the first axis.

    Returns:
        (3, y, x), flux times BAND_WEIGHT. With two bands, green is their mean.
    """
    order = sorted(range(len(bands)), key=lambda index: BANDS.index(bands[index]))
    weighted = np.stack([stamp[index].astype(np.float64) * BAND_WEIGHT[bands[index]] for index in order])
    red, blue = weighted[-1], weighted[0]
    green = (
        weighted[len(order) // 2]
        if len(order) % 2
        else 0.5 * (weighted[len(order) // 2 - 1] + weighted[len(order) // 2])
    )
    return np.stack([red, green, blue])


def noise_stretch(sky_sigma_nmgy: NDArray[np.float32], bands: Sequence[str]) -> Stretch:
    """A stretch that shows the sky noise of a stamp dark grey and 50 sigma white.

    Args:
        sky_sigma_nmgy: (band,) noise per pixel. [nmgy]
        bands: names in the order of the axis.

    Raises:
        ContractError: noise that is not finite and positive.
    """
    weights = np.array([BAND_WEIGHT[band] for band in bands])
    sigma = float(np.sqrt(((sky_sigma_nmgy.astype(np.float64) * weights) ** 2).mean()))
    if not (np.isfinite(sigma) and sigma > 0):
        raise ContractError(f"stretch: expected a positive sky noise in bands {list(bands)}, got {sky_sigma_nmgy}")
    return Stretch(-_BLACK_SIGMAS * sigma, _WHITE_SIGMAS * sigma)


def peak_stretch(channels: NDArray[np.float64]) -> Stretch:
    """A nearly linear stretch from zero flux to the brightest pixel of a noiseless picture.

    Args:
        channels: (3, y, x) from `colour_channels`; a picture without a positive pixel stays black.
    """
    peak = float(np.nan_to_num(channels.mean(axis=0)).max())
    return Stretch(0.0, peak if peak > 0 else 1.0, softening=2.0)


def lupton_rgb(channels: NDArray[np.float64], stretch: Stretch) -> NDArray[np.uint8]:
    """Colour picture whose colours do not depend on brightness.

    With I the mean of the channels above black, every channel is multiplied by asinh(Q x) / asinh(Q) / I,
    x = I / (white - black); a pixel with a channel above 1 is divided by that channel, so it keeps its colour.

    Args:
        channels: (3, y, x) red, green, blue in one unit; NaN becomes black.
        stretch: limits in that unit.

    Returns:
        (y, x, 3) uint8.

    Raises:
        ContractError: another shape.
    """
    if channels.ndim != 3 or channels.shape[0] != 3:
        raise ContractError(f"lupton_rgb: expected channels (3, y, x), got {channels.shape}")
    above = np.nan_to_num(channels - stretch.black, nan=0.0)
    intensity = np.maximum(above.mean(axis=0), 0.0)
    x = intensity / (stretch.white - stretch.black)
    shown = np.arcsinh(stretch.softening * x) / np.arcsinh(stretch.softening)
    factor = np.divide(shown, intensity, out=np.zeros_like(shown), where=intensity > 0)
    colours = np.maximum(above * factor, 0.0)
    colours /= np.maximum(colours.max(axis=0), 1.0)
    return np.ascontiguousarray(np.moveaxis(np.rint(colours * 255.0), 0, -1).astype(np.uint8))


def stamp_png(picture: NDArray[np.uint8], factor: int) -> bytes:
    """A picture as PNG, every pixel a square of `factor` pixels, row 0 at the bottom.

    With columns increasing to the West and rows to the North, North is up and East is left.

    Args:
        picture: (y, x, 3) uint8.
        factor: at least 1.
    """
    enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    stream = io.BytesIO()
    imsave(stream, enlarged, format="png", origin="lower")
    return stream.getvalue()
