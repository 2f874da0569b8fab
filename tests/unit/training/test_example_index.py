from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.datasets import ROLES, SPLITS
from pipeline.contracts.errors import ConfigError, ContractError, VerificationError
from pipeline.training.example_index import example_features, example_weights, index_split

LABEL = np.array([1, 0, 0, 0, 1], np.uint8)


def test_roles_decide_the_examples() -> None:
    """A pair gives both stamps, the injected first; control and injected rows one; guard and unused rows none."""
    role = [ROLES.index(name) for name in ("pair", "control", "unused", "injected", "pair")] * 12
    split = np.full(60, SPLITS.index("train"))
    split[4::5] = SPLITS.index("guard")
    columns = xr.Dataset({"role": ("sample", np.array(role)), "split": ("sample", split)})
    row, label = index_split(columns, "train")
    assert row[:4].tolist() == [0, 0, 1, 3] and label[:4].tolist() == [1, 0, 0, 1]
    assert row.size == 48 and not np.isin(row % 5, (2, 4)).any()
    with pytest.raises(VerificationError, match="split val has 0 injected"):
        index_split(columns, "val")


def test_weights_have_mean_one_and_mean_what_they_say() -> None:
    """Balanced classes weigh the same in sum; prior weights keep their ratios and leave controls alone."""
    prior = xr.Dataset({"weight_prior": ("example", np.array([3.0, np.nan, np.nan, np.nan, 1.0]))})
    assert example_weights(LABEL, prior, "none").tolist() == [1.0] * 5
    balanced = example_weights(LABEL, prior, "balanced")
    assert balanced[LABEL == 1].sum() == pytest.approx(balanced[LABEL == 0].sum())
    assert balanced.mean() == pytest.approx(1.0)
    assert example_weights(LABEL, prior, "prior").tolist() == [1.5, 1.0, 1.0, 1.0, 0.5]
    with pytest.raises(VerificationError, match="positive weight_prior"):
        example_weights(LABEL, xr.zeros_like(prior), "prior")


def test_features_come_from_the_allow_list_only() -> None:
    """Bands become features of their own; leaking columns and undefined values are refused."""
    columns = xr.Dataset(
        {
            "ebv_mag": ("example", np.array([0.1, 0.2])),
            "psfsize_arcsec": (("example", "band"), np.ones((2, 3))),
            "arc_snr": ("example", np.ones(2)),
            "psfdepth_r_mag": ("example", np.array([24.0, np.nan])),
        }
    )
    features = example_features(columns, ["ebv_mag", "psfsize_arcsec"])
    np.testing.assert_allclose(features, [[0.1, 1, 1, 1], [0.2, 1, 1, 1]])
    assert example_features(columns, []).shape == (2, 0)
    with pytest.raises(ConfigError, match="arc_snr may never be a feature"):
        example_features(columns, ["ebv_mag", "arc_snr"])
    with pytest.raises(ContractError, match="psfdepth_r_mag is not finite in 1 of 2"):
        example_features(columns, ["psfdepth_r_mag"])
