"""Properties of arcs against analytic images and the EMR system's own numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_properties import SECTORS, arc_shape, lensed_half_light_radius_arcsec

STAGE_4C = Path(__file__).parents[4] / "shared" / "data" / "emr_golden" / "stage4c"
SIZE = 96
CENTRE_X, CENTRE_Y = 47.3, 48.8
SCALE = 0.262


def _offsets() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    return x - CENTRE_X, y - CENTRE_Y


def _gaussian(sigma_px: float) -> NDArray[np.float32]:
    x, y = _offsets()
    return np.asarray(np.exp(-(x * x + y * y) / (2.0 * sigma_px**2)), dtype=np.float32)


def _ring(radius_px: float, width_px: float) -> NDArray[np.float64]:
    return np.exp(-((np.hypot(*_offsets()) - radius_px) ** 2) / (2.0 * width_px**2))


def _read_only(image: NDArray[np.float64]) -> NDArray[np.float32]:
    pixels = image.astype(np.float32)
    pixels.flags.writeable = False
    return pixels


def test_gaussian_blob_on_the_lens() -> None:
    """A Gaussian has mean radius sigma sqrt(pi/2) and a core share of 1 - exp(-R**2 / 2 sigma**2)."""
    sigma_px, core_px = 9.0, 12.0
    shape = arc_shape(_gaussian(sigma_px), CENTRE_X, CENTRE_Y, core_px, SCALE)
    assert shape.mean_radius_arcsec == pytest.approx(sigma_px * math.sqrt(math.pi / 2.0) * SCALE, rel=1e-3)
    assert shape.core_fraction == pytest.approx(1.0 - math.exp(-0.5 * (core_px / sigma_px) ** 2), rel=0.01)
    assert shape.tangential_extent_rad == pytest.approx(2.0 * math.pi, rel=0.01)


@pytest.mark.parametrize("radius_px", [6.0, 12.0, 25.0])
def test_thin_ring_lies_at_its_radius(radius_px: float) -> None:
    """A ring's flux-weighted radius is (R**2 + w**2) / R; it covers the full angle and no core."""
    width_px = 1.2
    shape = arc_shape(_read_only(_ring(radius_px, width_px)), CENTRE_X, CENTRE_Y, radius_px - 5.0 * width_px, SCALE)
    assert shape.mean_radius_arcsec == pytest.approx((radius_px + width_px**2 / radius_px) * SCALE, rel=1e-3)
    assert shape.core_fraction < 1e-5
    assert shape.tangential_extent_rad == pytest.approx(2.0 * math.pi, rel=0.01)


@pytest.mark.parametrize("angle_rad", [math.pi / 2.0, math.pi, 1.5 * math.pi])
@pytest.mark.parametrize("start_rad", [-3.0, 0.1, 2.5])
def test_section_of_a_ring_extends_over_its_angle(angle_rad: float, start_rad: float) -> None:
    """An even arc has its own opening angle, to within one sector, wherever it starts."""
    x, y = _offsets()
    inside = np.mod(np.arctan2(y, x) - start_rad, 2.0 * math.pi) < angle_rad
    shape = arc_shape(_read_only(_ring(25.0, 2.0) * inside), CENTRE_X, CENTRE_Y, 5.0, SCALE)
    assert shape.tangential_extent_rad == pytest.approx(angle_rad, abs=2.0 * math.pi / SECTORS)


def test_extents_of_several_images_add_up() -> None:
    """A point covers one sector, or between one and two; an equal image opposite to it doubles that."""
    image = np.zeros((SIZE, SIZE), np.float32)
    image[48, 60] = 1.0
    one = arc_shape(image, 48.0, 48.0, 3.0, SCALE).tangential_extent_rad
    assert one == pytest.approx(2.0 * math.pi / SECTORS, rel=1e-9)
    image[48, 36] = 1.0
    assert arc_shape(image, 48.0, 48.0, 3.0, SCALE).tangential_extent_rad == pytest.approx(2.0 * one, rel=1e-9)
    between = np.zeros((SIZE, SIZE), np.float32)
    between[50, 60] = 1.0
    assert 1.0 < arc_shape(between, 48.0, 48.0, 3.0, SCALE).tangential_extent_rad / one < 2.0


def test_light_on_the_lens_has_no_direction() -> None:
    """A pixel at the lens has radius 0, lies in the smallest core and covers the full angle."""
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = 2.0
    assert arc_shape(image, 4.0, 4.0, 0.0, SCALE) == pytest.approx((0.0, 1.0, 2.0 * math.pi))


