"""One shard of finished stamps as a shard of the training cube; runs on a worker."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import TRAINING
from pipeline.contracts.emr_columns import CONTROL_COLUMN, STAMP_COLUMN
from pipeline.contracts.errors import ContractError, StorageError
from pipeline.driver.plan import Plan
from pipeline.driver.tasks import ShardTask
from pipeline.stages.cutouts import reason_counts
from pipeline.stages.emr_import import IMPORTED_COLUMNS, FoundStamp, imported_pairs
from pipeline.storage.cube import write_shard
from pipeline.storage.emr_tables import read_table_rows
from pipeline.storage.locations import Location
from pipeline.storage.receipts import Receipt, write_receipt
from pipeline.storage.stamp_blobs import decode_stamp
from pipeline.storage.tables import TablePiece

_PATH = "cutout_path"
_NAMES = ("task_id", "galaxy_id")
_REASONS = {"unreadable": "stamp_unreadable", "bands": "band_missing", "shape": "stamp_shape"}
_MAX_NOTES = 5


def duplicate_rows(plan: Plan) -> NDArray[np.int64]:
    """Numbers of the planned rows whose task_id an earlier row has; reads that column alone."""
    keys = [_keys(plan, shard) for shard in range(plan.shape.n_shards)]
    return np.flatnonzero(pd.Series(np.concatenate(keys)).duplicated().to_numpy())


def import_shard(task: ShardTask, duplicates: NDArray[np.int64]) -> Receipt:
    """Decode, check and store the stamps of one shard.

    Args:
        task: the shard; its pieces lie in tables of stamps.
        duplicates: from `duplicate_rows`, ascending.

    Raises:
        ContractError: a table with neither stamps nor paths of stamps.
        StorageError: a table cannot be read.
    """
    started = time.monotonic()
    row = task.shape.rows(task.shard).start
    notes: list[str] = []
    parts: list[xr.Dataset] = []
    # Tables differ in their columns, and what a table does not have is not what it leaves empty.
    for piece in task.pieces:
        parts.append(_imported(piece, row, duplicates, task.config, notes))
        row += parts[-1].sizes["sample"]
    pairs = xr.concat(parts, dim="sample")
    objects = write_shard(task.layout.cube("training"), TRAINING, task.shape, task.shard, pairs)
    receipt = Receipt(
        cube="training",
        shard=task.shard,
        plan_sha256=task.plan_sha256,
        code_version=task.code_version,
        rows=pairs.sizes["sample"],
        objects=objects,
        counts=reason_counts(pairs["reject_reason"].to_numpy()),
        work={},
        notes=tuple(notes[:_MAX_NOTES]),
        seconds=round(time.monotonic() - started, 3),
        worker=platform.node(),
    )
    write_receipt(task.layout.receipts("training"), receipt)
    return receipt


def _imported(
    piece: TablePiece, first_row: int, duplicates: NDArray[np.int64], config: RunConfig, notes: list[str]
) -> xr.Dataset:
    bands = config.survey.bands
    frame = read_table_rows(piece, (*IMPORTED_COLUMNS, STAMP_COLUMN, CONTROL_COLUMN, _PATH))
    if STAMP_COLUMN in frame:
        stamps = [_decoded(blob, bands, notes) for blob in frame[STAMP_COLUMN].tolist()]
    elif _PATH in frame:
        stamps = [_fetched(piece.location, path, bands, notes) for path in frame[_PATH].tolist()]
    else:
        raise ContractError(f"{piece.location.url}: expected a column {STAMP_COLUMN} or {_PATH}")
    own = frame[CONTROL_COLUMN].tolist() if CONTROL_COLUMN in frame else [None] * len(frame)
    controls = [None if blob is None else _decoded(blob, bands, notes) for blob in own]
    table = frame.drop(columns=[STAMP_COLUMN, CONTROL_COLUMN], errors="ignore")
    duplicate = np.isin(first_row + np.arange(len(frame)), duplicates)
    return imported_pairs(table, stamps, controls, duplicate, first_row, config)


def _keys(plan: Plan, shard: int) -> NDArray[np.uint64]:
    """Hash of every row's name; of its number where it has none, so that it is nobody's duplicate."""
    frames = [read_table_rows(piece, _NAMES) for piece in plan.pieces(shard)]
    names = [
        name
        for frame in frames
        for name in (frame[next((key for key in _NAMES if key in frame), "")] if len(frame.columns) else [])
    ]
    first = plan.shape.rows(shard).start
    if not names:
        names = [None] * (plan.shape.rows(shard).stop - first)
    texts = [f"\0{first + row}" if name is None else str(name) for row, name in enumerate(names)]
    return pd.util.hash_array(np.array(texts, dtype=object), categorize=False)


def _decoded(blob: bytes | None, bands: Sequence[str], notes: list[str]) -> FoundStamp:
    if blob is None:
        return FoundStamp(None, "stamp_unreadable")
    try:
        return FoundStamp(decode_stamp(blob, bands))
    except ContractError as error:
        notes.append(str(error))
        return FoundStamp(None, _REASONS[str(error).split(maxsplit=1)[0].rstrip(":")])


def _fetched(table: Location, path: str | None, bands: Sequence[str], notes: list[str]) -> FoundStamp:
    """The stamp in a file of its own; a relative path begins at the table's folder."""
    if not path:
        return FoundStamp(None, "stamp_unreadable")
    absolute = "://" in path or path.startswith("/")
    url = path if absolute else f"{table.url.rsplit('/', 1)[0]}/{path}"
    try:
        place = Location(url, table.region, table.endpoint_url)
        return _decoded(place.read_bytes() if place.size() else None, bands, notes)
    except StorageError as error:
        notes.append(str(error))
        return FoundStamp(None, "stamp_unreadable")
