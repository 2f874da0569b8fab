"""Stamp geometry and quality against brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contracts.config import QualitySection
from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.survey import mask_value
from pipeline.stages.cutouts import judge, measure_stamps, place_stamps, reason_code, reason_counts, sky_sigma

BRICK = (300, 400)


@pytest.mark.parametrize(
    ("x", "x0"),
    [(100.5, 68), (101.5, 70), (100.499, 68), (100.501, 69), (32.0, 0), (31.5, 0), (31.499, -1), (-0.5, -32)],
)
def test_window_starts_where_the_emr_system_started_it(x: float, x0: int) -> None:
    """x0 = round half to even(x) - size // 2."""
    place = place_stamps(np.array([x]), np.array([150.0]), 64, BRICK)
    assert place.x0.tolist() == [x0]
    assert place.x0.dtype == np.int64


@settings(max_examples=200, deadline=None)
@given(
    x=st.floats(-1e7, 1e7),
    y=st.floats(-200, 600),
    size=st.sampled_from([16, 32, 64, 96]),
)
def test_host_lies_on_the_centre_pixel_to_half_a_pixel(x: float, y: float, size: int) -> None:
    """The remainder is at most 0.5 px in each axis, and agrees with Python's own rounding."""
    place = place_stamps(np.array([x]), np.array([y]), size, BRICK)
    assert abs(x - (place.x0[0] + size // 2)) <= 0.5
    assert abs(y - (place.y0[0] + size // 2)) <= 0.5
    assert place.y0[0] == round(y) - size // 2
    x0, y0 = int(place.x0[0]), int(place.y0[0])
    assert bool(place.in_bounds[0]) is (x0 >= 0 and y0 >= 0 and x0 + size <= BRICK[1] and y0 + size <= BRICK[0])


def test_edges_of_the_brick() -> None:
    """The first and last windows that fit are in bounds, the next ones are not; x runs along columns."""
    ny, nx = BRICK
    x = np.array([32.0, 31.0, nx - 32.0, nx - 31.0, 200.0, 200.0, 200.0, 200.0])
    y = np.array([150.0, 150.0, 150.0, 150.0, 32.0, 31.0, ny - 32.0, ny - 31.0])
    place = place_stamps(x, y, 64, BRICK)
    assert place.in_bounds.tolist() == [True, False] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -1e12])
@pytest.mark.parametrize("axis", [0, 1])
def test_position_without_pixel_is_out_of_bounds(bad: float, axis: int) -> None:
    """A position that is not finite or absurdly far lies wholly outside, whichever axis it is."""
    position = [200.0, 150.0]
    position[axis] = bad
    place = place_stamps(np.array([position[0]]), np.array([position[1]]), 64, BRICK)
    assert not place.in_bounds[0]
    assert place.x0[0] + 64 <= 0
    assert place.y0[0] + 64 <= 0


def stamps(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps of 5 rows, 3 bands, 16 px with scattered NaN, infinite, zero, negative and masked pixels."""
    generator = np.random.default_rng(seed)
    image = generator.normal(1.0, 0.3, (5, 3, 16, 16)).astype(np.float32)
    invvar = generator.uniform(1, 9, image.shape).astype(np.float32)
    image[generator.uniform(size=image.shape) < 0.02] = np.nan
    image[generator.uniform(size=image.shape) < 0.01] = np.inf
    for value in (0.0, -1.0, np.nan, np.inf):
        invvar[generator.uniform(size=image.shape) < 0.01] = value
    bits = [0, 0, 0, *(1 << bit for bit in range(17))]
    maskbits = generator.choice(bits, (5, 16, 16)).astype(np.int32)
    image[0], invvar[0], maskbits[0] = 1.0, 4.0, 0
    return image, invvar, maskbits


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quality_columns_equal_brute_force(seed: int) -> None:
    """Each fraction is a count over the stamp's pixels divided by their number."""
    image, invvar, maskbits = stamps(seed)
    for array in (image, invvar, maskbits):
        array.flags.writeable = False
    measured = measure_stamps(image, invvar, maskbits, mask_readable=True)
    bad_bits = mask_value("NPRIMARY", "BRIGHT", "SATUR_R", "ALLMASK_R", "BAILOUT", "MEDIUM")
    for row in range(5):
        bits = [int(value) for value in maskbits[row].flat]
        assert measured["bad_pixel_frac"][row] == np.float32(sum(bool(b & bad_bits) for b in bits) / 256)
        assert measured["wise_brightmask_frac"][row] == np.float32(sum(bool(b & 768) for b in bits) / 256)
        for band in range(3):
            pixels = list(zip(image[row, band].flat, invvar[row, band].flat, strict=True))
            finite = sum(bool(np.isfinite(i) and np.isfinite(w)) for i, w in pixels)
            assert measured["finite_frac"][row, band] == np.float32(finite / 256)
            no_weight = sum(not w > 0 for _, w in pixels)
            assert measured["invvar_zero_frac"][row, band] == np.float32(no_weight / 256)
    assert {array.dtype for array in measured.values()} == {np.dtype(np.float32)}


def test_unreadable_mask_makes_its_fractions_nan() -> None:
    """Without mask both fractions are NaN, as in the EMR system, and the rest is measured."""
    image, invvar, _ = stamps(0)
    measured = measure_stamps(image, invvar, np.zeros((5, 16, 16), np.int32), mask_readable=False)
    assert np.isnan(measured["bad_pixel_frac"]).all()
    assert np.isnan(measured["wise_brightmask_frac"]).all()
    assert np.isfinite(measured["finite_frac"]).all()


def test_sky_sigma_is_the_scaled_mad_of_the_outer_ring() -> None:
    """Pixels with r >= 24/64 of the size count, finite ones only; the core does not matter."""
    image, _, _ = stamps(3)
    y, x = np.mgrid[:16, :16] - 8
    ring = np.hypot(x, y) >= 6.0
    values = image[2, 1][ring & np.isfinite(image[2, 1])].astype(np.float64)
    expected = 1.4826 * np.median(np.abs(values - np.median(values)))
    assert sky_sigma(image)[2, 1] == pytest.approx(expected, rel=1e-6)
    core = np.where(ring, image, np.float32(1e6))
    assert np.array_equal(sky_sigma(core), sky_sigma(image))


def test_sky_sigma_of_gaussian_noise_and_of_nothing() -> None:
    """Noise of width 0.02 gives 0.02; a stamp without finite pixel gives NaN and no warning."""
    noise = np.random.default_rng(5).normal(3.0, 0.02, (1, 1, 128, 128)).astype(np.float32)
    assert sky_sigma(noise)[0, 0] == pytest.approx(0.02, rel=0.03)
    nothing = np.full((1, 2, 16, 16), np.nan, np.float32)
    nothing[0, 1] = 1.0
    assert np.isnan(sky_sigma(nothing)[0, 0])
    assert sky_sigma(nothing)[0, 1] == 0.0


DAMAGE: dict[str, tuple[str, object]] = {
    "out_of_bounds": ("in_bounds", 0),
    "nonfinite_pixels": ("finite_frac", 0.999),
    "invvar_zero": ("invvar_zero_frac", 0.001),
    "masked": ("bad_pixel_frac", 0.21),
    "psfsize_invalid": ("psfsize_arcsec", np.nan),
}


def damaged(cutouts: xr.Dataset, row: int, *reasons: str) -> xr.Dataset:
    """Cutouts with one row damaged in the last band or column."""
    copy = cutouts.copy(deep=True)
    for reason in reasons:
        name, value = DAMAGE[reason]
        array = copy[name].to_numpy().copy()
        array[(row, -1) if array.ndim == 2 else row] = value
        copy[name] = (copy[name].dims, array)
    return copy


def fresh(make_cutouts: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Three good rows that were not judged yet."""
    return make_cutouts(3, size=16)


@pytest.mark.parametrize("reason", DAMAGE)
def test_each_reason_rejects_its_row_alone(make_cutouts: Callable[..., xr.Dataset], reason: str) -> None:
    """Damage in one band of one row rejects that row with its reason, and no other."""
    judged = judge(damaged(fresh(make_cutouts), 1, reason), QualitySection())
    assert judged["usable"].to_numpy().tolist() == [1, 0, 1]
    assert judged["reject_reason"].to_numpy().tolist() == [0, REJECT_REASONS.index(reason), 0]


def test_the_first_applicable_reason_is_kept(make_cutouts: Callable[..., xr.Dataset]) -> None:
    """Reasons apply in the order of the list, and what reading the brick gave comes before all."""
    names = list(DAMAGE)
    assert names == sorted(names, key=REJECT_REASONS.index)
    for first in range(len(names)):
        judged = judge(damaged(fresh(make_cutouts), 0, *names[first:]), QualitySection())
        assert judged["reject_reason"].to_numpy()[0] == REJECT_REASONS.index(names[first])
    missing = damaged(fresh(make_cutouts), 0, *names)
    missing["reject_reason"] = ("sample", np.array([1, 2, 0], np.uint8))
    assert judge(missing, QualitySection())["reject_reason"].to_numpy().tolist() == [1, 2, 0]


@pytest.mark.parametrize(("value", "usable"), [(0.2, True), (np.nextafter(np.float32(0.2), 1), False), (np.nan, False)])
def test_masked_fraction_limit(make_cutouts: Callable[..., xr.Dataset], value: float, usable: bool) -> None:
    """A fraction at the limit passes, one above or unknown does not."""
    cutouts = fresh(make_cutouts).assign(bad_pixel_frac=("sample", np.full(3, value, np.float32)))
    assert (
        judge(cutouts, QualitySection(bad_pixel_frac_max=float(np.float32(0.2))))["usable"].to_numpy().all() == usable
    )


@pytest.mark.parametrize(("value", "usable"), [(0.4, True), (0.39, False), (4.0, True), (4.01, False), (0.0, False)])
def test_seeing_range(make_cutouts: Callable[..., xr.Dataset], value: float, usable: bool) -> None:
    """A psfsize outside 0.4-4 arcsec in any band is no seeing; the bounds themselves are."""
    psfsize = np.full((3, 3), 1.2)
    psfsize[:, 1] = value
    cutouts = fresh(make_cutouts).assign(psfsize_arcsec=(("sample", "band"), psfsize))
    assert judge(cutouts, QualitySection())["usable"].to_numpy().all() == usable


def test_looser_limits_keep_more(make_cutouts: Callable[..., xr.Dataset]) -> None:
    """Configured limits decide."""
    cutouts = damaged(fresh(make_cutouts), 0, "invvar_zero", "masked")
    loose = QualitySection(bad_pixel_frac_max=0.5, invvar_zero_frac_max=0.01)
    assert judge(cutouts, loose)["usable"].to_numpy().tolist() == [1, 1, 1]


def test_judging_does_not_change_its_input(make_cutouts: Callable[..., xr.Dataset]) -> None:
    """The verdict is a new dataset, and judging it again changes nothing."""
    cutouts = damaged(fresh(make_cutouts), 1, "masked")
    before = cutouts.copy(deep=True)
    judged = judge(cutouts, QualitySection())
    xr.testing.assert_identical(cutouts, before)
    xr.testing.assert_identical(judge(judged, QualitySection()), judged)


def test_reasons_are_counted_by_name() -> None:
    """Counts add up and name reasons; a code without meaning is an error."""
    codes = np.array([0, 0, reason_code("masked"), reason_code("mask_unreadable")], np.uint8)
    assert reason_counts(codes) == {"none": 2, "masked": 1, "mask_unreadable": 1}
    assert reason_counts(np.array([], np.uint8)) == {}
    with pytest.raises(ValueError, match="zip"):
        reason_counts(np.array([200], np.uint8))
    with pytest.raises(KeyError):
        reason_code("unheard_of")
