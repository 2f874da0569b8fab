"""What the epochs did, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; one entry of history.json, one row of history.parquet.

    Attributes:
        epoch: 0-based.
        train_loss: mean over the examples as they were trained on, augmented and weighted. [nat]
        val_loss: mean cross-entropy over the validation split, not augmented. [nat]
        val_tpr_at_fpr: "0.01" and "0.001" to TPR; None with fewer than 10 / FPR negatives.
        learning_rate: of the epoch's last step.
        seconds: training and validation, without interruptions.
        samples_per_s: training examples of all processes over the training time.
        data_wait_fraction: share of the training time in which process 0 waited for a batch.
        centre_probability: that a training stamp's centre was degraded.
        centre_strength: of that degradation.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_auc: float
    val_tpr_at_fpr: dict[str, float | None]
    learning_rate: float
    seconds: float
    samples_per_s: float
    data_wait_fraction: float = 0.0
    centre_probability: float = 0.0
    centre_strength: float = 0.0

    def value(self, metric: str) -> float | None:
        """The value of one of SELECTION_METRICS, the larger the better."""
        if metric == "val_auc":
            return self.val_auc
        if metric == "val_loss":
            return -self.val_loss
        return self.val_tpr_at_fpr[metric.removeprefix("val_tpr_at_fpr_")]


def history_json(history: Sequence[EpochRecord]) -> bytes:
    """A JSON array with one object per epoch."""
    return json.dumps([asdict(record) for record in history], indent=1, allow_nan=False).encode()


def history_table(history: Sequence[EpochRecord]) -> pa.Table:
    """One row per epoch; val_tpr_at_fpr becomes a column per rate."""
    rows = []
    for record in history:
        row = asdict(record)
        rates = row.pop("val_tpr_at_fpr")
        rows.append(row | {f"val_tpr_at_fpr_{rate}": value for rate, value in rates.items()})
    names = list(rows[0]) if rows else []
    types = {name: pa.int64() if name == "epoch" else pa.float64() for name in names}
    return pa.table({name: pa.array([row[name] for row in rows], types[name]) for name in names})
