"""The model of a galaxy's light follows the galaxy and its centroid, and not what sticks out of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.contracts.anchors import VisibilityLimits
from pipeline.stages.lens_light import core_centroid, lens_light

SIZE, SIGMA_NMGY, SEEING_PX = 64, 0.0025, 4.6
LIMITS = VisibilityLimits()


def galaxy(flux_nmgy: float, q: float) -> np.ndarray:
    """An exponential galaxy with a half-light radius of 6 px."""
    fine = (np.arange(4 * SIZE) + 0.5) / 4 - 0.5 - SIZE // 2
    x, y = fine[None, :], fine[:, None]
    along, across = x * np.cos(0.6) + y * np.sin(0.6), y * np.cos(0.6) - x * np.sin(0.6)
    light = np.exp(-1.678 * np.hypot(along * np.sqrt(q), across / np.sqrt(q)) / 6.0)
    image = gaussian_filter(light.reshape(SIZE, 4, SIZE, 4).mean(axis=(1, 3)), SEEING_PX / 2.3548, mode="constant")
    return flux_nmgy * image / image.sum()


def pixels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions relative to the middle, and which pixels lie near it."""
    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE // 2).astype(float)
    return x, y, np.hypot(x, y) < 24


def test_lens_light_follows_a_noiseless_galaxy() -> None:
    """To one percent of the light in the annulus, with its axis ratio between that of the galaxy and round."""
    scene = galaxy(20.0, q=0.6)
    x, y, near = pixels()
    light, axis_ratio = lens_light(x[near], y[near], scene[near], SIGMA_NMGY, SEEING_PX, LIMITS)
    annulus = (np.hypot(x, y)[near] >= 4) & (np.hypot(x, y)[near] < 16)
    assert light[annulus].sum() == pytest.approx(scene[near][annulus].sum(), rel=0.01)
    assert 0.55 < axis_ratio < 0.8


def test_a_neighbour_does_not_change_the_model() -> None:
    """A compact neighbour of a tenth of the flux 11 px away adds less than a fifth of itself to the model."""
    scene = galaxy(20.0, q=0.8)
    x, y, near = pixels()
    blob = np.exp(-0.5 * ((x - 11.0) ** 2 + y**2) / 2.0**2)
    blob *= 2.0 / blob.sum()
    alone, _ = lens_light(x[near], y[near], scene[near], SIGMA_NMGY, SEEING_PX, LIMITS)
    beside, _ = lens_light(x[near], y[near], (scene + blob)[near], SIGMA_NMGY, SEEING_PX, LIMITS)
    assert abs(float((beside - alone).sum())) < 0.4


def test_the_centroid_is_that_of_the_core() -> None:
    """A galaxy moved by a pixel and a half is found there; without flux the origin is returned."""
    x, y, _ = pixels()
    blob = np.exp(-0.5 * ((x - 1.5) ** 2 + (y + 0.5) ** 2) / 2.0**2)
    assert core_centroid(x.ravel(), y.ravel(), blob.ravel()) == pytest.approx((1.5, -0.5), abs=0.05)
    assert core_centroid(x.ravel(), y.ravel(), -blob.ravel()) == (0.0, 0.0)
