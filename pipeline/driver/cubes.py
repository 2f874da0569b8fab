"""The two cubes: shards made, receipts verified, cube published."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distributed import performance_report

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.schema import CubeSchema
from pipeline.driver.cluster import Cluster, cluster_errors
from pipeline.driver.imported_shards import duplicate_rows, import_shard
from pipeline.driver.pilot import make_pilot
from pipeline.driver.plan import Plan
from pipeline.driver.provenance import code_version, environment
from pipeline.driver.sampling_record import record_sampling
from pipeline.driver.shards import finished_shards, run_shards
from pipeline.driver.tasks import ShardTask, StampSource, make_cutouts_shard, make_training_shard
from pipeline.stages.cutouts import reason_counts
from pipeline.stages.sampling import CLIPPED_SHARE_MAX
from pipeline.storage.cube import MARKER, create_cube, cube_attributes, is_published, open_cube, publish_cube
from pipeline.storage.locations import RunLayout, storage_errors
from pipeline.storage.receipts import Receipt, missing_objects
from pipeline.storage.runs import RunRecord


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run works with."""

    config: RunConfig
    layout: RunLayout
    plan: Plan
    record: RunRecord
    cluster: Cluster


def build_cutouts(context: RunContext) -> None:
    """Cut every planned row out of its brick and publish the cutouts cube, or check the one that is reused.

    Raises:
        ContractError: run.cutouts_from holds other rows, other quality limits or another stamp size.
    """
    source = context.layout.cutouts_root
    if source is not None:
        cube = open_cube(context.layout.cube("cutouts"))
        found = cube.attrs.get("cutouts_sha256")
        if found != context.plan.cutouts_sha256:
            raise ContractError(
                f"run.cutouts_from: the cutouts of {source.url} were made as {found}, this configuration and manifest "
                f"ask for {context.plan.cutouts_sha256}"
            )
        if "cutouts" not in context.record.stages:
            counts = reason_counts(cube.columns(["reject_reason"])["reject_reason"].to_numpy())
            context.record.finish_stage("cutouts", reused_from=source.url, rows=cube.n_samples, counts=counts, work={})
        return
    build_cube(context, "cutouts", CUTOUTS, make_cutouts_shard)


def build_training(context: RunContext) -> None:
    """Inject arcs into the published cutouts cube, or import finished stamps, and publish the training cube.

    Raises:
        ContractError: the SNR target cannot be reached from the priors.
        VerificationError: the rejection sampler met acceptance probabilities above 1 too often.
    """
    if context.config.manifest.kind == "stamps":
        duplicates = duplicate_rows(context.plan)
        build_cube(context, "training", TRAINING, import_shard, duplicates)
        return
    open_cube(context.layout.cube("cutouts"))
    tasks = shard_tasks(context)
    pilot = make_pilot(context.config, context.layout, context.plan, context.cluster, tasks)
    receipts = build_cube(context, "training", TRAINING, make_training_shard, pilot)
    record_sampling(context.config, context.layout, context.plan.sha256, receipts, pilot)


def check_envelope(receipts: Mapping[int, Receipt]) -> None:
    """VerificationError if the rejection sampler met acceptance probabilities above 1 too often."""
    proposals = sum(receipt.work.get("proposals", 0) for receipt in receipts.values())
    clipped = sum(receipt.work.get("clipped", 0) for receipt in receipts.values())
    if proposals and clipped > CLIPPED_SHARE_MAX * proposals:
        raise VerificationError(
            f"rejection sampler: {clipped:.0f} of {proposals:.0f} acceptance probabilities exceeded 1 "
            f"(at most {CLIPPED_SHARE_MAX:.1%}); raise sampling.host_draws or sampling.safety_factor"
        )


def shard_tasks(context: RunContext) -> list[ShardTask]:
    """One task per shard of the plan."""
    return [
        ShardTask(
            config=context.config,
            layout=context.layout,
            shape=context.plan.shape,
            shard=shard,
            pieces=tuple(context.plan.pieces(shard)),
            plan_sha256=context.plan.sha256,
            code_version=code_version(),
        )
        for shard in range(context.plan.shape.n_shards)
    ]


