"""`dhs bank` as a user calls it: catalogue to bank, old bank to clean bank, noise to exit code 3."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import Result
from typer.testing import CliRunner

from pipeline.commands.bank import app
from pipeline.contracts.errors import ConfigError, GateError
from pipeline.storage.source_bank import read_bank

REPOSITORY = Path(__file__).parents[3]
COSMOS = REPOSITORY.parent / "shared" / "data" / "cosmos_btk"
SIZE = 64


def dhs_bank(*arguments: str | Path) -> Result:
    """The command, run to its end or its error."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def disc(size: int, hlr_px: float) -> np.ndarray:
    """A round exponential galaxy of unit flux."""
    rows, columns = np.indices((size, size))
    light = np.exp(-1.678 * np.hypot(rows - (size - 1) / 2, columns - (size - 1) / 2) / hlr_px)
    return light / light.sum()


@pytest.fixture
def catalogue(tmp_path: Path) -> list[str | Path]:
    """Options that name a catalogue of four galaxies on a background and one empty stamp."""
    generator = np.random.default_rng(3)
    pictures = [disc(SIZE, hlr_px) + 1e-4 for hlr_px in (5.0, 6.0, 7.0, 8.0)] + [np.zeros((SIZE, SIZE))]
    pictures = [picture + generator.normal(scale=1e-4, size=picture.shape) for picture in pictures]
    rows, columns = np.indices((31, 31))
    psf = np.exp(-((rows - 15) ** 2 + (columns - 15) ** 2) / (2 * 1.5**2))
    for name, first, others in (("images", pictures[0], pictures[1:]), ("psfs", psf, [psf] * 4)):
        fits.HDUList([fits.PrimaryHDU(first), *map(fits.ImageHDU, others)]).writeto(tmp_path / f"{name}.fits")
    table = {"IDENT": range(5), "MAG": [24.0] * 5, "BAND": ["F814W"] * 5, "PIXEL_SCALE": [0.03] * 5}
    for kind, name in (("GAL", "images"), ("PSF", "psfs")):
        table |= {f"{kind}_FILENAME": [f"{name}.fits"] * 5, f"{kind}_HDU": range(5)}
    Table(table).write(tmp_path / "catalogue.fits")
    options: list[str | Path] = ["--fits-catalogue", tmp_path / "catalogue.fits"]
    return [*options, "--images", tmp_path / "images.fits", "--psfs", tmp_path / "psfs.fits"]


