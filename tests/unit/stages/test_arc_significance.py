"""Arcs are significant; compact, large and distant neighbours and a lens model that is off are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.contracts.anchors import VisibilityLimits
from pipeline.stages.arc_significance import arc_significance

SIZE, SIGMA_NMGY, SEEING_PX = 64, 0.0025, 4.6
LIMITS = VisibilityLimits()
MIDDLE = (SIZE / 2, SIZE / 2)
Y, X = np.mgrid[:SIZE, :SIZE] - SIZE // 2
RADIUS, ANGLE = np.hypot(X, Y), np.arctan2(Y, X)
NEAR = RADIUS < 24


def blurred(shape: np.ndarray, flux_nmgy: float) -> np.ndarray:
    """A shape with the seeing and the flux it shall have."""
    image = gaussian_filter(shape.astype(float), SEEING_PX / 2.3548, mode="constant")
    return flux_nmgy * image / image.sum()


def point(x_px: float, y_px: float, width_px: float, flux_nmgy: float) -> np.ndarray:
    """A round neighbour."""
    return blurred(np.exp(-0.5 * ((X - x_px) ** 2 + (Y - y_px) ** 2) / width_px**2), flux_nmgy)


def arc(flux_nmgy: float, span_rad: float = 1.6) -> np.ndarray:
    """A section of a ring of 8 px."""
    return blurred(np.exp(-0.5 * (RADIUS - 8.0) ** 2) * (np.abs(ANGLE) < span_rad / 2), flux_nmgy)


def significance(scene: np.ndarray, seed: int = 0, lens: np.ndarray | None = None) -> float:
    """Of a residual with noise."""
    residual = scene + np.random.default_rng(seed).normal(0.0, SIGMA_NMGY, (SIZE, SIZE))
    light = np.zeros((SIZE, SIZE)) if lens is None else lens
    return arc_significance(residual + light, residual, light, NEAR, MIDDLE, SIGMA_NMGY, SEEING_PX, LIMITS)


def test_an_arc_is_significant_and_more_so_when_brighter() -> None:
    """0.5 nmgy (r = 23.3) is found; three times the light is about three times as significant."""
    faint, bright = significance(arc(0.5)), significance(arc(1.5))
    assert faint > LIMITS.significance_min
    assert 1.8 * faint < bright < 4.0 * faint


@pytest.mark.parametrize(
    "neighbour",
    [point(9.0, 4.0, 0.5, 2.0), point(0.0, 12.0, 4.0, 5.0), point(19.0, 0.0, 1.0, 5.0)],
    ids=["compact", "large", "outside the annulus"],
)
def test_neighbours_are_not_arcs(neighbour: np.ndarray) -> None:
    """Each is many times as bright as an arc that is found."""
    assert abs(significance(neighbour)) < LIMITS.significance_min


def test_noise_has_no_arcs() -> None:
    """Of 60 empty stamps at most one exceeds the threshold."""
    assert sum(significance(np.zeros((SIZE, SIZE)), seed) > LIMITS.significance_min for seed in range(60)) <= 1


def test_an_error_of_both_signs_cancels() -> None:
    """A lens model that is turned leaves arcs of both signs; they do not add up to a detection."""
    twisted = 0.02 * np.exp(-0.5 * ((RADIUS - 7.0) / 2.5) ** 2) * np.cos(2.0 * ANGLE)
    assert significance(twisted) < LIMITS.significance_min
    assert significance(np.maximum(twisted, 0.0)) > LIMITS.significance_min


def test_light_of_the_lens_adds_noise() -> None:
    """The same arc on a bright lens is less significant."""
    lens = np.full((SIZE, SIZE), 0.05)
    assert significance(arc(1.5), lens=lens) < significance(arc(1.5))


def test_pixels_that_were_not_measured_do_not_count() -> None:
    """An arc where there is no good pixel is not seen."""
    hidden = NEAR & ~((np.abs(ANGLE) < 1.2) & (RADIUS > 3))
    residual = arc(1.5)
    found = arc_significance(residual, residual, 0.0 * residual, hidden, MIDDLE, SIGMA_NMGY, SEEING_PX, LIMITS)
    assert abs(found) < LIMITS.significance_min
