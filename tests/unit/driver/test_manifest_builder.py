"""Builds of manifests: the goldens row for row, order and partitioning of inputs, resuming, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError
from pipeline.contracts.manifest import EMR_COLUMNS
from pipeline.contracts.manifest_config import ManifestConfig
from pipeline.driver import manifest_builder
from pipeline.driver.manifest_builder import build_manifests
from pipeline.stages.manifest import emr_rows
from pipeline.storage.locations import Location
from pipeline.storage.tables import find_parts, pieces_of, read_pieces

Phase3 = Callable[..., dict[str, str]]
COLOURS = ("src_gr", "src_rz")
DEBUG = "debug_stamp64_bandsgrz_gridgrid_small"
TRAIN = "train_stamp64_bandsgrz_gridgrid_sota"


def configured(output: Path, inputs: dict[str, str], **changes: Any) -> ManifestConfig:
    """A build of 20 hosts per set and split."""
    values = {
        "variant": "v6_test",
        "output": str(output),
        "region": None,
        "inputs": inputs,
        "tiers": {"train": {"grid": "grid_sota", "n_total_per_split": 20}},
    }
    return ManifestConfig.model_validate(values | changes)


def manifest(output: Path, name: str, variant: str = "v6_test") -> pa.Table:
    """The rows of a manifest in stored order."""
    files = sorted((output / "phase4a" / variant / "manifests" / name).glob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def demand_equal(found: pa.Table, expected: pa.Table) -> None:
    """Every column equal, colours to 1e-15."""
    assert found.schema.equals(expected.schema.remove_metadata())
    for name in expected.column_names:
        if name in COLOURS:
            np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=0.0, atol=1e-15)
        else:
            assert found[name].equals(expected[name]), name


def golden(path: Path) -> tuple[pa.Table, dict[str, Any], dict[str, str]]:
    """Rows, recorded configuration and inputs of a golden manifest."""
    config = json.loads((path.parent / "_stage_config.json").read_text("utf-8"))
    inputs = path.parents[2] / "inputs"
    names = ("parent", "bricks_with_region", "region_selections")
    return pq.ParquetFile(path).read(), config, {name: str(inputs / name) for name in names}


def test_golden_manifests_row_for_row(golden_manifests: list[Path], tmp_path: Path) -> None:
    """Both variants of the EMR system, from its own inputs, in the order of the recorded rows."""
    assert len(golden_manifests) == 3
    for path in golden_manifests:
        expected, recorded, inputs = golden(path)
        tier = path.name.split("_")[0]
        config = configured(
            tmp_path, inputs, variant=recorded["variant"], tiers={tier: recorded["tiers"][tier]},
            replicates=recorded["replicates"], row_order="task_id",
        )  # fmt: skip
        build_manifests(config, force=True)
        demand_equal(manifest(tmp_path, path.stem, config.variant), expected)
        written = json.loads((tmp_path / "phase4a" / config.variant / "_stage_config.json").read_text("utf-8"))
        for key in ("stage", "seeds", "sampling", "stamp_sizes", "bandsets", "replicates"):
            assert written[key] == recorded[key]


def test_order_of_rows_and_of_inputs_changes_nothing_else(make_phase3: Phase3, tmp_path: Path) -> None:
    """Reversed inputs in other part files give the same bytes; other orders of rows the same rows."""
    tiers = {"debug": {"grid": "grid_small", "n_per_config": 3, "control_frac": 0.5},
             "train": {"grid": "grid_sota", "n_total_per_split": 20}}  # fmt: skip
    inputs = make_phase3()
    tables = {name: pq.read_table(folder) for name, folder in inputs.items()}
    build_manifests(configured(tmp_path / "a", inputs, tiers=tiers))
    build_manifests(configured(tmp_path / "c", inputs, tiers=tiers, row_order="task_id"))
    for name, folder in inputs.items():
        (Path(folder) / "part-00000.parquet").unlink()
        assert tables[name].num_rows
    reversed_tables = {name: table.take(np.arange(table.num_rows)[::-1]) for name, table in tables.items()}
    build_manifests(configured(tmp_path / "b", make_phase3(part_rows=170, **reversed_tables), tiers=tiers))
    for name in (DEBUG, TRAIN):
        plain, reverse, by_id = (manifest(tmp_path / run, name) for run in "abc")
        assert plain.equals(reverse)
        assert plain["brickname"].to_pylist() == sorted(plain["brickname"].to_pylist())
        assert by_id["task_id"].to_pylist() == sorted(by_id["task_id"].to_pylist())
        assert plain.sort_by("task_id").equals(by_id)


def test_small_pieces_and_files_change_no_row(
    make_phase3: Phase3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows do not depend on how many are made at a time, in either order."""
    inputs = make_phase3()
    for order in ("brick", "task_id"):
        monkeypatch.setattr(manifest_builder, "PIECE_ROWS", 2**17)
        build_manifests(configured(tmp_path / order, inputs, row_order=order))
        monkeypatch.setattr(manifest_builder, "PIECE_ROWS", 7)
        build_manifests(configured(tmp_path / f"{order}-7", inputs, row_order=order))
        assert manifest(tmp_path / order, TRAIN).equals(manifest(tmp_path / f"{order}-7", TRAIN))


