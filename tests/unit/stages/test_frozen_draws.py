"""Frozen draws against rows of EMR manifests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.kernels.spark_hash import TextColumn, hash_modulo, spark_xxhash64
from pipeline.stages.frozen_draws import draw_frozen, host_hashes, lens_models, task_seeds

COLOUR_TOLERANCE = 1e-15

# Of the EMR system's own train manifest: a positive and a control.
POSITIVE = {
    "brickname": "9059m305",
    "ra": 60.109882647853965,
    "dec": -30.487536207194793,
    "config_id": "grid_sota_0013_te0.5_dm0.5_rf0.1_e0.2_sh0",
    "replicate": 1,
    "theta_e_arcsec": 0.5,
    "task_seed64": -5692824006415359405,
    "src_x_arcsec": -0.028845753236338208,
    "src_y_arcsec": -0.3078606219058038,
    "src_phi_rad": 1.5432257096669926,
    "shear_phi_rad": 2.7626694556770603,
    "src_gr": 0.1469424594873356,
    "src_rz": 0.036911606865596996,
    "lens_e": 0.13806815,
    "lens_phi_rad": 1.79047847628247,
}
CONTROL = {
    "brickname": "9059m305",
    "ra": 60.114055742959145,
    "dec": -30.485458628147622,
    "config_id": "CONTROL",
    "replicate": 0,
    "theta_e_arcsec": 0.0,
    "task_seed64": 7205380755774049015,
    "src_x_arcsec": 0.0,
    "src_y_arcsec": 0.0,
    "src_phi_rad": 0.0,
    "shear_phi_rad": 0.0,
    "src_gr": 0.3620728643310914,
    "src_rz": 0.14849891676423022,
    "lens_e": 0.0,
    "lens_phi_rad": 0.0,
}


def demand_equal(rows: pd.DataFrame, split_seed: int = 13) -> None:
    """Seeds and draws of rows follow from their names; colours to 1e-15, all else exactly."""
    hosts = host_hashes(TextColumn.of(rows["brickname"].tolist()), rows["ra"].to_numpy(), rows["dec"].to_numpy())
    names = [name if isinstance(name, str) else None for name in rows["config_id"]]
    seeds = task_seeds(hosts, TextColumn.of(names), rows["replicate"].to_numpy(), split_seed)
    np.testing.assert_array_equal(seeds, rows["task_seed64"].to_numpy())
    for name, values in draw_frozen(seeds, rows["theta_e_arcsec"].to_numpy()).items():
        tolerance = COLOUR_TOLERANCE if name in ("src_gr", "src_rz") else 0.0
        np.testing.assert_allclose(values, rows[name].to_numpy(), rtol=0.0, atol=tolerance, err_msg=name)


def test_rows_of_an_emr_manifest() -> None:
    """Two rows, without any file."""
    demand_equal(pd.DataFrame([POSITIVE, CONTROL]))
    demand_equal(pd.DataFrame([CONTROL, POSITIVE, CONTROL]))


def test_recorded_draws(golden_hashes: Path) -> None:
    """A hundred rows with every salt; a row without config_id counts as control."""
    recorded = pd.read_parquet(golden_hashes / "task_seed_vectors.parquet")
    demand_equal(recorded)
    seeds = recorded["task_seed64"].to_numpy()
    for salt in range(101, 111):
        hashes = spark_xxhash64(seeds, salt)
        np.testing.assert_array_equal(hashes, recorded[f"hash_{salt}"].to_numpy())
        np.testing.assert_array_equal(hash_modulo(hashes, 1_000_000) / 1e6, recorded[f"u_{salt}"].to_numpy())


def test_draws_fill_their_ranges() -> None:
    """Uniform over the disc and the angles, normal colours, as 20,000 seeds show."""
    draws = draw_frozen(np.arange(20_000) * 7919 - 10_000, np.full(20_000, 2.0))
    radius = np.hypot(draws["src_x_arcsec"], draws["src_y_arcsec"]) / 1.6
    assert radius.max() < 1.0
    assert np.mean(radius**2) == pytest.approx(0.5, abs=0.01)
    assert draws["src_phi_rad"].max() < 2 * np.pi
    assert max(draws["shear_phi_rad"].max(), draws["lens_phi_rad"].max()) < np.pi
    assert draws["lens_e"].min() >= 0.05
    assert draws["lens_e"].max() < 0.5
    for name, mean in (("src_gr", 0.2), ("src_rz", 0.1)):
        assert draws[name].mean() == pytest.approx(mean, abs=0.006)
        assert draws[name].std() == pytest.approx(0.2, abs=0.006)
    correlations = np.corrcoef(np.stack(list(draws.values())))
    assert np.abs(correlations - np.eye(len(draws))).max() < 0.04


def test_lens_models() -> None:
    """A row with an Einstein radius is an SIE."""
    codes, texts = lens_models(np.array([0.0, 1.2]))
    assert [texts[code] for code in codes] == ["CONTROL", "SIE"]
