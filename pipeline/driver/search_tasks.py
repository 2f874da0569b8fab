"""What a worker runs for `dhs score`: places cut out and scored, the best of them kept, a cube's stamps scored."""

from __future__ import annotations

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.contracts.datasets import CUTOUTS, SPLITS
from pipeline.contracts.errors import VerificationError
from pipeline.driver.tasks import StampSource, cut_stamps
from pipeline.stages.cutouts import reason_counts
from pipeline.stages.example_scores import examples_of, score_examples
from pipeline.stages.network import StampNetwork, probability
from pipeline.stages.search import PLACE_COLUMNS, place_rows, score_stamps
from pipeline.storage.cube import CubeShape, open_cube, write_shard
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, write_receipt
from pipeline.storage.score_tables import SCORE_COLUMNS, example_table
from pipeline.storage.tables import TablePiece, arrow_bytes, read_pieces, table_bytes

SCORES = "scores"
_MAX_NOTES = 5


@dataclass(frozen=True)
class NetworkFile:
    """An exported network in the store."""

    location: Location
    sha256: str


@dataclass(frozen=True)
class ScoreTask:
    """Everything a worker needs to score one shard; small, because it travels with the task.

    Attributes:
        layout: the search's folder.
        shard: number of the shard.
        network: what scores.
        plan_sha256: what the receipt is for.
        code_version: of the driver.
    """

    layout: RunLayout
    shard: int
    network: NetworkFile
    plan_sha256: str
    code_version: str


@dataclass(frozen=True)
class PlacesTask(ScoreTask):
    """Some places of the planned table."""

    source: StampSource
    piece: TablePiece


@dataclass(frozen=True)
class CandidatesTask(PlacesTask):
    """Some of the candidates, for a cube of their own."""

    cube: str
    shape: CubeShape


@dataclass(frozen=True)
class CubeTask(ScoreTask):
    """One shard of a cube; `splits` are those of a training cube."""

    cube: Location
    splits: tuple[str, ...]


def score_places(task: PlacesTask) -> Receipt:
    """Cut the places of a shard out of their bricks, score them, store the table; pixels are not kept."""
    started = time.monotonic()
    cutouts, work, notes = cut_stamps(task.source, place_rows(read_pieces([task.piece], PLACE_COLUMNS, {})))
    table = score_stamps(cutouts, _open_network(task.network))
    return _store_part(task, table_bytes(table), Counter(table["reject_reason"]), work, tuple(notes), started)


def cut_candidates(task: CandidatesTask) -> Receipt:
    """Cut the candidates of a shard out again and store them as a shard of a cutouts cube."""
    started = time.monotonic()
    names = {"position_id" if name == "task_id" else name: family for name, family in PLACE_COLUMNS.items()}
    rows = read_pieces([task.piece], names, {}).rename(columns={"position_id": "task_id"})
    cutouts, work, notes = cut_stamps(task.source, place_rows(rows))
    objects = write_shard(task.layout.cube(task.cube), CUTOUTS, task.shape, task.shard, cutouts)
    counts = reason_counts(cutouts["reject_reason"].to_numpy())
    return _receipt(task, task.cube, len(rows), objects, counts, work, tuple(notes), started)


def score_cutouts_shard(task: CubeTask) -> Receipt:
    """Score the stamps of one shard of a cutouts cube and store the table."""
    started = time.monotonic()
    names = [variable.name for variable in CUTOUTS.variables if variable.name not in ("invvar", "maskbits")]
    cutouts = open_cube(task.cube).read_shard(task.shard, names)
    table = score_stamps(cutouts, _open_network(task.network))
    return _store_part(task, table_bytes(table), Counter(table["reject_reason"]), {}, (), started)


def score_training_shard(task: CubeTask) -> Receipt:
    """Score injected and control stamps of one shard of a training cube and store the table."""
    started = time.monotonic()
    network = _open_network(task.network)
    names = {"role", "injected", "control", *SCORE_COLUMNS, *network.spec.features}
    stamps = open_cube(task.cube).read_shard(task.shard, sorted(names))
    row, label = examples_of(stamps, task.splits)
    logit = score_examples(stamps, row, label, network)
    columns = stamps[list(SCORE_COLUMNS)].isel(sample=row)
    split = np.array(SPLITS, dtype=object)[columns["split"].to_numpy()]
    table = example_table(columns, label, logit, probability(logit), split, network.spec.bands)
    return _store_part(task, arrow_bytes(table), {"none": table.num_rows}, {}, (), started)


def score_part(layout: RunLayout, shard: int) -> Location:
    """Where a shard's table lies."""
    return layout.cube(SCORES).join(_part_name(shard))


def _part_name(shard: int) -> str:
    return f"{shard:06d}.parquet"


@lru_cache(maxsize=1)
def _open_network(network: NetworkFile) -> StampNetwork:
    opened = StampNetwork(network.location.read_bytes())
    if opened.sha256 != network.sha256:
        raise VerificationError(f"{network.location.url}: expected sha256 {network.sha256}, got {opened.sha256}")
    return opened


def _store_part(
    task: ScoreTask,
    data: bytes,
    counts: Mapping[str, int],
    work: Mapping[str, float],
    notes: tuple[str, ...],
    started: float,
) -> Receipt:
    place = score_part(task.layout, task.shard)
    place.write_bytes(data)
    if place.read_bytes() != data:
        raise VerificationError(f"{place.url} reads back differently than it was written")
    stored: dict[str, int | str] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    objects = {_part_name(task.shard): stored}
    return _receipt(task, SCORES, sum(counts.values()), objects, counts, work, notes, started)


def _receipt(
    task: ScoreTask,
    cube: str,
    rows: int,
    objects: Mapping[str, Mapping[str, int | str]],
    counts: Mapping[str, int],
    work: Mapping[str, float],
    notes: tuple[str, ...],
    started: float,
) -> Receipt:
    receipt = Receipt(
        cube=cube,
        shard=task.shard,
        plan_sha256=task.plan_sha256,
        code_version=task.code_version,
        rows=rows,
        objects=objects,
        counts=dict(counts),
        work=dict(work),
        notes=notes[:_MAX_NOTES],
        seconds=round(time.monotonic() - started, 3),
        worker=platform.node(),
    )
    write_receipt(task.layout.receipts(cube), receipt)
    return receipt
