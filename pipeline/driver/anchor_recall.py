"""Recall of real lenses: the cube `anchors` scored by the run's checkpoint, per tier, at the run's thresholds."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from pipeline.contracts.anchors import MEASURED_ANCHORS, TIER_COLUMNS, UNKNOWN_METHOD
from pipeline.contracts.errors import VerificationError
from pipeline.driver.cubes import RunContext
from pipeline.driver.evaluation_job import evaluate_anchors
from pipeline.driver.programs import run_program
from pipeline.stages.intervals import JEFFREYS, WILSON
from pipeline.storage.anchor_stamps import ANCHOR_CUBE
from pipeline.storage.anchor_tables import read_anchor_table
from pipeline.storage.evaluation_tables import (
    EVALUATION_MARKER,
    evaluation_folder,
    evaluation_identity,
    read_evaluation,
    write_evaluation,
)
from pipeline.storage.locations import Location, RunLayout

logger = logging.getLogger("pipeline.driver")

STAGE = "anchor_recall"
_SHOWN = (
    "anchor_id", "names", "ra_deg", "dec_deg", "grades", "discovery_methods", "references", "cube_row",
    "arc_visibility_snr", "arc_significance", *TIER_COLUMNS,
)  # fmt: skip


def recall_folder(layout: RunLayout) -> Location:
    """Where the recall of a run lies: recall.json, scored_anchors and one table per tier, and a marker."""
    return layout.anchors.join("recall")


def run_anchor_recall(context: RunContext) -> None:
    """Score the anchors and store recall per tier; does nothing without anchors or training, or if it is done.

    Every tier of every definition gets a table of its own, `<definition>_<tier>`; no number is given over two tiers.

    Raises:
        VerificationError: an anchor with a tier has no score, no evaluation, or results that do not read back.
        PipelineError: the scoring program failed.
        StorageError: a read or write failed.
    """
    config, layout = context.config, context.layout
    if config.anchors is None or not config.training.enabled:
        return
    if ANCHOR_CUBE not in context.record.stages:
        raise VerificationError(f"{layout.root.url}: the anchors are not cut out; run the stage anchors first")
    folder, identity = recall_folder(layout), _identity(layout)
    if STAGE in context.record.stages and evaluation_identity(folder) == identity:
        return
    context.record.stages.pop(STAGE, None)
    context.record.update()
    started = time.monotonic()
    scores = layout.anchors.join("scores.parquet")
    run_program(
        config,
        "pipeline.training.score_cutouts",
        *("--checkpoint", layout.checkpoint.url),
        *("--cube", layout.cube(ANCHOR_CUBE).url),
        *("--out", scores.url),
    )
    scored = scored_anchors(read_anchor_table(layout.anchors.join("measured.parquet"), MEASURED_ANCHORS), scores)
    tables = {"scored_anchors": scored}
    if len(scored):
        recall = evaluate_anchors(context, scored, TIER_COLUMNS)
        tables |= split_tiers(recall)
    document = _document(scored, layout)
    write_evaluation(folder, identity, {"recall": document}, tables)
    if read_evaluation(folder) is None:
        raise VerificationError(f"{folder.url}: the marker of the recall is gone")
    fields = {"anchors": len(scored), "tiers": document["tiers"]}
    logger.info("recall of anchors", extra={"fields": {"folder": folder.url, **fields}})
    context.record.finish_stage(STAGE, seconds=round(time.monotonic() - started, 2), **fields)


def scored_anchors(measured: pd.DataFrame, scores: Location) -> pd.DataFrame:
    """The anchors that have a tier, with their score.

    Args:
        measured: columns of MEASURED_ANCHORS.
        scores: file that `training.score_cutouts` wrote for the same cube.

    Raises:
        VerificationError: an anchor with a tier has no score.
    """
    table: pd.DataFrame = pq.read_table(io.BytesIO(scores.read_bytes())).to_pandas()
    accepted = measured.loc[measured["reject_reason"] == "none", list(_SHOWN)]
    scored = accepted.merge(table[["cube_row", "logit", "score"]], on="cube_row", how="left")
    unscored = scored["logit"].isna()
    if unscored.any():
        raise VerificationError(
            f"{scores.url}: {int(unscored.sum())} of {len(scored)} anchors with a tier lack a score"
        )
    return scored


def split_tiers(recall: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One table per tier, named such as visibility_tier_a or grade_confident; definitions are not mixed."""
    tables = {}
    for (definition, tier), rows in recall.groupby(["tier_definition", "tier"], sort=True):
        name = str(tier) if definition == "grade_tier" else f"{definition}_{str(tier).lower()}"
        tables[name] = rows.reset_index(drop=True)
    return tables


def _document(scored: pd.DataFrame, layout: RunLayout) -> dict[str, Any]:
    known = scored["discovery_methods"] != UNKNOWN_METHOD
    return {
        "anchors": len(scored),
        "tiers": {name: {str(k): int(n) for k, n in scored[name].value_counts().items()} for name in TIER_COLUMNS},
        "with_known_discovery_method": int(known.sum()),
        "interval_methods": [WILSON, JEFFREYS],
        "scored_stamps": layout.cube(ANCHOR_CUBE).url,
    }


def _identity(layout: RunLayout) -> dict[str, Any]:
    """What the recall follows from: checkpoint, thresholds, tiers and stamps."""
    marker = evaluation_folder(layout.root).join(EVALUATION_MARKER)
    made_from = {
        "checkpoint": layout.checkpoint,
        "evaluation": marker,
        "tiers": layout.anchors.join("measured.parquet"),
        "plan": layout.anchors.join("plan.json"),
    }
    missing = [location.url for location in made_from.values() if not location.exists()]
    if missing:
        raise VerificationError(f"recall of anchors: expected {', '.join(missing)}; run the stages before it")
    return {f"{name}_sha256": hashlib.sha256(where.read_bytes()).hexdigest() for name, where in made_from.items()}
