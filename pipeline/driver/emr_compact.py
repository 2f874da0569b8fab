"""Compaction (EMR phase 4p5): many small stamp files as a given number of balanced ones, relabelled if asked for.

A file of the output is a fixed run of rows of its split, so files are made one by one, each verified, and a second
call makes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.contracts.emr_columns import PARTITION
from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError, VerificationError
from pipeline.stages.emr_splits import relabelled_splits
from pipeline.storage.emr_layout import RESUMES, SUCCESS, EmrLayout
from pipeline.storage.emr_tables import (
    batches_between,
    open_parquet,
    parquet_files,
    partition_of,
    read_batches,
    stamp_schema_of,
)
from pipeline.storage.locations import Location
from pipeline.storage.runs import read_json, utc_now, write_json

# "none" keeps every label; "val75" is that of the EMR system, docs/emr-migration.md says why to avoid it.
RELABELS = ("none", "val75")
ORIGINAL = "original_split"
_REQUIRED = ("stamp_npz", "is_control", "cutout_ok", "task_id")
_IDENTITY = "_compaction.json"


@dataclass(frozen=True)
class SourceRows:
    """Some rows of one file, ascending."""

    name: str
    split: str
    rows: NDArray[np.int64]


def compact_stamps(
    source: Location, layout: EmrLayout, experiment_id: str, partitions: int = 200, relabel: str = "none"
) -> dict[str, Any]:
    """Write the rows of a stamps table as `partitions` files whose numbers of rows differ by one at most per split.

    Args:
        source: folder with parquet files below region_split=<split>/.
        layout: where to; its variant must be new.
        experiment_id: name of the output's folder.
        partitions: number of files, at least one per split; splits share them by rows.
        relabel: one of RELABELS. val75 moves three quarters of val to train by task_id and adds `original_split`.

    Returns:
        rows, files, files_kept, rows per split and the table's folder.

    Raises:
        ConfigError: an old variant, an unknown relabelling, or too few partitions.
        ContractError: no such table, or files of different columns.
        PlanChangedError: files of another source or of other settings lie there.
        VerificationError: the output does not hold the rows of the input.
    """
    if relabel not in RELABELS:
        raise ConfigError(f"relabel {relabel!r}: expected one of {', '.join(RELABELS)}")
    target = layout.for_writing().compacted(experiment_id)
    schema = _common_schema(source, relabel)
    by_split = _rows_by_split(source, relabel)
    if partitions < len(by_split):
        raise ConfigError(f"{partitions} partitions: expected at least one for each of {', '.join(by_split)}")
    identity = _claim(target, source, partitions, relabel)
    target.join(SUCCESS).remove()
    counts = {split: sum(part.rows.size for part in parts) for split, parts in by_split.items()}
    shares = _shares(counts, partitions)
    kept = 0
    for split, parts in by_split.items():
        bounds = np.linspace(0, counts[split], shares[split] + 1).round().astype(np.int64)
        for number in range(shares[split]):
            place = target.join(f"{PARTITION}={split}", f"part-{number:05d}-{identity[:12]}.c000.snappy.parquet")
            start, stop = int(bounds[number]), int(bounds[number + 1])
            if _holds(place, schema, stop - start):
                kept += 1
                continue
            _write_file(place, source, list(_slice(parts, start, stop)), schema)
    files = sum(shares.values())
    _verify(target, schema, counts, files)
    stage = {
        "stage": "4p5",
        "timestamp_utc": utc_now(),
        "variant": layout.variant,
        "output_s3": layout.phase4.url,
        "input_s3": source.url,
        "output_compact_s3": target.url,
        "compact_partitions": partitions,
        "idempotency": RESUMES,
        "relabel": relabel,
        "rows": counts,
    }
    write_json(layout.stage_config("4p5"), stage)
    target.join(SUCCESS).write_bytes(b"")
    return {"rows": sum(counts.values()), "files": files, "files_kept": kept, "splits": counts, "table": target.url}


def _common_schema(source: Location, relabel: str) -> pa.Schema:
    names = list(parquet_files(source))
    if not names or not all(partition_of(name) for name in names):
        raise ContractError(
            f"{source.url}: expected parquet files below {PARTITION}=<split>/, found {len(names)} files"
        )
    schema = stamp_schema_of(source.join(names[0]))
    missing = [name for name in _REQUIRED if name not in schema.names]
    if missing:
        raise ContractError(f"{source.url}: missing columns {', '.join(missing)}")
    for name in names[1:]:
        if not stamp_schema_of(source.join(name)).equals(schema):
            raise ContractError(f"{source.url}: {name} and {names[0]} have different columns")
    return schema if relabel == "none" else schema.append(pa.field(ORIGINAL, pa.string(), nullable=False))


def _rows_by_split(source: Location, relabel: str) -> dict[str, list[SourceRows]]:
    """Rows of every file by the split that they go to; reads task_ids only, and only to relabel."""
    found: dict[str, list[SourceRows]] = {}
    for name in sorted(parquet_files(source)):
        split = str(partition_of(name))
        if relabel == "none":
            with open_parquet(source.join(name)) as file:
                labels = np.full(file.metadata.num_rows, split, dtype=object)
        else:
            tasks = [task for batch in read_batches(source.join(name), ["task_id"]) for task in batch[0].to_pylist()]
            labels = relabelled_splits(tasks, [split] * len(tasks))
        for label in sorted(set(labels.tolist())):
            found.setdefault(label, []).append(SourceRows(name, split, np.flatnonzero(labels == label)))
    return dict(sorted(found.items()))


def _claim(target: Location, source: Location, partitions: int, relabel: str) -> str:
    """Identity of this compaction, stored beside its files; PlanChangedError if another one's is there."""
    content = {"source": source.url, "files": parquet_files(source), "partitions": partitions, "relabel": relabel}
    identity = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    note = target.join(_IDENTITY)
    if note.exists() and read_json(note).get("identity") != identity:
        raise PlanChangedError(
            f"{target.url} was made from another table or with other settings; choose another variant"
        )
    if not note.exists() and parquet_files(target):
        raise PlanChangedError(f"{target.url} holds files that this program did not write; choose another variant")
    write_json(note, {"identity": identity, "source": source.url, "partitions": partitions, "relabel": relabel})
    return identity


