"""Stamps of other programs: bands in the order asked for, positions from the file, nothing guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.contracts.errors import ContractError
from pipeline.storage.locations import Location
from pipeline.storage.stamp_folder import read_stamp_folder

IMAGE = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)


def write_service_file(path: Path, bands: str = "grz", **cards: object) -> None:
    """A file as the survey's cutout service writes it."""
    header = fits.Header()
    header["BANDS"] = bands
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = 59.1, -30.4, 4.5, 4.5
    header["CDELT1"], header["CDELT2"] = -0.262 / 3600, 0.262 / 3600
    header.update(cards)
    fits.PrimaryHDU(IMAGE, header).writeto(path)


def test_fits_of_the_cutout_service(tmp_path: Path) -> None:
    """Bands by the header's letters, position by its WCS, or by RA and DEC where they are."""
    write_service_file(tmp_path / "a.fits")
    write_service_file(tmp_path / "b.fits", RA=10.0, DEC=5.0)
    stamps = read_stamp_folder(Location(str(tmp_path)), ("z", "g"))
    assert stamps.names == ["a.fits", "b.fits"]
    assert stamps.ra_deg.tolist() == [59.1, 10.0]
    assert stamps.dec_deg.tolist() == [-30.4, 5.0]
    np.testing.assert_array_equal(stamps.images[0], IMAGE[[2, 0]])
    assert stamps.images[0].dtype == np.float32
    assert stamps.images[0].dtype.isnative


def test_npz_with_one_and_with_many_stamps(tmp_path: Path) -> None:
    """Both shapes are read, file by file in the order of their names."""
    np.savez(tmp_path / "one.npz", image=IMAGE, ra_deg=1.0, dec_deg=2.0, bands=np.array(["g", "r", "z"]))
    np.savez(tmp_path / "two.npz", image=np.stack([IMAGE, -IMAGE])[:, 1:2], ra_deg=[3.0, 4.0], dec_deg=[5.0, 6.0])
    stamps = read_stamp_folder(Location(str(tmp_path)), ("r",))
    assert stamps.ra_deg.tolist() == [1.0, 3.0, 4.0]
    np.testing.assert_array_equal(stamps.images[2], -IMAGE[1:2])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": IMAGE, "ra_deg": 1.0}, "missing arrays dec_deg"),
        ({"image": IMAGE[0], "ra_deg": 1.0, "dec_deg": 2.0}, "expected image"),
        ({"image": np.stack([IMAGE] * 2), "ra_deg": 1.0, "dec_deg": 2.0}, "as many positions"),
        ({"image": IMAGE[:2], "ra_deg": 1.0, "dec_deg": 2.0}, "for 2 images"),
        ({"image": IMAGE, "ra_deg": 1.0, "dec_deg": 2.0, "bands": np.array(["g", "r", "i"])}, "expected bands grz"),
    ],
)
def test_npz_that_is_not_as_described(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    """The error names the file."""
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=message):
        read_stamp_folder(Location(str(tmp_path)), ("g", "r", "z"))


def test_files_that_are_no_stamps(tmp_path: Path) -> None:
    """An empty folder, junk, and an image that does not say where it is."""
    with pytest.raises(ContractError, match="found none"):
        read_stamp_folder(Location(str(tmp_path)), ("r",))
    (tmp_path / "a.fits").write_bytes(b"junk")
    with pytest.raises(ContractError, match="not a readable FITS"):
        read_stamp_folder(Location(str(tmp_path)), ("r",))
    fits.PrimaryHDU(IMAGE).writeto(tmp_path / "a.fits", overwrite=True)
    with pytest.raises(ContractError, match="where the stamp is"):
        read_stamp_folder(Location(str(tmp_path)), ("g", "r", "z"))
    (tmp_path / "a.fits").unlink()
    (tmp_path / "a.npz").write_bytes(b"junk")
    with pytest.raises(ContractError, match="not a readable NPZ"):
        read_stamp_folder(Location(str(tmp_path)), ("r",))
