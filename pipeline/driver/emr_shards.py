"""One shard of a run as files of the EMR tables; runs on a worker."""

from __future__ import annotations

import hashlib
import platform
import time
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.emr_columns import (
    CONTROL_COLUMN,
    IDENTITY_COLUMNS,
    METRICS_TABLE,
    PAIRED_TABLE,
    PARTITION,
    STAMP_COLUMN,
    STAMP_TABLE,
)
from pipeline.contracts.errors import VerificationError
from pipeline.contracts.manifest import EMR_COLUMNS
from pipeline.driver.tasks import ShardTask
from pipeline.stages.emr_stamps import EmrShard, emr_stamp_columns, rows_with_control
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.emr_tables import emr_schema, emr_table, write_emr_file
from pipeline.storage.locations import Location
from pipeline.storage.receipts import Receipt, write_receipt
from pipeline.storage.stamp_blobs import decode_stamp, encode_stamp
from pipeline.storage.tables import read_pieces

TABLES = ("stamps", "metrics", "paired")
_CUTOUT_COLUMNS = tuple(variable.name for variable in CUTOUTS.variables if not variable.is_pixels)


@dataclass(frozen=True)
class EmrExport:
    """What is written where.

    Attributes:
        layout: prefixes of the variant.
        experiment_id: name of the experiment's folders.
        tables: some of TABLES.
        metrics_only: write stamps rows without pixels.
        identity: hash of the run's plan, of variant and experiment; a receipt of another is refused.
    """

    layout: EmrLayout
    experiment_id: str
    tables: tuple[str, ...]
    metrics_only: bool
    identity: str

    def folders(self) -> dict[str, Location]:
        """Table -> the folder that gets its marker."""
        places = {
            "stamps": self.layout.stamps(self.experiment_id),
            "metrics": self.layout.metrics(self.experiment_id),
            "paired": self.layout.paired(),
        }
        return {name: places[name] for name in self.tables}

    @property
    def receipts(self) -> Location:
        """Where the receipts of these tables lie, apart from those of another choice."""
        choice = "-".join(self.tables) + ("-without_pixels" if self.metrics_only and "stamps" in self.tables else "")
        return self.layout.receipts(self.experiment_id, choice)

    def file_id(self, table: str) -> uuid.UUID:
        """What names the files of a table: equal for equal content, so that stamps without pixels have another."""
        content = f"{self.identity} {table} {self.metrics_only and table == 'stamps'}"
        return uuid.UUID(hashlib.sha256(content.encode()).hexdigest()[:32])


def export_shard(task: ShardTask, export: EmrExport) -> Receipt:
    """Write one shard's rows as one file per table and split; each is read back and its stamps are decoded again."""
    started = time.monotonic()
    shard, stamps, controls = _read_shard(task, export)
    columns: dict[str, Any] = dict(emr_stamp_columns(shard, task.config, metrics_only=export.metrics_only))
    objects: dict[str, dict[str, int | str]] = {}
    bands = task.config.survey.bands
    with_pixels = shard.has_stamp & (not export.metrics_only)
    blobs = [encode_stamp(stamps[row], bands) if made else None for row, made in enumerate(with_pixels.tolist())]
    columns[STAMP_COLUMN] = blobs
    _demand_same_pixels(blobs, stamps, bands)
    splits = np.asarray(columns[PARTITION].data, dtype=object)
    counts = {"none": int(shard.has_stamp.sum()), "error": int((~shard.has_stamp).sum())}
    written: dict[str, int] = dict.fromkeys((f"rows_{name}" for name in export.tables), 0)
    for name, schema in _schemas(export).items():
        chosen = np.ones(len(splits), dtype=np.bool_)
        values = columns
        if name == "paired" and controls is not None:
            chosen = rows_with_control(shard, columns["cutout_ok"].data, controls)
            own = [encode_stamp(controls[row], bands) if kept else None for row, kept in enumerate(chosen.tolist())]
            _demand_same_pixels(own, controls, bands)
            values = {**columns, CONTROL_COLUMN: own}
        for split in sorted(set(splits[chosen].tolist())):
            rows = np.flatnonzero(chosen & (splits == split))
            table = emr_table({key: _rows(values[key], rows) for key in schema.names}, schema)
            place = _file(export, name, split, task)
            objects[place.url.removeprefix(f"{export.layout.phase4.url}/")] = write_emr_file(place, table)
            written[f"rows_{name}"] += len(rows)
    receipt = Receipt(
        cube="emr",
        shard=task.shard,
        plan_sha256=export.identity,
        code_version=task.code_version,
        rows=len(splits),
        objects=objects,
        counts={name: count for name, count in counts.items() if count},
        work={name: float(count) for name, count in written.items()},
        notes=(),
        seconds=round(time.monotonic() - started, 3),
        worker=platform.node(),
    )
    write_receipt(export.receipts, receipt)
    return receipt


def _read_shard(task: ShardTask, export: EmrExport) -> tuple[EmrShard, NDArray[np.float32], NDArray[np.float32] | None]:
    training: PublishedCube = open_cube(task.layout.cube("training"))
    pixels = ["injected", *(["control"] if "paired" in export.tables else [])]
    pairs = training.read_shard(task.shard, [*training.column_names(), *pixels])
    cutouts = open_cube(task.layout.cube("cutouts")).read_shard(task.shard, _CUTOUT_COLUMNS)
    manifest = None
    if task.config.manifest.kind == "emr":
        manifest = read_pieces(task.pieces, EMR_COLUMNS | IDENTITY_COLUMNS, {})
    injected = pairs["injected"].to_numpy()
    # A row that was not made has no number in any band.
    made = ~np.isnan(injected).all(axis=(1, 2, 3))
    control = pairs["control"].to_numpy() if "paired" in export.tables else None
    return EmrShard(manifest, cutouts, pairs.drop_vars(pixels), made), injected, control


def _schemas(export: EmrExport) -> dict[str, pa.Schema]:
    every = {
        "stamps": emr_schema(STAMP_TABLE),
        "metrics": emr_schema(METRICS_TABLE),
        "paired": emr_schema(PAIRED_TABLE, partitioned=False),
    }
    return {name: every[name] for name in export.tables}


def _file(export: EmrExport, table: str, split: str, task: ShardTask) -> Location:
    name = f"part-{task.shard:05d}-{export.file_id(table)}.c000.snappy.parquet"
    if table == "paired":
        return export.layout.paired(split).join(name)
    return export.folders()[table].join(f"{PARTITION}={split}", name)


def _rows(values: Any, rows: NDArray[np.intp]) -> Any:
    return [values[row] for row in rows.tolist()] if isinstance(values, list) else values[rows]


def _demand_same_pixels(blobs: list[bytes | None], stamps: NDArray[np.float32], bands: tuple[str, ...]) -> None:
    for row, blob in enumerate(blobs):
        if blob is not None and decode_stamp(blob, bands).tobytes() != stamps[row].tobytes():
            raise VerificationError(f"the stamp of row {row} does not survive its encoding")
