"""`python -m pipeline.training.score_cutouts`: score the usable stamps of a cutouts cube with a trained checkpoint.

The stamps go through the preprocessing that the checkpoint was trained with. Nothing is known about their arcs, so the
table holds identities and scores only.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ContractError
from pipeline.logs import configure_logging
from pipeline.stages.network import probability
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import Location
from pipeline.training.exit_code import exit_code
from pipeline.training.outputs import write_table
from pipeline.training.processes import configure_torch
from pipeline.training.scorer import (
    REPRODUCED_SCORES,
    load_checkpoint,
    require_cube,
    require_reproduced,
)

EPILOG = """
reads   --config      the run's YAML: sections `training` and `run` (region, endpoint_url)
        --checkpoint  checkpoint.safetensors of a training
        --cube        folder of a published cutouts cube (its _SUCCESS is demanded)
writes  --out         parquet file: cube_row, task_id, logit, score of every usable stamp
exit    0 verified, 2 configuration or contract, 3 verification failed, 75 retriable
"""

logger = logging.getLogger("pipeline.training")


def score_cutouts(config: RunConfig, checkpoint_file: Location, cube: PublishedCube, out: Location) -> pa.Table:
    """Score every usable stamp of a cutouts cube, store the table, read it back.

    Args:
        config: its `training` section must ask for the checkpoint's preprocessing.
        checkpoint_file: `checkpoint.safetensors`.
        cube: published cutouts cube with the checkpoint's bands and stamp size.
        out: the parquet file.

    Returns:
        cube_row, task_id, logit and score, one row per usable stamp in cube order.

    Raises:
        ContractError: no checkpoint, another cube, other bands, stamp size or preprocessing, or unusable pixels.
        VerificationError: a logit is not finite, or the file does not read back.
    """
    device = configure_torch(config.training.threads, config.training.deterministic)
    checkpoint, scorer = load_checkpoint(checkpoint_file, device)
    _require_cutouts(cube)
    size = cube.read_shard(0, ["image"])["image"].shape[-1]
    require_cube(checkpoint, cube, size, config.training.preprocess)
    beside = () if checkpoint.features is None else checkpoint.features.columns
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    proof: tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32]] | None = None
    for shard in range(cube.n_shards):
        stamps = cube.read_shard(shard, ["image", "usable", *beside])
        chosen = np.flatnonzero(stamps["usable"].to_numpy() == 1)
        if not chosen.size:
            continue
        image = stamps["image"].to_numpy()[chosen]
        features = None if checkpoint.features is None else checkpoint.features.of_rows(stamps.isel(sample=chosen))
        rows.append(chosen + cube.shard_range(shard)[0])
        logits.append(scorer.logits(image, features))
        if proof is None:
            some = slice(0, REPRODUCED_SCORES)
            proof = (image[some], None if features is None else features[some], logits[-1][some])
    table = _table(cube, np.concatenate(rows), np.concatenate(logits))
    write_table(out, table)
    if proof is not None:
        require_reproduced(checkpoint_file, *proof, device)
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
    parser.add_argument("--checkpoint", required=True, metavar="URL", help="checkpoint.safetensors of a training")
    parser.add_argument("--cube", required=True, metavar="URL", help="folder of the published cutouts cube")
    parser.add_argument("--out", required=True, metavar="URL", help="parquet file that the scores go to")
    options = parser.parse_args(arguments)
    configure_logging()

    def work() -> int:
        config = load_config(options.config)
        where = {"region": config.run.region, "endpoint_url": config.run.endpoint_url}
        checkpoint, out = Location(options.checkpoint, **where), Location(options.out, **where)
        table = score_cutouts(config, checkpoint, open_cube(Location(options.cube, **where)), out)
        logger.info("scored", extra={"fields": {"out": options.out, "stamps": table.num_rows}})
        return 0

    return exit_code(work)


def _require_cutouts(cube: PublishedCube) -> None:
    got = (cube.attrs.get("schema"), cube.attrs.get("schema_version"))
    if got != (CUTOUTS.name, CUTOUTS.version):
        raise ContractError(
            f"{cube.location.url}: expected cube schema {CUTOUTS.name!r} version {CUTOUTS.version}, got {got}"
        )


def _table(cube: PublishedCube, row: NDArray[np.int64], logit: NDArray[np.float32]) -> pa.Table:
    task_id = cube.columns(["task_id"])["task_id"].to_numpy()[row]
    return pa.table(
        {
            "cube_row": pa.array(row, pa.int64()),
            "task_id": pa.array([str(value) for value in task_id], pa.string()),
            "logit": pa.array(logit, pa.float32()),
            "score": pa.array(probability(logit), pa.float32()),
        }
    )


if __name__ == "__main__":
    # Modules live as long as the process: the collector need not walk through them, least of all at the end.
    gc.freeze()
    sys.exit(main())
