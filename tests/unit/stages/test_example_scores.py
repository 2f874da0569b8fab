"""Examples of a training cube and their logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.datasets import ROLES, SPLITS
from pipeline.contracts.errors import VerificationError
from pipeline.stages.example_scores import examples_of, score_examples
from pipeline.stages.network import StampNetwork


def shard() -> xr.Dataset:
    """Rows: pair, control, injected, unused, pair of another split; pixels of row k are k, or 10 + k if injected."""
    roles = [ROLES.index(name) for name in ("pair", "control", "injected", "unused", "pair")]
    splits = [SPLITS.index(name) for name in ("test", "test", "test", "test", "val")]
    control = np.tile(np.arange(5, dtype=np.float32)[:, None, None, None], (1, 3, 32, 32))
    dims = ("sample", "band", "y", "x")
    return xr.Dataset(
        {
            "role": ("sample", np.array(roles, np.uint8)),
            "split": ("sample", np.array(splits, np.uint8)),
            "control": (dims, control),
            "injected": (dims, control + 10),
        }
    )


def test_a_pair_gives_two_examples_and_each_its_own_stamp(make_network: Callable[..., bytes]) -> None:
    """Rows in order, of a pair the injected stamp first."""
    network, stamps = StampNetwork(make_network()), shard()
    row, label = examples_of(stamps, ["test"])
    assert row.tolist() == [0, 0, 1, 2]
    assert label.tolist() == [1, 0, 0, 1]
    assert score_examples(stamps, row, label, network).tolist() == [10.0, 0.0, 1.0, 12.0]
    assert examples_of(stamps, ["val", "test"])[0].tolist() == [0, 0, 1, 2, 4, 4]
    assert examples_of(stamps, ["train"])[0].size == 0


def test_a_used_stamp_without_a_finite_logit_is_an_error(make_network: Callable[..., bytes]) -> None:
    """Nothing is left out silently."""
    stamps = shard()
    stamps["control"][1, 0, 0, 0] = np.nan
    with pytest.raises(VerificationError, match="1 of 4 logits are not finite"):
        score_examples(stamps, *examples_of(stamps, ["test"]), StampNetwork(make_network()))
