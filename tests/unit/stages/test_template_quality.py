"""Numbers of a template against closed forms, and the verdict on banks of galaxies and of clipped noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import BANK_COLUMNS, SourceBank
from pipeline.stages.template_quality import (
    border_pixels,
    centroid_px,
    clipped_statistics,
    flat_half_light_radius_arcsec,
    half_light_radius_arcsec,
    judge_bank,
    pedestal_share,
    psf_half_maximum_arcsec,
    template_clumpiness,
)

SCALE_ARCSEC = 0.03


def gaussian(size: int, sigma_px: float, x_px: float, y_px: float) -> np.ndarray:
    """A round Gaussian of unit sum."""
    rows, columns = np.indices((size, size))
    light = np.exp(-((rows - y_px) ** 2 + (columns - x_px) ** 2) / (2 * sigma_px**2))
    return light / light.sum()


def clipped_noise(seed: int, size: int = 96) -> np.ndarray:
    """White noise with its negatives clipped, unit sum: a stamp without a galaxy as a careless bank stores it."""
    noise = np.maximum(np.random.default_rng(seed).normal(size=(size, size)), 0.0)
    return noise / noise.sum()


def bank_of(images: np.ndarray) -> SourceBank:
    """A bank of usable templates that knows nothing about them."""
    columns = {
        column.name: np.full(len(images), 0 if column.missing is None else column.missing, dtype=column.dtype)
        for column in BANK_COLUMNS
    }
    return SourceBank(images.astype(np.float32), columns, SCALE_ARCSEC, math.nan, "test", "here", "now", "digest")


@pytest.mark.parametrize("sigma_px", [2.5, 6.0, 10.0])
@pytest.mark.parametrize("centre", [(47.5, 47.5), (45.3, 50.1)])
def test_half_light_radius_of_a_gaussian(sigma_px: float, centre: tuple[float, float]) -> None:
    """A Gaussian's half-light radius is sigma sqrt(2 ln 2), wherever its centroid lies."""
    image = gaussian(96, sigma_px, *centre)
    assert centroid_px(image) == pytest.approx(centre, abs=0.01)
    expected = sigma_px * math.sqrt(2 * math.log(2)) * SCALE_ARCSEC
    assert half_light_radius_arcsec(image, SCALE_ARCSEC) == pytest.approx(expected, abs=0.03 * SCALE_ARCSEC)


def test_half_light_radius_of_flat_light() -> None:
    """Uniform light in a square stamp follows the closed form."""
    measured = half_light_radius_arcsec(np.ones((96, 96)), SCALE_ARCSEC)
    assert measured == pytest.approx(flat_half_light_radius_arcsec(96, SCALE_ARCSEC), rel=0.002)


def test_clumpiness_of_a_smooth_and_of_a_pointlike_picture() -> None:
    """Nothing changes in flat light; a single pixel loses all but the kernel's centre, counted twice."""
    assert template_clumpiness(np.ones((32, 32))) == pytest.approx(0.0, abs=1e-12)
    point = np.zeros((33, 33))
    point[16, 16] = 1.0
    kernel_centre = gaussian_filter(point, 1.0)[16, 16]
    assert template_clumpiness(point) == pytest.approx(2 * (1 - kernel_centre), rel=1e-6)


def test_clipped_mean_keeps_the_level_of_clipped_noise() -> None:
    """The mean of max(noise, 0) is sigma / sqrt(2 pi); outliers fall out."""
    noise = np.maximum(np.random.default_rng(1).normal(size=40_000), 0.0)
    assert clipped_statistics(noise)[0] == pytest.approx(1 / math.sqrt(2 * math.pi), rel=0.05)
    noise[:200] = 50.0
    assert clipped_statistics(noise)[0] == pytest.approx(1 / math.sqrt(2 * math.pi), rel=0.05)


