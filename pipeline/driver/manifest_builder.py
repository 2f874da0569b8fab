"""Building phase-4a manifests: where sampling and frozen draws meet the tables they come from and go to."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import CELLS_PER_AXIS, SPLIT_NAMES, HostSample
from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError
from pipeline.contracts.manifest_config import ManifestConfig, TrainTier
from pipeline.driver.provenance import code_version
from pipeline.stages.manifest_sampling import HostSampler, quartile_edges
from pipeline.stages.manifest_tasks import ManifestInputTables, TaskTable, demand_distinct, rows_per_host
from pipeline.storage.emr_layout import RESUMES, EmrLayout
from pipeline.storage.locations import Location
from pipeline.storage.manifest_files import (
    ManifestWriter,
    clear_folder,
    is_marked_complete,
    write_bricks_manifest,
)
from pipeline.storage.manifest_inputs import gather_hosts, read_brick_numbers, read_selections, scan_parent
from pipeline.storage.runs import read_json, utc_now, write_json
from pipeline.storage.tables import TablePart, find_parts

PIECE_ROWS = 2**17
_CELLS = CELLS_PER_AXIS**2
_BUILD_KEYS = ("config_sha256", "inputs_sha256", "code_version")
_LOG = logging.getLogger(__name__)


def build_manifests(config: ManifestConfig, *, force: bool = False) -> dict[str, Any]:
    """Make every manifest of a configuration, then the list of bricks and the report.

    Nothing is written before the rows are counted. Manifests that carry their marker and were made from the same
    configuration, inputs and code are kept; the parent catalogue is read twice, in batches.

    Args:
        config: what to make.
        force: make complete manifests again, and replace those of another configuration.

    Returns:
        The report, also stored as _manifest_report.json: hosts kept out by reason, strata, counts per experiment.

    Raises:
        ConfigError: more rows than max_tasks.
        ContractError: inputs that cannot be used; no host for a tier; a task_id that occurs twice.
        PlanChangedError: a manifest of another configuration, other inputs or other code is there.
    """
    layout = EmrLayout(_place(config, config.output), config.variant)
    parts = find_parts(_place(config, config.inputs.parent))
    tables = _input_tables(config)
    sampler = _scan(config, tables, parts)
    samples: dict[str, HostSample] = {tier: sampler.sample(section.n_hosts) for tier, section in config.tiers.items()}
    _demand_hosts(config, samples, sampler)
    hosts = gather_hosts(parts, tables.bricks, np.unique(np.concatenate([sample.row for sample in samples.values()])))
    record = _stage_config(config, tables, force=force)
    kept = _kept_experiments(layout, record, force=force)
    write_json(layout.stage_config("4a"), record)
    experiments, bricks = {}, {}
    for experiment in config.experiments():
        name = experiment.experiment_id
        task_table = TaskTable(
            experiment, tables, hosts, samples[experiment.tier], config.replicates, unpaired=config.unpaired_controls
        )
        if name not in kept:
            _write(layout.manifest(name), layout.manifest(name, csv=True) if config.csv else None, task_table, config)
            _LOG.info("wrote %s: %d rows", layout.manifest(name).url, task_table.n_rows)
        experiments[name] = _counts(task_table, sampler, kept=name in kept)
        bricks[name] = task_table.brick_names
    write_bricks_manifest(layout, bricks)
    report = {
        "rows": sum(counts["rows"] for counts in experiments.values()),
        "parent_rows": sampler.n_read,
        "parent_rows_dropped": sampler.dropped,
        "regions_without_hosts": sampler.regions_without_hosts(),
        "experiments": experiments,
        "code_version": code_version(),
    }
    write_json(layout.manifest_report, report)
    return report


def _place(config: ManifestConfig, url: str) -> Location:
    return Location(url, config.region, config.endpoint_url)


def _input_tables(config: ManifestConfig) -> ManifestInputTables:
    bricks = read_brick_numbers(_place(config, config.inputs.bricks_with_region))
    selections = read_selections(_place(config, config.inputs.region_selections), config.selection_set_ids)
    psf_edges = config.psf_edges_arcsec or quartile_edges(bricks.numbers["psfsize_r"])
    depth_edges = config.depth_edges_mag or quartile_edges(bricks.numbers["psfdepth_r"])
    return ManifestInputTables(bricks, selections, psf_edges, depth_edges, config.split_seed)


def _scan(config: ManifestConfig, tables: ManifestInputTables, parts: list[TablePart]) -> HostSampler:
    per_cell = max(math.ceil(tier.n_hosts / _CELLS) for _, tier in config.tiers.items())
    # Every host is a row at least, but for fewer than one per cell that the cap on all cells takes away.
    slack = len(tables.selections.set_ids) * len(SPLIT_NAMES) * _CELLS
    sampler = HostSampler(
        tables.bricks,
        tables.selections,
        tables.psf_edges_arcsec,
        tables.depth_edges_mag,
        config.split_seed,
        per_cell,
        None if config.max_tasks is None else config.max_tasks + slack,
    )
    for batch in scan_parent(parts, tables.bricks, config.lrg_flag):
        sampler.add(batch)
    sampler.finish()
    return sampler


def _demand_hosts(config: ManifestConfig, samples: dict[str, HostSample], sampler: HostSampler) -> None:
    empty = [tier for tier, sample in samples.items() if not sample.row.size]
    if empty:
        raise ContractError(
            f"{config.inputs.parent}: no host for tier {', '.join(empty)} among {sampler.n_read} rows; "
            f"kept out: {sampler.dropped}"
        )
    n_rows = sum(
        samples[experiment.tier].row.size * rows_per_host(experiment, config.replicates)
        for experiment in config.experiments()
    )
    if config.max_tasks is not None and n_rows > config.max_tasks:
        raise ConfigError(
            f"guardrail: {n_rows} rows in {len(config.experiments())} manifests, max_tasks is {config.max_tasks}; "
            "ask for fewer hosts, tiers or replicates, or raise max_tasks"
        )


def _kept_experiments(layout: EmrLayout, record: dict[str, Any], *, force: bool) -> set[str]:
    """Complete manifests of this very build; with `force`, none, and those that are there are deleted."""
    if force:
        clear_folder(layout.manifests)
    complete = {name for name in layout.manifests.names() if is_marked_complete(layout.manifest(name))}
    found = read_json(layout.stage_config("4a")) if complete and layout.stage_config("4a").exists() else {}
    changed = [key for key in _BUILD_KEYS if found.get(key) != record[key]]
    if complete and changed:
        raise PlanChangedError(
            f"{layout.manifests.url}: manifests of another build are there ({', '.join(changed)} differ); "
            "take a new variant, or --force to replace them"
        )
    return complete


def _write(folder: Location, csv: Location | None, table: TaskTable, config: ManifestConfig) -> None:
    row_order = config.row_order
    with ManifestWriter(folder, csv) as writer:
        for rows in table.pieces_by_brick(PIECE_ROWS) if row_order == "brick" else _pieces_by_task_id(table):
            columns = table.columns(rows)
            if row_order == "brick":
                demand_distinct(columns["task_id"], folder.url)
            writer.write(columns)


def _pieces_by_task_id(table: TaskTable) -> Iterator[NDArray[np.int64]]:
    """Row numbers in the order of their task_id."""
    keys = np.empty((table.n_rows, 2), np.uint64)
    for start in range(0, table.n_rows, PIECE_ROWS):
        rows = np.arange(start, min(start + PIECE_ROWS, table.n_rows))
        keys[rows] = np.ascontiguousarray(table.task_digests(rows)[:, :16]).view(">u8")
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    same = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    demand_distinct(table.task_digests(np.r_[order[1:][same], order[:-1][same]]), table.experiment.experiment_id)
    for start in range(0, table.n_rows, PIECE_ROWS):
        yield order[start : start + PIECE_ROWS]


def _counts(table: TaskTable, sampler: HostSampler, *, kept: bool) -> dict[str, Any]:
    per_host = table.rows_per_host
    return {
        "rows": table.n_rows,
        "controls": int(table.control.sum()) * per_host,
        "positives": int((~table.control).sum()) * per_host,
        "copies": table.n_copies,
        "bricks": len(table.brick_names),
        "kept_from_an_earlier_build": kept,
        "strata": sampler.strata(table.experiment.section.n_hosts),
    }


def _stage_config(config: ManifestConfig, tables: ManifestInputTables, *, force: bool) -> dict[str, Any]:
    tiers = {
        name: {
            "grid": tier.grid,
            "n_total_per_split" if isinstance(tier, TrainTier) else "n_per_config": tier.n_hosts,
            "control_frac": tier.control_frac,
        }
        for name, tier in config.tiers.items()
    }
    return {
        "stage": "4a",
        "timestamp_utc": utc_now(),
        "variant": config.variant,
        "output_s3": config.output,
        "inputs": {
            "parent_s3": config.inputs.parent,
            "bricks_with_region_s3": config.inputs.bricks_with_region,
            "region_selections_s3": config.inputs.region_selections,
        },
        "seeds": {"split_seed": config.split_seed},
        "sampling": {
            "selection_set_ids": ",".join(config.selection_set_ids) if config.selection_set_ids else "*",
            "require_lrg_flag": config.lrg_flag or "",
            "psf_edges": list(tables.psf_edges_arcsec),
            "depth_edges": list(tables.depth_edges_mag),
        },
        "tiers": tiers,
        "stamp_sizes": list(config.stamp_sizes_px),
        "bandsets": list(config.bandsets),
        "replicates": config.replicates,
        "idempotency": {**RESUMES, "force": int(force)},
        "unpaired_controls": int(config.unpaired_controls),
        "row_order": config.row_order,
        "config_sha256": config.sha256(),
        "inputs_sha256": {name: _digest(find_parts(_place(config, url))) for name, url in config.inputs},
        "code_version": code_version(),
    }


def _digest(parts: list[TablePart]) -> str:
    return hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest()
