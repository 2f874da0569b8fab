"""Recall of real lenses: one table per tier, since a number over two tiers would mean nothing."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.report.inputs import RunInputs
from pipeline.report.markup import DASH, Html, count_text, heading, missing, note, number_text, table

_TITLES = {
    "visibility_tier_a": "Tier A: an arc is visible in the cutout",
    "visibility_tier_b": "Tier B: none is",
    "annulus_tier_a": "Annulus tier A: annulus SNR above its threshold, whatever the light's shape",
    "annulus_tier_b": "Annulus tier B",
    "grade_confident": "Graded confident by the catalogues",
    "grade_probable": "Graded probable by the catalogues",
    "grade_unknown": "Not graded",
}


def anchor_parts(inputs: RunInputs) -> tuple[Html, ...]:
    """Heading and tables of the anchors' recall; what is missing and why, or nothing for a run without anchors."""
    if inputs.config.anchors is None:
        return ()
    title = heading("Real lenses")
    if inputs.anchors is None:
        return title, missing("The anchors have not been scored: anchors/recall/ has no marker.")
    document = inputs.anchors.documents["recall"]
    shown = [name for name in _TITLES if name in inputs.anchors.tables]
    tables = [_recall_table(_TITLES[name], inputs.anchors.tables[name]) for name in shown]
    rejected = inputs.stages.get("anchors", {}).get("rejected_by_reason", {})
    left_out = ", ".join(f"{reason} {count}" for reason, count in rejected.items()) or "none"
    return (
        title,
        *(tables or [missing("No anchor has a usable cutout with a galaxy at its centre.")]),
        note(
            f"{document['anchors']} anchors, {document['with_known_discovery_method']} with a known discovery method; "
            f"left out: {left_out}. Each table is a sample of its own: an anchor has one tier by each of three "
            "definitions, and tiers are never added."
        ),
    )


def _recall_table(title: str, rows: pd.DataFrame) -> Html:
    cells = [
        (
            str(row["threshold"]),
            number_text(row["threshold_logit"], 4),
            DASH if math.isnan(row["recall"]) else f"{count_text(row['n_recovered'])} of {count_text(row['n'])}",
            number_text(row["recall"], 3),
            _ends(row["wilson95_lo"], row["wilson95_hi"]),
            _ends(row["jeffreys95_lo"], row["jeffreys95_hi"]),
        )
        for row in rows.to_dict("records")
    ]
    head = ("Threshold", "Logit", "Recovered", "Recall", "Wilson 95 %", "Jeffreys 95 %")
    return table(head, cells, caption=title)


def _ends(low: float, high: float) -> str:
    return DASH if math.isnan(low) else f"{number_text(low, 3)} {DASH} {number_text(high, 3)}"
