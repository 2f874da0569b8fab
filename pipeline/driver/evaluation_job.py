"""The evaluation stage: scores joined with the training cube, measured, stored, read back."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.contracts.errors import VerificationError
from pipeline.driver.cubes import RunContext
from pipeline.stages.evaluation_suite import Evaluation, evaluate_run, evaluate_tiers
from pipeline.storage.cube import open_cube
from pipeline.storage.evaluation_tables import (
    evaluation_folder,
    evaluation_identity,
    read_evaluation,
    write_evaluation,
)
from pipeline.storage.locations import Location
from pipeline.storage.tables import pieces_of, read_pieces

logger = logging.getLogger("pipeline.driver")

SCORED_SPLITS = {"test": "scores.parquet", "val": "scores_val.parquet"}
# Columns of an EMR manifest that the training cube does not carry, by family.
_MANIFEST_KEYS = {
    "region_id": "number",
    "selection_set_id": "string",
    "ranking_mode": "string",
    "theta_e_arcsec": "number",
    "src_dmag": "number",
    "src_reff_arcsec": "number",
}


def run_evaluation(context: RunContext) -> None:
    """Evaluate the trainer's scores as section `evaluation` says.

    Does nothing without training, or if that was done already with the same scores and settings.

    Args:
        context: the run; its training is complete.

    Raises:
        VerificationError: scores that do not belong to the cube, or results that do not read back.
        StorageError: a read or write failed.
    """
    if not context.config.training.enabled:
        return
    folder = evaluation_folder(context.layout.root)
    names = set(context.layout.training.names())
    missing = [name for name in SCORED_SPLITS.values() if name not in names]
    if missing:
        raise VerificationError(f"{context.layout.training.url}: expected the scores {missing}; train again")
    raw = {split: context.layout.training.join(name).read_bytes() for split, name in SCORED_SPLITS.items()}
    identity = _identity(context, raw)
    if "evaluate" in context.record.stages and evaluation_identity(folder) == identity:
        return
    context.record.stages.pop("evaluate", None)
    context.record.update()
    started = time.monotonic()
    cube = open_cube(context.layout.cube("training"))
    found = evaluate_run(
        cube.columns(cube.column_names()),
        {split: _read_scores(data, split) for split, data in raw.items()},
        tuple(map(str, cube.attrs["bands"])),
        context.config.sampling.band,
        context.config.run.seed,
        context.config.evaluation,
        _manifest_keys(context),
    )
    _store(folder, identity, found)
    fields = {name: found.summary[name] for name in ("auc", "base_rate", "n_injections", "n_failed")}
    logger.info("evaluated", extra={"fields": {"folder": folder.url, **fields}})
    context.record.finish_stage("evaluate", seconds=round(time.monotonic() - started, 2), **fields)


def evaluate_anchors(context: RunContext, anchors: pd.DataFrame, tier_columns: tuple[str, ...]) -> pd.DataFrame:
    """Recall of scored anchors per tier at the thresholds of the run's evaluation.

    Args:
        context: a run whose evaluation is complete.
        anchors: logit and the tier columns, one row per real lens; scored by the run's checkpoint.
        tier_columns: definitions of a tier, reported apart and never merged.

    Raises:
        VerificationError: no evaluation, or anchors without score or tier.
    """
    stored = read_evaluation(evaluation_folder(context.layout.root))
    if stored is None:
        raise VerificationError(f"{context.layout.root.url} has no evaluation: run the stage evaluate first")
    return evaluate_tiers(anchors, tier_columns, stored.documents["evaluation"])


def _store(folder: Location, identity: dict[str, Any], found: Evaluation) -> None:
    write_evaluation(folder, identity, found.documents, found.tables)
    if read_evaluation(folder) is None:
        raise VerificationError(f"{folder.url}: the evaluation's marker is gone")


def _identity(context: RunContext, raw: dict[str, bytes]) -> dict[str, Any]:
    return {
        "plan_sha256": context.plan.sha256,
        "training_sha256": context.config.training.identity_sha256(),
        "seed": context.config.run.seed,
        "settings_sha256": context.config.sha256("evaluation"),
        "scores_sha256": {split: hashlib.sha256(data).hexdigest() for split, data in raw.items()},
    }


def _read_scores(data: bytes, split: str) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(io.BytesIO(data)).to_pandas()
    absent = [name for name in ("task_id", "label", "logit", "split") if name not in frame]
    if absent or set(frame["split"]) != {split}:
        raise VerificationError(f"expected scores of split {split} with task_id, label, logit, split; lacks {absent}")
    return frame


def _manifest_keys(context: RunContext) -> pd.DataFrame | None:
    """(cube row) keys of the EMR surfaces as the manifest has them; None for a parent catalogue."""
    if context.config.manifest.kind != "emr":
        return None
    n_rows = context.plan.shape.sizes["sample"]
    pieces = pieces_of(context.plan.parts, 0, n_rows)
    frame = read_pieces(pieces, {"task_id": "string"}, _MANIFEST_KEYS)
    if len(frame) != n_rows:
        raise VerificationError(f"expected {n_rows} manifest rows, got {len(frame)}")
    return frame.replace({np.inf: np.nan})
