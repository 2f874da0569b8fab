"""Filling the coadd cache: bricks dealt to Dask tasks, what each found, and the manifest that lists every brick."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pipeline.contracts.cache_config import CacheConfig
from pipeline.contracts.errors import (
    ConfigError,
    ContractError,
    PipelineError,
    PlanChangedError,
    StorageError,
    VerificationError,
)
from pipeline.driver.cluster import open_cluster
from pipeline.driver.provenance import code_version
from pipeline.driver.shards import run_shards
from pipeline.storage.coadd_cache import BrickCopier, BrickState
from pipeline.storage.emr_layout import RESUMES, SUCCESS, EmrLayout
from pipeline.storage.locations import Location
from pipeline.storage.receipts import Receipt
from pipeline.storage.remote_files import RemoteFiles
from pipeline.storage.runs import read_json, utc_now, write_json
from pipeline.storage.tables import TablePiece, find_parts, read_pieces, table_bytes

logger = logging.getLogger("pipeline.driver")

_ROWS_AT_ONCE = 2**20
_READERS = 16
_NOTES = 3


@dataclass(frozen=True)
class CacheTask:
    """Some bricks to be brought to the cache by one worker."""

    config: CacheConfig
    layout: EmrLayout
    shard: int
    bricknames: tuple[str, ...]
    plan_sha256: str
    code_version: str

    @property
    def part(self) -> Location:
        """Where the task leaves what it found."""
        return self.layout.cache_part(self.shard)


def fill_cache(config: CacheConfig, limit_bricks: int | None = None) -> dict[str, Any]:
    """Fill the cache; what is there already is found and kept.

    Args:
        config: what to copy.
        limit_bricks: the first bricks only, with a record of their own beside the full one.

    Returns:
        Bricks by state, bytes and files copied, and where the assets manifest lies.

    Raises:
        ConfigError: the source or the cache cannot be what is meant.
        PlanChangedError: the record is that of other bricks, files or another source.
        VerificationError: the source has none of the bricks, or lacks more than limits.absent_bricks.
        StorageError: bricks failed; the same command tries them again.
        ClusterError: workers or scheduler were lost.
    """
    bricknames = _chosen_bricks(config)[:limit_bricks]
    place = config.cache
    variant = place.variant if limit_bricks is None else f"{place.variant}-limit{limit_bricks}"
    layout = EmrLayout(Location(place.output, place.region, place.endpoint_url), variant).for_writing()
    _check_source(config)
    tasks = _plan(config, layout, bricknames)
    _write_stage_config(config, layout, len(tasks))
    layout.cache_success.remove()
    try:
        with open_cluster(config.cluster) as cluster:

            def stop_early(receipts: Sequence[Receipt]) -> None:
                _check_limits(config, sum((Counter(receipt.counts) for receipt in receipts), Counter()))

            run_shards(cluster, "cache", fill_bricks, tasks, {}, config.retries, inspect=stop_early)
    except PipelineError:
        _write_manifest(config, layout, tasks)
        raise
    summary = _write_manifest(config, layout, tasks)
    _judge(config, summary["bricks"])
    layout.cache_success.write_bytes(b"")
    return summary


def fill_bricks(task: CacheTask) -> Receipt:
    """Bring the bricks of a task to the cache, one after the other, and store what was found.

    Raises:
        StorageError: the cache or the record cannot be read or written.
    """
    started = time.monotonic()
    known = {state["brickname"]: state["sizes"] for state in _read_part(task)}
    states, requests, retries = asyncio.run(_fill(task, known))
    write_json(task.part, {"plan_sha256": task.plan_sha256, "bricks": [asdict(state) for state in states]})
    counts = Counter(str(state.state) for state in states if not state.is_complete)
    return Receipt(
        cube="cache",
        shard=task.shard,
        plan_sha256=task.plan_sha256,
        code_version=task.code_version,
        rows=len(states),
        objects={},
        counts={"none": sum(state.is_complete for state in states), **counts},
        work={
            "files": float(sum(state.fetched_files for state in states)),
            "bytes_fetched": float(sum(state.fetched_bytes for state in states)),
            "requests": float(requests),
            "retries": float(retries),
        },
        notes=tuple(state.reason for state in states if state.reason)[:_NOTES],
        seconds=round(time.monotonic() - started, 3),
        worker=platform.node(),
    )


async def _fill(task: CacheTask, known: dict[str, dict[str, int]]) -> tuple[list[BrickState], int, int]:
    config = task.config
    cache = Location(config.cache.url, config.cache.region, config.cache.endpoint_url)
    async with RemoteFiles(_source(config), config.patience) as source:
        await source.start()
        copier = BrickCopier(
            source, config.source.layout, cache, config.files.keys(), config.check == "source",
            config.patience.connections,
        )  # fmt: skip
        states = [await copier.fill(name, known.get(name, {})) for name in task.bricknames]
        return states, source.requests, source.retries


def _source(config: CacheConfig) -> Location:
    return Location(config.source.url, config.source.region, config.source.endpoint_url)


def _check_source(config: CacheConfig) -> None:
    source = _source(config)
    if source.scheme in ("file", "s3") and not source.exists():
        raise ConfigError(f"source.url: {source.url} does not exist")


def _chosen_bricks(config: CacheConfig) -> list[str]:
    """Sorted names of the bricks, without those of the blacklist; ContractError if none is left."""
    place = config.cache
    names = set(config.bricks.names)
    if config.bricks.table is not None:
        for part in find_parts(Location(config.bricks.table, place.region, place.endpoint_url)):
            for start in range(0, part.n_rows, _ROWS_AT_ONCE):
                piece = TablePiece(part.location, start, min(start + _ROWS_AT_ONCE, part.n_rows))
                names |= set(read_pieces([piece], {"brickname": "string"}, {})["brickname"].unique())
    if config.bricks.blacklist is not None:
        listed = read_json(Location(config.bricks.blacklist, place.region, place.endpoint_url))
        if not isinstance(listed.get("bricks"), dict | list):
            raise ContractError(f"{config.bricks.blacklist}: expected a key 'bricks' with names, got {sorted(listed)}")
        names -= set(listed["bricks"])
    if wrong := config.bricks.malformed(names):
        raise ContractError(f"{config.bricks.table}: expected brick names of the form 0591m305, got {wrong[:3]}")
    if not names:
        raise ContractError("bricks: none is left after the blacklist")
    return sorted(names)


def _plan(config: CacheConfig, layout: EmrLayout, bricknames: list[str]) -> list[CacheTask]:
    sha256 = config.identity_sha256(bricknames)
    plan = layout.cache_plan
    if plan.exists() and (known := read_json(plan)["sha256"]) != sha256:
        raise PlanChangedError(
            f"{plan.url} was planned as {known[:12]}, these bricks, files and source make {sha256[:12]}; "
            "take another cache.variant (what the cache holds is kept)"
        )
    size = config.bricks_per_task
    dealt = [tuple(bricknames[at : at + size]) for at in range(0, len(bricknames), size)]
    write_json(plan, {"sha256": sha256, "n_bricks": len(bricknames), "n_tasks": len(dealt)})
    return [CacheTask(config, layout, k, names, sha256, code_version()) for k, names in enumerate(dealt)]


def _read_part(task: CacheTask) -> list[dict[str, Any]]:
    """What an earlier try of the task found; empty if there was none, or it was of another plan."""
    if not task.part.size():
        return []
    content = read_json(task.part)
    return list(content["bricks"]) if content["plan_sha256"] == task.plan_sha256 else []


def _check_limits(config: CacheConfig, counts: Counter[str]) -> None:
    if counts["absent"] > config.limits.absent_bricks:
        raise VerificationError(
            f"{config.source.url} lacks {counts['absent']} bricks so far, limits.absent_bricks is "
            f"{config.limits.absent_bricks}: are source.url and source.layout right?"
        )
    if counts["failed"] > config.limits.failed_bricks:
        raise StorageError(
            f"{counts['failed']} bricks failed so far, limits.failed_bricks is {config.limits.failed_bricks}: "
            f"{config.source.url} does not answer; the reasons are in the assets manifest"
        )


def _judge(config: CacheConfig, bricks: dict[str, int]) -> None:
    if not bricks["cached"] + bricks["fetched"] + bricks["failed"]:
        raise VerificationError(
            f"{config.source.url} has none of the {bricks['absent']} bricks: are source.url and source.layout right?"
        )
    if bricks["failed"]:
        raise StorageError(
            f"{bricks['failed']} of {sum(bricks.values())} bricks failed, their reasons are in the assets manifest; "
            "the same command tries them again"
        )


def _write_manifest(config: CacheConfig, layout: EmrLayout, tasks: Sequence[CacheTask]) -> dict[str, Any]:
    """Store the assets manifest and the blacklist; every planned brick has a row."""
    with ThreadPoolExecutor(_READERS) as pool:
        rows = [row for rows in pool.map(_part_rows, tasks) for row in rows]
    frame = pd.DataFrame(rows)
    for folder, name, data in (
        (layout.assets_manifest(), "part-00000.parquet", table_bytes(frame)),
        (layout.assets_manifest(csv=True), "part-00000.csv", _csv(frame)),
    ):
        folder.join(name).write_bytes(data)
        folder.join(SUCCESS).write_bytes(b"")
    absent = {row["brickname"]: row["error"] for row in rows if row["state"] == "absent"}
    write_json(
        layout.brick_blacklist,
        {"source": config.source.url, "created_utc": utc_now(), "n_bricks": len(absent), "bricks": absent},
    )
    states = ("cached", "fetched", "absent", "failed", "pending")
    return {
        "bricks": {state: int((frame["state"] == state).sum()) for state in states},
        "fetched_files": int(frame["fetched_files"].sum()),
        "fetched_bytes": int(frame["fetched_bytes"].sum()),
        "cache_bytes": int(frame["n_bytes"].sum()),
        "assets_manifest": layout.assets_manifest().url,
        "brick_blacklist": layout.brick_blacklist.url,
    }


def _part_rows(task: CacheTask) -> list[dict[str, Any]]:
    """Rows of the assets manifest: the four columns of EMR (brickname, ok, error, s3_prefix), then ours."""
    found = {state["brickname"]: BrickState(**state) for state in _read_part(task)}
    rows = []
    for name in task.bricknames:
        state = found.get(name)
        rows.append(
            {
                "brickname": name,
                "ok": int(state is not None and state.is_complete),
                "error": (state.reason or None) if state else "not tried yet",
                "s3_prefix": f"{task.config.cache.url.rstrip('/')}/{name}/",
                "state": state.state if state else "pending",
                "n_files": len(state.sizes) if state else 0,
                "n_bytes": sum(state.sizes.values()) if state else 0,
                "fetched_files": state.fetched_files if state else 0,
                "fetched_bytes": state.fetched_bytes if state else 0,
            }
        )
    return rows


def _csv(frame: pd.DataFrame) -> bytes:
    sink = io.StringIO()
    frame.to_csv(sink, index=False, lineterminator="\n")
    return sink.getvalue().encode()


def _write_stage_config(config: CacheConfig, layout: EmrLayout, n_tasks: int) -> None:
    """The EMR stage's own keys, then the whole configuration."""
    content = {
        "stage": "4b",
        "timestamp_utc": utc_now(),
        "variant": layout.variant,
        "output_s3": layout.phase4.url,
        "coadd_base_url": config.source.url,
        "bands": list(config.files.bands),
        "coadd_s3_cache_prefix": config.cache.url,
        "cache_partitions": n_tasks,
        "http_timeout_s": config.patience.silence_s,
        "include_psfsize": int(config.files.psfsize),
        "idempotency": RESUMES,
        "code_version": code_version(),
        "config": json.loads(config.model_dump_json()),
    }
    write_json(layout.stage_config("4b"), content)
