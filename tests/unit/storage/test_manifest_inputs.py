"""Tables of phase 3: what is read from them and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.emr_manifest import PHOTOMETRY, SPLIT_NAMES
from pipeline.contracts.errors import ContractError
from pipeline.storage import manifest_inputs
from pipeline.storage.locations import Location
from pipeline.storage.manifest_inputs import gather_hosts, read_brick_numbers, read_selections, scan_parent
from pipeline.storage.tables import find_parts

Phase3 = Callable[..., dict[str, str]]
FLAG = "is_v3_color_relaxed"


def edited(path: str, **columns: Any) -> Location:
    """The one table of a folder with columns replaced, or left out where None."""
    (file,) = Path(path).glob("*.parquet")
    table = pq.read_table(file)
    for name, values in columns.items():
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table if values is None else table.append_column(name, pa.array(values))
    pq.write_table(table, file)
    return Location(path)


def test_bricks_are_sorted_by_name(make_phase3: Phase3) -> None:
    """Whatever their order in the table; unknown numbers are NaN."""
    inputs = make_phase3()
    (file,) = Path(inputs["bricks_with_region"]).glob("*.parquet")
    table = pq.read_table(file)
    numbers = table["ebv"].to_numpy().copy()
    numbers[3] = np.nan
    pq.write_table(table.set_column(5, "ebv", pa.array(numbers, from_pandas=True)).take(np.arange(40)[::-1]), file)
    bricks = read_brick_numbers(Location(inputs["bricks_with_region"]))
    assert list(bricks.names) == table["brickname"].to_pylist()
    np.testing.assert_array_equal(bricks.numbers["psfsize_g"], table["psfsize_g"].to_numpy())
    assert np.flatnonzero(np.isnan(bricks.numbers["ebv"])).tolist() == [3]


def test_seeing_of_other_bands_falls_back_to_r(make_phase3: Phase3) -> None:
    """Where the table has no such column."""
    location = edited(make_phase3()["bricks_with_region"], psfsize_g=None)
    numbers = read_brick_numbers(location).numbers
    np.testing.assert_array_equal(numbers["psfsize_g"], numbers["psfsize_r"])
    assert (numbers["psfsize_z"] != numbers["psfsize_r"]).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"psfdepth_r": None}, "missing column 'psfdepth_r'"),
        ({"ebv": ["0.1"] * 40}, "column 'ebv': expected double or float, got string"),
        ({"brickname": ["0001m100"] * 40}, "40 bricks|1 bricks"),
        ({"brickname": ["0001m100", None, *(f"{i:04d}p000" for i in range(38))]}, "1 bricks whose name is null"),
        ({"brickname": ["1m100", *(f"{i:04d}p000" for i in range(39))]}, "not of the form 0591m305"),
    ],
)
def test_unusable_bricks_are_refused(make_phase3: Phase3, columns: dict[str, Any], message: str) -> None:
    """Columns, types and names."""
    with pytest.raises(ContractError, match=message):
        read_brick_numbers(edited(make_phase3()["bricks_with_region"], **columns))


def test_selections(make_phase3: Phase3) -> None:
    """Sets by name, regions by number; a wanted set alone keeps its regions only."""
    location = Location(make_phase3()["region_selections"])
    both = read_selections(location, None)
    assert both.set_ids == ("strat_custom_n_lrg", "topk_density_k100")
    assert both.strategies == ("stratified", "topk")
    assert both.region_ids.tolist() == [0, 1, 2, 3, 4]
    assert [SPLIT_NAMES[split] for split in both.split] == ["test", "train", "val", "train", "test"]
    assert both.member.tolist() == [[True, True, True, False, True], [True, True, True, True, False]]
    one = read_selections(location, ["topk_density_k100"])
    assert one.member[:, one.region_ids == 4].sum() == 0
    with pytest.raises(ContractError, match="no selection set 'topk_density'"):
        read_selections(location, ["topk_density"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ranking_mode": None}, "missing column 'ranking_mode'"),
        ({"ranking_mode": ["density"] * 5 + ["n_lrg"] * 3}, "has two strategies or modes"),
        ({"region_split": ["train"] * 7 + ["val"]}, None),
        ({"region_split": ["train"] * 4 + ["val"] * 4}, "region 0 has two splits"),
        ({"region_split": ["dev"] * 8}, "region_split 'dev'"),
        ({"region_id": pa.array([0, 1, 2, 3, 0, 1, 2, None], pa.int32())}, "nulls in region_id"),
    ],
)
def test_unusable_selections_are_refused(make_phase3: Phase3, columns: dict[str, Any], message: str | None) -> None:
    """Contradictions and nulls, all in one error."""
    location = edited(make_phase3()["region_selections"], **columns)
    if message is None:
        assert read_selections(location, None).set_ids
        return
    with pytest.raises(ContractError, match=message):
        read_selections(location, None)


def test_parent_is_read_in_batches(make_phase3: Phase3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are numbered over files and batches; nulls of magnitudes are masked; unknown names are -1."""
    monkeypatch.setattr(manifest_inputs, "BATCH_ROWS", 64)
    inputs = make_phase3(part_rows=250)
    bricks = read_brick_numbers(Location(inputs["bricks_with_region"]))
    parts = find_parts(Location(inputs["parent"]))
    batches = list(scan_parent(parts, bricks, FLAG))
    assert [batch.first_row for batch in batches][:6] == [0, 64, 128, 192, 250, 314]
    table = pa.concat_tables([pq.read_table(part.location.path) for part in parts])
    np.testing.assert_array_equal(np.concatenate([batch.ra_deg for batch in batches]), table["ra"].to_numpy())
    names = [bricks.names[brick] for batch in batches for brick in batch.brick]
    assert names == table["brickname"].to_pylist()
    masked = np.concatenate([np.ma.getmaskarray(batch.photometry["zmag"]) for batch in batches])
    np.testing.assert_array_equal(masked, table["zmag"].is_null().to_numpy())
    assert sum(int((~batch.flag).sum()) for batch in batches) == 7
    assert all(batch.flag.all() for batch in scan_parent(parts, bricks, None))
    splits = np.concatenate([batch.split for batch in batches])
    assert [SPLIT_NAMES[split] for split in splits] == table["region_split"].to_pylist()


