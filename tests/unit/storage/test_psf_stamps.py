"""PSF stamps from FITS files, real ones included, and what is said of files that are not PSFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.contracts.errors import BrickCorruptError, BrickMissingError
from pipeline.storage.psf_stamps import read_psf_stamps

MINI_BRICK = Path(__file__).parents[3] / "../shared/data/minibrick_0591m305"


def gaussian(size: int, sigma_px: float = 2.0, flux: float = 1.0) -> np.ndarray:
    """A round PSF of one width."""
    y, x = np.mgrid[:size, :size] - size // 2
    light = np.exp(-(x**2 + y**2) / (2 * sigma_px**2))
    return np.asarray(flux * light / light.sum())


def write(path: Path, image: np.ndarray) -> None:
    """One image as the survey's cutout service sends it: big-endian float32 in the first HDU."""
    fits.PrimaryHDU(np.asarray(image, ">f4")).writeto(path, overwrite=True)


def read(folder: Path, bands: str = "gr", template: str = "psf-{band}.fits") -> np.ndarray:
    """The stamps below a folder."""
    return read_psf_stamps(f"{folder}/{template}", None, None, "0591m305", tuple(bands))


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    """Bands come in the order asked for, as native float64, without normalisation."""
    images = {"g": gaussian(21), "r": gaussian(21, 1.5, flux=0.97)}
    for band, image in images.items():
        write(tmp_path / f"psf-{band}.fits", image)
    stamps = read(tmp_path, "rg")
    assert stamps.dtype == np.float64
    assert stamps.dtype.isnative
    np.testing.assert_array_equal(stamps, np.stack([images["r"], images["g"]]).astype(np.float32))


def test_bands_of_unequal_size_are_padded_about_their_centre(tmp_path: Path) -> None:
    """A smaller stamp keeps its centre and its flux; the rest is 0."""
    write(tmp_path / "psf-g.fits", gaussian(21))
    write(tmp_path / "psf-r.fits", gaussian(15, 1.0))
    stamps = read(tmp_path)
    assert stamps.shape == (2, 21, 21)
    assert stamps[1, 10, 10] == stamps[1].max()
    assert stamps[1].sum() == pytest.approx(1.0, rel=1e-6)
    assert not stamps[1, :3].any()
    assert not stamps[1, :, -3:].any()


def test_brick_name_fills_the_url(tmp_path: Path) -> None:
    """{brickname} chooses the brick's own files."""
    (tmp_path / "0591m305").mkdir()
    write(tmp_path / "0591m305" / "r.fits", gaussian(9, 1.0))
    assert read(tmp_path, "r", "{brickname}/{band}.fits").shape == (1, 9, 9)


def test_image_may_lie_in_an_extension(tmp_path: Path) -> None:
    """The first HDU with data is the PSF, compressed or not."""
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(gaussian(21), compression_type="GZIP_1")])
    hdus.writeto(tmp_path / "psf-r.fits")
    assert read(tmp_path, "r")[0].argmax() == 10 * 21 + 10


def test_absent_file_is_a_missing_brick_file(tmp_path: Path) -> None:
    """The error names the file that is not there."""
    write(tmp_path / "psf-g.fits", gaussian(9))
    with pytest.raises(BrickMissingError, match=r"psf-r\.fits: no such PSF file"):
        read(tmp_path)


def test_what_is_no_fits_file_is_corrupt(tmp_path: Path) -> None:
    """Empty files and other formats are named."""
    path = tmp_path / "psf-r.fits"
    for content in (b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(BrickCorruptError, match=r"psf-r\.fits: not a readable FITS file"):
            read(tmp_path, "r")


@pytest.mark.filterwarnings("ignore:File may have been truncated", "ignore:Error validating header")
@pytest.mark.parametrize("cut", [100, 2880, 2880 * 2, 2880 * 3 + 17])
def test_truncated_image_is_corrupt(tmp_path: Path, cut: int) -> None:
    """A file that ends inside its header or its pixels is not half a PSF."""
    path = tmp_path / "psf-r.fits"
    write(path, gaussian(63))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BrickCorruptError, match=r"psf-r\.fits"):
        read(tmp_path, "r")


@pytest.mark.parametrize("shape", [(8, 8), (9, 11), (2, 9, 9)])
def test_other_shapes_are_corrupt(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Only a square of odd size has a centre pixel."""
    write(tmp_path / "psf-r.fits", np.ones(shape))
    with pytest.raises(BrickCorruptError, match="expected a square PSF image of odd size"):
        read(tmp_path, "r")


def test_file_without_image_is_corrupt(tmp_path: Path) -> None:
    """An empty primary HDU alone holds no PSF."""
    fits.PrimaryHDU().writeto(tmp_path / "psf-r.fits")
    with pytest.raises(BrickCorruptError, match="odd size, got None"):
        read(tmp_path, "r")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_pixels_that_are_no_psf_are_corrupt(tmp_path: Path, value: float) -> None:
    """Undefined pixels and no flux are refused."""
    image = gaussian(9)
    image[4, 4] = value
    write(tmp_path / "psf-r.fits", image)
    with pytest.raises(BrickCorruptError, match="expected finite PSF pixels of positive flux"):
        read(tmp_path, "r")


@pytest.mark.skipif(not MINI_BRICK.is_dir(), reason=f"real imaging is not here: {MINI_BRICK}")
def test_coadd_psfs_of_a_survey_brick() -> None:
    """The survey's own coadd PSFs are 63 px wide, of unit flux, and peak at the centre."""
    stamps = read(MINI_BRICK, "grz", "coaddpsf-{band}.fits")
    assert stamps.shape == (3, 63, 63)
    assert stamps.sum(axis=(1, 2)) == pytest.approx(1.0, abs=1e-5)
    assert stamps.reshape(3, -1).argmax(axis=1).tolist() == [31 * 63 + 31] * 3
