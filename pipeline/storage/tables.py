"""Parquet and CSV tables: which rows lie where, and reading only the row groups of a row range."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.contracts.errors import ContractError
from pipeline.storage.locations import Location, storage_errors

CSV_LIMIT_BYTES = 256 * 2**20
# A parquet file ends with the length of its footer and the magic number.
_PARQUET_TAIL_BYTES = 8


@dataclass(frozen=True)
class TablePart:
    """One file of a table; `digest` changes when its content does."""

    location: Location
    size_bytes: int
    n_rows: int
    digest: str


@dataclass(frozen=True)
class TablePiece:
    """Rows [start, stop) of one file."""

    location: Location
    start: int
    stop: int


def find_parts(location: Location, rows_needed: int | None = None) -> list[TablePart]:
    """The files of a table with their row counts, from the footers alone.

    Args:
        location: a .parquet or .csv file, or a folder searched recursively for part files.
        rows_needed: stop after the file that brings the count to this many rows.

    Raises:
        ContractError: nothing found, or a file is not what its name says.
    """
    parts: list[TablePart] = []
    total = 0
    for file, size in _table_files(location):
        parts.append(TablePart(file, size, _count_rows(file, size), _digest(file, size)))
        total += parts[-1].n_rows
        if rows_needed is not None and total >= rows_needed:
            break
    if total == 0:
        raise ContractError(f"{location.url}: expected a parquet or CSV table with rows, found {len(parts)} files")
    return parts


def pieces_of(parts: Iterable[TablePart], start: int, stop: int) -> list[TablePiece]:
    """The pieces of files that hold rows [start, stop) of the table as a whole."""
    pieces: list[TablePiece] = []
    first = 0
    for part in parts:
        low, high = max(start, first), min(stop, first + part.n_rows)
        if low < high:
            pieces.append(TablePiece(part.location, low - first, high - first))
        first += part.n_rows
    return pieces


def read_pieces(pieces: Iterable[TablePiece], columns: Mapping[str, str], optional: Mapping[str, str]) -> pd.DataFrame:
    """Rows of the pieces in order, with the named columns only; other row groups are not read.

    Args:
        columns: name -> family ("string", "integer", "number", or "identifier" for text or integers) of the columns
            that must be there.
        optional: the same for columns that are read where they exist.

    Raises:
        ContractError: one error listing every missing column and every wrong type.
    """
    frames = [_read_piece(piece, columns, optional) for piece in pieces]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def table_bytes(frame: pd.DataFrame) -> bytes:
    """The frame as one zstd-compressed parquet file."""
    return arrow_bytes(pa.Table.from_pandas(frame, preserve_index=False))


def arrow_bytes(table: pa.Table, row_group_rows: int | None = None) -> bytes:
    """The table as one zstd-compressed parquet file; row groups of a given length where only parts will be read."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_rows)
    return sink.getvalue()


def _table_files(location: Location) -> list[tuple[Location, int]]:
    if not location.exists():
        raise ContractError(f"{location.url}: expected a parquet or CSV table, found nothing there")
    with storage_errors(f"look up {location.url}"):
        info = location.filesystem.info(location.path)
    if info["type"] == "file":
        return [(location, int(info["size"]))]
    return [
        (location.join(name), size)
        for name, size in location.sizes().items()
        if name.endswith((".parquet", ".csv")) and not any(part.startswith(("_", ".")) for part in name.split("/"))
    ]


def _count_rows(location: Location, size_bytes: int) -> int:
    if not location.url.endswith(".csv"):
        with open_parquet_file(location) as file:
            return int(file.metadata.num_rows)
    if size_bytes > CSV_LIMIT_BYTES:
        raise ContractError(
            f"{location.url}: CSV of {size_bytes} bytes, at most {CSV_LIMIT_BYTES}; convert it to parquet, "
            "whose row groups can be read alone"
        )
    return int(_read_csv(location).num_rows)


