"""Synthetic bricks: determinism, noise, photometry, PSF, masks and the places of hosts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.survey import BAD_PIXEL_MASK, FWHM_PER_SIGMA, MASKBITS, PIXEL_SCALE_ARCSEC
from pipeline.stages.synthetic_sky import make_brick, make_parent_rows
from pipeline.stages.synthetic_sources import SyntheticSky, brick_centre

SKY = SyntheticSky(seed=11, brick_size_px=400)


def host_pixels(brick: xr.Dataset, rows: pd.DataFrame) -> NDArray[np.float64]:
    """0-based (host, 2) pixel positions x, y of catalogue rows."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [brick.attrs["ra_deg"], brick.attrs["dec_deg"]]
    wcs.wcs.crpix = [brick.sizes["x"] / 2 + 0.5] * 2
    wcs.wcs.cd = [[-PIXEL_SCALE_ARCSEC / 3600, 0.0], [0.0, PIXEL_SCALE_ARCSEC / 3600]]
    return np.stack(wcs.wcs_world2pix(rows["ra"], rows["dec"], 0), axis=1)


def stamp_state(brick: xr.Dataset, x: float, y: float) -> str:
    """Why a 64-px stamp around (x, y) cannot be used, or "clean"."""
    x0, y0 = round(x) - 32, round(y) - 32
    if min(x0, y0) < 0 or max(x0, y0) + 64 > brick.sizes["x"]:
        return "edge"
    window = brick.isel(y=slice(y0, y0 + 64), x=slice(x0, x0 + 64))
    if not np.isfinite(window["image"]).all():
        return "nan"
    if not (window["invvar"] > 0).all():
        return "invvar"
    return "masked" if float((window["maskbits"] & BAD_PIXEL_MASK != 0).mean()) >= 0.2 else "clean"


def fraction_of_states(sky: SyntheticSky, bricks: range) -> pd.Series:
    """Share of hosts per stamp state over some bricks."""
    states = []
    for index in bricks:
        brick = make_brick(sky, index)
        states += [stamp_state(brick, x, y) for x, y in host_pixels(brick, make_parent_rows(sky, index))]
    return pd.Series(states).value_counts(normalize=True)


@pytest.fixture(scope="module")
def brick() -> xr.Dataset:
    """Brick 3, made before any other brick of the sky."""
    return make_brick(SKY, 3)


def test_brick_does_not_depend_on_bricks_made_before_it(brick: xr.Dataset) -> None:
    """Brick 3 alone equals brick 3 made after bricks 0 to 2, pixel for pixel."""
    for index in range(3):
        make_brick(SKY, index)
    xr.testing.assert_identical(make_brick(SKY, 3), brick)


def test_seed_changes_sky_and_names(brick: xr.Dataset) -> None:
    """Another seed gives another brick name and other pixels."""
    other = make_brick(SyntheticSky(seed=12, brick_size_px=400), 3)
    assert other.attrs["brickname"] != brick.attrs["brickname"]
    assert not np.array_equal(other["image"], brick["image"], equal_nan=True)


