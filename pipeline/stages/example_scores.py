"""Which stamps of a training cube are examples, and their logits from an exported network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import INJECTED_ROLES, ROLES, SPLITS
from pipeline.contracts.errors import VerificationError
from pipeline.stages.network import StampNetwork

_CONTROL_ROLES = ("pair", "control")


def examples_of(columns: xr.Dataset, splits: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows and labels of the examples of some splits: a pair gives two, an arc or a control alone gives one.

    Args:
        columns: role and split of the training cube.
        splits: some of SPLITS.

    Returns:
        (example) int64 rows in order, and (example) uint8 labels, of a pair the injected stamp (1) first.
    """
    role = columns["role"].to_numpy()
    inside = np.isin(columns["split"].to_numpy(), [SPLITS.index(name) for name in splits])
    injected = np.flatnonzero(inside & np.isin(role, [ROLES.index(name) for name in INJECTED_ROLES]))
    control = np.flatnonzero(inside & np.isin(role, [ROLES.index(name) for name in _CONTROL_ROLES]))
    row = np.concatenate([injected, control]).astype(np.int64)
    label = np.repeat(np.array([1, 0], dtype=np.uint8), [injected.size, control.size])
    order = np.lexsort((1 - label, row))
    return row[order], label[order]


def score_examples(
    stamps: xr.Dataset, row: NDArray[np.int64], label: NDArray[np.uint8], network: StampNetwork
) -> NDArray[np.float32]:
    """Logits of examples.

    Args:
        stamps: injected and control, in the network's bands, and the columns that it sees beside them.
        row, label: (example) from `examples_of`.
        network: what scores.

    Returns:
        (example) float32, finite.

    Raises:
        VerificationError: a logit is not finite, as of a stamp without noise, which no used row should hold.
    """
    logit, features = np.empty(row.size, dtype=np.float32), network.features(stamps)
    for kind, wanted in (("injected", 1), ("control", 0)):
        chosen = row[label == wanted]
        logit[label == wanted] = network.logits(stamps[kind].to_numpy()[chosen], features[chosen])
    if not np.isfinite(logit).all():
        raise VerificationError(f"{int((~np.isfinite(logit)).sum())} of {logit.size} logits are not finite")
    return logit
