"""Records of epochs as JSON and as a table."""

from __future__ import annotations

import json

from pipeline.training.history import EpochRecord, history_json, history_table

FIRST = EpochRecord(0, 0.7, 0.6, 0.55, {"0.01": 0.1, "0.001": None}, 1e-3, 2.0, 500.0)
HISTORY = [FIRST, EpochRecord(1, 0.6, 0.5, 0.65, {"0.01": 0.2, "0.001": None}, 5e-4, 2.0, 500.0, 0.01)]


def test_json_and_table_hold_the_same() -> None:
    """One object and one row per epoch; rates become columns, unknown ones null."""
    assert [EpochRecord(**entry) for entry in json.loads(history_json(HISTORY))] == HISTORY
    table = history_table(HISTORY)
    assert table["epoch"].to_pylist() == [0, 1]
    assert table["val_tpr_at_fpr_0.01"].to_pylist() == [0.1, 0.2]
    assert table["val_tpr_at_fpr_0.001"].to_pylist() == [None, None]
    assert table["data_wait_fraction"].to_pylist() == [0.0, 0.01]
    assert history_table([]).num_rows == 0


def test_values_of_metrics_are_larger_for_better_epochs() -> None:
    """The loss counts negatively."""
    assert FIRST.value("val_auc") == 0.55
    assert FIRST.value("val_loss") == -0.6
    assert FIRST.value("val_tpr_at_fpr_0.01") == 0.1
    assert FIRST.value("val_tpr_at_fpr_0.001") is None
