"""EMR tables as parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.emr_columns import STAMP_TABLE, EmrColumn
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage import emr_tables
from pipeline.storage.emr_tables import (
    batches_between,
    emr_schema,
    emr_table,
    parquet_files,
    partition_of,
    read_batches,
    same_table,
    stamp_schema_of,
    write_emr_file,
)
from pipeline.storage.locations import Location

SCHEMA = emr_schema(
    (EmrColumn("name", "string", nullable=False), EmrColumn("flag", "int32"), EmrColumn("value", "double"))
)


def values(**replaced: Any) -> dict[str, Any]:
    """Three rows of SCHEMA."""
    mask = [False, True, False]
    columns = {
        "name": np.ma.array(np.array(["a", "b", "c"], dtype=object), mask=False),
        "flag": np.ma.array(np.array([True, False, False]), mask=mask),
        "value": np.ma.array(np.array([1.5, 2.0, np.nan]), mask=mask),
    }
    return {**columns, **replaced}


def test_masked_values_are_null_and_nan_stays() -> None:
    """NULL and NaN are two things; flags become integers."""
    table = emr_table(values(), SCHEMA)
    assert table["flag"].to_pylist() == [1, None, 0]
    assert table["value"].null_count == 1
    assert np.isnan(table["value"].to_pylist()[2])
    assert same_table(table, emr_table(values(), SCHEMA))
    assert not same_table(table, emr_table(values(flag=np.ma.array([1, 1, 0], mask=False)), SCHEMA))


def test_what_a_schema_refuses() -> None:
    """A missing column, NULL where none may be, a value of another type."""
    with pytest.raises(ContractError, match="missing: value"):
        emr_table({name: column for name, column in values().items() if name != "value"}, SCHEMA)
    with pytest.raises(ContractError, match="'name': 1 rows without a value"):
        emr_table(values(name=["a", None, "c"]), SCHEMA)
    with pytest.raises(ContractError, match="'flag': expected int32"):
        emr_table(values(flag=np.ma.array([2**40, 0, 0], mask=False)), SCHEMA)


def test_a_file_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and digest are those of the file; a store that gives back other bytes is noticed."""
    place = Location(str(tmp_path / "region_split=val" / "part-0.parquet"))
    entry = write_emr_file(place, emr_table(values(), SCHEMA))
    assert entry["bytes"] == place.size()
    monkeypatch.setattr(emr_tables, "same_table", lambda *_: False)
    with pytest.raises(VerificationError, match="reads back differently"):
        write_emr_file(place, emr_table(values(), SCHEMA))


def test_folders_are_listed_without_markers(tmp_path: Path) -> None:
    """Data files only, with the partition in their path."""
    for name in ("region_split=val/a.parquet", "_receipts/b.parquet", "region_split=val/.c.parquet", "_SUCCESS"):
        Location(str(tmp_path / name)).write_bytes(b"x")
    assert parquet_files(Location(str(tmp_path))) == {"region_split=val/a.parquet": 1}
    assert partition_of("region_split=val/a.parquet") == "val"
    assert partition_of("val/a.parquet") is None


def test_batches_and_schemas(tmp_path: Path) -> None:
    """Files are read in parts, with the columns that they have."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"task_id": list("abcde"), "stamp_npz": [b"1"] * 5}), path)
    batches = list(read_batches(Location(str(path)), ["task_id", "unknown"], rows=2))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert batches[0].schema.names == ["task_id"]
    assert stamp_schema_of(Location(str(path))).names == ["task_id", "stamp_npz"]
    with pytest.raises(ContractError, match="is not a parquet file"):
        list(read_batches(Location(__file__)))
    pq.write_table(pa.table({"task_id": ["a"]}), path)
    with pytest.raises(ContractError, match="expected a column stamp_npz"):
        stamp_schema_of(Location(str(path)))


def test_partition_column_is_in_the_folder_name() -> None:
    """57 columns, 56 of them in the file of a partitioned table."""
    assert len(emr_schema(STAMP_TABLE)) == 56
    assert len(emr_schema(STAMP_TABLE, partitioned=False)) == 57


def test_only_row_groups_with_wanted_rows_are_read(tmp_path: Path) -> None:
    """Batches begin where their row group does, and the groups before and after are left out."""
    place = Location(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"row": np.arange(100), "other": np.zeros(100)}), place.path, row_group_size=10)
    found = list(batches_between(place, 25, 41, ["row", "absent"]))
    assert [first for first, _ in found] == [20, 30, 40]
    for first, batch in found:
        assert batch.schema.names == ["row"]
        assert batch["row"].to_pylist() == list(range(first, first + 10))
    assert list(batches_between(place, 100, 120)) == []
