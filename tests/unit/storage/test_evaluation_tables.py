"""The stored evaluation: round trip, marker last, every change found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.storage.evaluation_tables import (
    EVALUATION_MARKER,
    evaluation_folder,
    evaluation_identity,
    read_evaluation,
    write_evaluation,
)
from pipeline.storage.locations import Location

IDENTITY = {"plan_sha256": "p", "seed": 3}


def _table() -> pd.DataFrame:
    return pd.DataFrame({"name": ["a", "b"], "value": [0.1, np.nan], "n": [1, 2], "sufficient": [True, False]})


def _written(folder: Path) -> Location:
    location = evaluation_folder(Location(str(folder)))
    write_evaluation(location, IDENTITY, {"evaluation": {"auc": 0.9, "tpr": None}}, {"strata": _table()})
    return location


def test_round_trip_of_documents_and_tables_in_both_formats(tmp_path: Path) -> None:
    """Parquet and CSV hold the same numbers, NaN stays NaN, the identity comes back."""
    location = _written(tmp_path)
    assert location.names() == sorted(["evaluation.json", "strata.csv", "strata.parquet", EVALUATION_MARKER])
    stored = read_evaluation(location)
    assert stored is not None
    assert stored.identity == evaluation_identity(location) == IDENTITY
    assert stored.documents == {"evaluation": {"auc": 0.9, "tpr": None}}
    pd.testing.assert_frame_equal(stored.tables["strata"], _table())
    pd.testing.assert_frame_equal(pd.read_csv(location.join("strata.csv").path), _table())


def test_nothing_is_read_without_the_marker(tmp_path: Path) -> None:
    """No folder, or one whose marker is gone, is no evaluation."""
    assert read_evaluation(evaluation_folder(Location(str(tmp_path)))) is None
    location = _written(tmp_path)
    location.join(EVALUATION_MARKER).remove()
    assert read_evaluation(location) is None
    assert evaluation_identity(location) is None


@pytest.mark.parametrize("name", ["strata.parquet", "strata.csv", "evaluation.json"])
def test_changed_and_missing_files_are_found(tmp_path: Path, name: str) -> None:
    """One byte more, or a file less, raises with the file's name."""
    location = _written(tmp_path)
    good = location.join(name).read_bytes()
    location.join(name).write_bytes(good + b" ")
    with pytest.raises(VerificationError, match=f"differ.*{name}"):
        read_evaluation(location)
    location.join(name).remove()
    with pytest.raises(VerificationError, match=f"missing.*{name}"):
        read_evaluation(location)


def test_a_table_that_does_not_read_back_gets_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that loses a row of the parquet file is found before the marker is written; an old marker is gone."""
    location = _written(tmp_path)
    monkeypatch.setattr("pipeline.storage.evaluation_tables.table_bytes", _short)
    with pytest.raises(VerificationError, match=r"strata\.parquet reads back otherwise"):
        write_evaluation(location, IDENTITY, {}, {"strata": _table()})
    assert not location.join(EVALUATION_MARKER).exists()


def test_a_broken_marker_is_an_error(tmp_path: Path) -> None:
    """A marker without identity is not taken for one."""
    location = _written(tmp_path)
    location.join(EVALUATION_MARKER).write_bytes(b"{}")
    with pytest.raises(VerificationError, match="identity"):
        read_evaluation(location)


def _short(frame: pd.DataFrame) -> bytes:
    return frame.head(1).to_parquet(index=False)
