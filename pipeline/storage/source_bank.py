"""Banks of galaxies as HDF5 files, written whole and checked when read, and the stamps a bank holds."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import (
    BANK_COLUMNS,
    BANK_SCHEMA_VERSION,
    IMAGES,
    IMAGES_DTYPE,
    MIN_STAMP_SIZE_PX,
    REQUIRED_ATTRIBUTES,
    UNIT_SUM_TOLERANCE,
    BankColumn,
    GalaxyStamp,
    SourceBank,
    bank_digest,
)
from pipeline.storage.locations import Location

_COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_CHECKED_ROWS = 1024


def write_bank(location: Location, bank: SourceBank, code_version: str) -> None:
    """Write a bank as one HDF5 file, replaced as a whole.

    Args:
        location: the file.
        bank: what `assemble_bank` made.
        code_version: of the code that made it.

    Raises:
        ContractError: the bank breaks its own contract; nothing is written.
        StorageError: the file cannot be written.
    """
    _check_images(location.url, bank.images, bank.usable)
    _check_columns(location.url, bank.columns, bank.images.shape[0])
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        size = bank.stamp_size_px
        images = file.create_dataset(IMAGES, data=bank.images, chunks=(1, size, size), **_COMPRESSION)
        images.attrs["unit"] = "1"
        images.attrs["description"] = "Share of the galaxy's light in each pixel"
        for column in BANK_COLUMNS:
            stored = file.create_dataset(column.path, data=bank.columns[column.name].astype(column.dtype))
            stored.attrs["unit"] = column.unit
            stored.attrs["description"] = column.description
            if column.flags:
                stored.attrs["flag_values"] = np.arange(len(column.flags), dtype=column.dtype)
                stored.attrs["flag_meanings"] = " ".join(column.flags)
        file.attrs.update(
            {
                "src_pixscale_arcsec": bank.pixel_scale_arcsec,
                "stamp_size": size,
                "created_utc": bank.created_utc,
                "galaxy_kind": bank.galaxy_kind,
                "schema_version": BANK_SCHEMA_VERSION,
                "psf_fwhm_arcsec": bank.psf_fwhm_arcsec,
                "source": bank.source,
                "digest": bank.digest,
                "code_version": code_version,
            }
        )
    location.write_bytes(stream.getvalue())


def read_bank(location: Location | Path) -> SourceBank:
    """Read a bank and check every template; a file of the EMR system, without the added columns, is a bank too.

    Raises:
        ContractError: not an HDF5 file, or one that breaks the contract; names the file and the dataset.
        StorageError: the file cannot be read.
    """
    place = location if isinstance(location, Location) else Location(str(location))
    if not place.exists():
        raise ContractError(f"{place.url}: expected an HDF5 source bank, found nothing there")
    content = io.BytesIO(place.read_bytes())
    try:
        with h5py.File(content, "r") as file:
            return _bank_of(place.url, file)
    except OSError as error:
        raise ContractError(f"{place.url}: expected an HDF5 source bank that can be decoded: {error}") from error


def bank_stamps(bank: SourceBank) -> Iterator[GalaxyStamp]:
    """The templates of a bank as galaxies that are yet to be cleaned; those without light are left out.

    Their noise is measured anew. It was clipped with the negatives, so SNRs come out high by up to 1.7.
    """
    for row, image in enumerate(bank.images):
        if image.any():
            yield GalaxyStamp(
                index=int(bank.columns["index"][row]),
                image=image,
                psf_fwhm_arcsec=_known(float(bank.columns["psf_fwhm_arcsec"][row]), bank.psf_fwhm_arcsec),
                mag=float(bank.mag[row]),
                redshift=float(bank.redshift[row]),
            )


def _known(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise


def _bank_of(url: str, file: h5py.File) -> SourceBank:
    missing = [name for name in REQUIRED_ATTRIBUTES if name not in file.attrs]
    if missing:
        raise ContractError(f"{url}: missing attributes {', '.join(missing)} of a source bank")
    version = int(_number(url, file, "schema_version", BANK_SCHEMA_VERSION))
    if version > BANK_SCHEMA_VERSION:
        raise ContractError(f"{url}: attribute schema_version: expected at most {BANK_SCHEMA_VERSION}, got {version}")
    pixel_scale_arcsec = _number(url, file, "src_pixscale_arcsec", math.nan)
    if not 0 < pixel_scale_arcsec < math.inf:
        raise ContractError(f"{url}: attribute src_pixscale_arcsec: expected a length, got {pixel_scale_arcsec}")
    images = _read_images(url, file)
    columns = {column.name: _read_column(url, file, column, images.shape[0]) for column in BANK_COLUMNS}
    _check_columns(url, columns, images.shape[0])
    _check_images(url, images, columns["usable"].astype(np.bool_))
    digest = bank_digest(images, columns, pixel_scale_arcsec)
    if "digest" in file.attrs and _text(file, "digest") != digest:
        raise ContractError(
            f"{url}: attribute digest: expected {_text(file, 'digest')}, the datasets have {digest}; "
            "they were changed after the bank was written"
        )
    return SourceBank(
        images=images,
        columns=columns,
        pixel_scale_arcsec=pixel_scale_arcsec,
        psf_fwhm_arcsec=_number(url, file, "psf_fwhm_arcsec", math.nan),
        galaxy_kind=_text(file, "galaxy_kind"),
        source=_text(file, "source") if "source" in file.attrs else "not recorded",
        created_utc=_text(file, "created_utc"),
        digest=digest,
    )


def _read_images(url: str, file: h5py.File) -> NDArray[np.float32]:
    stored = file.get(IMAGES)
    if not isinstance(stored, h5py.Dataset):
        raise ContractError(f"{url}: missing dataset {IMAGES}")
    shape = stored.shape
    square = len(shape) == 3 and shape[0] > 0 and shape[1] == shape[2]
    if not (square and shape[1] >= MIN_STAMP_SIZE_PX and shape[1] % 2 == 0):
        raise ContractError(
            f"{url}: dataset {IMAGES}: expected (N, S, S) with N >= 1 and S even, >= {MIN_STAMP_SIZE_PX}, got {shape}"
        )
    if stored.dtype != np.dtype(IMAGES_DTYPE):
        raise ContractError(f"{url}: dataset {IMAGES}: expected {IMAGES_DTYPE}, got {stored.dtype}")
    declared = int(_number(url, file, "stamp_size", 0))
    if declared != shape[1]:
        raise ContractError(f"{url}: attribute stamp_size: dataset {IMAGES} has {shape[1]} px a side, got {declared}")
    images: NDArray[np.float32] = stored[...].astype(np.float32, copy=False)
    return images


def _read_column(url: str, file: h5py.File, column: BankColumn, n_templates: int) -> NDArray[np.generic]:
    stored = file.get(column.path)
    if stored is None and column.missing is not None:
        return np.full(n_templates, column.missing, dtype=column.dtype)
    if not isinstance(stored, h5py.Dataset):
        raise ContractError(f"{url}: missing dataset {column.path}")
    if stored.shape != (n_templates,) or stored.dtype.kind not in np.dtype(column.dtype).kind + "iu":
        raise ContractError(
            f"{url}: dataset {column.path}: expected {column.dtype} of shape ({n_templates},), "
            f"got {stored.dtype} of shape {stored.shape}"
        )
    if column.flags and (found := str(stored.attrs.get("flag_meanings", ""))) != " ".join(column.flags):
        raise ContractError(
            f"{url}: dataset {column.path}: expected flag_meanings {' '.join(column.flags)!r}, got {found!r}"
        )
    values: NDArray[np.generic] = stored[...].astype(column.dtype)
    return values


def _check_columns(url: str, columns: dict[str, NDArray[np.generic]], n_templates: int) -> None:
    for column in BANK_COLUMNS:
        values = columns[column.name]
        if values.shape != (n_templates,):
            raise ContractError(f"{url}: dataset {column.path}: expected shape ({n_templates},), got {values.shape}")
        if column.flags and (values.astype(np.int64) >= len(column.flags)).any():
            raise ContractError(
                f"{url}: dataset {column.path}: expected codes below {len(column.flags)}, got {values.max()}"
            )
    usable = columns["usable"].astype(np.int64)
    if not np.isin(usable, (0, 1)).all():
        raise ContractError(f"{url}: dataset meta/usable: expected 0 and 1, got {np.unique(usable).tolist()}")
    if ((columns["reject_reason"].astype(np.int64) != 0) & (usable == 1)).any():
        raise ContractError(f"{url}: dataset meta/reject_reason: expected none where meta/usable is 1")
    for name in ("hlr_arcsec", "clumpiness"):
        values = columns[name].astype(np.float64)[usable == 1]
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ContractError(f"{url}: dataset meta/{name}: expected finite values >= 0 where meta/usable is 1")


def _check_images(url: str, images: NDArray[np.float32], usable: NDArray[np.bool_]) -> None:
    for start in range(0, images.shape[0], _CHECKED_ROWS):
        block = images[start : start + _CHECKED_ROWS]
        wanted = usable[start : start + _CHECKED_ROWS]
        sums = block.sum(axis=(1, 2), dtype=np.float64)
        faults = (
            ("finite values", ~np.isfinite(sums)),
            ("values >= 0", block.min(axis=(1, 2)) < 0),
            (
                f"sum 1 within {UNIT_SUM_TOLERANCE:g}, or 0 where not usable",
                ~((np.abs(sums - 1.0) <= UNIT_SUM_TOLERANCE) | (~wanted & (sums == 0))),
            ),
        )
        for expected, wrong in faults:
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise ContractError(
                    f"{url}: dataset {IMAGES}: expected {expected}, got sum {sums[row]:.6g} and minimum "
                    f"{block[row].min():.6g} in row {start + row}"
                )


def _number(url: str, file: h5py.File, name: str, missing: float) -> float:
    value = np.asarray(file.attrs.get(name, missing))
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise ContractError(f"{url}: attribute {name}: expected one number, got {value.tolist()!r}")
    return float(value.reshape(()))


def _text(file: h5py.File, name: str) -> str:
    value = file.attrs[name]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
