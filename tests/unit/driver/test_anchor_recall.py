"""Recall of anchors: every anchor with a tier has a score, and every tier a table of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.anchors import MEASURED_ANCHORS, TIER_COLUMNS
from pipeline.contracts.errors import VerificationError
from pipeline.driver.anchor_recall import scored_anchors, split_tiers
from pipeline.stages.strata import recall_by_tier
from pipeline.storage.locations import Location
from pipeline.storage.tables import table_bytes


def measured(*reasons: str) -> pd.DataFrame:
    """Anchors with the given reasons, rows 0, 1, ... of the cube."""
    blank = {
        variable.name: [""] * len(reasons) if variable.dtype == "str" else np.zeros(len(reasons), variable.dtype)
        for variable in MEASURED_ANCHORS.variables
    }
    tiers = {"visibility_tier": "B", "annulus_tier": "A", "grade_tier": "grade_probable"}
    table = pd.DataFrame(blank).assign(reject_reason=list(reasons), cube_row=np.arange(len(reasons)), **tiers)
    return table.assign(anchor_id=[f"J{row}" for row in range(len(reasons))])


def scores(folder: Path, *rows: int) -> Location:
    """A score table of some rows of the cube."""
    table = pd.DataFrame({"cube_row": rows, "logit": np.float32(rows), "score": np.float32(0.5)})
    location = Location(str(folder / "scores.parquet"))
    location.write_bytes(table_bytes(table))
    return location


def test_scores_are_joined_by_row_of_the_cube(tmp_path: Path) -> None:
    """Rejected anchors are left out, whether or not they have a score."""
    found = scored_anchors(measured("none", "no_central_galaxy", "none"), scores(tmp_path, 2, 1, 0))
    assert found["anchor_id"].tolist() == ["J0", "J2"]
    assert found["logit"].tolist() == [0.0, 2.0]


def test_an_anchor_without_score_is_an_error(tmp_path: Path) -> None:
    """It would drop out of the recall unseen."""
    with pytest.raises(VerificationError, match="1 of 2 anchors with a tier lack a score"):
        scored_anchors(measured("none", "none"), scores(tmp_path, 0))


def test_no_table_holds_two_tiers_or_definitions() -> None:
    """Six tiers of three definitions make six tables that hold all rows."""
    anchors = pd.DataFrame(
        {
            "logit": [1.0, -1.0, 0.5],
            "visibility_tier": ["A", "B", "B"],
            "annulus_tier": ["A", "A", "B"],
            "grade_tier": ["grade_confident", "grade_probable", "grade_probable"],
        }
    )
    recall = recall_by_tier(anchors, TIER_COLUMNS, (("score>=0.5", 0.0), ("FPR=1.0e-02", np.nan)))
    tables = split_tiers(recall)
    assert set(tables) == {
        "visibility_tier_a", "visibility_tier_b", "annulus_tier_a", "annulus_tier_b", "grade_confident",
        "grade_probable",
    }  # fmt: skip
    assert sum(map(len, tables.values())) == len(recall)
    assert tables["visibility_tier_b"]["recall"].iloc[0] == 0.5
    assert np.isnan(tables["visibility_tier_b"]["recall"].iloc[1])
