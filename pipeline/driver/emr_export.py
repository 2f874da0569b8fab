"""A finished run as the tables of the EMR system: one pass over the cubes, one receipt per shard, markers last."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import parse_config
from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError, VerificationError
from pipeline.driver.cluster import open_cluster
from pipeline.driver.emr_shards import TABLES, EmrExport, export_shard
from pipeline.driver.plan import Plan, make_plan
from pipeline.driver.provenance import code_version, environment
from pipeline.driver.shards import run_shards
from pipeline.driver.tasks import ShardTask
from pipeline.storage.cube import open_cube
from pipeline.storage.emr_layout import RESUMES, SUCCESS, EmrLayout
from pipeline.storage.emr_tables import parquet_files
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, missing_objects, read_receipts
from pipeline.storage.runs import read_json, read_record, utc_now, write_json
from pipeline.storage.tables import read_pieces

logger = logging.getLogger("pipeline.driver")


@dataclass(frozen=True)
class ExportPlan:
    """A run ready to be exported: its configuration, its layout, one task per shard and what is asked for."""

    config: RunConfig
    run: RunLayout
    tasks: list[ShardTask]
    export: EmrExport


def plan_export(
    run: RunLayout,
    layout: EmrLayout,
    tables: Sequence[str],
    experiment_id: str | None = None,
    *,
    metrics_only: bool = False,
) -> ExportPlan:
    """Check that a run can be exported; reads its record, its plan and the first rows of its manifest.

    Args:
        run: a run with a published training cube.
        layout: where to; its variant must be new.
        tables: some of TABLES.
        experiment_id: folder name; by default that of the manifest's rows, for a parent catalogue the run's name.
        metrics_only: write stamps rows without pixels.

    Raises:
        ConfigError: an old variant or an unknown table.
        ContractError: no published cubes.
        VerificationError: the manifest is no longer the planned one.
    """
    unknown = sorted(set(tables) - set(TABLES))
    if unknown or not tables:
        raise ConfigError(f"--what: expected some of {', '.join(TABLES)}, got {', '.join(unknown) or 'nothing'}")
    if metrics_only and "paired" in tables:
        raise ConfigError("--what paired needs pixels, --metrics-only writes none; leave one of them out")
    config = parse_config(read_record(run)["config"], where=run.record.url)
    open_cube(run.cube("cutouts"))
    open_cube(run.cube("training"))
    plan = _planned(run, config)
    chosen = tuple(name for name in TABLES if name in tables)
    name = experiment_id or _experiment_of(config, plan)
    content = [plan.sha256, layout.variant, name]
    identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    export = EmrExport(layout.for_writing(), name, chosen, metrics_only, identity)
    tasks = [
        ShardTask(config, run, plan.shape, shard, tuple(plan.pieces(shard)), plan.sha256, code_version())
        for shard in range(plan.shape.n_shards)
    ]
    return ExportPlan(config, run, tasks, export)


def export_run(planned: ExportPlan) -> dict[str, Any]:
    """Write the tables of a run; shards that have their receipt and their files are kept.

    Returns:
        rows, rows per table, files, bytes, error_rows and the folders.

    Raises:
        PlanChangedError: files of another plan or of other code lie there.
        VerificationError: files that no receipt knows, or receipts whose files or rows are missing.
    """
    config, export = planned.config, planned.export
    base = export.layout.phase4
    done = _finished(export)
    for folder in export.folders().values():
        folder.join(SUCCESS).remove()
    with open_cluster(config.cluster) as cluster:
        retries = config.shards.retries
        receipts = run_shards(cluster, "export", export_shard, planned.tasks, done, retries, export)
    return finish_export(planned, receipts, base)


def finish_export(planned: ExportPlan, receipts: dict[int, Receipt], base: Location) -> dict[str, Any]:
    """Check the whole against the receipts, then write the stage configurations and, last, the markers."""
    export, expected = planned.export, planned.tasks[0].shape.sizes["sample"]
    lost = missing_objects(base, receipts.values())
    rows = sum(receipt.rows for receipt in receipts.values())
    if lost or rows != expected:
        raise VerificationError(f"{base.url}: {rows} of {expected} rows have receipts; lost files: {lost}")
    # Experiments of one variant share the folder of paired tables.
    known = {name for every in _exports(export).values() for receipt in every.values() for name in receipt.objects}
    for folder in export.folders().values():
        prefix = folder.url.removeprefix(f"{base.url}/")
        strange = sorted({f"{prefix}/{name}" for name in parquet_files(folder)} - known)
        if strange:
            raise VerificationError(f"{folder.url}: {len(strange)} files of no shard of this export: {strange[:3]}")
    _write_configs(planned)
    for folder in export.folders().values():
        folder.join(SUCCESS).write_bytes(b"")
    sizes = [int(entry["bytes"]) for receipt in receipts.values() for entry in receipt.objects.values()]
    totals: dict[str, float] = {}
    for receipt in receipts.values():
        for name, count in receipt.work.items():
            totals[name] = totals.get(name, 0.0) + count
    return {
        "rows": rows,
        "error_rows": sum(receipt.counts.get("error", 0) for receipt in receipts.values()),
        **{name: int(count) for name, count in totals.items()},
        "files": len(sizes),
        "bytes": sum(sizes),
        "tables": {name: folder.url for name, folder in export.folders().items()},
    }


def _exports(export: EmrExport) -> dict[Location, dict[int, Receipt]]:
    """Receipts of every choice of tables of every experiment of the variant, by their folder."""
    above = export.layout.exports
    folders = [above.join(name, choice) for name in above.names() for choice in above.join(name).names()]
    return {folder: read_receipts(folder) for folder in folders}


def _finished(export: EmrExport) -> dict[int, Receipt]:
    exports = _exports(export)
    own = export.layout.exports.join(export.experiment_id).url
    for folder, others in exports.items():
        for receipt in others.values() if folder.url.startswith(f"{own}/") else ():
            if (receipt.plan_sha256, receipt.code_version) != (export.identity, code_version()):
                raise PlanChangedError(
                    f"{folder.url}: shard {receipt.shard} is of another run or of code {receipt.code_version}; "
                    f"this is code {code_version()}. Choose another variant or experiment"
                )
    receipts = exports.get(export.receipts, {})
    lost = missing_objects(export.layout.phase4, receipts.values())
    for shard, reason in lost.items():
        logger.warning("shard is exported again", extra={"fields": {"shard": shard, "reason": reason}})
    return {shard: receipt for shard, receipt in receipts.items() if shard not in lost}


def _planned(run: RunLayout, config: RunConfig) -> Plan:
    stored = read_json(run.plan)
    plan = make_plan(config, stored["limit_shards"])
    if plan.sha256 != stored["sha256"]:
        raise VerificationError(f"{config.manifest.url} is no longer what {run.plan.url} was made from")
    return plan


def _experiment_of(config: RunConfig, plan: Plan) -> str:
    if config.manifest.kind != "emr":
        return config.run.name
    column = {"experiment_id": "string"}
    found = sorted(set(read_pieces(plan.pieces(0), column, {})["experiment_id"]))
    if len(found) != 1:
        raise ContractError(f"the manifest holds the experiments {', '.join(found)}; name one with --experiment-id")
    return str(found[0])


def _earlier_tables(export: EmrExport) -> list[str]:
    stage = export.layout.stage_config("4c", export.experiment_id)
    return list(read_json(stage)["tables"]) if stage.exists() else []


def _write_configs(planned: ExportPlan) -> None:
    """The EMR keys, and the settings whose absence there made data hard to trace."""
    config, export = planned.config, planned.export
    psf, source = config.injection.psf, config.injection.source
    settings = {
        "source_mode": "cosmos" if source.kind == "bank" else "sersic",
        "cosmos_bank_h5": source.url if source.kind == "bank" else None,
        "cosmos_salt": source.emr_salt if source.kind == "bank" else None,
        "psf_model": psf.profile,
        "moffat_beta": psf.moffat_beta,
        "psfsize_from": psf.psfsize_from,
        "emr_compat": config.injection.emr_compat,
        "seed": config.run.seed,
        "run": planned.run.root.url,
        "plan_sha256": planned.tasks[0].plan_sha256,
        **{name: environment()[name] for name in ("code_version", "git_sha")},
    }
    shape = planned.tasks[0].shape
    common = {"stage": "4c", "variant": export.layout.variant, "experiment_id": export.experiment_id}
    stage = {
        **common,
        "timestamp_utc": utc_now(),
        "output_s3": export.layout.phase4.url,
        "inputs": {"manifest": config.manifest.url, "coadd_s3_cache_prefix": config.survey.bricks},
        "bands": list(config.survey.bands),
        "src_flux_scale": 1.0,
        "spark": {"sweep_partitions": shape.n_shards},
        "idempotency": RESUMES,
        "tables": sorted({*export.tables, *_earlier_tables(export)}),
        "metrics_only": int(export.metrics_only),
        **settings,
    }
    write_json(export.layout.stage_config("4c", export.experiment_id), stage)
    effective = {**common, **settings, "execution_timestamp_utc": utc_now()}
    write_json(export.layout.run_config(export.experiment_id), effective)