def build_cube(
    context: RunContext, cube: str, schema: CubeSchema, function: Callable[..., Receipt], *arguments: Any
) -> dict[int, Receipt]:
    """Make the shards of a cube that are not done, check their receipts, publish the cube; returns all receipts.

    Args:
        context: the run, with the configuration and the plan of this cube.
        cube: name of the cube and of its stage.
        schema: what the cube holds.
        function: makes a shard, called as function(task, *arguments) on a worker.

    Raises:
        PlanChangedError: a receipt of another plan or of other code lies under this run.
        VerificationError: a shard has no receipt, or its objects are not in the store.
    """
    layout, plan = context.layout, context.plan
    location = layout.cube(cube)
    done = finished_shards(layout, cube, plan.sha256, code_version())
    if is_published(location) and len(done) == plan.shape.n_shards and cube in context.record.stages:
        return done
    started = time.monotonic()
    location.join(MARKER).remove()
    create_cube(location, schema, plan.shape)
    source, n_rows = StampSource.of(context.config), plan.shape.sizes["sample"]
    inspect = partial(source.demand_bricks, n_rows) if cube == "cutouts" else None
    with _performance_page(context, cube, needed=len(done) < plan.shape.n_shards):
        tasks, retries = shard_tasks(context), context.config.shards.retries
        receipts = run_shards(context.cluster, cube, function, tasks, done, retries, *arguments, inspect=inspect)
    _check_complete(context, cube, receipts)
    check_envelope(receipts)
    location.remove_partial_files()
    seconds = time.monotonic() - started
    provenance = _provenance(context) | (_ablations(context.config) if cube == "training" else {})
    publish_cube(location, cube_attributes(schema, plan.shape, provenance))
    context.record.finish_stage(cube, **_summary(receipts, done, seconds))
    return receipts


def _check_complete(context: RunContext, cube: str, receipts: Mapping[int, Receipt]) -> None:
    missing = [shard for shard in range(context.plan.shape.n_shards) if shard not in receipts]
    if missing:
        raise VerificationError(f"{cube}: {len(missing)} shards have no receipt: {missing[:20]}")
    lost = missing_objects(context.layout.cube(cube), receipts.values())
    if lost:
        raise VerificationError(f"{cube}: {len(lost)} shards are not in the store as their receipts say: {lost}")


def _provenance(context: RunContext) -> dict[str, Any]:
    config = context.config
    return {
        "bands": list(config.survey.bands),
        "run": config.run.name,
        "seed": config.run.seed,
        "plan_sha256": context.plan.sha256,
        "cutouts_sha256": context.plan.cutouts_sha256,
        "config_sha256": config.sha256(),
        "code_version": code_version(),
        "git_sha": environment()["git_sha"],
    }


def _ablations(config: RunConfig) -> dict[str, Any]:
    """Root attributes that say how the arcs of a training cube differ from physics; null where they do not."""
    suppression = config.injection.core_suppression
    return {"core_suppression": None if suppression is None else suppression.model_dump(mode="json")}


def _summary(receipts: Mapping[int, Receipt], done: Mapping[int, Receipt], seconds: float) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    work: Counter[str] = Counter()
    for receipt in receipts.values():
        counts.update(receipt.counts)
        work.update(receipt.work)
    fresh = [receipt for shard, receipt in receipts.items() if shard not in done]
    rows = sum(receipt.rows for receipt in fresh)
    return {
        "shards": len(receipts),
        "shards_resumed": len(done),
        "rows": sum(receipt.rows for receipt in receipts.values()),
        "counts": dict(counts),
        "work": dict(work),
        "bytes_stored": sum(int(e["bytes"]) for receipt in receipts.values() for e in receipt.objects.values()),
        "seconds": round(seconds, 2),
        "task_seconds": round(sum(receipt.seconds for receipt in receipts.values()), 2),
        "rows_per_s": round(rows / seconds, 1) if rows else None,
        "notes": sorted({note for receipt in receipts.values() for note in receipt.notes})[:20],
    }


@contextmanager
def _performance_page(context: RunContext, cube: str, needed: bool) -> Iterator[None]:
    """Keep Dask's own report of the stage beside ours."""
    if not needed:
        yield
        return
    client = context.cluster.client
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        with cluster_errors(), client.as_current(), performance_report(filename=str(page)):
            yield
        with storage_errors(f"read {page}"):
            data = page.read_bytes()
    context.layout.report.join(f"dask-{cube}.html").write_bytes(data)
