"""`dhs score` on positions: planned by brick, cut out and scored by Dask tasks; pixels of the best are kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from typing import Any

import pandas as pd
import pyarrow as pa
import xarray as xr

from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.search_config import SearchConfig
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.driver.cluster import Cluster, open_cluster
from pipeline.driver.provenance import code_version
from pipeline.driver.scoring import (
    Ranked,
    ScoreJob,
    demand_same_scores,
    finish_job,
    joined_scores,
    make_shards,
    open_job,
    shown_columns,
)
from pipeline.driver.search_tasks import SCORES, CandidatesTask, PlacesTask, cut_candidates, score_places
from pipeline.driver.tasks import StampSource
from pipeline.stages.network import StampNetwork
from pipeline.stages.search import name_positions, plan_places, rank_candidates, spread_over_positions
from pipeline.storage.anchor_tables import write_anchor_table
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.locations import Location
from pipeline.storage.position_tables import read_positions
from pipeline.storage.tables import TablePiece, arrow_bytes, find_parts, table_bytes

# Candidates lie in as many bricks: a shard of them opens this many.
_CANDIDATES_PER_SHARD = 32
_INNER_CHUNK = 16


def search_positions(config: SearchConfig, network: bytes, table: Location, out: Location) -> dict[str, Any]:
    """Score every position of a table and rank them; run it again to resume.

    Args:
        config: with the section survey.
        network: the exported network.
        table: positions, a manifest, a catalogue or a list.
        out: folder of the results.

    Returns:
        The summary, which is summary.json as well.

    Raises:
        ConfigError: no section survey, or no bricks where it says.
        ContractError: no usable table, or a survey of other bands, stamp size or pixel scale than the network's.
        PlanChangedError: `out` holds the scores of another search.
        VerificationError: shards are missing, or a candidate scores otherwise when it is read again.
        StorageError: a read or write failed.
    """
    if config.survey is None:
        raise ConfigError(f"{table.url} is no cube; positions need a configuration with the section survey (--config)")
    survey, source = config.survey, _source(config)
    spec = StampNetwork(network).spec
    spec.require_stamps(survey.bands, survey.stamp_size_px, PIXEL_SCALE_ARCSEC, "survey")
    source.demand_root()
    parts = find_parts(table)
    deciding = {
        "parts": [[part.location.url, part.digest, part.n_rows] for part in parts],
        "survey": survey.model_dump(mode="json"),
        "quality": config.quality.model_dump(mode="json"),
        "shard_positions": config.shards.samples,
    }
    job = open_job(config, network, out, table, deciding)
    if (found := job.finished()) is not None:
        return found
    started = time.monotonic()
    positions = name_positions(read_positions(parts))
    places, place = plan_places(positions)
    if places.empty:
        raise ContractError(f"{table.url}: none of {len(positions)} rows has a valid position")
    with open_cluster(config.cluster) as cluster:
        receipts = make_shards(job, cluster, SCORES, score_places, _place_tasks(job, places))
        source.demand_bricks(len(places), list(receipts.values()))
        scores = spread_over_positions(joined_scores(job, receipts).to_pandas(), positions, place)
        out.join("scores.parquet").write_bytes(table_bytes(scores))
        candidates = rank_candidates(scores, place, spec.bands, config.candidates.top)
        location = write_anchor_table(out, "candidates", candidates)
        stamps = _keep_candidates(job, cluster, candidates, location) if len(candidates) else None
    ranked = Ranked(scores, candidates, stamps)
    return finish_job(job, receipts, Counter(scores["reject_reason"]), ranked, time.monotonic() - started)


def _source(config: SearchConfig) -> StampSource:
    if config.survey is None:
        raise ConfigError("expected the section survey")
    return StampSource(config.survey, config.quality, "map", config.region, config.endpoint_url)


def _place_tasks(job: ScoreJob, places: pd.DataFrame) -> list[PlacesTask]:
    """Store the places, one row group per shard, and name the rows of each task."""
    size, location = job.config.shards.samples, job.layout.root.join("places.parquet")
    location.write_bytes(arrow_bytes(pa.Table.from_pandas(places, preserve_index=False), row_group_rows=size))
    return [
        PlacesTask(
            layout=job.layout,
            shard=shard,
            network=job.file,
            plan_sha256=job.plan_sha256,
            code_version=code_version(),
            source=_source(job.config),
            piece=TablePiece(location, start, min(start + size, len(places))),
        )
        for shard, start in enumerate(range(0, len(places), size))
    ]


def _keep_candidates(job: ScoreJob, cluster: Cluster, candidates: pd.DataFrame, location: Location) -> xr.Dataset:
    """Cut the stored candidates out again into a cube of their own, publish it; returns what the page shows."""
    source = _source(job.config)
    content = [job.plan_sha256, candidates["position_id"].tolist()]
    plan_sha256 = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    name = f"candidates-{job.config.candidates.top}"
    side = source.survey.stamp_size_px
    sizes = {"sample": len(candidates), "band": len(source.survey.bands), "y": side, "x": side}
    shape = CubeShape(sizes, _CANDIDATES_PER_SHARD, _INNER_CHUNK)
    tasks = [
        CandidatesTask(
            layout=job.layout,
            shard=shard,
            network=job.file,
            plan_sha256=plan_sha256,
            code_version=code_version(),
            source=source,
            piece=TablePiece(location, shape.rows(shard).start, shape.rows(shard).stop),
            cube=name,
            shape=shape,
        )
        for shard in range(shape.n_shards)
    ]
    folder = job.layout.cube(name)
    create_cube(folder, CUTOUTS, shape)
    make_shards(job, cluster, name, cut_candidates, tasks)
    provenance = {
        "bands": list(source.survey.bands),
        "plan_sha256": plan_sha256,
        "network_sha256": job.network.sha256,
        "code_version": code_version(),
    }
    publish_cube(folder, cube_attributes(CUTOUTS, shape, provenance))
    cube = open_cube(folder)
    stamps = xr.concat(
        [cube.read_shard(shard, shown_columns(job.network)) for shard in range(cube.n_shards)], dim="sample"
    )
    demand_same_scores(job, candidates, stamps)
    return stamps
