"""`python -m pipeline.training`: train on a published cube, score its test split, verify, mark as done.

The marker is written last and names what made the results. With the marker of the same training there is nothing
to do; with the marker of another one the program refuses.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ContractError, PipelineError, PlanChangedError
from pipeline.logs import configure_logging
from pipeline.stages.evaluation import evaluate_scores
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loader import Examples, load_examples
from pipeline.training.score import parquet_bytes, score_examples, score_table, verify_scores
from pipeline.training.train import TrainingResult, configure_torch, train

SUCCESS_MARKER = "_SUCCESS"
EPILOG = """
reads   --config  the run's YAML: sections `training` and `run` (seed, region, endpoint_url)
        --cube    folder of a published training cube (its _SUCCESS is demanded)
writes  --out     checkpoint.pt   best and last weights, preprocess spec, provenance
                  history.json    one record per epoch
                  scores.parquet  one row per test example: task_id, label, logit, score, arc_snr ...
                  scores_val.parquet  the same of the validation split
                  metrics.json    test AUC with interval, TPR at FPR, AUC by arc_snr, ROC
                  _SUCCESS        last, after checkpoint and scores were read back and verified
exit    0 verified, 2 configuration or contract, 3 verification failed, 75 retriable
"""

logger = logging.getLogger("pipeline.training")


def run_training(config: RunConfig, cube_location: Location, out: Location) -> None:
    """Train, score, verify; every output lies in `out`, the marker last.

    Raises:
        ContractError: no published training cube, or unusable pixels in it.
        PlanChangedError: `out` holds the verified results of another training.
        VerificationError: too few examples, a loss that is not finite, or outputs that do not read back.
        ConfigError: the cube does not fit in memory.
        StorageError: a read or write failed.
    """
    cube = open_cube(cube_location)
    identity = _identity(config, cube)
    marker = out.join(SUCCESS_MARKER)
    if marker.exists():
        _require_same_training(marker, identity)
        logger.info("already done", extra={"fields": {"out": out.url}})
        return

    device = configure_torch(config.training.threads)
    examples = load_examples(cube, config.training.preprocess)
    bands = tuple(str(band) for band in cube.attrs["bands"])
    counts = {name: {"positives": int(split.label.sum()), "examples": len(split)} for name, split in examples.items()}
    logger.info("loaded", extra={"fields": {"cube": cube_location.url, "device": str(device), **counts}})

    result = train(examples, config.training, config.run.seed, device)
    checkpoint = _checkpoint(config, cube, bands, examples["train"], result)
    checkpoint_file, scores_file = out.join("checkpoint.pt"), out.join("scores.parquet")
    checkpoint_file.write_bytes(checkpoint.to_bytes())
    out.join("history.json").write_bytes(_json_bytes([asdict(record) for record in result.history]))

    test = examples["test"]
    logit = score_examples(checkpoint, test, device)
    table = score_table(test, logit, bands)
    scores_file.write_bytes(parquet_bytes(table))
    metrics = evaluate_scores(test.label, logit, test.columns["arc_snr"].to_numpy(), test.columns["host_id"].to_numpy())
    out.join("metrics.json").write_bytes(_json_bytes({"split": "test", **identity, **metrics}))

    val, val_file = examples["val"], out.join("scores_val.parquet")
    val_table = score_table(val, score_examples(checkpoint, val, device), bands)
    val_file.write_bytes(parquet_bytes(val_table))

    verify_scores(checkpoint_file, scores_file, table, test, device)
    verify_scores(checkpoint_file, val_file, val_table, val, device)
    marker.write_bytes(_json_bytes(identity))
    logger.info("done", extra={"fields": {"out": out.url, "epoch": checkpoint.epoch, "test_auc": metrics["auc"]}})


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn a PipelineError into its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training",
        description="Train a lens finder on a published training cube and score its test split.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="run configuration, a YAML file")
    parser.add_argument("--cube", required=True, metavar="URL", help="folder of the published training cube")
    parser.add_argument("--out", required=True, metavar="URL", help="folder that the results go to")
    options = parser.parse_args(arguments)
    configure_logging()
    # cuBLAS is deterministic only with a fixed workspace, read when the GPU is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        config = load_config(options.config)
        where = {"region": config.run.region, "endpoint_url": config.run.endpoint_url}
        run_training(config, Location(options.cube, **where), Location(options.out, **where))
    except PipelineError as error:
        failure = error
    else:
        return 0
    logger.error("failed", extra={"fields": {"error": type(failure).__name__, "reason": str(failure)}})
    return failure.exit_code


def _identity(config: RunConfig, cube: PublishedCube) -> dict[str, Any]:
    missing = [name for name in ("bands", "plan_sha256", "config_sha256", "code_version") if name not in cube.attrs]
    if missing:
        raise ContractError(f"{cube.location.url} lacks the root attributes {missing}")
    return {
        "plan_sha256": cube.attrs["plan_sha256"],
        "training_sha256": config.training.identity_sha256(),
        "seed": config.run.seed,
        "code_version": _code_version(),
    }


def _require_same_training(marker: Location, identity: dict[str, Any]) -> None:
    try:
        found = json.loads(marker.read_bytes())
    except ValueError as error:
        raise ContractError(f"{marker.url} is not the marker of a training: {error}") from error
    differing = [name for name in ("plan_sha256", "training_sha256", "seed") if found.get(name) != identity[name]]
    if differing:
        raise PlanChangedError(
            f"{marker.url} marks another training: "
            + ", ".join(f"{name} is {found.get(name)}, expected {identity[name]}" for name in differing)
        )


def _checkpoint(
    config: RunConfig, cube: PublishedCube, bands: tuple[str, ...], examples: Examples, result: TrainingResult
) -> Checkpoint:
    return Checkpoint(
        weights=result.best.weights,
        last_weights=result.last.weights,
        preprocess=config.training.preprocess,
        bands=bands,
        stamp_size_px=examples.stamps.shape[-1],
        base_channels=config.training.base_channels,
        epoch=result.best.record.epoch,
        selected_by="val_auc",
        metrics=asdict(result.best.record),
        config_sha256=config.sha256(),
        plan_sha256=str(cube.attrs["plan_sha256"]),
        cube_config_sha256=str(cube.attrs["config_sha256"]),
        cube_code_version=str(cube.attrs["code_version"]),
        code_version=_code_version(),
    )


def _code_version() -> str:
    return f"darkhaloscope {importlib.metadata.version('darkhaloscope')}, torch {torch.__version__}"


def _json_bytes(content: object) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()


if __name__ == "__main__":
    sys.exit(main())
