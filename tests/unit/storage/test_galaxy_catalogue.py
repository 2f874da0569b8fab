"""GalSim-style catalogues: rows meet their pixels, and files that do not fit together are named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from pipeline.contracts.errors import ContractError
from pipeline.storage.galaxy_catalogue import open_galaxy_catalogue
from pipeline.storage.locations import Location


def write_pictures(path: Path, values: list[float], shape: tuple[int, int]) -> None:
    """One picture of constant value per HDU, stored as big-endian float64 as FITS does."""
    first, *others = [np.full(shape, value) for value in values]
    fits.HDUList([fits.PrimaryHDU(first), *(fits.ImageHDU(other) for other in others)]).writeto(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three galaxies in two image files, one PSF file, a catalogue and photometry for two of them."""
    write_pictures(tmp_path / "a.fits", [1.0, 2.0], (20, 24))
    write_pictures(tmp_path / "b.fits", [3.0], (30, 30))
    write_pictures(tmp_path / "psf.fits", [0.1, 0.2, 0.3], (9, 7))
    table = Table(
        {
            "IDENT": [30, 10, 20],
            "MAG": [23.0, 24.0, 25.0],
            "BAND": ["F814W"] * 3,
            "GAL_FILENAME": ["b.fits", "a.fits", "a.fits"],
            "GAL_HDU": [0, 1, 0],
            "PSF_FILENAME": ["psf.fits"] * 3,
            "PSF_HDU": [2, 0, 1],
            "PIXEL_SCALE": [0.03] * 3,
            "NOISE_VARIANCE": [4e-6, 0.0, 9e-6],
        }
    )
    table.write(tmp_path / "catalogue.fits")
    Table({"IDENT": [20, 10], "ZPHOT": [1.5, -9.0]}).write(tmp_path / "photometry.fits")
    return tmp_path


def at(folder: Path, *names: str) -> list[Location]:
    """Locations of files of the folder."""
    return [Location(str(folder / name)) for name in names]


def test_rows_meet_their_pixels(folder: Path) -> None:
    """Each galaxy has the picture, PSF, noise, magnitude and redshift of its own row; each file is read in one go."""
    catalogue, photometry = at(folder, "catalogue.fits", "photometry.fits")
    place = Location(str(folder))
    found = open_galaxy_catalogue(catalogue, place, place, photometry)
    assert (found.n_galaxies, found.bands, found.pixel_scale_arcsec) == (3, ("F814W",), 0.03)
    stamps = {stamp.index: stamp for stamp in found.stamps()}
    assert list(stamps) == [20, 10, 30]
    assert {index: float(stamp.image[0, 0]) for index, stamp in stamps.items()} == {20: 1.0, 10: 2.0, 30: 3.0}
    psfs = {index: float(stamp.psf[0, 0]) for index, stamp in stamps.items() if stamp.psf is not None}
    assert psfs == pytest.approx({10: 0.1, 20: 0.2, 30: 0.3})
    assert stamps[10].image.dtype == np.dtype("=f4") and stamps[10].image.shape == (20, 24)
    assert stamps[30].noise_sigma == pytest.approx(0.002) and math.isnan(stamps[10].noise_sigma)
    assert stamps[20].redshift == 1.5 and math.isnan(stamps[10].redshift) and math.isnan(stamps[30].redshift)
    assert stamps[20].mag == 25.0
    for name in ("a.fits", "b.fits", "psf.fits", "catalogue.fits", "photometry.fits"):
        assert f"{name} sha256:" in found.source


def test_a_single_file_may_be_given_by_another_name(folder: Path) -> None:
    """Where the catalogue names one PSF file, that file is given itself, whatever it is called."""
    (folder / "psf.fits").rename(folder / "renamed.fits")
    catalogue, psfs = at(folder, "catalogue.fits", "renamed.fits")
    assert len(list(open_galaxy_catalogue(catalogue, Location(str(folder)), psfs).stamps())) == 3


def test_several_files_need_their_folder(folder: Path) -> None:
    """One image file cannot stand for two."""
    catalogue, images = at(folder, "catalogue.fits", "a.fits")
    with pytest.raises(ContractError, match=r"a\.fits: the catalogue names 2 files"):
        open_galaxy_catalogue(catalogue, images)


def test_pixel_scale_is_checked_not_resampled(folder: Path) -> None:
    """A scale other than asked for is refused, and so is none at all."""
    (catalogue,) = at(folder, "catalogue.fits")
    with pytest.raises(ContractError, match=r"PIXEL_SCALE: expected 0\.05 arcsec"):
        open_galaxy_catalogue(catalogue, Location(str(folder)), pixel_scale_arcsec=0.05)
    table = Table.read(folder / "catalogue.fits")
    table.remove_column("PIXEL_SCALE")
    table.write(folder / "catalogue.fits", overwrite=True)
    with pytest.raises(ContractError, match="no column PIXEL_SCALE"):
        open_galaxy_catalogue(catalogue, Location(str(folder)))
    assert open_galaxy_catalogue(catalogue, Location(str(folder)), pixel_scale_arcsec=0.05).pixel_scale_arcsec == 0.05


def test_missing_columns_are_listed(folder: Path) -> None:
    """All of them, with the file."""
    photometry, psfs = at(folder, "photometry.fits", "psf.fits")
    with pytest.raises(ContractError, match=r"photometry\.fits: missing columns GAL_FILENAME, GAL_HDU, PSF_FILENAME"):
        open_galaxy_catalogue(photometry, Location(str(folder)), psfs)
    catalogue, images = at(folder, "catalogue.fits", "a.fits")
    with pytest.raises(ContractError, match=r"a\.fits: expected a FITS binary table"):
        open_galaxy_catalogue(catalogue, Location(str(folder)), photometry=images)


@pytest.mark.parametrize("content", [None, b"", b"SIMPLE  = not really", "cut"])
def test_broken_image_files_are_named(folder: Path, content: bytes | str | None) -> None:
    """A file that is absent, empty, of another format or cut short is a contract error, whatever astropy raises."""
    path = folder / "a.fits"
    whole = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(whole[:4000] if isinstance(content, str) else content)
    (catalogue,) = at(folder, "catalogue.fits")
    with pytest.raises(ContractError, match=r"a\.fits"):
        list(open_galaxy_catalogue(catalogue, Location(str(folder))).stamps())


def test_an_hdu_that_is_not_there_is_named(folder: Path) -> None:
    """The HDU is in the message."""
    write_pictures(folder / "short.fits", [1.0], (20, 20))
    (folder / "short.fits").replace(folder / "a.fits")
    (catalogue,) = at(folder, "catalogue.fits")
    with pytest.raises(ContractError, match=r"a\.fits: HDU 1 cannot be read"):
        list(open_galaxy_catalogue(catalogue, Location(str(folder))).stamps())
