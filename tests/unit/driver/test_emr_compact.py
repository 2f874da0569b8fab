"""Compaction of Spark's own stamp files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError, VerificationError
from pipeline.driver.emr_compact import compact_stamps
from pipeline.stages.emr_splits import relabelled_splits
from pipeline.storage import locations
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.emr_tables import parquet_files
from pipeline.storage.locations import Location
from pipeline.storage.runs import read_json

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"
EXPERIMENT = "train_stamp64_bandsgrz_gridgrid_sota"
STAMPS = Location(str(GOLDEN / "stage4c/raw_spark_output_unp1_sersic_moffat/stamps" / EXPERIMENT))

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the EMR system's own tables are not here: {GOLDEN}")


@pytest.fixture
def layout(tmp_path: Path) -> EmrLayout:
    """An empty bucket."""
    return EmrLayout(Location(str(tmp_path)), "v6_new")


def rows_of(folder: Location) -> pd.DataFrame:
    """A whole table in the order of task_id."""
    return pq.read_table(folder.path).to_pandas().sort_values("task_id", ignore_index=True)


def test_content_stays_and_files_are_balanced(layout: EmrLayout) -> None:
    """Eight files where Spark wrote one per split; every value of every row is the old one."""
    found = compact_stamps(STAMPS, layout, EXPERIMENT, partitions=8)
    golden = json.loads((GOLDEN / "stage4p5" / "file_listing.json").read_text())
    assert found["splits"] == {entry["partition"].split("=")[1]: entry["rows"] for entry in golden["files"]}
    table = layout.compacted(EXPERIMENT)
    pd.testing.assert_frame_equal(rows_of(table), rows_of(STAMPS))
    sizes = [pq.ParquetFile(table.join(name).path).metadata.num_rows for name in parquet_files(table)]
    assert len(sizes) == found["files"] == 8
    assert max(sizes) - min(sizes) <= 2
    stage, old = read_json(layout.stage_config("4p5")), read_json(Location(str(GOLDEN / "stage4p5/_stage_config.json")))
    assert set(old) <= set(stage)
    assert table.join("_SUCCESS").exists()


def test_relabelling_is_asked_for_by_name(layout: EmrLayout) -> None:
    """val75 moves the rows that the EMR rule moves, keeps their old label, and never touches test."""
    compact_stamps(STAMPS, layout, EXPERIMENT, partitions=4, relabel="val75")
    ours, old = rows_of(layout.compacted(EXPERIMENT)), rows_of(STAMPS)
    assert ours["original_split"].tolist() == old["region_split"].astype(str).tolist()
    expected = relabelled_splits(old["task_id"].tolist(), old["region_split"].astype(str).tolist())
    assert ours["region_split"].astype(str).tolist() == expected.tolist()
    assert (ours["region_split"].astype(str) != ours["original_split"]).sum() == 7
    assert ours["stamp_npz"].tolist() == old["stamp_npz"].tolist()


def test_resumes_and_refuses_another_table(layout: EmrLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost file is made again alone, to the same bytes; other settings and broken files are errors."""
    table = layout.compacted(EXPERIMENT)
    compact_stamps(STAMPS, layout, EXPERIMENT, partitions=5)
    first = {name: table.join(name).sha256() for name in parquet_files(table)}
    lost = next(iter(first))
    table.join(lost).remove()
    assert compact_stamps(STAMPS, layout, EXPERIMENT, partitions=5)["files_kept"] == 4
    assert {name: table.join(name).sha256() for name in parquet_files(table)} == first
    with pytest.raises(PlanChangedError, match="other settings"):
        compact_stamps(STAMPS, layout, EXPERIMENT, partitions=6)
    table.join("region_split=val", "foreign.parquet").write_bytes(table.join(lost).read_bytes())
    with pytest.raises(VerificationError, match="in 5 files, found"):
        compact_stamps(STAMPS, layout, EXPERIMENT, partitions=5)
    table.join("region_split=val", "foreign.parquet").remove()
    table.join(lost).remove()
    monkeypatch.setattr(locations, "_replace_file_by", lambda path, _: path.write_bytes(b"other"))
    with pytest.raises(VerificationError, match="reads back differently"):
        compact_stamps(STAMPS, layout, EXPERIMENT, partitions=5)
    assert not table.join("_SUCCESS").exists()


def test_refusals(layout: EmrLayout) -> None:
    """Old variants, unknown relabellings, too few files, no table, a table that is not of stamps."""
    with pytest.raises(ConfigError, match="belongs to the EMR system"):
        compact_stamps(STAMPS, EmrLayout(layout.phase4, "v5_cosmos_corrected_relabeled"), "x")
    with pytest.raises(ConfigError, match="expected one of none, val75"):
        compact_stamps(STAMPS, layout, "x", relabel="70/15/15")
    with pytest.raises(ConfigError, match="at least one for each"):
        compact_stamps(STAMPS, layout, "x", partitions=2)
    with pytest.raises(ContractError, match="found 0 files"):
        compact_stamps(layout.phase4, layout, "x")
    metrics = Location(STAMPS.url.replace("/stamps/", "/metrics/"))
    with pytest.raises(ContractError, match="expected a column stamp_npz"):
        compact_stamps(metrics, layout, "x")
    layout.compacted("x").join("region_split=val", "old.parquet").write_bytes(b"PAR1")
    with pytest.raises(PlanChangedError, match="did not write"):
        compact_stamps(STAMPS, layout, "x")