def write_emr_bank(path: Path, images: np.ndarray) -> None:
    """A bank with the EMR system's fields only."""
    with h5py.File(path, "w") as file:
        file["images"] = (images / images.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
        file["meta/index"] = np.arange(len(images))
        file["meta/hlr_arcsec"] = np.full(len(images), 1.1, dtype=np.float32)
        file["meta/clumpiness"] = np.full(len(images), 0.6, dtype=np.float32)
        file.attrs.update(src_pixscale_arcsec=0.03, stamp_size=96, created_utc="then", galaxy_kind="parametric")


def clipped(image: np.ndarray, noise: float, n_templates: int) -> np.ndarray:
    """Copies of a picture under noise, negatives clipped."""
    generator = np.random.default_rng(8)
    return np.maximum(image + generator.normal(scale=noise, size=(n_templates, 96, 96)), 0.0)


def test_catalogue_becomes_a_bank_that_passes_inspection(tmp_path: Path, catalogue: list[str | Path]) -> None:
    """Four of five galaxies are usable; the same input gives the same digest; inspection writes three files."""
    done = dhs_bank("build", *catalogue, "-o", tmp_path / "bank.h5")
    assert done.exit_code == 0, done.output
    bank = read_bank(tmp_path / "bank.h5")
    assert bank.usable.tolist() == [True] * 4 + [False]
    assert bank.hlr_arcsec[:4] == pytest.approx(0.03 * np.array([5.0, 6.0, 7.0, 8.0]), rel=0.06)
    assert bank.psf_fwhm_arcsec == pytest.approx(0.03 * 2.3548 * 1.5, rel=0.02)
    assert bank.galaxy_kind == "observed F814W" and "images.fits sha256:" in bank.source
    assert "4 (80.0%)" in done.output and "bank.h5" in done.output
    dhs_bank("build", *catalogue, "--pixscale", "0.03", "-o", tmp_path / "again.h5")
    assert read_bank(tmp_path / "again.h5").digest == bank.digest
    seen = dhs_bank("inspect", tmp_path / "bank.h5", "-o", tmp_path / "sheet")
    assert seen.exit_code == 0
    assert "galaxies, not pedestals" in seen.output
    assert {path.name for path in (tmp_path / "sheet").iterdir()} == {"contact_sheet.png", "index.html", "quality.json"}


def test_only_usable_templates_for_readers_without_the_flag(tmp_path: Path, catalogue: list[str | Path]) -> None:
    """The rejected galaxy is not in the file, and the limits asked for are applied."""
    options = ("--only-usable", "--stamp-size", "56", "--max-hlr", "0.2", "-o", tmp_path / "bank.h5")
    dhs_bank("build", *catalogue, *options)
    bank = read_bank(tmp_path / "bank.h5")
    assert bank.images.shape == (2, 56, 56) and bank.usable.all()


def test_noise_bank_ends_with_exit_code_3(tmp_path: Path) -> None:
    """The sheet is written, so that a person can see why, and the error is a failed gate."""
    write_emr_bank(tmp_path / "noise.h5", clipped(np.zeros((96, 96)), 1.0, 6))
    seen = dhs_bank("inspect", tmp_path / "noise.h5", "-o", tmp_path / "sheet")
    assert isinstance(seen.exception, GateError) and seen.exception.exit_code == 3
    numbers = json.loads((tmp_path / "sheet" / "quality.json").read_text())
    assert numbers["pedestal_dominated"] and numbers["median"]["hlr_arcsec"] == pytest.approx(1.16, abs=0.02)
    built = dhs_bank("build", "--hdf5", tmp_path / "noise.h5", "-o", tmp_path / "clean.h5")
    assert isinstance(built.exception, GateError) and "no usable template" in str(built.exception)
    assert not (tmp_path / "clean.h5").exists()


def test_old_bank_is_cleaned(tmp_path: Path) -> None:
    """Galaxies buried in clipped noise fail inspection as they are, and pass it once cleaned."""
    write_emr_bank(tmp_path / "old.h5", clipped(disc(96, 7.0), 6e-4, 5))
    assert isinstance(dhs_bank("inspect", tmp_path / "old.h5", "-o", tmp_path / "a").exception, GateError)
    done = dhs_bank("build", "--hdf5", tmp_path / "old.h5", "-o", tmp_path / "clean.h5")
    assert done.exit_code == 0, done.output
    assert dhs_bank("inspect", tmp_path / "clean.h5", "-o", tmp_path / "b").exit_code == 0
    clean = read_bank(tmp_path / "clean.h5")
    assert np.median(clean.hlr_arcsec) == pytest.approx(0.21, rel=0.1)
    assert clean.columns["pedestal_fraction"].min() > 0.5
    assert "old.h5 digest" in clean.source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --fits-catalogue"),
        (["--fits-catalogue", "c.fits", "--images", "i.fits"], "expected --fits-catalogue"),
        (["--hdf5", "a.h5", "--images", "i.fits"], "got both"),
        (["--hdf5", "a.h5", "--stamp-size", "31"], "stamp_size_px 31"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    """Before anything is read."""
    done = dhs_bank("build", *options, "-o", tmp_path / "bank.h5")
    assert isinstance(done.exception, ConfigError) and message in str(done.exception)


def test_another_pixel_scale_is_refused(tmp_path: Path) -> None:
    """A bank is not resampled."""
    write_emr_bank(tmp_path / "old.h5", clipped(disc(96, 7.0), 1e-4, 2))
    done = dhs_bank("build", "--hdf5", tmp_path / "old.h5", "--pixscale", "0.05", "-o", tmp_path / "new.h5")
    assert isinstance(done.exception, ConfigError) and "0.05" in str(done.exception)


@pytest.mark.skipif(not COSMOS.is_dir(), reason=f"real galaxies are not here: {COSMOS}")
def test_real_galaxies(tmp_path: Path) -> None:
    """100 HST galaxies: most are usable, sizes agree with the catalogue's own, the PSF is that of ACS."""
    catalogue = COSMOS / "real_galaxy_catalog_26_extension_example.fits"
    photometry = COSMOS / "real_galaxy_catalog_26_extension_example_fits.fits"
    options: list[str | Path] = ["--fits-catalogue", catalogue, "--photometry", photometry]
    options += ["--images", COSMOS / "real_galaxy_images_extension.fits"]
    options += ["--psfs", COSMOS / "real_galaxy_PSF_images_extension.fits", "--pixscale", "0.03"]
    assert dhs_bank("build", *options, "-o", tmp_path / "bank.h5").exit_code == 0
    bank = read_bank(tmp_path / "bank.h5")
    assert bank.images.shape == (100, 96, 96)
    assert 75 <= bank.usable.sum() <= 95
    assert 0.1 < bank.psf_fwhm_arcsec < 0.12
    table = fits.getdata(photometry, 1)
    radius_arcsec = dict(zip(table["IDENT"].tolist(), (0.03 * table["flux_radius"]).tolist(), strict=True))
    index = bank.columns["index"][bank.usable].tolist()
    ratio = bank.hlr_arcsec[bank.usable] / np.array([radius_arcsec[identity] for identity in index])
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert np.isfinite(bank.redshift).sum() >= 95
    assert dhs_bank("inspect", tmp_path / "bank.h5", "-o", tmp_path / "sheet").exit_code == 0
