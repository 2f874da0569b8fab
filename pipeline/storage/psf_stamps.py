"""Measured PSFs: one FITS image per band, such as the coadd PSFs of the survey's cutout service."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.contracts.errors import BrickCorruptError, BrickMissingError
from pipeline.storage.locations import Location


def read_psf_stamps(
    template: str, region: str | None, endpoint_url: str | None, brickname: str, bands: Sequence[str]
) -> NDArray[np.float64]:
    """Read the PSFs of one brick.

    Args:
        template: URL with {band} and, if it differs by brick, {brickname}.
        region, endpoint_url: of an S3 URL.
        brickname: fills the template.
        bands: in stamp order.

    Returns:
        (band, s, s) float64, s odd, each of positive flux, as in the files. Bands of unequal size are padded with 0.

    Raises:
        BrickMissingError: no such file.
        BrickCorruptError: not a FITS image of odd square shape, or its pixels are not finite or have no flux.
        StorageError: the file cannot be reached.
    """
    stamps = []
    for band in bands:
        location = Location(template.format(band=band, brickname=brickname), region, endpoint_url)
        stamps.append(_read_stamp(location))
    size = max(stamp.shape[0] for stamp in stamps)
    return np.stack([np.pad(stamp, (size - stamp.shape[0]) // 2) for stamp in stamps])


def _read_stamp(location: Location) -> NDArray[np.float64]:
    if not location.exists():
        raise BrickMissingError(f"{location.url}: no such PSF file")
    try:
        with fits.open(io.BytesIO(location.read_bytes())) as hdus:
            image = next((hdu.data for hdu in hdus if getattr(hdu, "data", None) is not None), None)
    except (OSError, ValueError, TypeError) as error:
        raise BrickCorruptError(f"{location.url}: not a readable FITS file: {error}") from error
    if image is None or image.ndim != 2 or image.shape[0] != image.shape[1] or image.shape[0] % 2 == 0:
        shape = None if image is None else image.shape
        raise BrickCorruptError(f"{location.url}: expected a square PSF image of odd size, got {shape}")
    stamp = np.asarray(image, dtype=np.float64)
    if not np.isfinite(stamp).all() or stamp.sum() <= 0:
        raise BrickCorruptError(f"{location.url}: expected finite PSF pixels of positive flux, got sum {stamp.sum()}")
    return stamp
