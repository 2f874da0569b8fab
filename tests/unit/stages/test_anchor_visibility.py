"""Arc visibility: noise and round or elliptical galaxies are not visible, arcs are, and grades do not matter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.contracts.anchors import MEASURED_ANCHORS, MEASUREMENTS, VisibilityLimits
from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import mask_value
from pipeline.stages.anchor_visibility import good_pixels, judge_anchors, measure_visibility, unmeasured

SIZE, SIGMA_NMGY, SEEING_PX = 64, 0.0025, 4.6
LIMITS = VisibilityLimits()
MIDDLE = (SIZE // 2, SIZE // 2)
GOOD = np.ones((SIZE, SIZE), bool)


def blurred(image: np.ndarray, flux_nmgy: float) -> np.ndarray:
    """An image with the seeing and the flux it shall have."""
    image = gaussian_filter(image, SEEING_PX / 2.3548, mode="constant")
    return flux_nmgy * image / image.sum()


def galaxy(flux_nmgy: float, n: float = 4.0, q: float = 0.7, phi_rad: float = 0.6, shift_px: float = 0.0) -> np.ndarray:
    """A Sersic galaxy with a half-light radius of 6 px, four points per pixel and axis."""
    fine = (np.arange(4 * SIZE) + 0.5) / 4 - 0.5 - SIZE // 2
    x, y = fine[None, :] - shift_px, fine[:, None]
    along, across = x * np.cos(phi_rad) + y * np.sin(phi_rad), y * np.cos(phi_rad) - x * np.sin(phi_rad)
    radius = np.hypot(along * np.sqrt(q), across / np.sqrt(q))
    light = np.exp(-(2 * n - 1 / 3) * (np.maximum(radius, 0.05) / 6.0) ** (1 / n))
    return blurred(light.reshape(SIZE, 4, SIZE, 4).mean(axis=(1, 3)), flux_nmgy)


def arc(flux_nmgy: float, span_rad: float, radius_px: float = 7.0, phi_rad: float = 2.0) -> np.ndarray:
    """A ring section around the middle."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    angle = (np.arctan2(y, x) - phi_rad + np.pi) % (2 * np.pi) - np.pi
    ring = np.exp(-0.5 * (np.hypot(x, y) - radius_px) ** 2)
    return blurred(ring * (np.abs(angle) < span_rad / 2), flux_nmgy)