def _digest(location: Location, size_bytes: int) -> str:
    """ETag, else SHA-256 of a CSV's bytes or of a parquet's footer, which holds the sizes and ranges of its columns."""
    if tag := location.etag():
        return f"etag:{tag}"
    if location.url.endswith(".csv"):
        return "sha256:" + hashlib.sha256(location.read_bytes()).hexdigest()
    tail = location.read_range(size_bytes - _PARQUET_TAIL_BYTES, size_bytes)
    footer_bytes = int.from_bytes(tail[:4], "little")
    footer = location.read_range(max(size_bytes - _PARQUET_TAIL_BYTES - footer_bytes, 0), size_bytes)
    return "footer:" + hashlib.sha256(footer).hexdigest()


def _read_piece(piece: TablePiece, columns: Mapping[str, str], optional: Mapping[str, str]) -> pd.DataFrame:
    if piece.location.url.endswith(".csv"):
        table = _read_csv(piece.location)
        _check_columns(piece.location, table.schema, columns, optional)
        names = [name for name in table.column_names if name in columns or name in optional]
        return _frame(table.select(names).slice(piece.start, piece.stop - piece.start))
    with open_parquet_file(piece.location) as file:
        _check_columns(piece.location, file.schema_arrow, columns, optional)
        names = [name for name in file.schema_arrow.names if name in columns or name in optional]
        groups, first = _row_groups(file.metadata, piece.start, piece.stop)
        table = file.read_row_groups(groups, columns=names)
    return _frame(table.slice(piece.start - first, piece.stop - piece.start))


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    groups: list[int] = []
    first_row = row = 0
    for group in range(metadata.num_row_groups):
        next_row = row + metadata.row_group(group).num_rows
        if row < stop and next_row > start:
            first_row = row if not groups else first_row
            groups.append(group)
        row = next_row
    return groups, first_row


def _check_columns(
    location: Location, schema: pa.Schema, columns: Mapping[str, str], optional: Mapping[str, str]
) -> None:
    twice = {name for name in schema.names if schema.names.count(name) > 1} & {*columns, *optional}
    if twice:
        raise ContractError(f"{location.url}: columns written twice: {', '.join(map(repr, sorted(twice)))}")
    problems = [f"missing column {name!r} ({family})" for name, family in columns.items() if name not in schema.names]
    for name, family in {**optional, **columns}.items():
        if name in schema.names and name in optional and pa.types.is_null(schema.field(name).type):
            continue
        if name in schema.names and not _is_family(schema.field(name).type, family):
            problems.append(f"column {name!r}: expected {family}, got {schema.field(name).type}")
    if problems:
        raise ContractError(f"{location.url}: {len(problems)} problems: " + "; ".join(problems))


def _is_family(arrow_type: pa.DataType, family: str) -> bool:
    is_text = bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))
    is_integer = bool(pa.types.is_integer(arrow_type))
    if family in ("string", "integer"):
        return is_text if family == "string" else is_integer
    if family == "identifier":
        return is_text or is_integer
    return is_integer or bool(pa.types.is_floating(arrow_type))


def _read_csv(location: Location) -> pa.Table:
    # Brick names such as 1126p222 are strings even where a file holds only digits.
    options = pyarrow.csv.ConvertOptions(column_types={"brickname": pa.string()}, null_values=["", "nan", "NaN"])
    one_thread = pyarrow.csv.ReadOptions(use_threads=False)
    try:
        return pyarrow.csv.read_csv(io.BytesIO(location.read_bytes()), one_thread, convert_options=options)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{location.url} is not a CSV table: {error}") from error


@contextmanager
def open_parquet_file(location: Location) -> Iterator[pq.ParquetFile]:
    """The parquet file at a location, open for reading.

    Raises:
        ContractError: it is no parquet file.
        StorageError: reading fails.
    """
    with (
        storage_errors(f"read {location.url}"),
        location.filesystem.open(location.path, "rb", cache_type="none") as stream,
    ):
        try:
            file = pq.ParquetFile(stream, pre_buffer=True)
        except pa.ArrowInvalid as error:
            raise ContractError(f"{location.url} is not a parquet file: {error}") from error
        yield file
