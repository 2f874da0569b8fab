"""The whole pipeline on one page; every line resumes."""

from __future__ import annotations

import logging

import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import GateError, PlanChangedError
from pipeline.driver.anchor_cutouts import build_anchor_cutouts, demand_anchors
from pipeline.driver.anchor_recall import run_anchor_recall
from pipeline.driver.cluster import Cluster, open_cluster
from pipeline.driver.cubes import RunContext, build_cutouts, build_training
from pipeline.driver.diagnostics import failures_recorded
from pipeline.driver.driver_lock import driving
from pipeline.driver.evaluation_job import run_evaluation
from pipeline.driver.gating import check_gates
from pipeline.driver.network_gating import check_network_gates
from pipeline.driver.plan import Plan, check_rows, make_plan
from pipeline.driver.preflight import demand_preflight
from pipeline.driver.provenance import environment
from pipeline.driver.tasks import StampSource
from pipeline.driver.training_job import run_training_job
from pipeline.report.page import write_report
from pipeline.stages.gates.suite import check_waivers
from pipeline.stages.splits import proportions_of_counts, share_problem
from pipeline.storage.locations import RunLayout
from pipeline.storage.runs import RunRecord, read_json, utc_now, write_json

logger = logging.getLogger("pipeline.driver")

STAGES = ("cutouts", "inject", "anchors", "gates", "train", "evaluate", "network_gates", "report")


def run(config: RunConfig, limit_shards: int | None = None, only: str | None = None) -> RunLayout:
    """Run the pipeline, or one stage of it; finished work is found and kept.

    Args:
        config: what to do.
        limit_shards: plan this many shards only, as a run of its own named `<name>-limit<N>`.
        only: a name of STAGES; its inputs must exist.

    Returns:
        Where everything lies. The run is complete and verified when this returns.

    Raises:
        PipelineError: see `contracts.errors`; the reason is in the run record and its diagnostics.
    """
    check_waivers(config)
    demand_preflight(config)
    StampSource.of(config).demand_root()
    config = limited(config, limit_shards)
    layout = RunLayout.of(config.run)
    plan = make_plan(config, limit_shards)
    if only is None and is_complete(layout, config, plan):
        logger.info("already complete, nothing to do", extra={"fields": {"run": layout.root.url}})
        Cluster(config.cluster).close()
        return layout
    if only in (None, "anchors"):
        demand_anchors(config)
    with driving(layout), open_cluster(config.cluster) as cluster:
        record = open_record(layout, config, plan)
        if only is None:
            record.update(state="running", error=None)
        fields = {"run": layout.root.url, "rows": plan.shape.sizes["sample"], "shards": plan.shape.n_shards}
        logger.info("planned", extra={"fields": fields})
        context = RunContext(config, layout, plan, record, cluster)
        with failures_recorded(context):
            make_products(context, only)
            if only is None:
                record.update(state="complete", error=None, finished_utc=utc_now())
            if only in (None, "report"):
                write_report(layout)
            if only is None:
                layout.success.write_bytes(config.sha256().encode())
    return layout


def make_products(context: RunContext, only: str | None = None) -> None:
    """Every stage from the manifest to the gates on the network, or one of them; each finds what is done already."""
    if only in (None, "cutouts") and context.config.manifest.kind != "stamps":
        check_manifest(context)
        if only is None and context.plan.limit is None:
            demand_shares(context)
        build_cutouts(context)
    if only in (None, "inject"):
        build_training(context)
    if only in (None, "anchors"):
        build_anchor_cutouts(context)
    if only in (None, "gates"):
        check_gates(context)
    if only in (None, "train"):
        context.cluster.rest()
        run_training_job(context)
    if only in (None, "evaluate"):
        run_evaluation(context)
        run_anchor_recall(context)
    if only in (None, "network_gates"):
        check_network_gates(context)


def limited(config: RunConfig, limit_shards: int | None) -> RunConfig:
    """The configuration under the name of a limited run, so that it cannot collide with the full one."""
    if limit_shards is None:
        return config
    name = f"{config.run.name}-limit{limit_shards}"
    return config.model_copy(update={"run": config.run.model_copy(update={"name": name})})


def open_record(layout: RunLayout, config: RunConfig, plan: Plan) -> RunRecord:
    """The run's record, new or continued.

    Raises:
        PlanChangedError: the run exists with another plan.
    """
    if layout.record.exists():
        record = RunRecord(layout, read_json(layout.record))
        known = record.content["plan_sha256"]
        if known != plan.sha256:
            raise PlanChangedError(
                f"{layout.root.url} was planned as {known[:12]}, this configuration and manifest make "
                f"{plan.sha256[:12]}. Give the run another name, or restore the configuration in config.yaml there"
            )
        if record.content["config_sha256"] != config.sha256():
            layout.success.remove()
            record.update(config=config.model_dump(mode="json"), config_sha256=config.sha256(), state="running")
            _write_config(layout, config)
        return record
    write_json(layout.plan, plan.document())
    _write_config(layout, config)
    content = {
        "run": config.run.name,
        "state": "running",
        "created_utc": utc_now(),
        "plan_sha256": plan.sha256,
        "config_sha256": config.sha256(),
        "config": config.model_dump(mode="json"),
        "code": environment(),
        "stages": {},
        "error": None,
    }
    record = RunRecord(layout, content)
    record.update()
    return record


def check_manifest(context: RunContext) -> None:
    """Check every planned row once and record what the manifest holds."""
    if "manifest" not in context.record.stages:
        context.record.finish_stage("manifest", **check_rows(context.config, context.plan))


def demand_shares(context: RunContext) -> None:
    """GateError before a pixel is read if the manifest's rows do not fall into the splits as requested.

    The gate on the cube, `split_proportions`, judges what is left of them; its waiver waives this too.
    """
    if "split_proportions" in context.config.gates.waive:
        return
    shares = proportions_of_counts(context.record.stages["manifest"]["pairs_by_split"])
    problem = share_problem(shares, context.config.splits)
    if problem:
        raise GateError(
            f"{context.config.manifest.url}: {problem}. Choose a finer splits.nside, more sky or a wider "
            "splits.tolerance, or waive split_proportions with a reason under gates.waive"
        )


def is_complete(layout: RunLayout, config: RunConfig, plan: Plan) -> bool:
    """True if this very configuration and plan was run to the end and verified."""
    if not layout.record.exists():
        return False
    record = read_json(layout.record)
    return (
        record["state"] == "complete"
        and record["plan_sha256"] == plan.sha256
        and layout.success.exists()
        and layout.success.read_bytes() == config.sha256().encode()
    )


def _write_config(layout: RunLayout, config: RunConfig) -> None:
    layout.config.write_bytes(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
