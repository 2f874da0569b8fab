"""Checks of stored manifests."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.driver.manifest_check import check_stored_manifest
from pipeline.storage.locations import Location


def test_golden_manifests_pass(golden_manifests: list[Path]) -> None:
    """Counts are those of the file."""
    for path in golden_manifests:
        found = check_stored_manifest(Location(str(path)), 13)
        assert found["rows"] == pq.ParquetFile(path).metadata.num_rows == found["positives"] + found["controls"]
        assert sum(found["by_split"].values()) == sum(found["by_selection_set"].values()) == found["rows"]


def test_problems_are_counted_and_named(golden_manifests: list[Path], tmp_path: Path) -> None:
    """A repeated row and another seed, in one error."""
    table = pq.ParquetFile(golden_manifests[0]).read()
    pq.write_table(pa.concat_tables([table, table.slice(2, 1)]), tmp_path / "manifest.parquet")
    location = Location(str(tmp_path / "manifest.parquet"))
    with pytest.raises(ContractError, match="89 rows read.*: 1 rows with a task_id that another row has"):
        check_stored_manifest(location, 13)
    with pytest.raises(ContractError, match=r"89 rows with task_seed64 .* seed 7 say \(rows 0, 1, 2 ...\); 1 rows"):
        check_stored_manifest(location, 7)
