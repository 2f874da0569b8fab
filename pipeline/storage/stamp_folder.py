"""Stamps that other programs wrote: a folder of FITS or NPZ files, one or many positions per file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.storage.locations import Location


@dataclass(frozen=True)
class ForeignStamps:
    """Stamps with their positions.

    Attributes:
        names: (sample) file of each stamp.
        ra_deg: (sample) float64 right ascension of the position shown. [deg]
        dec_deg: (sample) float64 declination. [deg]
        images: (sample) arrays (band, y, x) float32; sizes may differ between files. [nmgy]
    """

    names: list[str]
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    images: list[NDArray[np.float32]]


def read_stamp_folder(folder: Location, bands: Sequence[str]) -> ForeignStamps:
    """Read every .fits and .npz file of a folder, by name.

    FITS: one image (band, y, x) or (y, x), as the survey's cutout service writes it. Bands are those of the header
    card BANDS, without it those asked for. The position is RA, DEC of the header, without them the CRVAL of its WCS.
    NPZ: arrays `image` (band, y, x) or (sample, band, y, x) [nmgy], `ra_deg`, `dec_deg` [deg], and `bands` if they
    are not those asked for.

    Raises:
        ContractError: no such file, or one that is not as described or lacks a band.
        StorageError: a file cannot be read.
    """
    names: list[str] = []
    places: list[tuple[float, float]] = []
    images: list[NDArray[np.float32]] = []
    for name in folder.names():
        if not name.endswith((".fits", ".npz")):
            continue
        location = folder.join(name)
        read = _read_npz if name.endswith(".npz") else _read_fits
        for image, ra, dec in read(location, bands):
            names.append(name)
            places.append((ra, dec))
            images.append(image)
    if not names:
        raise ContractError(f"{folder.url}: expected stamps in .fits or .npz files, found none")
    position = np.array(places, dtype=np.float64)
    return ForeignStamps(names, position[:, 0], position[:, 1], images)


_Stamp = tuple[NDArray[np.float32], float, float]


def _read_fits(location: Location, bands: Sequence[str]) -> list[_Stamp]:
    try:
        with fits.open(io.BytesIO(location.read_bytes())) as hdus:
            hdu = next((hdu for hdu in hdus if getattr(hdu, "data", None) is not None), None)
            data = None if hdu is None else np.array(hdu.data)
            header = None if hdu is None else hdu.header.copy()
    except (OSError, ValueError, TypeError) as error:
        raise ContractError(f"{location.url} is not a readable FITS file: {error}") from error
    if data is None or header is None or data.dtype.names or data.ndim not in (2, 3):
        raise ContractError(f"{location.url}: expected an image (band, y, x), found none")
    held = list(str(header.get("BANDS", "".join(bands))).strip())
    if "RA" in header and "DEC" in header:
        ra, dec = float(header["RA"]), float(header["DEC"])
    else:
        wcs = WCS(header, naxis=2)
        if not wcs.has_celestial:
            raise ContractError(f"{location.url}: no RA and DEC cards and no celestial WCS say where the stamp is")
        ra, dec = (float(value) for value in wcs.wcs.crval)
    image = data[None] if data.ndim == 2 else data
    return [(_chosen(location, image, held, bands), ra, dec)]


def _read_npz(location: Location, bands: Sequence[str]) -> list[_Stamp]:
    try:
        with np.load(io.BytesIO(location.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ContractError(f"{location.url} is not a readable NPZ file: {error}") from error
    missing = [name for name in ("image", "ra_deg", "dec_deg") if name not in arrays]
    if missing:
        raise ContractError(f"{location.url}: missing arrays {', '.join(missing)}; it has {sorted(arrays)}")
    image = arrays["image"]
    ra, dec = np.atleast_1d(arrays["ra_deg"]), np.atleast_1d(arrays["dec_deg"])
    stack = image[None] if image.ndim == 3 else image
    if stack.ndim != 4 or not len(stack) == ra.size == dec.size:
        raise ContractError(
            f"{location.url}: expected image (sample, band, y, x) with as many positions, got {image.shape}, "
            f"{ra.size} and {dec.size}"
        )
    held = [str(band) for band in arrays["bands"].tolist()] if "bands" in arrays else list(bands)
    return [
        (_chosen(location, stamp, held, bands), float(stamp_ra), float(stamp_dec))
        for stamp, stamp_ra, stamp_dec in zip(stack, ra, dec, strict=True)
    ]


def _chosen(
    location: Location, image: NDArray[np.generic], held: Sequence[str], bands: Sequence[str]
) -> NDArray[np.float32]:
    if len(held) != image.shape[0] or not set(bands) <= set(held):
        raise ContractError(
            f"{location.url}: expected bands {''.join(bands)}, got {''.join(held)} for {image.shape[0]} images"
        )
    return np.ascontiguousarray(image[[list(held).index(band) for band in bands]], dtype=np.float32)