def test_core_includes_its_radius() -> None:
    """Pixels at exactly the core radius count."""
    image = np.zeros((16, 16), np.float32)
    image[8, 8], image[8, 11], image[12, 8] = 1.0, 2.0, 5.0
    for core_px, expected in ((2.9, 1 / 8), (3.0, 3 / 8), (4.0, 1.0)):
        assert arc_shape(image, 8.0, 8.0, core_px, SCALE).core_fraction == pytest.approx(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-20, 20))
def test_properties_do_not_depend_on_flux(seed: int, exponent: int) -> None:
    """Scaling an arc by a power of two changes no property."""
    arc = np.random.default_rng(seed).uniform(0.0, 1.0, (32, 32)).astype(np.float32)
    scaled = arc * np.float32(2.0**exponent)
    assert arc_shape(scaled, 15.0, 16.5, 4.0, SCALE) == arc_shape(arc, 15.0, 16.5, 4.0, SCALE)
    assert lensed_half_light_radius_arcsec(scaled, SCALE) == lensed_half_light_radius_arcsec(arc, SCALE)


def test_an_image_without_flux_has_no_properties() -> None:
    """Dark, negative and non-finite images give NaN."""
    for value in (0.0, -1.0, np.nan, np.inf):
        image = np.full((8, 8), value, np.float32)
        assert all(math.isnan(number) for number in arc_shape(image, 4.0, 4.0, 2.0, SCALE))
        assert math.isnan(lensed_half_light_radius_arcsec(image, SCALE))


@pytest.mark.parametrize("shape", [(64, 64), (65, 65), (40, 71)])
def test_half_light_radius_equals_a_sorted_scan(shape: tuple[int, int]) -> None:
    """It is the first pixel distance from the middle of the stamp within which half of the light lies."""
    image = np.random.default_rng(4).exponential(size=shape).astype(np.float32)
    y, x = np.indices(shape)
    radius = np.hypot(x - (shape[1] - 1) / 2.0, y - (shape[0] - 1) / 2.0)
    light = np.array([image[radius <= r + 1e-9].sum(dtype=np.float64) for r in np.unique(radius.round(9))])
    expected = np.unique(radius.round(9))[np.argmax(light >= 0.5 * light[-1])]
    assert lensed_half_light_radius_arcsec(image, SCALE) == pytest.approx(expected * SCALE, rel=1e-8)


def test_half_light_radius_of_gaussian_and_ring() -> None:
    """A Gaussian in the middle of the stamp has sigma sqrt(2 ln 2); a ring has its own radius."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2.0
    radius = np.hypot(x, y)
    gaussian, ring = np.exp(-0.5 * (radius / 8.0) ** 2), np.exp(-((radius - 20.0) ** 2) / 2.0)
    assert lensed_half_light_radius_arcsec(_read_only(gaussian), SCALE) == pytest.approx(
        8.0 * math.sqrt(2.0 * math.log(2.0)) * SCALE, rel=0.01
    )
    assert lensed_half_light_radius_arcsec(_read_only(ring), SCALE) == pytest.approx(20.0 * SCALE, rel=0.01)


@pytest.mark.skipif(not STAGE_4C.is_dir(), reason=f"EMR outputs are not here: {STAGE_4C}")
@pytest.mark.parametrize("run", ["arc_cosmos_moffat", "arc_cosmos_gaussian"])
def test_half_light_radius_is_that_of_emr(run: str) -> None:
    """The r-band arcs of the EMR system have the lensed_hlr_arcsec of its own rows, exactly."""
    rows = pd.read_parquet(STAGE_4C / run / "rows.parquet").set_index("task_id")
    stamps = np.load(STAGE_4C / run / "stamps.npz", allow_pickle=False)
    red = [str(band) for band in stamps["bands"]].index("r")
    ours = [lensed_half_light_radius_arcsec(arc, PIXEL_SCALE_ARCSEC) for arc in stamps["image"][:, red]]
    assert len(ours) > 10
    assert ours == rows.loc[stamps["task_id"], "lensed_hlr_arcsec"].tolist()


def test_impossible_arguments_are_refused() -> None:
    """Negative core radii and scales that are not positive are named."""
    image = np.ones((8, 8), np.float32)
    for core_px, scale in ((-1.0, SCALE), (2.0, 0.0), (math.nan, SCALE)):
        with pytest.raises(ContractError, match="core_radius_px >= 0"):
            arc_shape(image, 4.0, 4.0, core_px, scale)
    with pytest.raises(ContractError, match="lensed_half_light_radius_arcsec"):
        lensed_half_light_radius_arcsec(image, -0.262)
