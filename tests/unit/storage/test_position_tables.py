"""Positions from tables of many kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.contracts.search import POSITION_COLUMNS
from pipeline.storage.locations import Location
from pipeline.storage.position_tables import read_positions
from pipeline.storage.tables import find_parts


def read(folder: Path, table: pd.DataFrame, kind: str = "parquet") -> pd.DataFrame:
    """The table written to a file and read as positions."""
    path = folder / f"positions.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return read_positions(find_parts(Location(str(path))))


def test_a_plain_list_is_read_from_csv_and_parquet(tmp_path: Path) -> None:
    """Integers may be identities; nulls are NaN and ""."""
    table = pd.DataFrame({"id": [7, 9007199254740993], "ra": [10.5, np.nan], "dec": [-3, 4], "note": ["a", "b"]})
    for kind in ("csv", "parquet"):
        got = read(tmp_path, table, kind)
        assert got.columns.tolist() == list(POSITION_COLUMNS)
        assert got["position_id"].tolist() == ["7", "9007199254740993"]
        assert got["brickname"].tolist() == ["", ""]
        np.testing.assert_array_equal(got["ra_deg"], [10.5, np.nan])


def test_manifests_and_anchors_are_positions_too(tmp_path: Path) -> None:
    """task_id and anchor_id identify rows, brickname is kept, ra_deg goes before ra."""
    content = {"ra_deg": [1.0], "ra": [2.0], "dec_deg": [3.0], "brickname": ["0010p030"]}
    manifest = read(tmp_path, pd.DataFrame(content | {"task_id": ["t"], "ebv": [0.1], "psfdepth_r": [23.5]}))
    assert manifest.to_numpy().tolist() == [["t", 1.0, 3.0, "0010p030", 0.1, 23.5]]
    assert read(tmp_path, pd.DataFrame(content | {"anchor_id": ["a"]}))["position_id"].tolist() == ["a"]


def test_tables_without_positions_are_refused(tmp_path: Path) -> None:
    """What is missing or of the wrong type is named."""
    with pytest.raises(ContractError, match="needs the columns dec_deg or dec"):
        read(tmp_path, pd.DataFrame({"ra": [1.0]}))
    with pytest.raises(ContractError, match="column 'ra': expected number"):
        read(tmp_path, pd.DataFrame({"ra": ["10h"], "dec": [1.0]}))
    with pytest.raises(ContractError, match="expected an integer in every row"):
        read(tmp_path, pd.DataFrame({"ra": [1.0, 2.0], "dec": [1.0, 2.0], "id": pd.array([1, None], "Int64")}))
