"""The audit passes rows of the EMR system and finds each kind of change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.stages.manifest_audit import audit_manifest_rows


@pytest.fixture(scope="module")
def rows(golden_manifests: list[Path]) -> pd.DataFrame:
    """The train manifest with controls and replicates."""
    path = next(path for path in golden_manifests if "unp1" in str(path) and path.name.startswith("train"))
    return pd.read_parquet(path)


def test_every_golden_row_passes(golden_manifests: list[Path]) -> None:
    """Both variants, both tiers."""
    for path in golden_manifests:
        assert audit_manifest_rows(pd.read_parquet(path), 13) == {}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("task_id", "0" * 64, "task_id other than its columns say"),
        ("selection_set_id", "another", "task_id other than its columns say"),
        ("ra", 12.0, "task_seed64 other than its columns"),
        ("task_seed64", 5, "src_phi_rad other than task_seed64 says"),
        ("src_x_arcsec", 0.1, "src_x_arcsec other than task_seed64 says"),
        ("src_gr", 0.9, "src_gr other than task_seed64 says"),
        ("theta_e_arcsec", 3.0, "parameters other than config_id and is_control say"),
        ("config_id", "grid_sota_9999_te1", "config_id of no known grid"),
        ("is_control", 2, "is_control other than 0 or 1"),
        ("lens_model", "SIS", "lens_model other than SIE for positives"),
        ("stamp_size", 96, "experiment_id other than tier"),
        ("region_split", "all", "region_split unknown"),
        ("psf_bin", 4, "psf_bin or depth_bin outside"),
        ("dec", 95.0, "ra or dec out of range"),
        ("ab_zp_nmgy", 25.0, "ab_zp_nmgy"),
        ("replicate", -1, "replicate below 0"),
        ("psfsize_r", float("nan"), "a null or NaN"),
        ("brickname", None, "a null or NaN"),
    ],
)
def test_a_changed_value_is_found(rows: pd.DataFrame, column: str, value: Any, message: str) -> None:
    """In its row and in no other."""
    changed = rows.copy()
    row = int(rows.index[rows["is_control"] == 0][3])
    changed.loc[row, column] = value
    found = audit_manifest_rows(changed, 13)
    named = [wrong for what, wrong in found.items() if message in what]
    assert len(named) == 1
    assert named[0].nonzero()[0].tolist() == [row]
    assert all(wrong.sum() == 1 for wrong in found.values())


def test_seed_matters(rows: pd.DataFrame) -> None:
    """Another seed than that of the build is found in every row."""
    (wrong,) = audit_manifest_rows(rows, 14).values()
    assert wrong.all()
