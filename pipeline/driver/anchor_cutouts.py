"""The anchors stage: real lenses cut out of the run's own bricks by the run's own path, and measured.

Everything that says nothing about survey pixels (priors, sampling, splits, seed) leaves the cube as it is.
"""

from __future__ import annotations

import dataclasses
import logging

from pipeline.contracts.anchors import ANCHORS, VisibilityLimits
from pipeline.contracts.config import ManifestSection, RunConfig
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.driver.anchors import anchor_manifest, measure_anchors
from pipeline.driver.cubes import RunContext, build_cube
from pipeline.driver.plan import Plan, make_plan
from pipeline.driver.tasks import make_anchors_shard
from pipeline.storage.anchor_stamps import ANCHOR_CUBE
from pipeline.storage.anchor_tables import read_anchor_table
from pipeline.storage.locations import Location
from pipeline.storage.runs import write_json
from pipeline.storage.tables import table_bytes

logger = logging.getLogger("pipeline.driver")

_MATCH_ARCSEC = 0.5


def build_anchor_cutouts(context: RunContext) -> None:
    """Cut the configured anchors out and publish them as the cube `anchors`; measure each and store the tiers.

    The cube has the contract of the cutouts cube. The tables of `measure_anchors` lie in the run's folder `anchors`,
    where `cube_row` says which row of the cube shows an anchor. Nothing happens without the section `anchors`, or if
    it was done already.

    Raises:
        ContractError: the table of anchors is unusable, or has no accepted anchor.
        PlanChangedError: the cube was cut for another table of anchors, other quality limits or by other code.
        VerificationError: shards are missing.
        StorageError: a read or write failed.
    """
    section = context.config.anchors
    if section is None:
        return
    folder, table = context.layout.anchors, anchors_location(context.config)
    accepted = read_anchor_table(table, ANCHORS).query("reject_reason == 'none'")
    if accepted.empty:
        raise ContractError(f"{table.url}: expected accepted anchors (reject_reason none), found none")
    manifest = folder.join("manifest.parquet")
    manifest.write_bytes(table_bytes(anchor_manifest(accepted)))
    config = _anchor_config(context.config, manifest)
    plan = _anchor_plan(config)
    before = context.record.stages.get(ANCHOR_CUBE)
    own = dataclasses.replace(context, config=config, plan=plan)
    build_cube(own, ANCHOR_CUBE, CUTOUTS, make_anchors_shard)
    write_json(folder.join("plan.json"), plan.document())
    stage = context.record.stages[ANCHOR_CUBE]
    if stage is before and stage.get("measured_band") == section.band and folder.join("tiers.json").exists():
        return
    summary = measure_anchors(
        folder, table, context.layout.cube(ANCHOR_CUBE), section.band, VisibilityLimits(), _MATCH_ARCSEC
    )
    fields = {
        "measured_band": section.band,
        "tiers": {name: tier["anchors"] for name, tier in summary["tiers"].items()},
        "rejected_by_reason": summary["rejected_by_reason"],
    }
    logger.info("anchors", extra={"fields": {"folder": folder.url, **fields}})
    context.record.finish_stage(ANCHOR_CUBE, **{**stage, **fields})


def demand_anchors(config: RunConfig) -> None:
    """ConfigError if the configured table of anchors is not there, before any pixel is read."""
    if config.anchors is not None and not anchors_location(config).exists():
        raise ConfigError(
            f"anchors.url: {config.anchors.url} does not exist; make it with dhs anchors build, or leave it out"
        )


def anchors_location(config: RunConfig) -> Location:
    """Where the configured table of anchors lies; ContractError without the section `anchors`."""
    if config.anchors is None:
        raise ContractError("expected a configuration with the section anchors")
    return Location(config.anchors.url, config.run.region, config.run.endpoint_url)


def _anchor_config(config: RunConfig, manifest: Location) -> RunConfig:
    """The run's configuration with the anchors as its rows; their seeing is that of the maps."""
    injection = config.injection
    psf = injection.psf.model_copy(update={"psfsize_from": "map"})
    changes = {
        "manifest": ManifestSection(kind="parent", url=manifest.url),
        "injection": injection.model_copy(update={"extinction": False, "psf": psf}),
    }
    return config.model_copy(update=changes)


def _anchor_plan(config: RunConfig) -> Plan:
    """The plan of the cutouts alone, which injection and sampling do not change."""
    plan = make_plan(config)
    return dataclasses.replace(plan, sha256=plan.cutouts_sha256)
