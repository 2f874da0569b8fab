"""Galaxies as GalSim keeps them: a FITS table, and FITS files with one stamp and one PSF per HDU."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import GalaxyStamp
from pipeline.storage.locations import Location, storage_errors

_REDSHIFT_COLUMNS = ("ZPHOT", "zphot")
_SCALE_TOLERANCE = 1e-4


@dataclass
class GalaxyCatalogue:
    """The rows of a catalogue and where their pixels are.

    Attributes:
        pixel_scale_arcsec: of every stamp. [arcsec]
        bands: names of the filters in the table; empty if it does not say.
        n_galaxies: rows.
    """

    pixel_scale_arcsec: float
    bands: tuple[str, ...]
    n_galaxies: int
    _rows: dict[str, NDArray[np.generic]] = field(repr=False)
    _images: _FitsFiles
    _psfs: _FitsFiles | None
    _digests: dict[str, str]

    def stamps(self) -> Iterator[GalaxyStamp]:
        """Every galaxy, file by file, so that each file is read once.

        Raises:
            ContractError: a file or HDU that the catalogue names is not there or holds no picture.
            StorageError: a file cannot be read.
        """
        for row in np.lexsort((self._rows["GAL_HDU"], self._rows["GAL_FILENAME"])).tolist():
            values = {name: column[row] for name, column in self._rows.items()}
            variance = float(values["NOISE_VARIANCE"])
            yield GalaxyStamp(
                index=int(values["IDENT"]),
                image=self._images.picture(str(values["GAL_FILENAME"]), int(values["GAL_HDU"])),
                psf=self._psfs.picture(str(values["PSF_FILENAME"]), int(values["PSF_HDU"])) if self._psfs else None,
                noise_sigma=math.sqrt(variance) if variance > 0 else math.nan,
                mag=float(values["MAG"]),
                redshift=float(values["redshift"]),
            )

    @property
    def source(self) -> str:
        """Every file that was read so far, with its SHA-256."""
        files = dict(self._digests)
        for opened in (self._images, self._psfs):
            files.update(opened.digests if opened else {})
        return "; ".join(f"{name} sha256:{digest}" for name, digest in sorted(files.items()))


def open_galaxy_catalogue(
    catalogue: Location,
    images: Location,
    psfs: Location | None = None,
    photometry: Location | None = None,
    pixel_scale_arcsec: float | None = None,
) -> GalaxyCatalogue:
    """Read the tables of a catalogue; pixels are read when its stamps are asked for.

    Args:
        catalogue: table with IDENT, GAL_FILENAME, GAL_HDU (counted from 0) and, where known, PIXEL_SCALE [arcsec],
            NOISE_VARIANCE, MAG [AB mag], BAND; with PSF_FILENAME and PSF_HDU if `psfs` is given.
        images: folder of the files that GAL_FILENAME names, or the file itself where it is a single one.
        psfs: the same for the point-spread functions.
        photometry: table with IDENT and ZPHOT.
        pixel_scale_arcsec: what PIXEL_SCALE must be; needed where the table lacks it. [arcsec]

    Raises:
        ContractError: a column is missing, pixel scales differ, or several files are named and one is given.
    """
    table, digest = _read_table(catalogue)
    required = ["IDENT", "GAL_FILENAME", "GAL_HDU", *(("PSF_FILENAME", "PSF_HDU") if psfs else ())]
    missing = [name for name in required if name not in table]
    if missing:
        raise ContractError(f"{catalogue.url}: missing columns {', '.join(missing)} of a GalSim galaxy catalogue")
    n_galaxies = len(table["IDENT"])
    if not n_galaxies:
        raise ContractError(f"{catalogue.url}: expected galaxies, found an empty table")
    unknown = np.full(n_galaxies, np.nan)
    rows: dict[str, NDArray[np.generic]] = {name: table[name] for name in required}
    rows["MAG"] = table.get("MAG", unknown)
    rows["NOISE_VARIANCE"] = table.get("NOISE_VARIANCE", unknown)
    rows["redshift"] = unknown
    digests = {_name(catalogue): digest}
    if photometry is not None:
        rows["redshift"], digests[_name(photometry)] = _redshifts(photometry, table["IDENT"])
    bands = tuple(sorted({str(band).strip() for band in table["BAND"].tolist()})) if "BAND" in table else ()
    return GalaxyCatalogue(
        _pixel_scale(catalogue, table.get("PIXEL_SCALE"), pixel_scale_arcsec),
        bands,
        n_galaxies,
        rows,
        _FitsFiles.of(images, rows["GAL_FILENAME"]),
        _FitsFiles.of(psfs, rows["PSF_FILENAME"]) if psfs else None,
        digests,
    )


@dataclass
class _FitsFiles:
    """FITS files below a folder, or a single one; the last one that was used stays decoded."""

    place: Location
    is_single: bool
    digests: dict[str, str] = field(default_factory=dict)
    _open_name: str = ""
    _open_file: fits.HDUList | None = None

    @classmethod
    def of(cls, place: Location, names: NDArray[np.generic]) -> _FitsFiles:
        """Files for the names of a column.

        Raises:
            ContractError: nothing is there, or it is one file and the column names several.
        """
        if not place.exists():
            raise ContractError(f"{place.url}: expected FITS files of galaxies, found nothing there")
        with storage_errors(f"look up {place.url}"):
            is_single = place.filesystem.info(place.path)["type"] == "file"
        distinct = sorted({str(name).strip() for name in names.tolist()})
        if is_single and len(distinct) > 1:
            raise ContractError(
                f"{place.url}: the catalogue names {len(distinct)} files ({distinct[0]} ...); expected their folder"
            )
        return cls(place, is_single)

    def picture(self, name: str, hdu: int) -> NDArray[np.float32]:
        """The (y, x) picture of one HDU, counted from 0, as native float32."""
        location = self.place if self.is_single else self.place.join(name.strip().rsplit("/", 1)[-1])
        try:
            # astropy only warns of a file that is cut short.
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="File may have been truncated")
                pixels = self._opened(location)[hdu].data
        except (OSError, IndexError, TypeError, ValueError, AstropyUserWarning) as error:
            raise ContractError(f"{location.url}: HDU {hdu} cannot be read as a picture: {error}") from error
        if pixels is None or getattr(pixels, "ndim", 0) != 2 or pixels.dtype.names:
            raise ContractError(f"{location.url}: HDU {hdu}: expected a picture with two axes, found none")
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def _opened(self, location: Location) -> fits.HDUList:
        if location.url != self._open_name or self._open_file is None:
            if not location.exists():
                raise ContractError(f"{location.url}: the catalogue names this file, found nothing there")
            content = location.read_bytes()
            self.digests[_name(location)] = hashlib.sha256(content).hexdigest()
            self._open_file, self._open_name = fits.open(io.BytesIO(content)), location.url
        return self._open_file


def _read_table(location: Location) -> tuple[dict[str, NDArray[np.generic]], str]:
    if not location.exists():
        raise ContractError(f"{location.url}: expected a FITS table, found nothing there")
    content = location.read_bytes()
    try:
        with fits.open(io.BytesIO(content)) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
            columns = {name: np.array(tables[0].data[name]) for name in tables[0].columns.names} if tables else {}
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{location.url}: expected a FITS table: {error}") from error
    if not columns:
        raise ContractError(f"{location.url}: expected a FITS binary table, found none")
    return columns, hashlib.sha256(content).hexdigest()


def _redshifts(photometry: Location, identities: NDArray[np.generic]) -> tuple[NDArray[np.float64], str]:
    table, digest = _read_table(photometry)
    named = [name for name in _REDSHIFT_COLUMNS if name in table]
    if "IDENT" not in table or not named:
        raise ContractError(f"{photometry.url}: expected columns IDENT and ZPHOT, got {', '.join(table)}")
    by_identity = dict(zip(table["IDENT"].tolist(), table[named[0]].astype(np.float64).tolist(), strict=True))
    values = np.array([by_identity.get(identity, math.nan) for identity in identities.tolist()])
    values[~(values >= 0)] = np.nan
    return values, digest


def _pixel_scale(catalogue: Location, column: NDArray[np.generic] | None, wanted_arcsec: float | None) -> float:
    if column is None:
        if wanted_arcsec is None:
            raise ContractError(f"{catalogue.url}: no column PIXEL_SCALE; say what the pixel scale is")
        return wanted_arcsec
    scales = column.astype(np.float64)
    low, high = float(scales.min()), float(scales.max())
    expected = low if wanted_arcsec is None else wanted_arcsec
    if not (expected > 0 and np.allclose(scales, expected, rtol=_SCALE_TOLERANCE, atol=0.0)):
        raise ContractError(
            f"{catalogue.url}: column PIXEL_SCALE: expected {expected} arcsec in every row, got {low} to {high}; "
            "stamps are not resampled"
        )
    return expected


def _name(location: Location) -> str:
    return location.url.rsplit("/", 1)[-1]
