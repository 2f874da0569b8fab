"""Banks on disk: what was written comes back, EMR files are accepted, broken ones are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import BANK_COLUMNS, TEMPLATE_REJECT_REASONS, SourceBank, bank_digest
from pipeline.storage.locations import Location
from pipeline.storage.source_bank import bank_stamps, read_bank, write_bank

SIZE = 32


def unit_images(n_templates: int) -> np.ndarray:
    """Random positive templates of unit sum."""
    images = np.random.default_rng(7).random((n_templates, SIZE, SIZE))
    return (images / images.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


@pytest.fixture
def bank() -> SourceBank:
    """Three templates, the last rejected and dark."""
    images = unit_images(3)
    images[2] = 0.0
    columns = {column.name: np.arange(3).astype(column.dtype) for column in BANK_COLUMNS}
    columns["usable"] = np.array([1, 1, 0], dtype=np.uint8)
    columns["reject_reason"] = np.array([0, 0, 2], dtype=np.uint8)
    columns["redshift"] = np.array([0.8, np.nan, 1.4], dtype=np.float32)
    return SourceBank(
        images, columns, 0.03, 0.108, "observed F814W", "cat.fits", "2026-01-01", bank_digest(images, columns, 0.03)
    )


@pytest.fixture
def emr_file(tmp_path: Path) -> Path:
    """A file with the datasets and attributes of the EMR system and nothing else."""
    path = tmp_path / "emr.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=unit_images(4), compression="gzip", compression_opts=4, shuffle=True)
        file["meta/index"] = np.arange(4, dtype=np.int64)
        file["meta/hlr_arcsec"] = np.full(4, 0.3, dtype=np.float32)
        file["meta/clumpiness"] = np.full(4, 0.5, dtype=np.float32)
        file.attrs.update(
            src_pixscale_arcsec=0.03, stamp_size=SIZE, created_utc=b"2026-01-01T00:00:00", galaxy_kind="parametric"
        )
    return path


def test_round_trip(tmp_path: Path, bank: SourceBank) -> None:
    """Every pixel, column and attribute comes back."""
    location = Location(str(tmp_path / "bank.h5"))
    write_bank(location, bank, "1.0+abc")
    again = read_bank(location)
    np.testing.assert_array_equal(again.images, bank.images)
    assert again.images.dtype == np.float32
    for column in BANK_COLUMNS:
        np.testing.assert_array_equal(again.columns[column.name], bank.columns[column.name])
        assert again.columns[column.name].dtype == column.dtype
    assert replace(again, images=bank.images, columns=bank.columns) == bank


def test_file_is_an_emr_bank_with_additions(tmp_path: Path, bank: SourceBank) -> None:
    """Names, dtypes, compression and attributes that the EMR reader needs are there, and flags explain themselves."""
    path = tmp_path / "bank.h5"
    write_bank(Location(str(path)), bank, "1.0+abc")
    with h5py.File(path, "r") as file:
        images = file["images"]
        assert (images.dtype, images.compression, images.compression_opts, images.shuffle) == ("f4", "gzip", 4, True)
        assert (file["meta/index"].dtype, file["meta/hlr_arcsec"].dtype) == ("i8", "f4")
        assert file.attrs["src_pixscale_arcsec"] == 0.03 and file.attrs["stamp_size"] == SIZE
        assert file.attrs["code_version"] == "1.0+abc" and file.attrs["psf_fwhm_arcsec"] == 0.108
        reasons = file["meta/reject_reason"].attrs
        assert tuple(reasons["flag_meanings"].split()) == TEMPLATE_REJECT_REASONS
        assert reasons["flag_values"].tolist() == list(range(len(TEMPLATE_REJECT_REASONS)))
        assert file["meta/hlr_arcsec"].attrs["unit"] == "arcsec"


def test_bank_of_the_emr_system_is_accepted(emr_file: Path) -> None:
    """Added columns are unknown, every template is usable, and its path may be given as it is."""
    found = read_bank(emr_file)
    assert found.usable.all() and not found.columns["reject_reason"].any()
    assert np.isnan(found.mag).all() and np.isnan(found.redshift).all()
    assert math.isnan(found.psf_fwhm_arcsec)
    assert (found.pixel_scale_arcsec, found.created_utc) == (0.03, "2026-01-01T00:00:00")
    assert len(found.digest) == 64


def test_stamps_of_a_bank_leave_dark_templates_out(bank: SourceBank) -> None:
    """What is cleaned again carries index, magnitude, redshift and resolution along."""
    bank.columns["psf_fwhm_arcsec"] = np.array([0.11, np.nan, 0.1], dtype=np.float32)
    stamps = list(bank_stamps(bank))
    assert [stamp.index for stamp in stamps] == [0, 1]
    assert [stamp.psf_fwhm_arcsec for stamp in stamps] == pytest.approx([0.11, 0.108])
    assert stamps[0].redshift == pytest.approx(0.8) and math.isnan(stamps[1].redshift)


def change(name: str, values: object) -> Callable[[h5py.File], None]:
    """Replace a dataset."""

    def replace_dataset(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return replace_dataset


def drop(name: str) -> Callable[[h5py.File], None]:
    """Remove a dataset."""

    def remove(file: h5py.File) -> None:
        del file[name]

    return remove


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    """Set an attribute, or remove it."""

    def set_attribute(file: h5py.File) -> None:
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    return set_attribute


def negative_pixel(file: h5py.File) -> None:
    """Move light so that one pixel is negative and the sum stays 1."""
    image = file["images"][2]
    image[3, 3] -= 0.5
    image[4, 4] += 0.5
    file["images"][2] = image


def not_a_number(file: h5py.File) -> None:
    """One pixel without value."""
    file["images"][1, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("images"), "missing dataset images"),
        (drop("meta/hlr_arcsec"), "missing dataset meta/hlr_arcsec"),
        (attribute("src_pixscale_arcsec", None), "missing attributes src_pixscale_arcsec"),
        (attribute("src_pixscale_arcsec", -0.03), "src_pixscale_arcsec: expected a length"),
        (attribute("src_pixscale_arcsec", "small"), "expected one number"),
        (attribute("stamp_size", 96), "attribute stamp_size"),
        (attribute("schema_version", 99), "schema_version: expected at most"),
        (attribute("digest", "0" * 64), "attribute digest"),
        (change("images", unit_images(4).astype(np.float64)), "dataset images: expected float32, got float64"),
        (change("images", np.zeros((4, 32, 30), np.float32)), r"dataset images: expected \(N, S, S\)"),
        (change("images", np.zeros((4, 31, 31), np.float32)), r"dataset images: expected \(N, S, S\)"),
        (change("images", 2 * unit_images(4)), "dataset images: expected sum 1 within 0.0001.*in row 0"),
        (change("images", np.zeros((4, 32, 32), np.float32)), "dataset images: expected sum 1"),
        (negative_pixel, "dataset images: expected values >= 0.*in row 2"),
        (not_a_number, "dataset images: expected finite values.*in row 1"),
        (change("meta/index", np.arange(3)), r"dataset meta/index: expected int64 of shape \(4,\)"),
        (change("meta/clumpiness", np.array([b"a"] * 4)), "dataset meta/clumpiness: expected float32"),
        (change("meta/hlr_arcsec", np.full(4, np.nan, np.float32)), "dataset meta/hlr_arcsec: expected finite"),
    ],
)
def test_a_broken_file_is_named_with_its_dataset(
    emr_file: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    """The error says which file and what in it."""
    with h5py.File(emr_file, "r+") as file:
        damage(file)
    with pytest.raises(ContractError, match=message) as caught:
        read_bank(emr_file)
    assert "emr.h5" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("usable", np.array([1, 1, 2, 1], np.uint8), "meta/usable: expected 0 and 1"),
        ("reject_reason", np.array([0, 2, 0, 0], np.uint8), "flag_meanings"),
    ],
)
def test_flags_without_meaning_are_refused(emr_file: Path, name: str, values: np.ndarray, message: str) -> None:
    """Codes that nothing explains are not guessed."""
    with h5py.File(emr_file, "r+") as file:
        file[f"meta/{name}"] = values
    with pytest.raises(ContractError, match=message):
        read_bank(emr_file)


def test_files_that_are_no_banks(tmp_path: Path, emr_file: Path) -> None:
    """Nothing there, another format, and a file cut short are contract errors."""
    with pytest.raises(ContractError, match="found nothing there"):
        read_bank(tmp_path / "absent.h5")
    text = tmp_path / "text.h5"
    text.write_text("not a bank")
    with pytest.raises(ContractError, match="text.h5: expected an HDF5 source bank"):
        read_bank(text)
    emr_file.write_bytes(emr_file.read_bytes()[:3000])
    with pytest.raises(ContractError, match="expected an HDF5 source bank"):
        read_bank(emr_file)


def test_a_bank_that_breaks_its_contract_is_not_written(tmp_path: Path, bank: SourceBank) -> None:
    """A usable template without unit sum stops the writer before the file exists."""
    bank.images[0] *= 2
    with pytest.raises(ContractError, match="dataset images"):
        write_bank(Location(str(tmp_path / "bank.h5")), bank, "1.0")
    assert not list(tmp_path.iterdir())
