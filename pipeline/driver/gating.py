"""The gate stage: columns of the whole training cube, stamps of a sample of it, one document of results."""

from __future__ import annotations

import hashlib
import logging
import time

import numpy as np
import xarray as xr

from pipeline.contracts.errors import GateError
from pipeline.driver.cubes import RunContext
from pipeline.stages.gates.suite import failed_gates, gates_document, run_gates
from pipeline.stages.pairs import UNUSED
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.runs import read_json, write_json

logger = logging.getLogger("pipeline.driver")


def check_gates(context: RunContext) -> None:
    """Run every gate on the published training cube and store the results.

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
    cube = open_cube(context.layout.cube("training"))
    results = run_gates(
        cube.columns(cube.column_names()), read_stamps(cube, config.gates.max_samples), config, cube.attrs["bands"]
    )
    failed = failed_gates(results)
    document = {**gates_document(results, config), "identity": identity}
    write_json(context.layout.gates, document)
    for result in results:
        verdict = "passed" if result.passed else "waived" if result.waived else "FAILED"
        fields = {"gate": result.name, "verdict": verdict, "value": result.value, "bound": result.bound}
        logger.info("gate", extra={"fields": fields})
    if failed:
        context.record.stages["gates"] = {"state": "failed", "failed": [result.name for result in failed]}
        context.record.update()
        raise GateError(
            f"{len(failed)} gates failed: "
            + "; ".join(f"{result.name}: {result.message}" for result in failed)
            + ". Mend the data, or waive a gate by name with a reason under gates.waive"
        )
    context.record.finish_stage(
        "gates",
        identity=identity,
        passed=[result.name for result in results if result.passed],
        waived={result.name: result.waived for result in results if not result.passed},
        seconds=round(time.monotonic() - started, 2),
    )


def gates_passed(context: RunContext) -> bool:
    """True if the stored results are of this very cube and these bounds, and none failed without waiver."""
    if not context.layout.gates.exists():
        return False
    stored = read_json(context.layout.gates)
    return stored.get("identity") == _identity(context) and stored.get("passed") is True


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


def _identity(context: RunContext) -> str:
    content = f"{context.plan.sha256} {context.config.sha256('gates', 'sampling', 'splits')}"
    return hashlib.sha256(content.encode()).hexdigest()
