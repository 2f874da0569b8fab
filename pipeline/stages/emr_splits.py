"""The splits of the EMR system, for comparison with data and results made under them.

`region_split` of a manifest is the split of its region. Compaction (phase 4p5) later moved three quarters of
val to train, row by row, so copies of one host under several task ids lie on both sides: never train on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError

_VAL_TO_TRAIN_PERCENT = 75


def relabelled_splits(task_id: Sequence[str], region_split: Sequence[str]) -> NDArray[np.object_]:
    """Split of every row after the relabelling of phase 4p5.

    A val row becomes train if the 8-byte blake2b digest of its task_id in UTF-8, read as a little-endian
    integer, leaves a remainder below 75 on division by 100. Every other label stays, the empty one of rows
    without an EMR split too. Relabelling twice is relabelling once.

    Args:
        task_id: (sample,) identities of the rows.
        region_split: (sample,) labels of the manifest, empty where it has none.

    Returns:
        (sample,) labels.

    Raises:
        ContractError: the lengths differ.
    """
    if len(task_id) != len(region_split):
        raise ContractError(f"expected one region_split per task_id, got {len(region_split)} for {len(task_id)}")
    labels = np.empty(len(task_id), dtype=object)
    labels[:] = [
        "train" if split == "val" and _remainder(task) < _VAL_TO_TRAIN_PERCENT else split
        for task, split in zip(task_id, region_split, strict=True)
    ]
    return labels


def _remainder(task_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(task_id.encode(), digest_size=8).digest(), "little") % 100