def test_report_adds_up_and_a_run_can_read_the_rows(make_phase3: Phase3, tmp_path: Path) -> None:
    """Counts of the report are those of the rows; the reader of `manifest.kind: emr` takes them."""
    inputs = make_phase3()
    report = build_manifests(configured(tmp_path, inputs))
    rows = manifest(tmp_path, TRAIN)
    counts = report["experiments"][TRAIN]
    assert counts["rows"] == rows.num_rows == report["rows"]
    assert counts["controls"] == sum(rows["is_control"].to_pylist())
    assert counts["bricks"] == len(set(rows["brickname"].to_pylist()))
    assert report["parent_rows"] == 600
    assert report["parent_rows_dropped"]["lrg_flag_unset"] == 7
    assert {row["cells_empty"] + row["cells_short"] > 0 for row in counts["strata"]} == {True}
    folder = Location(str(tmp_path / "phase4a" / "v6_test" / "manifests" / TRAIN))
    frame = read_pieces(pieces_of(find_parts(folder), 0, rows.num_rows), EMR_COLUMNS, {})
    read = emr_rows(frame, ["g", "r", "z"], 64)
    assert read["task_id"].to_numpy().tolist() == rows["task_id"].to_pylist()


def test_complete_manifests_are_kept(make_phase3: Phase3, tmp_path: Path) -> None:
    """The same build again writes no row; one without its marker is made again; force makes all again."""
    config = configured(tmp_path, make_phase3())
    build_manifests(config)
    folder = tmp_path / "phase4a" / "v6_test" / "manifests" / TRAIN
    (file,) = folder.glob("*.parquet")
    content, written = file.read_bytes(), file.stat().st_mtime_ns
    assert build_manifests(config)["experiments"][TRAIN]["kept_from_an_earlier_build"]
    assert file.stat().st_mtime_ns == written
    (folder / "_SUCCESS").unlink()
    (folder / "part-00007.snappy.parquet").write_bytes(b"left over")
    assert not build_manifests(config)["experiments"][TRAIN]["kept_from_an_earlier_build"]
    assert [path.name for path in sorted(folder.iterdir())] == ["_SUCCESS", "part-00000.snappy.parquet"]
    assert file.read_bytes() == content