def _shares(counts: dict[str, int], partitions: int) -> dict[str, int]:
    """Files per split: one each, the others one by one to the split with most rows per file."""
    shares = dict.fromkeys(counts, 1)
    for _ in range(partitions - len(counts)):
        largest = max(counts, key=lambda split: (counts[split] / shares[split], split))
        if shares[largest] >= counts[largest]:
            break
        shares[largest] += 1
    return shares


def _slice(parts: list[SourceRows], start: int, stop: int) -> Iterator[SourceRows]:
    first = 0
    for part in parts:
        low, high = max(start - first, 0), min(stop - first, part.rows.size)
        if low < high:
            yield SourceRows(part.name, part.split, part.rows[low:high])
        first += part.rows.size


def _holds(place: Location, schema: pa.Schema, n_rows: int) -> bool:
    """True if the file is there with its columns and rows; files appear whole or not at all."""
    if not place.size():
        return False
    with open_parquet(place) as file:
        return bool(file.metadata.num_rows == n_rows and file.schema_arrow.equals(schema))


def _write_file(place: Location, source: Location, parts: list[SourceRows], schema: pa.Schema) -> None:
    """Write on local disk, put the file in its place, and compare what the store then holds."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "part.parquet"
        with pq.ParquetWriter(local, schema, compression="snappy", use_dictionary=False) as writer:
            for part in parts:
                for table in _tables(source, part, schema):
                    writer.write_table(table)
        place.upload(local)
        with local.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if place.sha256() != digest:
        raise VerificationError(f"{place.url} reads back differently than it was written")


def _tables(source: Location, part: SourceRows, schema: pa.Schema) -> Iterator[pa.Table]:
    for first, batch in batches_between(source.join(part.name), int(part.rows[0]), int(part.rows[-1]) + 1):
        low, high = np.searchsorted(part.rows, (first, first + batch.num_rows))
        if low < high:
            rows = (
                pa.Table.from_batches([batch]).replace_schema_metadata(None).take(pa.array(part.rows[low:high] - first))
            )
            if ORIGINAL in schema.names:
                rows = rows.append_column(schema.field(ORIGINAL), pa.array([part.split] * rows.num_rows))
            yield rows.cast(schema)


def _verify(target: Location, schema: pa.Schema, counts: dict[str, int], files: int) -> None:
    found: dict[str, int] = {}
    names = parquet_files(target)
    for name in names:
        with open_parquet(target.join(name)) as file:
            if not file.schema_arrow.equals(schema):
                raise VerificationError(f"{target.url}: {name} has other columns")
            split = str(partition_of(name))
            found[split] = found.get(split, 0) + file.metadata.num_rows
    if found != counts or len(names) != files:
        raise VerificationError(f"{target.url}: expected {counts} rows in {files} files, found {found} in {len(names)}")
