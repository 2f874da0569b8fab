from __future__ import annotations

import logging

import pytest

from pipeline.driver.progress import StageProgress
from pipeline.storage.receipts import Receipt


def receipt(shard: int) -> Receipt:
    """A receipt of ten rows of which eight can be used."""
    return Receipt("cutouts", shard, "p", "c", 10, {}, {"none": 8, "masked": 2}, {"requests": 3.0}, (), 1.5, "host")


def test_one_line_per_shard_without_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    """Each finished shard is one record with counts, seconds and rate."""
    with caplog.at_level(logging.INFO, logger="pipeline.driver"), StageProgress("cutouts", 2, 0, "") as progress:
        progress.shard_done(receipt(0))
        progress.shard_done(receipt(1))
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [line["done"] for line in fields] == [1, 2]
    assert fields[0] | {"rows_per_s": 0} == {
        "stage": "cutouts",
        "shard": 0,
        "done": 1,
        "of": 2,
        "kept": 8,
        "rows": 10,
        "seconds": 1.5,
        "rows_per_s": 0,
        "requests": 3.0,
    }
