"""Files of a brick: bytes, compression, headers and what decoders get back."""

from __future__ import annotations

import io
from pathlib import Path

import fitsio
import fsspec
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from fsspec.implementations.local import LocalFileSystem

from pipeline.contracts.errors import ConfigError, ContractError, StorageError
from pipeline.contracts.survey import MASKBITS
from pipeline.stages.synthetic_sky import make_brick
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.brick_writer import brick_header_cards, serialise_coadd, write_brick

SKY = SyntheticSky(seed=3, brick_size_px=300)
FILES = [(kind, band) for kind in ("image", "invvar", "psfsize") for band in "grz"]


@pytest.fixture(scope="module")
def brick() -> xr.Dataset:
    """A synthetic brick of 300 px."""
    return make_brick(SKY, 0)


@pytest.fixture(scope="module")
def folder(brick: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The brick's folder, cache layout."""
    root = tmp_path_factory.mktemp("coadds")
    write_brick(LocalFileSystem(), str(root), "cache", brick)
    return root / str(brick.attrs["brickname"])


def coadd_path(folder: Path, kind: str, band: str | None) -> Path:
    """Path of one file of the survey's name."""
    return folder / f"legacysurvey-{folder.name}-{kind}{'' if band is None else f'-{band}'}.fits.fz"


def raw_header(path: Path) -> fits.Header:
    """Header of the binary table that holds the compressed image."""
    with fits.open(path, disable_image_compression=True) as hdus:
        assert len(hdus) == 2
        assert hdus[0].header["NAXIS"] == 0
        header: fits.Header = hdus[1].header
        return header


def test_cache_layout_ends_with_success_marker(brick: xr.Dataset, tmp_path: Path) -> None:
    """cache/ holds ten coadds and an empty _SUCCESS, which is written last."""
    written = write_brick(LocalFileSystem(), str(tmp_path), "cache", brick)
    name = brick.attrs["brickname"]
    assert written[-1] == f"{name}/_SUCCESS"
    assert written[-2] == f"{name}/legacysurvey-{name}-maskbits.fits.fz"
    assert len(written) == 11
    assert sorted(written) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert (tmp_path / written[-1]).stat().st_size == 0


def test_public_layout_has_three_character_folder_and_no_marker(brick: xr.Dataset, tmp_path: Path) -> None:
    """public/ is <AAA>/<brick>/ without _SUCCESS."""
    written = write_brick(LocalFileSystem(), f"{tmp_path}/", "public", brick)
    name = brick.attrs["brickname"]
    assert len(written) == 10
    assert all(path.startswith(f"{name[:3]}/{name}/legacysurvey-{name}-") for path in written)


def test_same_brick_gives_same_bytes(brick: xr.Dataset) -> None:
    """A brick made and written twice, to memory, is byte-identical; another seed is not."""
    contents = []
    for number, dataset in enumerate((brick, make_brick(SKY, 0), make_brick(SyntheticSky(4, 300), 0))):
        fs = fsspec.filesystem("memory")
        written = write_brick(fs, f"/run{number}", "public", dataset)
        contents.append([fs.cat_file(f"/run{number}/{path}") for path in written])
        fs.rm(f"/run{number}", recursive=True)
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize(("kind", "band"), FILES)
def test_planes_survive_within_quantisation(brick: xr.Dataset, folder: Path, kind: str, band: str) -> None:
    """image is right to 1e-4 nmgy with its NaN, invvar to 1 % of its own value with its zeros, psfsize exactly."""
    truth = brick[kind].sel(band=band).values
    pixels = fits.getdata(coadd_path(folder, kind, band), 1)
    assert pixels.dtype.kind == "f"
    np.testing.assert_array_equal(np.isnan(pixels), np.isnan(truth))
    if kind == "image":
        assert np.isnan(pixels).any()
        np.testing.assert_allclose(pixels, truth, rtol=0, atol=1e-4, equal_nan=True)
    elif kind == "invvar":
        np.testing.assert_array_equal(pixels == 0, truth == 0)
        np.testing.assert_allclose(pixels, truth, rtol=0.01, atol=0.002 * np.median(truth))
        assert pixels.min() == 0
    else:
        np.testing.assert_array_equal(pixels, truth)


def test_maskbits_survive_exactly(brick: xr.Dataset, folder: Path) -> None:
    """HCOMPRESS returns every mask bit as int32."""
    pixels = fits.getdata(coadd_path(folder, "maskbits", None), 1)
    assert pixels.dtype.newbyteorder("=") == np.int32
    np.testing.assert_array_equal(pixels, brick["maskbits"].values)


@pytest.mark.parametrize(("kind", "band"), [("image", "r"), ("invvar", "z"), ("psfsize", "g"), ("maskbits", None)])
def test_cfitsio_decodes_the_same_pixels(folder: Path, kind: str, band: str | None) -> None:
    """CFITSIO, which wrote the survey, decodes our files to astropy's pixels, dither included."""
    path = coadd_path(folder, kind, band)
    np.testing.assert_array_equal(fitsio.read(str(path), ext=1), fits.getdata(path, 1))


@pytest.mark.parametrize(
    ("kind", "band", "compression", "quantisation"),
    [
        ("image", "r", "RICE_1", "SUBTRACTIVE_DITHER_2"),
        ("invvar", "r", "RICE_1", None),
        ("psfsize", "r", "GZIP_2", None),
        ("maskbits", None, "HCOMPRESS_1", None),
    ],
)
def test_raw_header_states_survey_compression(
    folder: Path, kind: str, band: str | None, compression: str, quantisation: str | None
) -> None:
    """ZCMPTYPE, ZQUANTIZ and the 100 x 100 tiles are those of the survey."""
    header = raw_header(coadd_path(folder, kind, band))
    assert header["ZCMPTYPE"] == compression
    assert header.get("ZQUANTIZ") == quantisation
    assert (header["ZTILE1"], header["ZTILE2"]) == (100, 100)
    assert (header["ZNAXIS1"], header["ZNAXIS2"]) == (300, 300)
    assert ("ZDITHER0" in header) == (kind == "image")
    assert not {"DATE", "CHECKSUM", "DATASUM"} & set(header)


def test_image_step_is_absolute(folder: Path) -> None:
    """Every image tile that is quantised uses the step 1e-4 nmgy."""
    with fits.open(coadd_path(folder, "image", "g"), disable_image_compression=True) as hdus:
        steps = hdus[1].data["ZSCALE"]
    np.testing.assert_allclose(steps, 1e-4)


def test_dither_seed_differs_between_bands_and_bricks(brick: xr.Dataset) -> None:
    """Each file has a dither seed of its own in 1..10000."""
    seeds = set()
    for name in ("0001m001", "0002m002"):
        for band in "grz":
            content = serialise_coadd(brick.assign_attrs(brickname=name), "image", band)
            with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
                seeds.add(hdus[1].header["ZDITHER0"])
    assert len(seeds) == 6
    assert min(seeds) >= 1
    assert max(seeds) <= 10_000


def test_lossless_tiles_carry_no_time(folder: Path) -> None:
    """Every gzip member of psfsize has modification time 0, so that bytes do not depend on the clock."""
    with fits.open(coadd_path(folder, "psfsize", "r"), disable_image_compression=True) as hdus:
        tiles = hdus[1].data["COMPRESSED_DATA"]
        assert len(tiles) == 9
        assert all(tile[:8].tolist() == [0x1F, 0x8B, 8, 0, 0, 0, 0, 0] for tile in tiles)


def test_tiles_that_cannot_be_quantised_are_lossless_and_timeless(brick: xr.Dataset) -> None:
    """A constant invvar tile falls back to gzip, comes back exactly, and its gzip header carries no time."""
    flat = brick.copy(deep=True)
    flat["invvar"][:, :100, :100] = 123.456
    content = serialise_coadd(flat, "invvar", "g")
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        assert hdus[1].data["GZIP_COMPRESSED_DATA"][0][:8].tolist() == [0x1F, 0x8B, 8, 0, 0, 0, 0, 0]
    assert (fits.getdata(io.BytesIO(content), 1)[:100, :100] == np.float32(123.456)).all()


def test_header_gives_grid_unit_and_mask_names(brick: xr.Dataset, folder: Path) -> None:
    """The header puts the brick's centre at the middle of the grid, +x to the West, and names units and bits."""
    header = fits.getheader(coadd_path(folder, "invvar", "z"), 1)
    assert (header["BRICK"], header["FILTER"], header["BAND"]) == (brick.attrs["brickname"], "z", "z")
    assert (header["BUNIT"], header["MAGZERO"]) == ("1/nanomaggy^2", 22.5)
    wcs = WCS(header)
    centre = wcs.wcs_pix2world([[149.5, 149.5], [150.5, 149.5]], 0)
    np.testing.assert_allclose(centre[0], [brick.attrs["ra_deg"], brick.attrs["dec_deg"]], atol=1e-9)
    assert centre[1, 0] < centre[0, 0]
    mask_header = fits.getheader(coadd_path(folder, "maskbits", None), 1)
    assert {mask_header[f"MBIT_{bit}"]: bit for bit in MASKBITS.values()} == MASKBITS
    assert "FILTER" not in mask_header


def test_header_cards_depend_on_kind(brick: xr.Dataset) -> None:
    """BUNIT follows the kind of coadd."""
    units = {kind: {card[0]: card[1] for card in brick_header_cards(brick, kind, "g")}["BUNIT"] for kind, _ in FILES}
    assert units == {"image": "nanomaggy", "invvar": "1/nanomaggy^2", "psfsize": "arcsec"}


def test_side_that_breaks_tiles_is_config_error(brick: xr.Dataset, tmp_path: Path) -> None:
    """A side that is no multiple of 100 px is refused before anything is written."""
    with pytest.raises(ConfigError, match="multiple of 100 px, square, got 250 x 250"):
        write_brick(LocalFileSystem(), str(tmp_path), "cache", brick.isel(y=slice(250), x=slice(250)))
    assert not any(tmp_path.iterdir())


def test_unknown_layout_is_config_error(brick: xr.Dataset, tmp_path: Path) -> None:
    """Layouts are cache and public."""
    with pytest.raises(ConfigError, match="got 'flat'"):
        write_brick(LocalFileSystem(), str(tmp_path), "flat", brick)


def test_brick_that_breaks_contract_names_every_problem(brick: xr.Dataset, tmp_path: Path) -> None:
    """A missing plane, a wrong dtype and a missing attribute are all in one message."""
    broken = brick.drop_vars("psfsize").assign(image=brick["image"].astype("float64"))
    del broken.attrs["ra_deg"]
    with pytest.raises(ContractError, match=r"(?s)ra_deg.*image: expected.*float64.*psfsize"):
        write_brick(LocalFileSystem(), str(tmp_path), "cache", broken)


def test_write_failure_names_the_file(brick: xr.Dataset, tmp_path: Path) -> None:
    """A path that cannot be written becomes StorageError with that path, and no _SUCCESS follows."""
    name = brick.attrs["brickname"]
    blocked = tmp_path / name / f"legacysurvey-{name}-image-r.fits.fz"
    blocked.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"image-r\.fits\.fz"):
        write_brick(LocalFileSystem(), str(tmp_path), "cache", brick)
    assert not (tmp_path / name / "_SUCCESS").exists()


def test_root_that_is_a_file_is_storage_error(brick: xr.Dataset, tmp_path: Path) -> None:
    """A root below a plain file cannot hold folders."""
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="cannot make folder"):
        write_brick(LocalFileSystem(), str(tmp_path / "file"), "cache", brick)
