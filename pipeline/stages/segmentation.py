"""What a galaxy stamp holds: its background, the galaxy at its centre, and everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label

from pipeline.contracts.source_bank import BankLimits
from pipeline.stages.template_quality import border_pixels, clipped_statistics

_ROUNDS = 3
# A component is a real object, not a noise blob at the faint isophote, if its peak is this bright.
_PEAK_SIGMAS = 4.5
_OBJECT_MARGIN_PX = 3
_MIN_BACKGROUND_PX = 32
_CENTRE_SHARE = 0.25
_BLEND_LEVELS = 12
_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.bool_)


@dataclass(frozen=True)
class Segmentation:
    """What a stamp holds.

    Attributes:
        light: (y, x) float64 stamp minus background.
        smooth: (y, x) float64 the same, smoothed for detection.
        galaxy: (y, x) pixels of the galaxy; none if nothing was found near the centre.
        others: (y, x) pixels of every other object.
        background: level that was subtracted, in the unit of the stamp.
        noise_sigma: standard deviation per pixel outside objects.
        smooth_sigma: the same of `smooth`.
        n_background: pixels that the background was measured on.
    """

    light: NDArray[np.float64]
    smooth: NDArray[np.float64]
    galaxy: NDArray[np.bool_]
    others: NDArray[np.bool_]
    background: float
    noise_sigma: float
    smooth_sigma: float
    n_background: int


def find_galaxy(image: NDArray[np.floating], limits: BankLimits) -> Segmentation:
    """Subtract the background of a stamp and find the galaxy at its centre.

    The background is the sigma-clipped mean of the border at first, then of everything but objects, three times over.
    Objects are connected regions above `detection_sigma` of the smoothed stamp with a peak above 4.5 sigma; the galaxy
    is the one whose nearest pixel is nearest to the centre, and no further from it than a quarter of the side.

    Args:
        image: (y, x) light per pixel, finite.
        limits: smoothing and isophote.
    """
    stamp = np.asarray(image, dtype=np.float64)
    empty = border_pixels((stamp.shape[0], stamp.shape[1]))
    level, sigma = clipped_statistics(stamp[empty])
    smooth = gaussian_filter(stamp - level, limits.smoothing_px)
    smooth_sigma = clipped_statistics(smooth[empty])[1]
    numbers, kept = _objects(smooth, smooth_sigma, limits)
    n_background = int(empty.sum())
    for _ in range(_ROUNDS):
        outside = ~binary_dilation(np.isin(numbers, kept), _EIGHT_CONNECTED, iterations=_OBJECT_MARGIN_PX)
        n_background = int(outside.sum())
        if n_background < _MIN_BACKGROUND_PX:
            break
        level, sigma = clipped_statistics(stamp[outside])
        smooth = gaussian_filter(stamp - level, limits.smoothing_px)
        smooth_sigma = clipped_statistics(smooth[outside])[1]
        numbers, kept = _objects(smooth, smooth_sigma, limits)
    chosen = _central(numbers, kept)
    galaxy = numbers == chosen if chosen else np.zeros(stamp.shape, dtype=np.bool_)
    others = np.isin(numbers, kept) & ~galaxy
    return Segmentation(stamp - level, smooth, galaxy, others, level, sigma, smooth_sigma, n_background)


def touches_edge(found: Segmentation, limits: BankLimits) -> bool:
    """True if the segment covers too much of the stamp's outermost pixels or leaves no background to measure."""
    if found.n_background < _MIN_BACKGROUND_PX:
        return True
    rim = np.concatenate([found.galaxy[0], found.galaxy[-1], found.galaxy[1:-1, 0], found.galaxy[1:-1, -1]])
    return bool(rim.mean() > limits.max_edge_fraction)


def is_blended(found: Segmentation, limits: BankLimits, pixel_scale_arcsec: float) -> bool:
    """True if some isophote splits the segment into two far-apart parts that both hold much of its flux."""
    inside = np.where(found.galaxy, found.smooth, 0.0)
    total = float(inside.sum())
    lowest, peak = limits.detection_sigma * found.smooth_sigma, float(inside.max())
    if not 0 < lowest < peak:
        return False
    rows, columns = np.indices(inside.shape)
    for level in np.geomspace(lowest, peak, _BLEND_LEVELS, endpoint=False)[1:]:
        numbers, count = label(inside > level, structure=_EIGHT_CONNECTED)
        fluxes = np.bincount(numbers.ravel(), weights=inside.ravel(), minlength=count + 1)
        parts = [part for part in range(1, count + 1) if fluxes[part] >= limits.blend_flux_fraction * total]
        tops = [int(np.where(numbers == part, inside, 0.0).argmax()) for part in parts]
        for number, a in enumerate(tops):
            for b in tops[number + 1 :]:
                apart_px = math.hypot(rows.flat[a] - rows.flat[b], columns.flat[a] - columns.flat[b])
                if apart_px * pixel_scale_arcsec >= limits.blend_separation_arcsec:
                    return True
    return False


def _objects(
    smooth: NDArray[np.float64], smooth_sigma: float, limits: BankLimits
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbered components above the isophote, and the numbers of those with a significant peak."""
    numbers, count = label(smooth > limits.detection_sigma * smooth_sigma, structure=_EIGHT_CONNECTED)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, numbers.ravel(), smooth.ravel())
    peaks[0] = 0.0
    return numbers, np.flatnonzero(peaks > _PEAK_SIGMAS * smooth_sigma)


def _central(numbers: NDArray[np.int32], kept: NDArray[np.int64]) -> int:
    """Number of the kept component nearest to the centre; 0 if none is near."""
    rows, columns = np.indices(numbers.shape)
    height, width = numbers.shape
    distance = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    distance[~np.isin(numbers, kept)] = np.inf
    nearest = int(distance.argmin())
    return int(numbers.flat[nearest]) if distance.flat[nearest] <= _CENTRE_SHARE * min(height, width) else 0
