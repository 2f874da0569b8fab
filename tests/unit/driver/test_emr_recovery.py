"""The completeness table as files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.driver.emr_recovery import write_completeness
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location
from pipeline.storage.runs import read_json

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"
METRICS = GOLDEN / "stage4c/raw_spark_output_unp1_sersic_moffat/metrics/train_stamp64_bandsgrz_gridgrid_sota"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the EMR system's own tables are not here: {GOLDEN}")
def test_completeness_of_a_spark_table(tmp_path: Path) -> None:
    """Spark's own metrics folder is read; the table is partitioned, marked, and accounts for every row."""
    layout = EmrLayout(Location(str(tmp_path)), "v6_new")
    found = write_completeness(Location(str(METRICS)), layout, "exp", 5.0, 0.8)
    assert found["rows"] == 54 == found["n"] + found["n_controls"] + found["n_failed"]
    assert found["n_controls"] == 16
    table = pq.read_table(layout.completeness("exp").path).to_pandas()
    assert len(table) == found["cells"]
    assert table["n_emr"].sum() == 54
    assert set(table["region_split"]) == {"train", "val", "test"}
    assert layout.completeness("exp").join("_SUCCESS").exists()
    golden = read_json(Location(str(GOLDEN / "stage4d/sersic_moffat__default_stage_config.json")))
    assert set(golden) <= set(read_json(layout.stage_config("4d", "exp")))


def test_refusals(tmp_path: Path) -> None:
    """An old variant, no table, and a table without splits."""
    place = Location(str(tmp_path))
    with pytest.raises(ConfigError, match="belongs to the EMR system"):
        write_completeness(place, EmrLayout(place, "v4_sota_moffat"), "exp")
    with pytest.raises(ContractError, match="region_split=<split>"):
        write_completeness(place, EmrLayout(place, "v6_new"), "exp")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ContractError, match="region_split=<split>"):
        write_completeness(place, EmrLayout(place, "v6_new"), "exp")
