"""The training job: a process of its own that is waited for, and whose output is verified."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError, GateError, PipelineError, VerificationError
from pipeline.driver.cubes import RunContext
from pipeline.driver.gating import gates_passed
from pipeline.storage.cube import open_cube
from pipeline.storage.runs import read_json

logger = logging.getLogger("pipeline.driver")

OUTPUTS = ("checkpoint.pt", "history.json", "metrics.json", "scores.parquet", "scores_val.parquet", "_SUCCESS")


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


def run_program(config: RunConfig, module: str, *options: str) -> None:
    """Run a program of `pipeline.training` in a process of its own and wait for it.

    Args:
        config: handed over as `--config`; bounds the time.
        module: such as `pipeline.training`.
        options: its other options.

    Raises:
        PipelineError: it failed, with its exit code, or did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        command = [sys.executable, "-m", module, "--config", str(path), *options]
        try:
            code = subprocess.run(command, timeout=config.training.timeout_s, check=False).returncode
        except subprocess.TimeoutExpired as error:
            raise PipelineError(f"{module} did not finish within {config.training.timeout_s:g} s") from error
    if code:
        kinds: dict[int, type[PipelineError]] = {2: ConfigError, 3: VerificationError}
        unexpected = PipelineError if code < 0 or code == PipelineError.exit_code else VerificationError
        raise kinds.get(code, unexpected)(f"{module} failed with exit code {code}; its messages are above")


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
