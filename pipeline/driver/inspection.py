"""Read-only views of a run: its state, its verification, a cube's summary, a plan."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import parse_config
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.driver.anchor_recall import recall_folder
from pipeline.driver.plan import make_plan, read_rows
from pipeline.driver.run import limited
from pipeline.driver.training_job import OUTPUTS
from pipeline.storage.cube import CubeShape, is_published, open_cube, verify_metadata
from pipeline.storage.evaluation_tables import evaluation_folder, read_evaluation
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import probe_folder, probe_identity, read_probes
from pipeline.storage.receipts import read_receipts, verify_objects
from pipeline.storage.runs import read_json, read_record

logger = logging.getLogger("pipeline.driver")

CUBES = ("cutouts", "training")
_SCHEMAS = {"cutouts": CUTOUTS, "training": TRAINING, "anchors": CUTOUTS}
_VERIFY_THREADS = 8


def describe_plan(config: RunConfig, limit_shards: int | None) -> dict[str, Any]:
    """What a run would do, without doing it: rows, shards, the first shard's bricks, bytes to be stored."""
    plan = make_plan(limited(config, limit_shards), limit_shards)
    first = read_rows(config, plan.pieces(0))
    stamp = len(config.survey.bands) * config.survey.stamp_size_px**2 * 4
    mask = config.survey.stamp_size_px**2 * 4
    n_rows = plan.shape.sizes["sample"]
    return {
        **{key: value for key, value in plan.document().items() if key != "parts"},
        "files": len(plan.parts),
        "first_shard_bricks": len(set(first["brickname"].to_numpy().tolist())),
        "first_shard_controls": int(first["is_control"].sum()),
        "cutouts_cube_bytes": n_rows * (2 * stamp + mask),
        "training_cube_bytes": n_rows * 2 * stamp,
        "shard_bytes_in_memory": plan.shape.shard_samples * (4 * stamp + mask),
    }


def run_status(layout: RunLayout) -> dict[str, Any]:
    """State of a run, with shards done per cube."""
    record = read_record(layout)
    plan = read_json(layout.plan)
    shards = {}
    for cube in CUBES:
        names = [name for name in layout.receipts(cube).names() if name.endswith(".json")]
        shards[cube] = {
            "done": len(names),
            "of": plan["n_shards"],
            "published": is_published(layout.cube(cube)),
        }
    return {
        "run": record["run"],
        "state": record["state"],
        "updated_utc": record["updated_utc"],
        "verified": layout.success.exists(),
        "shards": shards,
        "stages": {name: stage["state"] for name, stage in record["stages"].items()},
        "error": record["error"],
    }


def verify_run(layout: RunLayout) -> dict[str, Any]:
    """Read every object of the cubes and compare it with its receipt; read what later stages stored.

    Raises:
        VerificationError: a receipt is missing, an object differs, plans or code versions are mixed,
            array metadata is not what the schema asks for, rows do not add up, a trainer's output is gone, or
            evaluation, recall or probes are gone, changed, or the probes are of something else.
    """
    record = read_record(layout)
    plan = read_json(layout.plan)
    config = parse_config(record["config"], where=layout.record.url)
    result: dict[str, Any] = {}
    for cube in CUBES if config.manifest.kind != "stamps" else CUBES[1:]:
        result[cube] = _verify_cube(layout, cube, config, plan)
    if "anchors" in record["stages"]:
        result["anchors"] = _verify_cube(layout, "anchors", config, read_json(layout.anchors.join("plan.json")))
    if "train" in record["stages"]:
        names = layout.training.names()
        gone = [name for name in OUTPUTS if name not in names]
        if gone:
            raise VerificationError(f"{layout.training.url}: outputs of the trainer are missing: {gone}")
        result["training_outputs"] = {name: layout.training.join(name).size() for name in OUTPUTS}
    if "evaluate" in record["stages"]:
        stored = read_evaluation(evaluation_folder(layout.root))
        if stored is None:
            raise VerificationError(f"{evaluation_folder(layout.root).url}: the evaluation has no marker")
        result["evaluation_tables"] = {name: len(table) for name, table in stored.tables.items()}
    if "anchor_recall" in record["stages"]:
        recall = read_evaluation(recall_folder(layout))
        if recall is None:
            raise VerificationError(f"{recall_folder(layout).url}: the recall of the anchors has no marker")
        result["recall_tables"] = {name: len(table) for name, table in recall.tables.items()}
    if "network_gates" in record["stages"]:
        result["probes"] = _verify_probes(layout, config)
    return result


