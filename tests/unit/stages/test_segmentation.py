"""Background and objects of synthetic stamps whose content is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.source_bank import BankLimits
from pipeline.stages.segmentation import find_galaxy, is_blended, touches_edge

LIMITS = BankLimits()
NOISE = 0.01


def blob(size: int, sigma_px: float, x_px: float, y_px: float, flux: float) -> np.ndarray:
    """A round Gaussian with some flux."""
    rows, columns = np.indices((size, size))
    light = np.exp(-((rows - y_px) ** 2 + (columns - x_px) ** 2) / (2 * sigma_px**2))
    return flux * light / light.sum()


def noise(size: int, seed: int = 5) -> np.ndarray:
    """White noise of sigma NOISE."""
    return np.random.default_rng(seed).normal(scale=NOISE, size=(size, size))


@pytest.mark.parametrize("pedestal", [0.0, 0.05, -0.02])
def test_background_and_noise_are_recovered(pedestal: float) -> None:
    """Level to a tenth and noise to a twentieth of sigma, whatever the level, with a bright galaxy in the stamp."""
    found = find_galaxy(blob(96, 6.0, 47.5, 47.5, 20.0) + noise(96) + pedestal, LIMITS)
    assert found.background == pytest.approx(pedestal, abs=0.1 * NOISE)
    assert found.noise_sigma == pytest.approx(NOISE, rel=0.05)
    assert found.galaxy[47, 47] and not found.others.any()


def test_the_galaxy_is_the_one_at_the_centre() -> None:
    """A brighter neighbour is another object, and the galaxy's segment does not reach it."""
    found = find_galaxy(blob(96, 4.0, 47.5, 47.5, 5.0) + blob(96, 4.0, 80.0, 20.0, 50.0) + noise(96), LIMITS)
    assert found.galaxy[47, 47] and not found.galaxy[20, 80]
    assert found.others[20, 80] and not (found.galaxy & found.others).any()


def test_nothing_at_the_centre_is_no_galaxy() -> None:
    """Noise, and an object in the corner, are not taken for the galaxy."""
    assert not find_galaxy(noise(64), LIMITS).galaxy.any()
    assert not find_galaxy(noise(64) + blob(64, 2.0, 6.0, 6.0, 5.0), LIMITS).galaxy.any()


def test_a_galaxy_cut_by_its_stamp_touches_the_edge() -> None:
    """A galaxy wider than the stamp does, one well inside does not."""
    assert touches_edge(find_galaxy(blob(48, 12.0, 23.5, 34.0, 60.0) + noise(48), LIMITS), LIMITS)
    assert not touches_edge(find_galaxy(blob(48, 4.0, 23.5, 23.5, 20.0) + noise(48), LIMITS), LIMITS)


@pytest.mark.parametrize(("share", "apart_px", "blended"), [(0.5, 20, True), (0.05, 20, False), (0.5, 8, False)])
def test_blends_are_far_apart_and_of_similar_flux(share: float, apart_px: float, blended: bool) -> None:
    """Two galaxies 0.6 arcsec apart blend; a faint companion and clumps 0.24 arcsec apart belong to one galaxy."""
    half = apart_px / 2
    image = blob(96, 3.5, 47.5 - half, 47.5, 60.0 * (1 - share)) + blob(96, 3.5, 47.5 + half, 47.5, 60.0 * share)
    assert is_blended(find_galaxy(image + noise(96), LIMITS), LIMITS, 0.03) is blended
