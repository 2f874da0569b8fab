"""`dhs score` on a cube: the stamps of a cutouts cube ranked, the examples of a training cube scored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.contracts.datasets import CUTOUTS, SPLITS, TRAINING
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.search_config import SearchConfig
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.driver.cluster import open_cluster
from pipeline.driver.provenance import code_version
from pipeline.driver.scoring import (
    Ranked,
    demand_same_scores,
    finish_job,
    joined_scores,
    make_shards,
    open_job,
    shown_columns,
)
from pipeline.driver.search_tasks import SCORES, CubeTask, score_cutouts_shard, score_training_shard
from pipeline.stages.network import StampNetwork
from pipeline.stages.search import rank_candidates
from pipeline.storage.anchor_tables import write_anchor_table
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.storage.tables import arrow_bytes, table_bytes


def score_cube(
    config: SearchConfig, network: bytes, cube: PublishedCube, out: Location, splits: Sequence[str]
) -> dict[str, Any]:
    """Score a published cube, one task per shard; run it again to resume.

    A training cube gives the trainer's table of scores, a cutouts cube what a search gives.

    Args:
        config: its cluster and the number of candidates are used.
        network: the exported network.
        cube: a cutouts or a training cube.
        out: folder of the results.
        splits: those of a training cube that are scored.

    Returns:
        The summary, which is summary.json as well.

    Raises:
        ConfigError: unknown splits.
        ContractError: another kind of cube, or of other bands, stamp size or pixel scale than the network's.
        PlanChangedError: `out` holds other scores.
        VerificationError: shards are missing, or a logit of a used stamp is not finite.
        StorageError: a read or write failed.
    """
    is_training = _demand_cube(cube, StampNetwork(network))
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise ConfigError(f"--splits: expected some of {', '.join(SPLITS)}, got {', '.join(unknown) or 'nothing'}")
    deciding = {
        "plan_sha256": cube.attrs.get("plan_sha256"),
        "code_version": cube.attrs.get("code_version"),
        "rows": cube.n_samples,
        "splits": sorted(splits, key=SPLITS.index) if is_training else None,
    }
    job = open_job(config, network, out, cube.location, deciding)
    if (found := job.finished()) is not None:
        return found
    started = time.monotonic()
    tasks = [
        CubeTask(
            layout=job.layout,
            shard=shard,
            network=job.file,
            plan_sha256=job.plan_sha256,
            code_version=code_version(),
            cube=cube.location,
            splits=tuple(splits),
        )
        for shard in range(cube.n_shards)
    ]
    with open_cluster(config.cluster) as cluster:
        receipts = make_shards(
            job, cluster, SCORES, score_training_shard if is_training else score_cutouts_shard, tasks
        )
    table, location = joined_scores(job, receipts), out.join("scores.parquet")
    if is_training:
        location.write_bytes(arrow_bytes(table))
        return finish_job(job, receipts, {"none": table.num_rows}, None, time.monotonic() - started)
    scores = table.to_pandas()
    location.write_bytes(table_bytes(scores))
    place = np.unique(cube.columns(["host_id"])["host_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    candidates = rank_candidates(scores, place, job.network.spec.bands, config.candidates.top)
    write_anchor_table(out, "candidates", candidates)
    stamps = _stamps_of(cube, candidates, shown_columns(job.network)) if len(candidates) else None
    if stamps is not None:
        demand_same_scores(job, candidates, stamps)
    ranked = Ranked(scores, candidates, stamps)
    return finish_job(job, receipts, Counter(scores["reject_reason"]), ranked, time.monotonic() - started)


def _demand_cube(cube: PublishedCube, network: StampNetwork) -> bool:
    """True for a training cube, False for a cutouts cube; ContractError for anything that the network cannot score."""
    known = {(schema.name, schema.version): schema for schema in (CUTOUTS, TRAINING)}
    got = (cube.attrs.get("schema"), cube.attrs.get("schema_version"))
    if got not in known:
        expected = " or ".join(f"{name!r} version {version}" for name, version in known)
        raise ContractError(f"{cube.location.url}: expected cube schema {expected}, got {got}")
    is_training = got == (TRAINING.name, TRAINING.version)
    size = cube.shape_of("injected" if is_training else "image")[-1]
    bands = tuple(map(str, cube.attrs.get("bands", ())))
    network.spec.require_stamps(bands, size, PIXEL_SCALE_ARCSEC, cube.location.url)
    return is_training


def _stamps_of(cube: PublishedCube, candidates: pd.DataFrame, names: list[str]) -> xr.Dataset:
    """What the page shows of the candidates, in their order; every shard is read once."""
    rows = candidates["row"].to_numpy(np.int64)
    pieces, order = [], []
    for shard in np.unique(rows // cube.shard_samples).tolist():
        start, stop = cube.shard_range(shard)
        inside = np.flatnonzero((rows >= start) & (rows < stop))
        pieces.append(cube.read_shard(shard, names).isel(sample=rows[inside] - start))
        order += inside.tolist()
    return xr.concat(pieces, dim="sample").isel(sample=np.argsort(order))
