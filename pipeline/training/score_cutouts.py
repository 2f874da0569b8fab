"""`python -m pipeline.training.score_cutouts`: score the usable stamps of a cutouts cube with a trained checkpoint.

The stamps go through the preprocessing that the checkpoint was trained with. Nothing is known about their arcs, so the
table holds identities and scores only.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ContractError, PipelineError, VerificationError
from pipeline.logs import configure_logging
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.model import predict_logits
from pipeline.training.preprocess import normalise, require_same_spec
from pipeline.training.score import LOGIT_TOLERANCE, REPRODUCED_SCORES, parquet_bytes
from pipeline.training.train import configure_torch

EPILOG = """
reads   --config      the run's YAML: sections `training` and `run` (region, endpoint_url)
        --checkpoint  checkpoint.pt of a training
        --cube        folder of a published cutouts cube (its _SUCCESS is demanded)
writes  --out         parquet file: cube_row, task_id, logit, score of every usable stamp
exit    0 verified, 2 configuration or contract, 3 verification failed, 75 retriable
"""

logger = logging.getLogger("pipeline.training")


def score_cutouts(config: RunConfig, checkpoint_file: Location, cube: PublishedCube, out: Location) -> pa.Table:
    """Score every usable stamp of a cutouts cube, store the table, read it back.

    Args:
        config: its `training` section must ask for the checkpoint's preprocessing.
        checkpoint_file: `checkpoint.pt`.
        cube: published cutouts cube with the checkpoint's bands and stamp size.
        out: the parquet file.

    Returns:
        cube_row, task_id, logit and score, one row per usable stamp in cube order.

    Raises:
        ContractError: no checkpoint, another cube, other bands, stamp size or preprocessing, or unusable pixels.
        VerificationError: a logit is not finite, or the file does not read back.
    """
    if not checkpoint_file.exists():
        raise ContractError(f"{checkpoint_file.url}: no checkpoint is there")
    device = configure_torch(config.training.threads)
    checkpoint = Checkpoint.from_bytes(checkpoint_file.read_bytes())
    require_same_spec(checkpoint.preprocess, config.training.preprocess)
    _require_cutouts(cube, checkpoint)
    model = checkpoint.network(device)
    rows: list[NDArray[np.int64]] = []
    logits: list[NDArray[np.float32]] = []
    first_stamps = np.empty((0, len(checkpoint.bands), checkpoint.stamp_size_px, checkpoint.stamp_size_px), np.float32)
    for shard in range(cube.n_shards):
        stamps = cube.read_shard(shard, ["image", "usable"])
        chosen = np.flatnonzero(stamps["usable"].to_numpy() == 1)
        if not chosen.size:
            continue
        normalised = normalise(torch.from_numpy(stamps["image"].to_numpy()[chosen]), checkpoint.preprocess).numpy()
        rows.append(chosen + cube.shard_range(shard)[0])
        logits.append(predict_logits(model, normalised, device))
        if len(first_stamps) < REPRODUCED_SCORES:
            first_stamps = np.concatenate([first_stamps, normalised])[:REPRODUCED_SCORES]
    row = np.concatenate([np.empty(0, np.int64), *rows])
    logit = np.concatenate([np.empty(0, np.float32), *logits])
    if not np.isfinite(logit).all():
        raise VerificationError(f"{np.count_nonzero(~np.isfinite(logit))} of {logit.size} logits are not finite")
    table = _table(cube, row, logit)
    out.write_bytes(parquet_bytes(table))
    _verify(out, table, checkpoint_file, first_stamps, device)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, score, and turn a PipelineError into its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.score_cutouts",
        description="Score the usable stamps of a cutouts cube with a trained checkpoint.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="run configuration, a YAML file")
    parser.add_argument("--checkpoint", required=True, metavar="URL", help="checkpoint.pt of a training")
    parser.add_argument("--cube", required=True, metavar="URL", help="folder of the published cutouts cube")
    parser.add_argument("--out", required=True, metavar="URL", help="parquet file that the scores go to")
    options = parser.parse_args(arguments)
    configure_logging()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        config = load_config(options.config)
        where = {"region": config.run.region, "endpoint_url": config.run.endpoint_url}
        checkpoint, out = Location(options.checkpoint, **where), Location(options.out, **where)
        table = score_cutouts(config, checkpoint, open_cube(Location(options.cube, **where)), out)
    except PipelineError as error:
        failure = error
    else:
        logger.info("scored", extra={"fields": {"out": options.out, "stamps": table.num_rows}})
        return 0
    logger.error("failed", extra={"fields": {"error": type(failure).__name__, "reason": str(failure)}})
    return failure.exit_code


def _require_cutouts(cube: PublishedCube, checkpoint: Checkpoint) -> None:
    got = (cube.attrs.get("schema"), cube.attrs.get("schema_version"))
    if got != (CUTOUTS.name, CUTOUTS.version):
        raise ContractError(
            f"{cube.location.url}: expected cube schema {CUTOUTS.name!r} version {CUTOUTS.version}, got {got}"
        )
    bands = tuple(map(str, cube.attrs.get("bands", ())))
    size = cube.read_shard(0, ["image"])["image"].shape[-1]
    if (bands, size) != (checkpoint.bands, checkpoint.stamp_size_px):
        raise ContractError(
            f"{cube.location.url}: checkpoint expects bands {checkpoint.bands} and {checkpoint.stamp_size_px} px, "
            f"got {bands} and {size} px"
        )


def _table(cube: PublishedCube, row: NDArray[np.int64], logit: NDArray[np.float32]) -> pa.Table:
    task_id = cube.columns(["task_id"])["task_id"].to_numpy()[row]
    score = 1.0 / (1.0 + np.exp(-np.clip(logit.astype(np.float64), -700.0, None)))
    return pa.table(
        {
            "cube_row": pa.array(row, pa.int64()),
            "task_id": pa.array([str(value) for value in task_id], pa.string()),
            "logit": pa.array(logit, pa.float32()),
            "score": pa.array(score.astype(np.float32), pa.float32()),
        }
    )


def _verify(
    out: Location, table: pa.Table, checkpoint_file: Location, stamps: NDArray[np.float32], device: torch.device
) -> None:
    if not pq.read_table(io.BytesIO(out.read_bytes())).equals(table):
        raise VerificationError(f"{out.url} reads back other values than were written")
    model = Checkpoint.from_bytes(checkpoint_file.read_bytes()).network(device)
    again, written = predict_logits(model, stamps, device), table["logit"].to_numpy()[: len(stamps)]
    if not np.allclose(again, written, rtol=LOGIT_TOLERANCE, atol=LOGIT_TOLERANCE):
        raise VerificationError(f"{checkpoint_file.url} does not reproduce its scores: {written} became {again}")


if __name__ == "__main__":
    sys.exit(main())
