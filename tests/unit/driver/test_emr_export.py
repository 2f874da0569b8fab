"""Exports of a run, against the rows and stamps that the EMR code wrote for the same manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError, VerificationError
from pipeline.driver.emr_export import ExportPlan, export_run, finish_export, plan_export
from pipeline.driver.emr_shards import export_shard
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, read_receipts
from pipeline.storage.runs import read_json
from pipeline.storage.stamp_blobs import decode_stamp

REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY.parent / "shared" / "data" / "emr_golden"
EXPERIMENT = "train_stamp64_bandsgrz_gridgrid_sota"
BANDS = ("g", "r", "z")
# Ours are those of our renderer, of which the EMR system knew nothing.
DIFFERENT = {"magnification", "physics_warnings"}


def run_here(planned: ExportPlan) -> dict[int, Receipt]:
    """Every shard, without a cluster."""
    return {task.shard: export_shard(task, planned.export) for task in planned.tasks}


@pytest.fixture(scope="module")
def exported(golden_run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[EmrLayout, dict[str, object]]:
    """All tables of the golden run."""
    layout = EmrLayout(Location(str(tmp_path_factory.mktemp("export") / "phase4_pipeline")), "v6_golden")
    planned = plan_export(golden_run.layout, layout, ("paired", "stamps", "metrics"))
    summary = finish_export(planned, run_here(planned), layout.phase4)
    return layout, summary


def read_table(folder: Location) -> pd.DataFrame:
    """A whole table by task_id, as a Hive reader sees it."""
    return pq.read_table(folder.path).to_pandas().set_index("task_id")


def test_schema_is_that_of_spark(exported: tuple[EmrLayout, dict[str, object]]) -> None:
    """Names, types, order and nullability of the files are those that Spark wrote."""
    layout, _ = exported
    lines = (GOLDEN / "stage4c" / "stamps_schema.txt").read_text().splitlines()
    file = next(Path(layout.stamps(EXPERIMENT).path).rglob("*.parquet"))
    assert str(pq.read_schema(file)).splitlines() == lines
    spark = next((GOLDEN / "stage4c").glob("raw_spark_output_*/metrics/*/*/*.parquet"))
    ours = next(Path(layout.metrics(EXPERIMENT).path).rglob("*.parquet"))
    assert pq.read_schema(ours).equals(pq.read_schema(spark).remove_metadata())


def test_warnings_are_those_of_emr(exported: tuple[EmrLayout, dict[str, object]], golden_run: Any) -> None:
    """The same texts where the arc is the same; an error row says so in our words."""
    ours, golden = read_table(exported[0].stamps(EXPERIMENT)).loc[golden_run.rows.index], golden_run.rows
    errors = golden["physics_warnings"].fillna("").str.startswith("Processing error: ")
    assert errors.sum() == 4
    assert set(ours["physics_warnings"][errors]) == {
        "Processing error: brick_missing",
        "Processing error: out_of_bounds",
    }
    kept = ~errors & ours.index.isin(golden_run.arcs)
    assert ours["physics_warnings"][kept].fillna("").tolist() == golden["physics_warnings"][kept].fillna("").tolist()
    assert golden["physics_warnings"][kept].notna().sum() > 5


def test_magnification_is_measured(exported: tuple[EmrLayout, dict[str, object]]) -> None:
    """Every injected row has one, where the EMR system had none."""
    ours = read_table(exported[0].stamps(EXPERIMENT))
    injected = (ours["is_control"] == 0) & ours["stamp_npz"].notna()
    assert (ours["magnification"].notna() == injected).all()
    assert (ours["magnification"][injected] > 0.5).all()


def test_paired_rows_are_usable_in_every_pixel(exported: tuple[EmrLayout, dict[str, object]], golden_run: Any) -> None:
    """Positives in bounds with a finite control only; stamp minus control is the arc."""
    layout, summary = exported
    files = list(Path(layout.paired().path).rglob("*.parquet"))
    assert {path.parent.name for path in files} <= {"train", "val", "test"}
    paired = pd.concat([pq.ParquetFile(path).read().to_pandas() for path in files]).set_index("task_id")
    golden = golden_run.rows
    finite = {task: bool(np.isfinite(stamp).all()) for task, stamp in golden_run.stamps.items()}
    expected = {task for task in golden.index if golden["is_control"][task] == 0 and golden["cutout_ok"][task] == 1}
    assert set(paired.index) == {task for task in expected if finite[task]}
    assert len(paired) == summary["rows_paired"] > 10
    assert len(expected) > len(paired)
    for task in sorted(set(paired.index) & set(golden_run.arcs)):
        injected, control = (decode_stamp(paired.loc[task][name], BANDS) for name in ("stamp_npz", "ctrl_stamp_npz"))
        np.testing.assert_array_equal(control + golden_run.arcs[task], injected)


def test_markers_come_last(exported: tuple[EmrLayout, dict[str, object]]) -> None:
    """Markers, stage and run configuration are there, with the EMR keys and what made the rows."""
    layout, summary = exported
    for folder in (layout.stamps(EXPERIMENT), layout.metrics(EXPERIMENT), layout.paired()):
        assert folder.join("_SUCCESS").exists()
    stage = read_json(layout.stage_config("4c", EXPERIMENT))
    golden = read_json(Location(str(GOLDEN / "stage4c" / "sersic_moffat" / "_stage_config.json")))
    assert set(golden) <= set(stage)
    assert stage["spark"] == {"sweep_partitions": 2}
    assert stage["emr_compat"] is True
    assert read_json(layout.run_config(EXPERIMENT))["psf_model"] == "moffat"
    assert (summary["rows"], summary["error_rows"], summary["rows_stamps"]) == (88, 4, 88)


def test_export_resumes_and_refuses_what_it_does_not_know(golden_run: Any, tmp_path: Path) -> None:
    """Equal bytes when made again; a missing file, a foreign file and another choice of tables are noticed."""
    layout = EmrLayout(Location(str(tmp_path)), "v6_again")
    planned = plan_export(golden_run.layout, layout, ("metrics",))
    receipts = run_here(planned)
    again = run_here(planned)
    assert {shard: receipt.objects for shard, receipt in again.items()} == {
        shard: receipt.objects for shard, receipt in receipts.items()
    }
    assert read_receipts(planned.export.receipts)[1].rows == 40
    lost = next(iter(receipts[1].objects))
    saved = layout.phase4.join(lost).read_bytes()
    layout.phase4.join(lost).remove()
    with pytest.raises(VerificationError, match="lost files"):
        finish_export(planned, receipts, layout.phase4)
    assert not layout.metrics(EXPERIMENT).join("_SUCCESS").exists()
    layout.phase4.join(lost).write_bytes(saved)
    layout.metrics(EXPERIMENT).join("region_split=train", "part-foreign.parquet").write_bytes(b"PAR1")
    with pytest.raises(VerificationError, match="1 files of no shard"):
        finish_export(planned, receipts, layout.phase4)


def test_tables_may_be_asked_for_one_after_the_other(golden_run: Any, tmp_path: Path) -> None:
    """Later tables join earlier ones, experiments share the paired folder, another run is refused."""
    layout = EmrLayout(Location(str(tmp_path)), "v6_bits")
    for tables, experiment in ((("metrics",), None), (("paired", "stamps"), None), (("paired",), "other")):
        planned = plan_export(golden_run.layout, layout, tables, experiment)
        summary = finish_export(planned, run_here(planned), layout.phase4)
    assert read_json(layout.stage_config("4c", EXPERIMENT))["tables"] == ["metrics", "paired", "stamps"]
    paired = list(Path(layout.paired().path).rglob("*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in paired) == 2 * summary["rows_paired"]
    planned = plan_export(golden_run.layout, layout, ("metrics",))
    foreign = replace(planned, export=replace(planned.export, identity="of another run"))
    with pytest.raises(PlanChangedError, match="Choose another variant"):
        export_run(foreign)


def test_rows_that_are_kept_out_have_no_pixels_without_compat(
    golden_run: Any, make_run: Callable[[RunConfig], RunLayout], tmp_path: Path
) -> None:
    """A plain frozen run writes NULL, cutout_ok 0 and the reason for stamps with NaN, where EMR wrote cutout_ok 1."""
    settings = [
        f"run.root={tmp_path}",
        f"survey.bricks={GOLDEN / 'inputs/coadds'}",
        f"manifest.url={GOLDEN / 'manifests/golden_all'}",
        "shards.samples=96",
    ]
    config = load_config(REPOSITORY / "configs" / "demo-real.yaml", settings)
    layout = EmrLayout(Location(str(tmp_path / "emr")), "v6_plain")
    planned = plan_export(make_run(config), layout, ("stamps",), "other_name")
    finish_export(planned, run_here(planned), layout.phase4)
    ours = read_table(layout.stamps("other_name"))
    kept_by_emr = golden_run.rows["cutout_ok"] == 1
    with_nan = [task for task, stamp in golden_run.stamps.items() if kept_by_emr[task] and not np.isfinite(stamp).all()]
    assert len(with_nan) == 12
    assert ours.loc[with_nan, "cutout_ok"].eq(0).all()
    assert ours.loc[with_nan, "stamp_npz"].isna().all()
    assert set(ours.loc[with_nan, "physics_warnings"]) == {"Processing error: nonfinite_pixels"}
    assert ours["cutout_ok"].sum() == ours["stamp_npz"].notna().sum() == 43 - 12


def test_refusals(golden_run: Any, tmp_path: Path) -> None:
    """Old variants, unknown tables and another export of the same name are errors before anything is written."""
    place = Location(str(tmp_path))
    with pytest.raises(ConfigError, match="belongs to the EMR system"):
        plan_export(golden_run.layout, EmrLayout(place, "v5_cosmos_production"), ("stamps",))
    with pytest.raises(ConfigError, match="expected some of stamps"):
        plan_export(golden_run.layout, EmrLayout(place, "v6_new"), ("stamp",))
    with pytest.raises(ContractError):
        plan_export(replace(golden_run.layout, root=place.join("nothing")), EmrLayout(place, "v6_new"), ("stamps",))
    assert list(tmp_path.iterdir()) == []