def test_another_build_is_never_mixed_in(make_phase3: Phase3, tmp_path: Path) -> None:
    """Another seed or other inputs under the same variant are an error until they are to replace it."""
    inputs = make_phase3()
    build_manifests(configured(tmp_path, inputs))
    with pytest.raises(PlanChangedError, match="config_sha256 differ"):
        build_manifests(configured(tmp_path, inputs, split_seed=14))
    table = pq.read_table(inputs["parent"])
    pq.write_table(table.slice(0, 599), Path(inputs["parent"]) / "part-00000.parquet")
    with pytest.raises(PlanChangedError, match="inputs_sha256 differ"):
        build_manifests(configured(tmp_path, inputs))
    assert build_manifests(configured(tmp_path, inputs), force=True)["parent_rows"] == 599


def test_guardrail_counts_before_anything_is_written(make_phase3: Phase3, tmp_path: Path) -> None:
    """The exact number of rows, and no file."""
    inputs = make_phase3()
    rows = build_manifests(configured(tmp_path / "all", inputs))["rows"]
    with pytest.raises(ConfigError, match=f"guardrail: {rows} rows in 1 manifests, max_tasks is {rows - 1}"):
        build_manifests(configured(tmp_path / "few", inputs, max_tasks=rows - 1))
    assert not (tmp_path / "few").exists()
    assert build_manifests(configured(tmp_path / "few", inputs, max_tasks=rows))["rows"] == rows


def test_inputs_without_a_host_are_refused(make_phase3: Phase3, tmp_path: Path) -> None:
    """With how many rows were kept out for which reason."""
    inputs = make_phase3()
    table = pq.read_table(inputs["parent"])
    outside = table.set_column(0, "region_id", pa.array(np.full(600, 77, np.int32)))
    pq.write_table(outside, Path(inputs["parent"]) / "part-00000.parquet")
    with pytest.raises(ContractError, match="no host for tier train among 600 rows.*'region_not_selected': 593"):
        build_manifests(configured(tmp_path, inputs))


@pytest.mark.parametrize("row_order", ["brick", "task_id"])
def test_hosts_at_one_position_are_refused(make_phase3: Phase3, tmp_path: Path, row_order: str) -> None:
    """Two hosts that differ in magnitude alone would have the same task_id."""
    inputs = make_phase3()
    table = pq.read_table(inputs["parent"])
    copies = table.set_column(6, "rmag", pa.array(table["rmag"].to_numpy() + np.float32(0.25)))
    pq.write_table(pa.concat_tables([table, copies]), Path(inputs["parent"]) / "part-00000.parquet")
    tiers = {"debug": {"grid": "grid_small", "n_per_config": 500}}
    with pytest.raises(ContractError, match="task_id that another row has"):
        build_manifests(configured(tmp_path, inputs, tiers=tiers, row_order=row_order))


def test_selected_sets_and_every_option(make_phase3: Phase3, tmp_path: Path) -> None:
    """One set, bandset r, two stamp sizes, one replicate, edges given: as many manifests, each of its own rows."""
    config = configured(
        tmp_path, make_phase3(), selection_set_ids=["topk_density_k100"], bandsets=["r"], stamp_sizes_px=[64, 96],
        replicates=1, psf_edges_arcsec=[1.0, 1.1, 1.2, 1.3, 1.6], depth_edges_mag=[23, 24, 24.5, 25, 26], lrg_flag=None,
    )  # fmt: skip
    report = build_manifests(config)
    assert report["parent_rows_dropped"]["lrg_flag_unset"] == 0
    tables = [manifest(tmp_path, name) for name in report["experiments"]]
    assert [set(table["stamp_size"].to_pylist()) for table in tables] == [{64}, {96}]
    for table in tables:
        assert set(table["selection_set_id"].to_pylist()) == {"topk_density_k100"}
        assert set(table["replicate"].to_pylist()) == {0}
        assert set(table["bandset"].to_pylist()) == {"r"}
    assert not set(tables[0]["task_id"].to_pylist()) & set(tables[1]["task_id"].to_pylist())
    assert tables[0]["task_seed64"].equals(tables[1]["task_seed64"])
