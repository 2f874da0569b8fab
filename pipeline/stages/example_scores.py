"""Scores of the examples of a training cube: which stamps are examples, and the table that the evaluation reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import INJECTED_ROLES, ROLES, SPLITS
from pipeline.contracts.errors import VerificationError
from pipeline.stages.network import StampNetwork, probability


def score_examples_of_shard(stamps: xr.Dataset, network: StampNetwork, splits: Sequence[str]) -> pd.DataFrame:
    """Score the injected and the control stamps of some splits.

    Args:
        stamps: injected, control and the columns of a shard of the training cube.
        network: what scores; its bands are the cube's.
        splits: some of SPLITS.

    Returns:
        The trainer's columns: task_id, pair_id, host_id, label, logit, score, split, arc_snr, theta_e_arcsec and
        psfsize_r [arcsec] where r is a band. By row of the cube, of a pair the injected stamp first.

    Raises:
        VerificationError: a logit is not finite, as of an unusable stamp among the used ones.
    """
    row, label = examples_of(stamps, splits)
    logit = np.empty(row.size, dtype=np.float32)
    for kind, wanted in (("injected", 1), ("control", 0)):
        logit[label == wanted] = network.logits(stamps[kind].to_numpy()[row[label == wanted]])
    if not np.isfinite(logit).all():
        raise VerificationError(f"{int((~np.isfinite(logit)).sum())} of {logit.size} logits are not finite")
    columns = {name: stamps[name].to_numpy()[row] for name in ("pair_id", "host_id", "arc_snr", "theta_e_arcsec")}
    table = pd.DataFrame(
        {
            "task_id": stamps["task_id"].to_numpy()[row].astype(object),
            "pair_id": columns["pair_id"],
            "host_id": columns["host_id"],
            "label": label,
            "logit": logit,
            "score": probability(logit),
            "split": np.array(SPLITS, dtype=object)[stamps["split"].to_numpy()[row]],
            "arc_snr": columns["arc_snr"],
            "theta_e_arcsec": columns["theta_e_arcsec"],
        }
    )
    if "r" in network.spec.bands:
        table["psfsize_r"] = stamps["psfsize_arcsec"].to_numpy()[row, network.spec.bands.index("r")]
    return table


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
    control = np.flatnonzero(inside & np.isin(role, [ROLES.index(name) for name in ("pair", "control")]))
    row = np.concatenate([injected, control]).astype(np.int64)
    label = np.repeat(np.array([1, 0], dtype=np.uint8), [injected.size, control.size])
    order = np.lexsort((1 - label, row))
    return row[order], label[order]
