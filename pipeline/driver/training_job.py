"""The training job: a process of its own that is waited for, and whose output is verified."""

from __future__ import annotations

import logging
import time
from typing import Any

from pipeline.contracts.errors import GateError, VerificationError
from pipeline.contracts.network_file import NETWORK_FILE
from pipeline.driver.cubes import RunContext
from pipeline.driver.gating import gates_passed
from pipeline.driver.programs import run_program
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import CHECKPOINT_FILE
from pipeline.storage.runs import read_json

logger = logging.getLogger("pipeline.driver")

OUTPUTS = (
    CHECKPOINT_FILE, NETWORK_FILE, "history.json", "history.parquet", "metrics.json", "scores.parquet",
    "scores_val.parquet", "confusion.npz", "_SUCCESS",
)  # fmt: skip


def run_training_job(context: RunContext) -> None:
    """Train and score on the published training cube; does nothing if that was done already.

    Raises:
        PipelineError: the trainer failed; carries its exit code.
        GateError: the cube has not passed its gates.
        VerificationError: the trainer ended well but left no complete output.
    """
    if not context.config.training.enabled:
        return
    folder = context.layout.training
    if "train" in context.record.stages and _is_trained(context):
        return
    open_cube(context.layout.cube("training"))
    if not gates_passed(context):
        raise GateError("the training cube has not passed its gates with the present bounds; run the gates first")
    context.record.stages.pop("train", None)
    context.record.update()
    folder.join("_SUCCESS").remove()
    started = time.monotonic()
    cube = context.layout.cube("training").url
    run_program(context.config, "pipeline.training", "--cube", cube, "--out", folder.url)
    names = set(folder.names())
    missing = [name for name in OUTPUTS if name not in names]
    if missing or not _is_trained(context):
        raise VerificationError(f"{folder.url}: the trainer ended without {missing or 'a marker of this training'}")
    metrics = read_json(folder.join("metrics.json"))
    context.record.finish_stage("train", seconds=round(time.monotonic() - started, 2), metrics=_headline(metrics))


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("split", "n_positives", "n_negatives", "auc")}


def _is_trained(context: RunContext) -> bool:
    """True if the trainer's marker is there and speaks of this plan, these settings and this seed."""
    marker = context.layout.training.join("_SUCCESS")
    if not marker.exists():
        return False
    expected = {
        "plan_sha256": context.plan.sha256,
        "training_sha256": context.config.training.identity_sha256(),
        "seed": context.config.run.seed,
    }
    stored = read_json(marker)
    return all(stored.get(name) == value for name, value in expected.items())