def measured(scene: np.ndarray, seed: int, correlation_px: float = 0.0) -> dict[str, float]:
    """Measurement of a scene with noise of SIGMA_NMGY."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, (SIZE, SIZE))
    noise = gaussian_filter(noise, correlation_px) if correlation_px else noise
    image = (scene + SIGMA_NMGY * noise / noise.std()).astype(np.float32)
    return dataclasses.asdict(measure_visibility(image, GOOD, MIDDLE, SEEING_PX, LIMITS))


@pytest.mark.parametrize("correlation_px", [0.0, 0.45])
def test_noise_alone_has_snr_of_mean_zero_and_spread_near_one(correlation_px: float) -> None:
    """The stated noise is that of the sum after the fit; 0.45 px give a lag-1 correlation near 0.2, as coadds have."""
    snr = np.array([measured(np.zeros((SIZE, SIZE)), seed, correlation_px)["arc_visibility_snr"] for seed in range(80)])
    assert abs(snr.mean()) < 0.4
    assert 0.6 < snr.std() < 1.3
    assert (snr > LIMITS.threshold).mean() < 0.08


@pytest.mark.parametrize("flux_nmgy", [2.0, 20.0, 100.0])
@pytest.mark.parametrize("n", [1.0, 4.0])
def test_a_galaxy_without_arc_is_tier_b_however_bright(flux_nmgy: float, n: float) -> None:
    """Its light is all over the annulus, as the sum with lens light shows, and none of it counts as an arc."""
    rows = [measured(galaxy(flux_nmgy, n, q=0.6 + 0.04 * seed, shift_px=0.4), seed) for seed in range(8)]
    assert min(row["annulus_snr_with_lens"] for row in rows) > LIMITS.threshold
    assert max(row["arc_visibility_snr"] for row in rows) < LIMITS.threshold + 1.0
    assert np.mean([row["arc_visibility_snr"] for row in rows]) < 1.0
    assert min(row["centre_snr"] for row in rows) > LIMITS.centre_snr_min


def test_an_arc_on_a_bright_galaxy_is_tier_a() -> None:
    """A third of a ring of 3 nmgy (r = 21.3) on a lens of 20 nmgy; without the lens more of it is found."""
    rows = [measured(galaxy(20.0) + arc(3.0, 2.1), seed) for seed in range(6)]
    assert min(row["arc_visibility_snr"] for row in rows) > 3.0
    assert 0.35 * 3.0 < np.median([row["arc_annulus_nmgy"] for row in rows]) < 1.2 * 3.0
    alone = measured(galaxy(1.0) + arc(3.0, 2.1), 1)
    assert alone["arc_annulus_nmgy"] > 0.6 * 3.0


def test_visibility_grows_with_the_arc() -> None:
    """Brighter arcs on the same pixels are more visible."""
    snr = [measured(galaxy(20.0) + arc(flux, 2.1), 3)["arc_visibility_snr"] for flux in (0.01, 2.0, 4.0, 8.0)]
    assert snr == sorted(snr)


def test_the_emr_definition_is_kept_beside_it() -> None:
    """annulus_snr_with_lens is sum(I - bg) / (1.4826 MAD sqrt(N)) over 4 <= r < 16 px, outside as background."""
    image = (galaxy(5.0) + np.random.default_rng(2).normal(0.0, SIGMA_NMGY, (SIZE, SIZE))).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    radius = np.hypot(x, y)
    annulus, outer = image[(radius >= 4) & (radius < 16)].astype(float), image[radius >= 16].astype(float)
    background = np.median(outer)
    sigma = 1.4826 * np.median(np.abs(outer - background))
    expected = (annulus - background).sum() / (sigma * np.sqrt(annulus.size))
    found = measure_visibility(image, GOOD, MIDDLE, SEEING_PX, LIMITS)
    assert found.annulus_snr_with_lens == pytest.approx(expected, rel=1e-9)
    assert found.sky_sigma_nmgy == pytest.approx(sigma, rel=1e-9)
    assert found.annulus_px == annulus.size


def test_blank_sky_and_a_neighbour_are_no_central_galaxy() -> None:
    """What the EMR positions showed: nothing, or a galaxy elsewhere on the stamp."""
    blank = [measured(np.zeros((SIZE, SIZE)), seed)["centre_snr"] for seed in range(40)]
    assert np.abs(blank).max() < LIMITS.centre_snr_min
    neighbour = measured(np.roll(galaxy(10.0, n=1.0), 22, axis=1), 1)
    assert neighbour["centre_snr"] < LIMITS.centre_snr_min
    assert measured(galaxy(0.6, n=1.0), 1)["centre_snr"] > LIMITS.centre_snr_min


def test_pixels_that_do_not_measure_the_sky_are_left_out() -> None:
    """NaN, weightless and saturated pixels do not count; those of another brick do."""
    image = np.zeros((4, 4), np.float32)
    invvar = np.ones((4, 4), np.float32)
    maskbits = np.zeros((4, 4), np.int32)
    image[0, 0], invvar[0, 1] = np.nan, 0.0
    maskbits[0, 2], maskbits[0, 3] = mask_value("SATUR_R"), mask_value("SATUR_G")
    maskbits[1, 0], maskbits[1, 1] = mask_value("NPRIMARY"), mask_value("MEDIUM")
    bad = {(0, 0), (0, 1), (0, 2), (1, 1)}
    assert {tuple(place) for place in np.argwhere(~good_pixels(image, invvar, maskbits, "r")).tolist()} == bad


def test_a_masked_annulus_is_not_measured() -> None:
    """Below 70 % good pixels there is no number, and the row says so."""
    good = GOOD.copy()
    good[:, : SIZE // 2] = False
    found = measure_visibility(galaxy(20.0).astype(np.float32), good, MIDDLE, SEEING_PX, LIMITS)
    assert np.isnan(found.arc_visibility_snr)
    assert 0.4 < found.annulus_good_frac < 0.6
    none = measure_visibility(np.zeros((SIZE, SIZE), np.float32), ~GOOD, MIDDLE, SEEING_PX, LIMITS)
    assert np.isnan(none.sky_sigma_nmgy)


@pytest.mark.parametrize(
    ("shape", "centre", "seeing", "message"),
    [
        ((32, 32), (16, 16), 4.6, "does not fit"),
        ((64, 64), (10, 32), 4.6, "does not fit"),
        ((64, 64), MIDDLE, 0.0, "0 px"),
    ],
)
def test_impossible_measurements_are_refused(
    shape: tuple[int, int], centre: tuple[float, float], seeing: float, message: str
) -> None:
    """An annulus that leaves the stamp would be measured on part of the sky."""
    with pytest.raises(ContractError, match=message):
        measure_visibility(np.zeros(shape, np.float32), np.ones(shape, bool), centre, seeing, LIMITS)


def anchors_table(**columns: object) -> pd.DataFrame:
    """Measured anchors, by default accepted, with cutout, galaxy and arc."""
    n_rows = max(len(value) for value in columns.values() if isinstance(value, list))
    texts = {variable.name: "" for variable in MEASURED_ANCHORS.variables if variable.dtype == "str"}
    rows = unmeasured(n_rows, "r").assign(**texts)
    defaults = {"reject_reason": "none", "cutout_reject_reason": "none", "cube_row": 0, "centre_snr": 50.0}
    return rows.assign(**{**defaults, "arc_visibility_snr": 3.0, "arc_significance": 9.0, **columns})


def test_tiers_come_from_the_measurement_never_from_the_grade() -> None:
    """Swapping the grades changes no tier; the threshold itself is tier B."""
    table = anchors_table(arc_visibility_snr=[5.0, 2.0, -1.0], grade_tier=["grade_probable"] * 3)
    tiers = judge_anchors(table, LIMITS)["visibility_tier"].tolist()
    assert tiers == ["A", "B", "B"]
    swapped = judge_anchors(table.assign(grade_tier="grade_confident"), LIMITS)
    assert swapped["visibility_tier"].tolist() == tiers


def test_both_numbers_are_needed_for_the_robust_tier_and_one_for_the_annulus_tier() -> None:
    """A companion fills the annulus without an arc's shape: A by the annulus alone, B by both."""
    table = anchors_table(arc_visibility_snr=[5.0, 5.0, 1.0], arc_significance=[9.0, 0.0, 9.0])
    judged = judge_anchors(table, LIMITS)
    assert judged["annulus_tier"].tolist() == ["A", "A", "B"]
    assert judged["visibility_tier"].tolist() == ["A", "B", "B"]


def test_rows_without_measurement_have_a_reason_and_no_tier() -> None:
    """Each reason in turn; an earlier one stands."""
    table = anchors_table(
        reject_reason=["outside_footprint", "none", "none", "none", "none"],
        cube_row=[-1, -1, 3, 4, 5],
        cutout_reject_reason=["", "", "masked", "none", "none"],
        arc_visibility_snr=[np.nan, np.nan, np.nan, np.nan, 9.0],
        centre_snr=[np.nan, np.nan, np.nan, 9.0, 1.0],
    )
    judged = judge_anchors(table, LIMITS)
    assert judged["reject_reason"].tolist() == [
        "outside_footprint",
        "no_cutout",
        "cutout_unusable",
        "annulus_unmeasurable",
        "no_central_galaxy",
    ]
    assert set(judged["visibility_tier"]) == set(judged["annulus_tier"]) == {""}


def test_unmeasured_rows_satisfy_the_columns() -> None:
    """Every column of the measurement is there with its type."""
    blank = unmeasured(2, "r")
    assert list(blank) == [variable.name for variable in MEASUREMENTS.variables]
    assert blank["cube_row"].tolist() == [-1, -1]
    assert blank["arc_visibility_snr"].isna().all()
