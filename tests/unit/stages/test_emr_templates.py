"""Templates that the EMR system took."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.stages.emr_templates import emr_template

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the EMR system's own tables are not here: {GOLDEN}")
@pytest.mark.parametrize("run", ["cosmos_moffat", "arc_cosmos_gaussian", "unp1_debug_cosmos_moffat"])
def test_templates_are_those_of_emr(run: str) -> None:
    """Every positive row of the EMR runs over 16 galaxies names the template that the hash names."""
    rows = pd.read_parquet(GOLDEN / "stage4c" / run / "rows.parquet", columns=["task_id", "cosmos_index"]).dropna()
    assert len(rows) >= 50
    assert [emr_template(task, "golden_v1", 16) for task in rows["task_id"]] == rows["cosmos_index"].astype(
        int
    ).tolist()


def test_salt_and_size_decide() -> None:
    """Another salt is another template; every row of the bank can be taken."""
    tasks = [f"task-{k}" for k in range(64)]
    plain = [emr_template(task, "", 4) for task in tasks]
    assert plain != [emr_template(task, "production_v1", 4) for task in tasks]
    assert set(plain) == {0, 1, 2, 3}
