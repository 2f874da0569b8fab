"""What scoring positions and scoring a cube have in common: network, plan, shards, and the folder of results."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from pipeline.contracts.errors import ConfigError, PlanChangedError, VerificationError
from pipeline.contracts.network_file import NETWORK_FILE
from pipeline.contracts.search_config import SearchConfig
from pipeline.driver.cluster import Cluster
from pipeline.driver.provenance import code_version
from pipeline.driver.search_tasks import NetworkFile, ScoreTask, score_part
from pipeline.driver.shards import finished_shards, run_shards
from pipeline.report.candidates import write_candidate_page
from pipeline.stages.network import StampNetwork
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, missing_objects
from pipeline.storage.runs import read_json, utc_now, write_json

logger = logging.getLogger("pipeline.driver")

_SUMMARY = "summary.json"
_MAX_NOTES = 20


@dataclass(frozen=True)
class ScoreJob:
    """One target scored by one network into one folder.

    Attributes:
        config: how.
        layout: the folder.
        network: what scores, in this process.
        file: the copy of it in the folder, which workers open.
        target: URL of the positions or of the cube.
        plan_sha256: hash of all that decides the scores.
    """

    config: SearchConfig
    layout: RunLayout
    network: StampNetwork
    file: NetworkFile
    target: str
    plan_sha256: str

    @property
    def identity(self) -> str:
        """Hash of all that decides the results: the plan, and how many candidates are kept."""
        content = [self.plan_sha256, self.config.candidates.model_dump(mode="json"), code_version()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def finished(self) -> dict[str, Any] | None:
        """The summary of exactly these results if they are complete; else None, and no marker says otherwise."""
        marker = self.layout.success
        if marker.exists() and marker.read_bytes() == self.identity.encode():
            return read_json(self.layout.root.join(_SUMMARY))
        marker.remove()
        return None


@dataclass(frozen=True)
class Ranked:
    """What the page shows.

    Attributes:
        scores: columns of `search_scores`.
        candidates: columns of `search_candidates`.
        stamps: image and sky_sigma_nmgy of the candidates; None without any.
    """

    scores: pd.DataFrame
    candidates: pd.DataFrame
    stamps: xr.Dataset | None


def find_network(checkpoint: Location) -> bytes:
    """The exported network of a checkpoint: the file itself, or the `network.onnx` beside it or in the folder.

    Args:
        checkpoint: a .onnx file, the checkpoint's file, or the folder of a training.

    Raises:
        ConfigError: there is none.
        VerificationError: the one beside the checkpoint was made from another one.
    """
    if checkpoint.url.endswith(".onnx"):
        if not checkpoint.exists():
            raise ConfigError(f"{checkpoint.url}: no network is there")
        return checkpoint.read_bytes()
    beside = checkpoint.join(NETWORK_FILE)
    is_folder = beside.exists()
    if not is_folder:
        beside = Location(
            f"{checkpoint.url.rpartition('/')[0]}/{NETWORK_FILE}", checkpoint.region, checkpoint.endpoint_url
        )
    if not beside.exists():
        raise ConfigError(
            f"{checkpoint.url}: expected {beside.url} beside it; write it with "
            f"python -m pipeline.training.export --checkpoint {checkpoint.url} --out {beside.url}"
        )
    data = beside.read_bytes()
    if not is_folder:
        expected, found = StampNetwork(data).spec.checkpoint_sha256, checkpoint.sha256()
        if expected != found:
            raise VerificationError(
                f"{beside.url} was exported from the checkpoint {expected[:12]}, {checkpoint.url} is {found[:12]}; "
                "export it again"
            )
    return data


def open_job(
    config: SearchConfig, network: bytes, out: Location, target: Location, deciding: Mapping[str, Any]
) -> ScoreJob:
    """Start or continue the folder of results.

    Args:
        config: how.
        network: the exported network.
        out: the folder.
        target: what is scored.
        deciding: everything besides the network that decides the scores, as JSON.

    Raises:
        ContractError: the bytes are no exported network.
        PlanChangedError: the folder holds the scores of another network or target.
    """
    opened, layout = StampNetwork(network), RunLayout.at(out, None)
    content = {"target": target.url, "network_sha256": opened.sha256, **json.loads(json.dumps(dict(deciding)))}
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if layout.plan.exists():
        known = read_json(layout.plan)
        differing = sorted(name for name in {*content, *known} - {"sha256"} if known.get(name) != content.get(name))
        if differing:
            raise PlanChangedError(
                f"{out.url} holds scores of another plan: {', '.join(differing)} differ. Give another folder"
            )
    else:
        write_json(layout.plan, {"sha256": sha256, **content})
    copy = out.join(NETWORK_FILE)
    copy.write_bytes(network)
    return ScoreJob(config, layout, opened, NetworkFile(copy, opened.sha256), target.url, sha256)


def make_shards(
    job: ScoreJob, cluster: Cluster, name: str, function: Callable[..., Receipt], tasks: Sequence[ScoreTask]
) -> dict[int, Receipt]:
    """Run the tasks that have no receipt; returns the receipts of all.

    Raises:
        PlanChangedError: the folder holds shards of other code.
        VerificationError: an object is not in the store as its receipt says.
    """
    done = finished_shards(job.layout, name, tasks[0].plan_sha256, code_version()) if tasks else {}
    receipts = run_shards(cluster, name, function, tasks, done, job.config.shards.retries)
    lost = missing_objects(job.layout.cube(name), receipts.values())
    if lost:
        raise VerificationError(f"{job.layout.root.url}: {name}: {len(lost)} shards are not in the store: {lost}")
    return receipts


def joined_scores(job: ScoreJob, receipts: Mapping[int, Receipt]) -> pa.Table:
    """The tables of all shards as one, in their order; VerificationError if rows are missing."""
    parts = [pq.read_table(io.BytesIO(score_part(job.layout, shard).read_bytes())) for shard in sorted(receipts)]
    table = pa.concat_tables(parts)
    expected = sum(receipt.rows for receipt in receipts.values())
    if len(table) != expected:
        raise VerificationError(f"{job.layout.root.url}: expected {expected} scores, the shards hold {len(table)}")
    return table


def shown_columns(network: StampNetwork) -> list[str]:
    """Variables of a cutouts cube that candidates are shown by and scored again from."""
    return sorted({"image", "sky_sigma_nmgy", *network.spec.features})


def demand_same_scores(job: ScoreJob, candidates: pd.DataFrame, stamps: xr.Dataset) -> None:
    """Score the kept stamps again: VerificationError if they are not the stamps that were ranked."""
    again = job.network.logits(stamps["image"].to_numpy(), job.network.features(stamps))
    stored = candidates["logit"].to_numpy(np.float32)
    differing = np.flatnonzero(again != stored)
    if differing.size:
        first = int(differing[0])
        raise VerificationError(
            f"{job.layout.root.url}: {differing.size} candidates score otherwise when they are read again, such as "
            f"{candidates['position_id'][first]}: {stored[first]} became {again[first]}"
        )


def finish_job(
    job: ScoreJob,
    receipts: Mapping[int, Receipt],
    rows_by_reason: Mapping[str, int],
    ranked: Ranked | None,
    seconds: float,
) -> dict[str, Any]:
    """Write the summary, the page if something was ranked, and last the marker; returns the summary."""
    work: Counter[str] = Counter()
    for receipt in receipts.values():
        work.update(receipt.work)
    stamps_scored = sum(receipt.counts.get("none", 0) for receipt in receipts.values())
    task_seconds = sum(receipt.seconds for receipt in receipts.values())
    summary: dict[str, Any] = {
        "target": job.target,
        "created_utc": utc_now(),
        "code_version": code_version(),
        "plan_sha256": job.plan_sha256,
        "network_sha256": job.network.sha256,
        "network": job.network.spec.model_dump(mode="json"),
        "rows": sum(rows_by_reason.values()),
        "rows_by_reason": dict(sorted(rows_by_reason.items(), key=lambda item: (-item[1], item[0]))),
        "candidates": None if ranked is None else len(ranked.candidates),
        "shards": len(receipts),
        "stamps_scored": stamps_scored,
        "task_seconds": round(task_seconds, 2),
        "stamps_per_task_second": round(stamps_scored / task_seconds, 1) if task_seconds else None,
        "seconds": round(seconds, 2),
        "work": dict(work),
        "notes": sorted({note for receipt in receipts.values() for note in receipt.notes})[:_MAX_NOTES],
    }
    if ranked is not None:
        page = job.layout.root.join("index.html")
        write_candidate_page(page, summary, ranked.scores, ranked.candidates, ranked.stamps)
    write_json(job.layout.root.join(_SUMMARY), summary)
    job.layout.success.write_bytes(job.identity.encode())
    fields = {name: summary[name] for name in ("rows", "rows_by_reason", "candidates", "seconds")}
    logger.info("scored", extra={"fields": {"out": job.layout.root.url, **fields}})
    return summary
