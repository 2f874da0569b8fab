"""The EMR tables as parquet: arrow schemas, files written whole and read back, folders listed by partition."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contracts.emr_columns import PARTITION, STAMP_COLUMN, EmrColumn
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.locations import Location, storage_errors
from pipeline.storage.tables import TablePiece

# Rows of a group: 1,000 stamps of 64 px in three bands are 40 MB.
ROWS_PER_GROUP = 1000
_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "binary": pa.binary(),
}


def emr_schema(columns: Sequence[EmrColumn], *, partitioned: bool = True) -> pa.Schema:
    """The schema of the files of a table; `region_split` is not inside the files of a partitioned one."""
    return pa.schema(
        [
            pa.field(column.name, _TYPES[column.kind], column.nullable)
            for column in columns
            if not (partitioned and column.name == PARTITION)
        ]
    )


def emr_table(values: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Columns as an arrow table of a schema.

    Args:
        values: masked arrays, NULL where masked, or lists with None.

    Raises:
        ContractError: a missing column, a value that its type cannot hold, or NULL where none may be.
    """
    absent = [name for name in schema.names if name not in values]
    if absent:
        raise ContractError(f"columns missing: {', '.join(absent)}")
    arrays = []
    for field in schema:
        column = values[field.name]
        try:
            if isinstance(column, np.ma.MaskedArray):
                mask = np.ma.getmaskarray(column)
                data = column.data.astype(np.int64) if column.dtype.kind == "b" else column.data
                array = pa.array(data, mask=mask, from_pandas=False)
                arrays.append(array.cast(field.type))
            else:
                arrays.append(pa.array(column, type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ContractError(f"column {field.name!r}: expected {field.type}: {error}") from error
        if not field.nullable and arrays[-1].null_count:
            raise ContractError(f"column {field.name!r}: {arrays[-1].null_count} rows without a value")
    return pa.Table.from_arrays(arrays, schema=schema)


def write_emr_file(location: Location, table: pa.Table) -> dict[str, int | str]:
    """Write one file whole and read it back.

    Returns:
        bytes and sha256 of the file.

    Raises:
        VerificationError: the store gives back another table.
    """
    sink = io.BytesIO()
    dictionary = [name for name in table.schema.names if table.schema.field(name).type == pa.string()]
    with pq.ParquetWriter(sink, table.schema, compression="snappy", use_dictionary=dictionary) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    data = sink.getvalue()
    location.write_bytes(data)
    stored = location.read_bytes()
    read = pq.read_table(io.BytesIO(stored), partitioning=None)
    if stored != data or not same_table(read, table):
        raise VerificationError(f"{location.url} reads back differently than it was written")
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def same_table(first: pa.Table, second: pa.Table) -> bool:
    """True if schemas and values are equal, NaN equal to NaN."""
    if not first.schema.equals(second.schema) or first.num_rows != second.num_rows:
        return False
    for name in first.schema.names:
        left, right = first[name].combine_chunks(), second[name].combine_chunks()
        if left.equals(right):
            continue
        if not pa.types.is_floating(left.type) or left.is_null().to_pylist() != right.is_null().to_pylist():
            return False
        ours, theirs = (array.to_numpy(zero_copy_only=False) for array in (left, right))
        if not np.array_equal(ours, theirs, equal_nan=True):
            return False
    return True


def parquet_files(folder: Location) -> dict[str, int]:
    """Size in bytes of the data files below a folder, by relative path; hidden and marker files are left out."""
    return {
        name: size
        for name, size in folder.sizes().items()
        if name.endswith(".parquet") and not any(part.startswith(("_", ".")) for part in name.split("/"))
    }


def partition_of(name: str) -> str | None:
    """region_split of a file from its folder `region_split=<value>`; None if it lies in none."""
    for part in name.split("/")[:-1]:
        key, found, value = part.partition("=")
        if found and key == PARTITION:
            return value
    return None


@contextmanager
def open_parquet(location: Location) -> Iterator[pq.ParquetFile]:
    """A parquet file for reading group by group; ContractError if it is none."""
    with storage_errors(f"read {location.url}"), location.filesystem.open(location.path, "rb") as stream:
        try:
            file = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise ContractError(f"{location.url} is not a parquet file: {error}") from error
        yield file


def read_batches(
    location: Location, columns: Sequence[str] | None = None, rows: int = ROWS_PER_GROUP
) -> Iterator[pa.RecordBatch]:
    """The rows of a file in batches; memory holds one row group at most."""
    with open_parquet(location) as file:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(batch_size=rows, columns=names)


def batches_between(
    location: Location, start: int, stop: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches that hold the rows [start, stop) of a file, each with the number of its first row.

    Row groups without such a row are not read; memory holds one row group at most.
    """
    with open_parquet(location) as file:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        first = 0
        for group in range(file.metadata.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if first < stop and end > start:
                row = first
                for batch in file.iter_batches(ROWS_PER_GROUP, row_groups=[group], columns=names):
                    if row < stop and row + batch.num_rows > start:
                        yield row, batch
                    row += batch.num_rows
            first = end


def read_table_rows(piece: TablePiece, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of a piece with those of some columns that its file has; region_split also from the folder's name."""
    batches = []
    for first, batch in batches_between(piece.location, piece.start, piece.stop, columns):
        low, high = max(piece.start - first, 0), min(piece.stop - first, batch.num_rows)
        batches.append(batch.slice(low, high - low))
    frame: pd.DataFrame = pa.Table.from_batches(batches).to_pandas(ignore_metadata=True)
    split = partition_of(piece.location.path)
    if PARTITION in columns and PARTITION not in frame and split is not None:
        frame[PARTITION] = split
    return frame


def stamp_schema_of(location: Location) -> pa.Schema:
    """Schema of a file, without Spark's metadata; ContractError if it has no stamps."""
    with open_parquet(location) as file:
        schema = file.schema_arrow.remove_metadata()
    if STAMP_COLUMN not in schema.names:
        raise ContractError(f"{location.url}: expected a column {STAMP_COLUMN}, has {', '.join(schema.names)}")
    return schema
