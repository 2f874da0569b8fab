"""Facts about the part on real lenses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from pipeline.contracts.anchor_config import AnchorsSection
from pipeline.report.anchors import anchor_parts
from pipeline.report.inputs import RunInputs
from pipeline.storage.evaluation_tables import StoredEvaluation


def recall(n: int, n_recovered: int) -> pd.DataFrame:
    """One tier at a threshold that is known and one that is not."""
    known = {"recall": n_recovered / n, "wilson95_lo": 0.1, "wilson95_hi": 0.9}
    rows = [
        {"threshold": "score>=0.5", "threshold_logit": 0.0, "n": n, "n_recovered": n_recovered, **known},
        {"threshold": "FPR=1.0e-03", "threshold_logit": np.nan, "n": n, "n_recovered": 0},
    ]
    return pd.DataFrame(rows).assign(jeffreys95_lo=lambda rows: rows["wilson95_lo"], jeffreys95_hi=0.9)


def test_a_run_without_anchors_has_no_such_part(inputs: RunInputs) -> None:
    """Nothing is said about what was not asked for."""
    assert anchor_parts(inputs) == ()


def test_every_tier_has_its_own_table(inputs: RunInputs) -> None:
    """Titles of three tiers, a count, a dash for the unknown threshold, and no total."""
    config = inputs.config.model_copy(update={"anchors": AnchorsSection(url="a.parquet")})
    asked = dataclasses.replace(inputs, config=config)
    assert "have not been scored" in "".join(anchor_parts(asked))
    tables = {"visibility_tier_a": recall(4, 3), "visibility_tier_b": recall(9, 1), "grade_confident": recall(5, 2)}
    document = {"anchors": 13, "with_known_discovery_method": 12}
    stored = StoredEvaluation({}, {"recall": document}, tables)
    page = "".join(anchor_parts(dataclasses.replace(asked, anchors=stored)))
    assert page.count("<table>") == 3
    assert "3 of 4" in page
    assert "4 of 13" not in page
    assert "12 with a known discovery method" in page
