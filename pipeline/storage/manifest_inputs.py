"""The tables a manifest is built from: bricks, region selections, and the parent catalogue in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import (
    BRICK_NUMBERS,
    BRICK_OPTIONAL_TYPES,
    BRICK_TYPES,
    PARENT_TYPES,
    PHOTOMETRY,
    SELECTION_TYPES,
    SPLIT_NAMES,
    BrickTable,
    HostBatch,
    Hosts,
    Selections,
)
from pipeline.contracts.errors import ContractError
from pipeline.storage.locations import Location
from pipeline.storage.tables import TablePart, find_parts, open_parquet_file

BATCH_ROWS = 2**19
_PARTITION_TYPES = {"region_split": pa.string(), "region_id": pa.int64()}
_FLAG_TYPES = ("bool", "int8", "int16", "int32", "int64")
_HASHED = ("zmag", "rmag")
_NAMED = 3


def read_brick_numbers(location: Location) -> BrickTable:
    """Seeing, depth and extinction of bricks; g and z seeing are those of r where the table has no such column.

    Raises:
        ContractError: missing columns, wrong types, a name that is null, twice, or not of the form 0591m305.
    """
    table = _read_table(location, BRICK_TYPES, BRICK_OPTIONAL_TYPES)
    names = table["brickname"].to_pylist()
    wrong = [name for name, fits in zip(names, _are_bricks(table["brickname"]), strict=True) if not fits]
    wrong += [name for name, count in zip(*_counts(names), strict=True) if count > 1]
    if wrong:
        raise ContractError(
            f"{location.url}: {len(wrong)} bricks whose name is null, twice, or not of the form 0591m305, "
            f"such as {wrong[:_NAMED]}"
        )
    order = np.argsort(np.array(names, dtype=str))
    numbers = {
        name: _floats(table[name if name in table.column_names else "psfsize_r"])[order] for name in BRICK_NUMBERS
    }
    return BrickTable(tuple(names[row] for row in order), numbers)


def read_selections(location: Location, wanted: Sequence[str] | None) -> Selections:
    """Regions of the selection sets; `wanted` names those to take, None takes all.

    Raises:
        ContractError: missing columns, nulls, a wanted set that is not there, a set with two strategies or modes, a
            region with two splits or one that is no split.
    """
    table = _read_table(location, SELECTION_TYPES, {})
    nulls = [name for name in table.column_names if table[name].null_count]
    rows = set() if nulls else set(zip(*(table[name].to_pylist() for name in SELECTION_TYPES), strict=True))
    set_ids = sorted({row[0] for row in rows} & set(wanted) if wanted is not None else {row[0] for row in rows})
    problems = [f"nulls in {name}" for name in nulls]
    problems += [f"no selection set {name!r}" for name in wanted or () if name not in set_ids and not nulls]
    kinds = {(row[0], row[1], row[2]) for row in rows}
    splits = {(row[3], row[4]) for row in rows}
    problems += [f"set {name!r} has two strategies or modes" for name in _repeated([kind[0] for kind in kinds])]
    problems += [f"region {region} has two splits" for region in _repeated([split[0] for split in splits])]
    problems += [f"region_split {split!r}" for split in sorted({split for _, split in splits} - set(SPLIT_NAMES))]
    if problems or not set_ids:
        raise ContractError(f"{location.url}: region selections are unusable: " + "; ".join(problems or ["no rows"]))
    kind_of = {name: (strategy, mode) for name, strategy, mode in kinds}
    split_of = dict(splits)
    region_ids = sorted(split_of)
    member = np.zeros((len(set_ids), len(region_ids)), np.bool_)
    for row in rows:
        if row[0] in set_ids:
            member[set_ids.index(row[0]), np.searchsorted(region_ids, row[3])] = True
    return Selections(
        tuple(set_ids),
        tuple(kind_of[name][0] for name in set_ids),
        tuple(kind_of[name][1] for name in set_ids),
        np.array(region_ids, np.int64),
        np.array([SPLIT_NAMES.index(split_of[region]) for region in region_ids], np.int8),
        member,
    )


def scan_parent(parts: Sequence[TablePart], bricks: BrickTable, flag: str | None) -> Iterator[HostBatch]:
    """What sampling needs of each row, in batches; the columns region_split and region_id may be folders.

    Raises:
        ContractError: a part is no parquet file, lacks a column, or has one of another type.
    """
    names = [name for name in PARENT_TYPES if name not in PHOTOMETRY or name in _HASHED]
    for first_row, batch in _parent_batches(parts, names, flag):
        yield HostBatch(first_row=first_row, **_places(batch, bricks), photometry=_photometry(batch, _HASHED),
                        flag=_flags(batch, flag))  # fmt: skip


def gather_hosts(parts: Sequence[TablePart], bricks: BrickTable, rows: NDArray[np.int64]) -> Hosts:
    """The hosts at these rows, sorted and distinct; reads the catalogue once more, a batch at a time."""
    brick, region_id = np.empty(rows.size, np.int32), np.empty(rows.size, np.int32)
    ra, dec = np.empty(rows.size), np.empty(rows.size)
    photometry = {name: np.ma.masked_array(np.zeros(rows.size, np.float32), mask=True) for name in PHOTOMETRY}
    for first_row, batch in _parent_batches(parts, list(PARENT_TYPES), None):
        low, high = np.searchsorted(rows, (first_row, first_row + batch.num_rows))
        if low == high:
            continue
        taken = batch.take(pa.array(rows[low:high] - first_row))
        places = _places(taken, bricks)
        brick[low:high], region_id[low:high] = places["brick"], places["region_id"]
        ra[low:high], dec[low:high] = places["ra_deg"], places["dec_deg"]
        for name, values in _photometry(taken, PHOTOMETRY).items():
            photometry[name][low:high] = values
    order = np.lexsort((rows, dec, ra, brick))
    return Hosts(
        rows[order],
        brick[order],
        ra[order],
        dec[order],
        region_id[order],
        {name: values[order] for name, values in photometry.items()},
    )


def _parent_batches(
    parts: Sequence[TablePart], names: Sequence[str], flag: str | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    types = {name: PARENT_TYPES[name] for name in names} | ({flag: _FLAG_TYPES} if flag else {})
    first_row = 0
    for part in parts:
        folders = _partition_values(part.location)
        with open_parquet_file(part.location) as file:
            in_file = {name: kinds for name, kinds in types.items() if name not in folders}
            _demand_types(part.location, file.schema_arrow, in_file, {})
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(in_file), use_threads=False):
                for name, value in folders.items():
                    if name in types:
                        filled = pa.repeat(pa.scalar(value, _PARTITION_TYPES[name]), batch.num_rows)
                        batch = batch.append_column(name, filled)  # noqa: PLW2901 - the batch with its folder's columns
                yield first_row, batch
                first_row += batch.num_rows


def _partition_values(location: Location) -> dict[str, Any]:
    pairs = (part.split("=", 1) for part in location.url.split("/") if "=" in part)
    found = {name: value for name, value in pairs if name in _PARTITION_TYPES}
    if "region_id" in found and not found["region_id"].lstrip("-").isdigit():
        raise ContractError(f"{location.url}: region_id={found['region_id']} is no integer")
    return {name: int(value) if name == "region_id" else value for name, value in found.items()}


def _places(batch: pa.RecordBatch, bricks: BrickTable) -> dict[str, NDArray[Any]]:
    return {
        "brick": _positions(batch["brickname"], bricks.names, np.int32),
        "ra_deg": _floats(batch["ra"]),
        "dec_deg": _floats(batch["dec"]),
        "region_id": np.asarray(batch["region_id"].cast(pa.int64()).fill_null(-1)),
        "split": _positions(batch["region_split"], SPLIT_NAMES, np.int8),
    }


def _photometry(batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, np.ma.MaskedArray[Any, np.dtype[np.float32]]]:
    return {
        name: np.ma.masked_array(
            np.asarray(batch[name].fill_null(0.0), dtype=np.float32), mask=np.asarray(batch[name].is_null())
        )
        for name in names
    }


def _flags(batch: pa.RecordBatch, flag: str | None) -> NDArray[np.bool_]:
    if flag is None:
        return np.ones(batch.num_rows, np.bool_)
    return np.asarray(pc.equal(batch[flag].cast(pa.int64()), 1).fill_null(False))


def _positions(texts: pa.Array, among: Sequence[str], dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    found = pc.index_in(texts.cast(pa.string()), value_set=pa.array(among, pa.string()))
    return np.asarray(found.fill_null(-1)).astype(dtype)


def _floats(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).fill_null(float("nan")), dtype=np.float64)


def _are_bricks(names: pa.ChunkedArray) -> list[bool]:
    fits = pc.match_substring_regex(names, r"^\d{4}[mp]\d{3}$")
    return [bool(value) for value in fits.fill_null(False).to_pylist()]


def _counts(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    unique, counts = np.unique(np.array([str(value) for value in values]), return_counts=True)
    return unique.tolist(), counts.tolist()


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for value, count in zip(*_counts(values), strict=True) if count > 1]


def _read_table(
    location: Location, types: Mapping[str, Sequence[str]], optional: Mapping[str, Sequence[str]]
) -> pa.Table:
    tables = []
    for part in find_parts(location):
        with open_parquet_file(part.location) as file:
            _demand_types(part.location, file.schema_arrow, types, optional)
            names = [name for name in (*types, *optional) if name in file.schema_arrow.names]
            tables.append(file.read(columns=names, use_threads=False))
    if any(table.column_names != tables[0].column_names for table in tables):
        raise ContractError(f"{location.url}: expected part files of equal columns")
    return pa.concat_tables(tables, promote_options="permissive")


def _demand_types(
    location: Location, schema: pa.Schema, types: Mapping[str, Sequence[str]], optional: Mapping[str, Sequence[str]]
) -> None:
    problems = []
    for name, kinds in {**types, **optional}.items():
        if name not in schema.names:
            problems += [f"missing column {name!r} ({' or '.join(kinds)})"] if name in types else []
            continue
        found = str(schema.field(name).type).removeprefix("large_")
        if found not in kinds:
            problems.append(f"column {name!r}: expected {' or '.join(kinds)}, got {found}")
    if problems:
        raise ContractError(f"{location.url}: {len(problems)} problems: " + "; ".join(problems))
