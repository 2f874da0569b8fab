"""Images of one lens system as a FITS or an NPZ file, read back before the call returns.

FITS: the primary HDU holds the cards of the system and no pixels; each band of each kind of image is one image
extension `<KIND>_<BAND>`. There is no sky position, so no world coordinates: PIXSCALE is the side of a pixel.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.survey import ZERO_POINT_MAG
from pipeline.storage.brick_writer import HeaderCard
from pipeline.storage.locations import Location

# A card holds 16 significant digits of a number at most.
_CARD_TOLERANCE = 1e-14


def write_arc_fits(
    location: Location,
    bands: Sequence[str],
    images_nmgy: Mapping[str, NDArray[np.float32]],
    pixel_scale_arcsec: float,
    cards: Sequence[HeaderCard],
    band_cards: Sequence[Sequence[HeaderCard]],
) -> None:
    """Write stamps as FITS.

    Args:
        location: the file, replaced as a whole.
        bands: names in the order of the first axis.
        images_nmgy: kind, such as "arc", to (band, y, x) float32 pixels. [nmgy/pixel]
        pixel_scale_arcsec: side of a pixel. [arcsec/px]
        cards: (keyword, value, comment) of the system, for the primary header; keywords of at most 8 characters.
        band_cards: the same of each band, for its extensions.

    Raises:
        ContractError: an array of another shape or dtype, or counts that do not agree.
        VerificationError: the file read back is not what was written.
        StorageError: the write failed.
    """
    _check_images(bands, images_nmgy)
    if len(band_cards) != len(bands):
        raise ContractError(f"{location.url}: expected cards of {len(bands)} bands, got {len(band_cards)}")
    primary = [("CONTENT", "lens system", "what this file holds"), *cards]
    hdus: list[fits.PrimaryHDU | fits.ImageHDU] = [fits.PrimaryHDU(header=fits.Header(primary))]
    expected: list[tuple[str, NDArray[np.float32] | None, Sequence[HeaderCard]]] = [("PRIMARY", None, primary)]
    for kind, images in images_nmgy.items():
        for band, pixels, own in zip(bands, images, band_cards, strict=True):
            header: list[HeaderCard] = [
                ("BAND", band, "filter short name"),
                ("BUNIT", "nanomaggy", "unit of the pixels"),
                ("MAGZERO", ZERO_POINT_MAG, "AB magnitude of 1 nanomaggy"),
                ("PIXSCALE", pixel_scale_arcsec, "side of a pixel [arcsec]"),
                ("CENTRE1", pixels.shape[1] // 2 + 1, "1-based column of the centre of the stamp"),
                ("CENTRE2", pixels.shape[0] // 2 + 1, "1-based row of the centre of the stamp"),
                *own,
            ]
            name = f"{kind}_{band}".upper()
            hdus.append(fits.ImageHDU(pixels, fits.Header(header), name=name))
            expected.append((name, pixels, header))
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    location.write_bytes(buffer.getvalue())
    _verify_fits(location, expected)


def write_arc_npz(location: Location, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays as a compressed NPZ file; a number is an array of shape ().

    Raises:
        VerificationError: the file read back is not what was written.
        StorageError: the write failed.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    location.write_bytes(buffer.getvalue())
    try:
        with np.load(io.BytesIO(location.read_bytes()), allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise VerificationError(f"{location.url} read back is not an NPZ file: {error}") from error
    if list(found) != list(arrays):
        raise VerificationError(f"{location.url}: expected the arrays {list(arrays)}, read back {list(found)}")
    for name, array in arrays.items():
        if found[name].dtype != array.dtype or not np.array_equal(
            found[name], array, equal_nan=array.dtype.kind == "f"
        ):
            raise VerificationError(f"{location.url}: array {name} read back differs from what was written")


def _check_images(bands: Sequence[str], images_nmgy: Mapping[str, NDArray[np.float32]]) -> None:
    for kind, images in images_nmgy.items():
        if images.ndim != 3 or images.shape[0] != len(bands) or images.dtype != np.float32:
            raise ContractError(
                f"arc file: expected images {kind!r} of shape ({len(bands)}, y, x) and dtype float32, "
                f"got {images.shape}, {images.dtype}"
            )


def _verify_fits(
    location: Location, expected: Sequence[tuple[str, NDArray[np.float32] | None, Sequence[HeaderCard]]]
) -> None:
    try:
        with fits.open(io.BytesIO(location.read_bytes()), memmap=False) as hdus:
            found = [(hdu.name, hdu.data, hdu.header) for hdu in hdus]
    except (OSError, ValueError) as error:
        raise VerificationError(f"{location.url} read back is not a FITS file: {error}") from error
    names, stored_names = ([name for name, _, _ in hdus] for hdus in (expected, found))
    if stored_names != names:
        raise VerificationError(f"{location.url}: expected the HDUs {names}, read back {stored_names}")
    for (name, pixels, cards), (_, stored, header) in zip(expected, found, strict=True):
        if pixels is not None and not np.array_equal(pixels, stored, equal_nan=True):
            raise VerificationError(f"{location.url}: pixels of {name} read back differ from what was written")
        for keyword, value, _ in cards:
            if not _same(value, header.get(keyword)):
                raise VerificationError(
                    f"{location.url}: expected {keyword} = {value!r} in {name}, read back {header.get(keyword)!r}"
                )


def _same(written: str | float, stored: object) -> bool:
    if isinstance(written, float):
        return isinstance(stored, float) and math.isclose(written, stored, rel_tol=_CARD_TOLERANCE)
    return written == stored
