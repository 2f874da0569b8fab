"""The EMR tables as lists of columns."""

from __future__ import annotations

from pipeline.contracts.emr_columns import METRICS_TABLE, PAIRED_TABLE, PARTITION, STAMP_TABLE


def test_numbers_of_columns() -> None:
    """57 and 20, each once, the partition last; the paired table has one more."""
    for table, number in ((STAMP_TABLE, 57), (METRICS_TABLE, 20), (PAIRED_TABLE, 58)):
        names = [column.name for column in table]
        assert len(set(names)) == len(names) == number
    assert STAMP_TABLE[-1].name == METRICS_TABLE[-1].name == PARTITION
    assert set(METRICS_TABLE) < set(STAMP_TABLE) < set(PAIRED_TABLE)
    assert {column.kind for column in PAIRED_TABLE} == {"string", "int32", "int64", "double", "binary"}