def test_clipped_mean_of_constant_values() -> None:
    """Values without scatter are their own mean."""
    assert clipped_statistics(np.full(10, 3.0)) == (3.0, 0.0)


def test_border_is_a_ring() -> None:
    """A twelfth of the side, at least 2 px."""
    assert border_pixels((96, 96)).sum() == 96**2 - 80**2
    assert border_pixels((16, 20)).sum() == 16 * 20 - 12 * 16


def test_pedestal_share_of_known_mixtures() -> None:
    """0 for a galaxy on darkness, 1 for flat light, and the share mixed in between."""
    galaxy = gaussian(96, 6.0, 47.5, 47.5)
    assert pedestal_share(galaxy) == pytest.approx(0.0, abs=1e-3)
    assert pedestal_share(np.ones((96, 96))) == 1.0
    assert pedestal_share(0.3 * galaxy + 0.7 / 96**2) == pytest.approx(0.7, abs=0.01)
    assert pedestal_share(clipped_noise(3)) == pytest.approx(1.0, abs=0.05)
    assert math.isnan(pedestal_share(np.zeros((32, 32))))


def test_psf_width_of_a_gaussian_kernel() -> None:
    """FWHM of a sampled Gaussian, off-centre, on a stamp that is not square."""
    rows, columns = np.indices((65, 51))
    psf = np.exp(-((rows - 32.3) ** 2 + (columns - 25.4) ** 2) / (2 * 1.6**2))
    expected = 2 * math.sqrt(2 * math.log(2)) * 1.6 * SCALE_ARCSEC
    assert psf_half_maximum_arcsec(psf, SCALE_ARCSEC) == pytest.approx(expected, rel=0.02)


def test_noise_bank_is_pedestal_dominated() -> None:
    """Templates of pure clipped noise have the half-light radius and clumpiness that give them away."""
    quality = judge_bank(bank_of(np.stack([clipped_noise(seed) for seed in range(8)])))
    assert quality.is_pedestal_dominated
    assert np.median(quality.hlr_arcsec) == pytest.approx(1.16, abs=0.02)
    assert (quality.clumpiness > 0.85).all()
    assert "pedestal dominated" in quality.message


def test_faint_galaxies_on_a_pedestal_are_pedestal_dominated() -> None:
    """A galaxy with a third of the light does not hide the box it stands on."""
    galaxy = gaussian(96, 6.0, 47.5, 47.5)
    images = np.stack([0.35 * galaxy + 0.65 * clipped_noise(seed) for seed in range(4)])
    assert judge_bank(bank_of(images)).is_pedestal_dominated


def test_galaxies_on_darkness_are_not() -> None:
    """A bank of clean galaxies passes; rejected rows do not enter the verdict."""
    bank = bank_of(np.stack([gaussian(96, 6.0, 47.5, 47.5)] * 2 + [clipped_noise(1)] * 4))
    bank.columns["usable"] = np.array([1, 1, 0, 0, 0, 0], dtype=np.uint8)
    bank.columns["reject_reason"] = np.array([0, 0, 4, 4, 4, 4], dtype=np.uint8)
    quality = judge_bank(bank)
    assert not quality.is_pedestal_dominated
    assert quality.n_usable == 2 and quality.n_by_reason["pedestal_dominated"] == 4


@pytest.mark.parametrize("measure", [centroid_px, template_clumpiness])
def test_a_picture_without_light_is_refused(measure: object) -> None:
    """No light, no numbers."""
    assert callable(measure)
    with pytest.raises(ContractError, match="positive sum"):
        measure(np.zeros((16, 16)))


def test_statistics_and_psf_need_values() -> None:
    """Empty samples and dead kernels are refused."""
    with pytest.raises(ContractError, match="at least one value"):
        clipped_statistics(np.empty(0))
    with pytest.raises(ContractError, match="point-spread function"):
        psf_half_maximum_arcsec(np.zeros((15, 15)), SCALE_ARCSEC)
