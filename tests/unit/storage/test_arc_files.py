"""Facts about files of one lens system."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.arc_files import write_arc_fits, write_arc_npz
from pipeline.storage.locations import Location

BANDS = ("g", "r")
IMAGES = np.random.default_rng(3).normal(size=(2, 16, 18)).astype(np.float32)
CARDS = [("THETAE", 1.2345678901234567, "Einstein radius [arcsec]"), ("SEED", 7, "of the noise")]
BAND_CARDS = [[("DEPTH", 24.7, "[mag]")], [("DEPTH", 23.9, "[mag]")]]


def test_fits_holds_a_band_per_extension(tmp_path: Path) -> None:
    """Pixels bit for bit, units, pixel scale, the cards of the system first and those of a band with its pixels."""
    write_arc_fits(
        Location(str(tmp_path / "arc.fits")), BANDS, {"arc": IMAGES, "noisy": IMAGES + 1}, 0.262, CARDS, BAND_CARDS
    )
    with fits.open(tmp_path / "arc.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "ARC_G", "ARC_R", "NOISY_G", "NOISY_R"]
        assert hdus[0].header["THETAE"] == pytest.approx(1.2345678901234567, rel=1e-15)
        assert hdus[0].header["SEED"] == 7
        assert (hdus["ARC_R"].data == IMAGES[1]).all()
        assert (hdus["NOISY_G"].data == IMAGES[0] + 1).all()
        header = hdus["ARC_R"].header
        assert (header["BUNIT"], header["BAND"], header["PIXSCALE"], header["DEPTH"]) == ("nanomaggy", "r", 0.262, 23.9)
        assert (header["CENTRE1"], header["CENTRE2"]) == (10, 9)
        assert "CTYPE1" not in header


def test_npz_round_trips(tmp_path: Path) -> None:
    """Arrays, numbers and texts come back with their type; nothing is pickled."""
    arrays = {"arcs": IMAGES, "q": np.array(0.7), "bands": np.array(BANDS), "holes": np.array([1.0, np.nan])}
    write_arc_npz(Location(str(tmp_path / "arc.npz")), arrays)
    with np.load(tmp_path / "arc.npz", allow_pickle=False) as stored:
        assert list(stored.files) == list(arrays)
        assert (stored["arcs"] == IMAGES).all()
        assert float(stored["q"]) == 0.7
        assert stored["bands"].tolist() == ["g", "r"]


@pytest.mark.parametrize("images", [IMAGES[:1], IMAGES.astype(np.float64), IMAGES[0]])
def test_images_of_another_shape_or_type_are_refused(tmp_path: Path, images: np.ndarray) -> None:
    """One float32 plane per band, or nothing is written."""
    with pytest.raises(ContractError, match="float32"):
        write_arc_fits(Location(str(tmp_path / "arc.fits")), BANDS, {"arc": images}, 0.262, CARDS, BAND_CARDS)
    with pytest.raises(ContractError, match="cards of 2 bands"):
        write_arc_fits(Location(str(tmp_path / "arc.fits")), BANDS, {"arc": IMAGES}, 0.262, CARDS, BAND_CARDS[:1])
    assert not (tmp_path / "arc.fits").exists()


def changed_fits(pixel: bool) -> bytes:
    """The file as it would be with another pixel, or with another card."""
    images = IMAGES + np.float32(pixel)
    cards = CARDS if pixel else [("THETAE", 1.3, ""), *CARDS[1:]]
    hdus = [fits.PrimaryHDU(header=fits.Header([("CONTENT", "lens system", ""), *cards]))]
    for band, plane in zip(BANDS, images, strict=True):
        hdus.append(fits.ImageHDU(plane, name=f"ARC_{band.upper()}"))
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (changed_fits(pixel=True), "pixels of ARC_G"),
        (changed_fits(pixel=False), "THETAE = 1.23"),
        (b"no image at all", "not a FITS file"),
    ],
)
def test_a_fits_file_that_reads_back_differently_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bytes, message: str
) -> None:
    """Whatever a disk returns instead of what was written is noticed."""
    monkeypatch.setattr(Location, "read_bytes", lambda _: stored)
    with pytest.raises(VerificationError, match=message):
        write_arc_fits(Location(str(tmp_path / "arc.fits")), BANDS, {"arc": IMAGES}, 0.262, CARDS, BAND_CARDS)


def test_an_npz_file_that_reads_back_differently_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed value, a missing array and no archive at all."""
    location = Location(str(tmp_path / "arc.npz"))
    for stored_arrays, message in (({"a": np.array(2.0)}, "array a"), ({"b": np.array(1.0)}, "expected the arrays")):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **stored_arrays)
        content = buffer.getvalue()
        monkeypatch.setattr(Location, "read_bytes", lambda _, content=content: content)
        with pytest.raises(VerificationError, match=message):
            write_arc_npz(location, {"a": np.array(1.0)})
    monkeypatch.setattr(Location, "read_bytes", lambda _: b"PK nothing")
    with pytest.raises(VerificationError, match="not an NPZ file"):
        write_arc_npz(location, {"a": np.array(1.0)})