def test_hosts_are_gathered_in_order(make_phase3: Phase3, monkeypatch: pytest.MonkeyPatch) -> None:
    """By brick, then position, with all their magnitudes; the same from any batches."""
    inputs = make_phase3(part_rows=250)
    bricks = read_brick_numbers(Location(inputs["bricks_with_region"]))
    parts = find_parts(Location(inputs["parent"]))
    rows = np.arange(3, 600, 7)
    whole = gather_hosts(parts, bricks, rows)
    monkeypatch.setattr(manifest_inputs, "BATCH_ROWS", 11)
    again = gather_hosts(parts, bricks, rows)
    table = pa.concat_tables([pq.read_table(part.location.path) for part in parts])
    np.testing.assert_array_equal(whole.ra_deg, table["ra"].to_numpy()[whole.row])
    np.testing.assert_array_equal(whole.region_id, table["region_id"].to_numpy()[whole.row])
    assert sorted(whole.row.tolist()) == rows.tolist()
    assert (np.diff(whole.brick) >= 0).all()
    for name in PHOTOMETRY:
        assert whole.photometry[name].tolist() == again.photometry[name].tolist()
        assert whole.photometry[name].tolist() == [table[name][row].as_py() for row in whole.row.tolist()]


def test_split_and_region_may_be_folders(make_phase3: Phase3, tmp_path: Path) -> None:
    """A catalogue as Spark partitions it gives the same rows."""
    inputs = make_phase3()
    bricks = read_brick_numbers(Location(inputs["bricks_with_region"]))
    table = pq.read_table(inputs["parent"])
    for region in range(10):
        part = table.filter(pa.compute.equal(table["region_id"], region))
        if part.num_rows:
            folder = tmp_path / "hive" / f"region_split={part['region_split'][0]}" / f"region_id={region}"
            folder.mkdir(parents=True)
            pq.write_table(part.drop_columns(["region_split", "region_id"]), folder / "part-0.parquet")
    found = {
        (ra, region, split)
        for batch in scan_parent(find_parts(Location(str(tmp_path / "hive"))), bricks, FLAG)
        for ra, region, split in zip(batch.ra_deg, batch.region_id, batch.split, strict=True)
    }
    splits = [SPLIT_NAMES.index(split) for split in table["region_split"].to_pylist()]
    assert found == set(zip(table["ra"].to_pylist(), table["region_id"].to_pylist(), splits, strict=True))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rmag": None, "ra": None}, "2 problems: missing column 'ra' .*; missing column 'rmag'"),
        ({"rmag": np.zeros(600)}, "column 'rmag': expected float, got double"),
        ({"ra": np.zeros(600, np.float32)}, "column 'ra': expected double, got float"),
        ({FLAG: None}, f"missing column '{FLAG}'"),
        ({FLAG: ["yes"] * 600}, f"column '{FLAG}': expected bool or"),
    ],
)
def test_parent_of_other_columns_is_refused(make_phase3: Phase3, columns: dict[str, Any], message: str) -> None:
    """Types decide how Spark hashes, so they are demanded."""
    inputs = make_phase3()
    parts = find_parts(edited(inputs["parent"], **columns))
    bricks = read_brick_numbers(Location(inputs["bricks_with_region"]))
    with pytest.raises(ContractError, match=message):
        list(scan_parent(parts, bricks, FLAG))