def inspect_cube(location: Location) -> dict[str, Any]:
    """Attributes of a published cube and, per column, unit, meaning and range.

    Raises:
        ContractError: nothing published lies there.
    """
    cube = open_cube(location)
    columns = cube.columns(cube.column_names())
    described = {}
    for name in sorted(cube.column_names()):
        values = columns[name].to_numpy()
        attributes = columns[name].attrs
        entry: dict[str, Any] = {"units": attributes["units"], "description": attributes["description"]}
        if "flag_meanings" in attributes:
            meanings = attributes["flag_meanings"].split()
            entry["counts"] = {meanings[code]: int(n) for code, n in enumerate(np.bincount(values)) if n}
        elif values.dtype.kind in "fiu":
            entry |= _range(values)
        else:
            entry["distinct"] = len(set(values.tolist()))
        described[name] = entry
    return {"attributes": cube.attrs, "n_shards": cube.n_shards, "columns": described}


def layout_of(run: str, region: str | None, endpoint_url: str | None) -> RunLayout:
    """Layout of the run whose folder is at a URL; ContractError if none is there."""
    root = Location(run, region, endpoint_url)
    return RunLayout.at(root, read_record(RunLayout(root))["config"]["run"]["cutouts_from"])


def cube_location(url: str, region: str | None, endpoint_url: str | None) -> Location:
    """A cube's folder, also where its inner `cube.zarr` was named."""
    return Location(url.rstrip("/").removesuffix("/cube.zarr"), region, endpoint_url)


def as_json(content: dict[str, Any]) -> str:
    """Indented JSON."""
    return json.dumps(content, indent=1)


def _verify_cube(layout: RunLayout, cube: str, config: RunConfig, plan: dict[str, Any]) -> dict[str, Any]:
    """Every object of one cube against its receipts; the counts that `verify_run` reports."""
    location = layout.cube(cube)
    if not is_published(location):
        raise VerificationError(f"{location.url} is not published; the run is not finished")
    published = open_cube(location)
    sizes = {"sample": plan["n_rows"], "band": len(config.survey.bands)}
    sizes |= dict.fromkeys(("y", "x"), config.survey.stamp_size_px)
    verify_metadata(location, _SCHEMAS[cube], CubeShape(sizes, plan["shard_samples"], plan["inner_chunk"]))
    receipts = read_receipts(layout.receipts(cube))
    missing = sorted(set(range(plan["n_shards"])) - set(receipts))
    if missing:
        raise VerificationError(f"{location.url}: shards without receipt: {missing[:20]}")
    identities = {(receipt.plan_sha256, receipt.code_version) for receipt in receipts.values()}
    if identities != {(published.attrs["plan_sha256"], published.attrs["code_version"])}:
        raise VerificationError(f"{location.url}: receipts of several plans or code versions: {identities}")
    with ThreadPoolExecutor(_VERIFY_THREADS) as pool:
        list(pool.map(lambda receipt: verify_objects(location, receipt), receipts.values()))
    rows = sum(receipt.rows for receipt in receipts.values())
    if rows != plan["n_rows"] or rows != published.n_samples:
        raise VerificationError(f"{location.url}: {rows} rows in receipts, {plan['n_rows']} planned")
    return {
        "shards": len(receipts),
        "objects": sum(len(receipt.objects) for receipt in receipts.values()),
        "rows": rows,
    }


def _verify_probes(layout: RunLayout, config: RunConfig) -> dict[str, int]:
    """Probes of the run's network against their hashes; how many stamps were scored and embedded."""
    checkpoint = layout.checkpoint
    try:
        identity = probe_identity(config, layout, checkpoint)
    except ContractError as error:
        raise VerificationError(f"{layout.root.url}: what the network was probed with is gone: {error}") from error
    folder = probe_folder(checkpoint, identity)
    stored = read_probes(folder, identity)
    if stored is None:
        raise VerificationError(f"{folder.url}: no probes of this network, cube, configuration and anchors")
    return {"scored": stored.sizes["example"], "embedded": stored.sizes["stamp"]}


def _range(values: np.ndarray) -> dict[str, Any]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    entry: dict[str, Any] = {"nan": int(values.size - finite.size)}
    if finite.size:
        entry |= {"min": float(finite.min()), "median": float(np.median(finite)), "max": float(finite.max())}
    return entry
