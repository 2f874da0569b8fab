"""The gate stage: columns of the whole training cube, stamps of a sample of it, one document of results."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import parse_config
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ContractError, GateError, VerificationError
from pipeline.contracts.gate_config import GateSection
from pipeline.driver.cubes import RunContext
from pipeline.driver.injection_assets import read_assets
from pipeline.driver.plan import make_plan, read_rows
from pipeline.driver.probing import network_scores
from pipeline.stages.gates.result import GateResult, Reinjection
from pipeline.stages.gates.suite import DATA_GATE_NAMES, failed_gates, gates_document, run_gates
from pipeline.stages.pairs import PAIR, UNUSED
from pipeline.stages.sampling import Pilot
from pipeline.storage.anchor_stamps import read_anchor_stamps
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_json, read_record, write_json
from pipeline.storage.tables import pieces_of

logger = logging.getLogger("pipeline.driver")


@dataclass(frozen=True)
class CubeGates:
    """Results of the gates on one cube, the configuration they were checked under, and the run."""

    results: list[GateResult]
    config: RunConfig
    layout: RunLayout


def check_gates(context: RunContext) -> None:
    """Run every gate on the data of the published training cube and store the results.

    Raises:
        GateError: a gate failed and is not waived; names every such gate.
    """
    config = context.config
    identity = _identity(context)
    if "gates" in context.record.stages and gates_passed(context):
        return
    context.record.stages.pop("gates", None)
    context.record.update()
    started = time.monotonic()
    results = judge_cube(context.layout, config)
    document = {**gates_document(results, config), "identity": identity}
    write_json(context.layout.gates, document)
    for result in results:
        verdict = "passed" if result.passed else "waived" if result.waived else "FAILED"
        fields = {"gate": result.name, "verdict": verdict, "value": result.value, "bound": result.bound}
        logger.info("gate", extra={"fields": fields})
    failed = failed_gates(results)
    if failed:
        context.record.stages["gates"] = {"state": "failed", "failed": [result.name for result in failed]}
        context.record.update()
    demand_passed(results)
    context.record.finish_stage(
        "gates",
        identity=identity,
        passed=[result.name for result in results if result.passed],
        waived={result.name: result.waived for result in results if not result.passed},
        seconds=round(time.monotonic() - started, 2),
    )


def demand_passed(results: list[GateResult]) -> None:
    """GateError that names every gate that failed and is not waived."""
    failed = failed_gates(results)
    if failed:
        raise GateError(
            f"{len(failed)} gates failed: "
            + "; ".join(f"{result.name}: {result.message}" for result in failed)
            + ". Mend the data, or waive a gate by name with a reason under gates.waive"
        )


def gates_passed(context: RunContext) -> bool:
    """True if the stored results are of this very cube and these bounds, and none failed without waiver."""
    if not context.layout.gates.exists():
        return False
    stored = read_json(context.layout.gates)
    return stored.get("identity") == _identity(context) and stored.get("passed") is True


def gate_cube(cube: Location, bounds: GateSection | None = None, model: Location | None = None) -> CubeGates:
    """Run every gate on the training cube of a run, under the run's own configuration.

    Args:
        cube: folder of the training cube, `<run>/cubes/training`.
        bounds: bounds and waivers in place of those of the run.
        model: checkpoint of a network, for the gates on networks; what it says of the probes is kept beside it.

    Raises:
        ContractError: the folder is not the training cube of a run, or is not published.
        ConfigError: a waiver names no gate, or the probes of a network need torch and it is not installed.
    """
    run_url = cube.url.removesuffix("/cubes/training")
    if run_url == cube.url:
        raise ContractError(f"{cube.url}: expected the training cube of a run, <run>/cubes/training")
    root = Location(run_url, cube.region, cube.endpoint_url)
    config = parse_config(read_record(RunLayout(root))["config"], where=f"{root.url}/run.json")
    if bounds is not None:
        config = config.model_copy(update={"gates": bounds})
    layout = RunLayout.at(root, config.run.cutouts_from)
    scores = None if model is None else network_scores(layout, config, model)
    return CubeGates(judge_cube(layout, config, scores), config, layout)


def judge_cube(layout: RunLayout, config: RunConfig, scores: xr.Dataset | None = None) -> list[GateResult]:
    """Verdict of every gate on the published training cube of a run."""
    cube = open_cube(layout.cube("training"))
    columns = cube.columns(cube.column_names())
    stamps = read_stamps(cube, config.gates.max_samples)
    again = read_reinjection(layout, config, cube, columns["role"].to_numpy())
    anchors = None if config.anchors is None else read_anchor_stamps(layout, ["image"])
    return run_gates(columns, stamps, config, cube.attrs["bands"], again, scores, anchors)


def read_stamps(cube: PublishedCube, max_samples: int) -> xr.Dataset:
    """Stamps and columns of used rows from whole shards spread evenly over the cube, at most `max_samples` rows."""
    n_shards = max(1, min(cube.n_shards, max_samples // cube.shard_samples))
    chosen = [(index * cube.n_shards) // n_shards for index in range(n_shards)]
    names = ["injected", "control", *cube.column_names()]
    shards = []
    for shard in chosen:
        dataset = cube.read_shard(shard, names)
        shards.append(dataset.isel(sample=np.flatnonzero(dataset["role"].to_numpy() != UNUSED)))
    return xr.concat(shards, dim="sample").isel(sample=slice(0, max_samples))


def read_reinjection(
    layout: RunLayout, config: RunConfig, cube: PublishedCube, role: NDArray[np.uint8]
) -> Reinjection | None:
    """At most `gates.null_rows` pairs of the shard that holds the cube's middle pair; None without pairs.

    None too for imported stamps, which cannot be injected again.

    Raises:
        VerificationError: the manifest of a frozen run is no longer the planned one.
    """
    pairs = np.flatnonzero(role == PAIR)
    if not pairs.size or config.manifest.kind == "stamps":
        return None
    shard = int(pairs[pairs.size // 2]) // cube.shard_samples
    first, stop = cube.shard_range(shard)
    inside = pairs[(pairs >= first) & (pairs < stop)] - first
    chosen = inside[np.unique(np.linspace(0, inside.size - 1, config.gates.null_rows).astype(np.int64))]
    cutouts = open_cube(layout.cube("cutouts")).read_shard(shard, [variable.name for variable in CUTOUTS.variables])
    cutouts = cutouts.isel(sample=chosen)
    stored = cube.read_shard(shard, ["role", "injected", "control"]).isel(sample=chosen)
    rows = cutouts
    if config.injection.mode == "frozen":
        rows = _manifest_rows(layout, config, first, stop).isel(sample=chosen)
    pilot = Pilot.from_json(read_json(layout.pilot)) if layout.pilot.exists() else None
    assets, _ = read_assets(config, cutouts["brickname"].to_numpy().tolist())
    return Reinjection(cutouts, rows, stored, assets, pilot)


def _manifest_rows(layout: RunLayout, config: RunConfig, first: int, stop: int) -> xr.Dataset:
    planned = read_json(layout.plan)
    plan = make_plan(config, planned["limit_shards"])
    if plan.sha256 != planned["sha256"]:
        raise VerificationError(f"{config.manifest.url} is no longer what {layout.plan.url} was made from")
    return read_rows(config, pieces_of(plan.parts, first, stop))


def _identity(context: RunContext) -> str:
    config = context.config
    gates = config.gates.model_dump_json(exclude={"network"})
    bounds = f"{gates} {config.sha256('sampling', 'splits', 'anchors')}"
    content = f"{context.plan.sha256} {bounds} {config.training.preprocess!r} {','.join(DATA_GATE_NAMES)}"
    return hashlib.sha256(content.encode()).hexdigest()
