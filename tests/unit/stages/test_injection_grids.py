"""Grids against those that the EMR system made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import ConfigError
from pipeline.stages.injection_grids import GRID_NAMES, injection_grid


@pytest.mark.parametrize(
    ("name", "length", "first", "last"),
    [
        ("grid_small", 48, "0001_te0.3_dm1_rf0.08_e0_sh0", "0048_te1_dm2_rf0.15_e0.3_sh0.03"),
        ("grid_medium", 360, "0001_te0.25_dm0.5_rf0.05_e0_sh0", "0360_te1.2_dm2_rf0.2_e0.4_sh0.03"),
        ("grid_full", 3024, "0001_te0.2_dm0.25_rf0.04_e0_sh0", "3024_te1.6_dm2.5_rf0.25_e0.4_sh0.04"),
        ("grid_sota", 1008, "0001_te0.5_dm0.5_rf0.06_e0_sh0", "1008_te2.5_dm2_rf0.2_e0.4_sh0.04"),
    ],
)
def test_entries_are_named_in_order(name: str, length: int, first: str, last: str) -> None:
    """Nested loops, numbered from 1; the order of the names is that of the numbers."""
    grid = injection_grid(name)
    assert len(grid) == length
    assert (grid.config_ids[0], grid.config_ids[-1]) == (f"{name}_{first}", f"{name}_{last}")
    assert list(grid.config_ids) == sorted(set(grid.config_ids))


def test_entries_are_those_of_the_emr_system(golden_hashes: Path) -> None:
    """Names, indices and numbers of the three grids that were recorded."""
    recorded = pd.read_parquet(golden_hashes / "injection_grids.parquet")
    for name, rows in recorded.groupby("grid"):
        ordered = rows.sort_values("cfg_idx")
        grid = injection_grid(str(name))
        assert list(grid.config_ids) == ordered["config_id"].tolist()
        for column, values in grid.numbers.items():
            np.testing.assert_array_equal(values, ordered[column].to_numpy())


def test_unknown_grid_is_refused() -> None:
    """The error lists the grids."""
    with pytest.raises(ConfigError, match=", ".join(GRID_NAMES)):
        injection_grid("grid_large")
