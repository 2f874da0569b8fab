"""The run record on disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import RunRecord, read_json, read_record, utc_now, write_json


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """The layout of a run that does not exist yet."""
    return RunLayout(Location(str(tmp_path / "run")))


def test_time_is_iso_8601_utc() -> None:
    """Times look like 2026-01-02T03:04:05Z."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", utc_now())


def test_json_round_trip(layout: RunLayout) -> None:
    """What is written is read, text beyond ASCII and floats included."""
    content = {"a": [1, 2.5, None], "ü": {"b": True}, "tiny": 5e-324}
    write_json(layout.record, content)
    assert read_json(layout.record) == content
    assert layout.record.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_refused_and_the_old_document_stays(layout: RunLayout, value: float) -> None:
    """NaN is not JSON; a refused write changes nothing."""
    write_json(layout.record, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(layout.record, {"a": value})
    assert read_json(layout.record) == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
def test_other_content_is_an_error_with_the_url(layout: RunLayout, data: bytes) -> None:
    """A file that holds no JSON object is named."""
    layout.record.write_bytes(data)
    with pytest.raises(VerificationError, match=r"run\.json"):
        read_json(layout.record)


def test_record_of_no_run_is_refused(layout: RunLayout) -> None:
    """A folder without record is not a run."""
    with pytest.raises(ContractError, match="holds no run"):
        read_record(layout)


def test_every_change_is_stored_at_once(layout: RunLayout) -> None:
    """Fields and finished stages are on disk as soon as they are set."""
    record = RunRecord(layout, {"state": "running", "stages": {}})
    record.update(state="waiting")
    assert read_record(layout)["state"] == "waiting"
    record.finish_stage("cutouts", rows=5)
    record.finish_stage("training", rows=4)
    record.finish_stage("cutouts", rows=6)
    stored = read_record(layout)
    assert stored == record.content
    assert stored["stages"]["cutouts"]["rows"] == 6
    assert {stage["state"] for stage in stored["stages"].values()} == {"complete"}
    assert stored["updated_utc"] >= stored["stages"]["cutouts"]["finished_utc"]