def test_bands_are_independent_of_each_other(brick: xr.Dataset) -> None:
    """The r plane of an r-only sky is the r plane of a grz sky, to float32 rounding."""
    only_r = make_brick(SyntheticSky(seed=11, brick_size_px=400, bands=("r",)), 3)
    for kind in ("image", "invvar", "psfsize"):
        np.testing.assert_allclose(only_r[kind].sel(band="r"), brick[kind].sel(band="r"), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(only_r["maskbits"], brick["maskbits"])


def test_brick_has_declared_dims_and_dtypes(brick: xr.Dataset) -> None:
    """Planes are float32 (band, y, x), maskbits int32 (y, x)."""
    for kind in ("image", "invvar", "psfsize"):
        assert brick[kind].dims == ("band", "y", "x")
        assert brick[kind].dtype == np.float32
    assert brick["maskbits"].dims == ("y", "x")
    assert brick["maskbits"].dtype == np.int32
    assert np.isfinite(brick["invvar"]).all()
    assert float(brick["invvar"].min()) == 0.0


@pytest.mark.parametrize("index", range(4))
def test_every_maskbit_occurs(index: int) -> None:
    """Even a 400-px brick shows every DR10 mask bit, and no other."""
    bits = np.bitwise_or.reduce(make_brick(SKY, index)["maskbits"].values, axis=None)
    assert bits == sum(1 << bit for bit in MASKBITS.values())


def test_primary_frame_has_survey_width() -> None:
    """NPRIMARY covers 82/3600 of the side at every edge, and nothing else."""
    primary = (make_brick(SyntheticSky(seed=1, brick_size_px=800), 0)["maskbits"].values & 1) == 0
    assert primary[18:-18, 18:-18].all()
    assert primary.sum() == (800 - 36) ** 2


@pytest.mark.parametrize(("size_px", "count"), [(400, 12), (1000, 5)])
def test_hosts_are_mostly_clean_with_some_on_every_defect(size_px: int, count: int) -> None:
    """85 to 92 % of hosts have a usable stamp; edges, NaN, zero invvar and masks each spoil some."""
    share = fraction_of_states(SyntheticSky(seed=2, brick_size_px=size_px), range(count))
    assert 0.85 <= share["clean"] <= 0.92
    assert (share[["edge", "nan", "invvar", "masked"]] >= 0.005).all()


def test_sky_noise_is_correlated_as_resampling_makes_it() -> None:
    """Away from sources pixels scatter by 0.89/sqrt(invvar), 5x5 sums nearer to it, neighbours correlate."""
    brick = make_brick(SyntheticSky(seed=5, brick_size_px=1000, hosts_per_brick=0, stars_per_brick=0), 0)
    for band in "grz":
        plane = brick.sel(band=band)
        residual = np.nan_to_num((plane["image"] * np.sqrt(plane["invvar"])).values)
        residual[brick["maskbits"].values > 1] = 0.0
        light = gaussian_filter(residual, 2.5) > 0.25
        sky = ~maximum_filter(light, 15) & (plane["invvar"].values > 0) & (brick["maskbits"].values <= 1)
        whole = sky.reshape(200, 5, 200, 5).all(axis=(1, 3))
        pixel_sigma = residual[sky].std()
        block_sigma = residual.reshape(200, 5, 200, 5).sum(axis=(1, 3))[whole].std() / 5.0
        assert whole.sum() > 5000
        assert 0.80 < pixel_sigma < 1.0
        assert abs(block_sigma - 1.0) < abs(pixel_sigma - 1.0)
        pairs = sky[:, 1:] & sky[:, :-1]
        lag_one = np.mean(residual[:, 1:][pairs] * residual[:, :-1][pairs]) / pixel_sigma**2
        assert 0.08 < lag_one < 0.25


def test_invvar_gives_catalogue_depth(brick: xr.Dataset) -> None:
    """Median invvar over N_eff is the point-source depth of the parent rows to 0.05 mag."""
    row = make_parent_rows(SKY, 3).iloc[0]
    n_eff_px = 4 * np.pi * (row["psfsize_r"] / FWHM_PER_SIGMA / PIXEL_SCALE_ARCSEC) ** 2
    ivar = float(brick["invvar"].sel(band="r").median()) / n_eff_px
    assert 22.5 - 2.5 * np.log10(5 / np.sqrt(ivar)) == pytest.approx(row["psfdepth_r"], abs=0.05)


def test_source_light_lowers_invvar(brick: xr.Dataset) -> None:
    """invvar falls with surface brightness as sky + source photons demand."""
    plane = brick.sel(band="r")
    image, invvar = plane["image"].values, plane["invvar"].values
    sky = np.median(invvar)
    bright = (image > 0.6) & (image < 3.0) & (invvar > 0)
    assert bright.sum() > 20
    assert np.median(sky / invvar[bright] / (1 + image[bright] / 0.30)) == pytest.approx(1.0, abs=0.05)


def test_host_flux_matches_catalogue_magnitude() -> None:
    """A sky with hosts less the same sky without them holds 10**((22.5 - mag) / 2.5) around each, to 2 %."""
    size, reach = 1200, 90
    sky = SyntheticSky(seed=4, brick_size_px=size, hosts_per_brick=12)
    brick, empty = make_brick(sky, 0), make_brick(SyntheticSky(seed=4, brick_size_px=size, hosts_per_brick=0), 0)
    rows = make_parent_rows(sky, 0)
    positions = host_pixels(brick, rows)
    measured = 0
    for (x, y), (_, row) in zip(positions, rows.iterrows(), strict=True):
        x0, y0 = round(x) - reach, round(y) - reach
        window = {axis: slice(start, start + 2 * reach + 1) for axis, start in (("x", x0), ("y", y0))}
        crowded = np.sum(np.abs(positions - [x, y]).max(axis=1) < 2 * reach) > 1
        if crowded or min(x0, y0) < 0 or max(x0, y0) + 2 * reach >= size or not brick["invvar"].isel(window).all():
            continue
        light = (brick["image"] - empty["image"]).isel(window).sum(("x", "y"), skipna=False)
        for band in "grz":
            expected = 10 ** (0.4 * (22.5 - row[f"{band}mag"]))
            assert float(light.sel(band=band)) == pytest.approx(expected, rel=0.02)
        measured += 1
    assert measured >= 2


def test_psfsize_is_equivalent_width_of_painted_stars() -> None:
    """N_eff of isolated unsaturated stars is that of the psfsize map, to 10 %."""
    sky = SyntheticSky(seed=8, brick_size_px=1000, hosts_per_brick=0, stars_per_brick=3000)
    brick = make_brick(sky, 1)
    for band in "grz":
        image = np.nan_to_num(brick["image"].sel(band=band).values)
        psfsize = brick["psfsize"].sel(band=band).values
        ratios = []
        for y, x in np.argwhere((image > 1.0) & (brick["maskbits"].values == 0)):
            window = image[y - 25 : y + 26, x - 25 : x + 26].copy()
            if window.shape != (51, 51) or image[y, x] < window.max():
                continue
            radius = np.hypot(*np.ogrid[-25:26, -25:26])
            stray = window[(radius > 12) & (radius < 25)]
            if stray.max() > 0.03 * image[y, x]:
                continue
            light = window[radius < 12] - np.median(stray)
            sigma_px = psfsize[y, x] / FWHM_PER_SIGMA / PIXEL_SCALE_ARCSEC
            ratios.append(light.sum() ** 2 / (light**2).sum() / (4 * np.pi * sigma_px**2))
        assert len(ratios) >= 5
        assert np.median(ratios) == pytest.approx(1.0, abs=0.1)


def test_seeing_lies_in_survey_range_and_varies_smoothly(brick: xr.Dataset) -> None:
    """psfsize is 1.0 to 1.7 arcsec where there are exposures and changes by < 0.005 arcsec per pixel."""
    seeing = brick["psfsize"].values
    covered = seeing > 0
    assert seeing[covered].min() >= 1.0
    assert seeing[covered].max() <= 1.7
    step = np.abs(np.diff(seeing, axis=2))[covered[:, :, 1:] & covered[:, :, :-1]]
    assert 0 < step.max() < 0.005


def test_pixels_without_exposure_are_empty_in_every_plane(brick: xr.Dataset) -> None:
    """Where psfsize is 0, image and invvar are 0 too, and every band has such a strip."""
    gap = brick["psfsize"].values == 0
    assert gap.any(axis=(1, 2)).all()
    assert (brick["invvar"].values[gap] == 0).all()
    assert (brick["image"].values[gap] == 0).all()


def test_brick_names_are_distinct_and_coordinates_lie_in_footprint() -> None:
    """5000 bricks have 5000 names that follow from ra and dec; dec is in [-30, 10] and never 0."""
    centres = [brick_centre(SKY, index) for index in range(5000)]
    assert len({name for name, _, _ in centres}) == 5000
    for name, ra_deg, dec_deg in centres:
        assert name == f"{int(ra_deg * 10):04d}{'m' if dec_deg < 0 else 'p'}{int(abs(dec_deg) * 10):03d}"
        assert 0 <= ra_deg < 360
        assert -30 <= dec_deg <= 10
        assert abs(dec_deg) >= 0.02


def test_successive_bricks_lie_far_apart() -> None:
    """Neighbours in index are at least 10 degrees apart, any two of 300 bricks more than 1 degree."""
    centres = np.radians([brick_centre(SKY, index)[1:] for index in range(300)])
    ra, dec = centres.T
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    separation = np.degrees(np.arccos(np.clip(vectors @ vectors.T, -1, 1)))
    assert np.diagonal(separation, offset=1).min() > 10
    assert separation[np.triu_indices(300, 1)].min() > 1


def test_parent_rows_have_contract_columns_and_consistent_colours() -> None:
    """Columns are those of the parent catalogue; colours are differences of the magnitudes."""
    rows = make_parent_rows(SKY, 7)
    expected = "ra dec brickname gmag rmag zmag w1mag rz zw1 ebv psfdepth_r psfsize_g psfsize_r psfsize_z objid"
    assert [*rows.columns] == [*expected.split(), "region_id", "region_split", "is_v3_color_relaxed"]
    assert len(rows) == SKY.hosts_per_brick
    assert (rows["brickname"] == brick_centre(SKY, 7)[0]).all()
    np.testing.assert_allclose(rows["rz"], rows["rmag"] - rows["zmag"], atol=1e-5)
    np.testing.assert_allclose(rows["zw1"], rows["zmag"] - rows["w1mag"], atol=1e-5)
    assert rows["rmag"].between(17.5, 20.5).all()
    assert (rows["gmag"] - rows["rmag"]).between(0.999, 1.801).all()
    assert (rows["is_v3_color_relaxed"] == ((rows["zmag"] < 20.4) & (rows["rz"] > 0.4) & (rows["zw1"] > 0.8))).all()
    assert rows["objid"].is_unique


def test_sky_without_hosts_has_an_empty_catalogue_with_columns() -> None:
    """hosts_per_brick=0 gives no rows and the same columns."""
    rows = make_parent_rows(SyntheticSky(seed=1, brick_size_px=400, hosts_per_brick=0), 0)
    assert rows.empty
    assert [*rows.columns] == [*make_parent_rows(SKY, 0).columns]


@pytest.mark.parametrize(
    "settings",
    [{"brick_size_px": 200}, {"bands": ("g", "y")}, {"bands": ()}, {"bands": ("r", "r")}, {"hosts_per_brick": -1}],
)
def test_impossible_sky_is_config_error(settings: dict[str, object]) -> None:
    """A setting outside its range is refused by name."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SyntheticSky(seed=1, **settings)  # type: ignore[arg-type]


def test_crowded_brick_is_config_error() -> None:
    """More hosts than a brick has room for are refused, not stacked."""
    with pytest.raises(ConfigError, match="no room for hosts_per_brick=500"):
        make_parent_rows(SyntheticSky(seed=1, brick_size_px=300, hosts_per_brick=500), 0)
