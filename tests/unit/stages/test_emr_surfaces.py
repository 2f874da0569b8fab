"""EMR surfaces: bins, flags, intervals and columns worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.stages.emr_surfaces import control_surfaces, emr_bins, injection_surfaces, region_aggregate

KEYS = ["region_id", "selection_set_id", "ranking_mode", "theta_e_arcsec", "src_dmag", "src_reff_arcsec", "psf_bin"]
KEYS += ["depth_bin", "resolution_bin", "region_split"]


def _rows() -> pd.DataFrame:
    """Region 1: scores 0.9, 0.5, 0.4 (bad pixels), none. Region 2: one of 0.1."""
    score = [0.9, 0.5, 0.4, np.nan, 0.1]
    frame = pd.DataFrame({"model_score": score, "region_id": [1, 1, 1, 1, 2]})
    frame["selection_set_id"], frame["ranking_mode"], frame["region_split"] = "s", "n_lrg", "test"
    frame["theta_e_arcsec"], frame["src_dmag"], frame["src_reff_arcsec"] = 1.0, 2.0, 0.15
    frame["psf_fwhm_r"], frame["psfdepth_r"] = 1.26, 23.6
    frame["bad_pixel_frac"] = [0.0, np.nan, 0.3, 0.0, 0.2]
    frame["wise_brightmask_frac"] = [0.3, 0.0, 0.0, 0.0, 0.0]
    return frame


def test_bins_are_those_of_the_emr_job() -> None:
    """PSF to 0.1, depth to 0.25, halves up; resolution labels on either side of each edge; unknown is NULL."""
    psf = np.array([1.24, 1.25, 1.0, 1.0, 1.0, 1.0, np.nan])
    frame = pd.concat([_rows()] * 2, ignore_index=True).head(7)
    frame["psf_fwhm_r"] = psf
    frame["theta_e_arcsec"] = [0.39 * 1.24, 0.4 * 1.25, 0.6, 0.8, 1.0, 5.0, 1.0]
    frame["psfdepth_r"] = [23.62, 23.63, 23.125, 23.0, 24.0, 22.0, np.nan]
    found = emr_bins(frame)
    assert found["psf_bin"].tolist()[:3] == [1.2, 1.3, 1.0]
    assert found["depth_bin"].tolist()[:3] == [23.5, 23.75, 23.25]
    labels = ["<0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0", ">=1.0", ">=1.0", "NULL"]
    assert found["resolution_bin"].tolist() == labels
    with pytest.raises(VerificationError, match="expected the columns"):
        emr_bins(_rows().drop(columns="psfdepth_r"))


def test_injection_surface_counts_valid_clean_and_recovered() -> None:
    """Region 1: 4 attempts, 3 valid, 1 clean (NaN counts as clean), 2 recovered, 1 of them clean; Wilson at 1.96."""
    table = injection_surfaces(_rows())
    assert list(table.columns) == [
        *KEYS, "n_attempt", "n_valid_all", "n_valid_clean", "n_recovered_all", "n_recovered_clean", "model_score_mean",
        "model_score_p50", "theta_over_psf_mean", "completeness_valid_all", "completeness_valid_clean",
        "completeness_overall_all", "completeness_overall_clean", "valid_frac_all", "valid_frac_clean",
        "ci_low_valid_all", "ci_high_valid_all", "ci_low_valid_clean", "ci_high_valid_clean",
    ]  # fmt: skip
    row = table.iloc[0]
    assert row[["n_attempt", "n_valid_all", "n_valid_clean", "n_recovered_all", "n_recovered_clean"]].tolist() == [
        4, 3, 1, 2, 1,
    ]  # fmt: skip
    assert row["completeness_valid_all"] == pytest.approx(2 / 3)
    assert row["completeness_overall_all"] == 0.5
    assert row["model_score_p50"] == 0.5
    z, share, n = 1.96, 2 / 3, 3
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert [row["ci_low_valid_all"], row["ci_high_valid_all"]] == pytest.approx(
        [centre - half, centre + half], abs=1e-9
    )


def test_regions_are_averaged_and_pooled() -> None:
    """2 of 3 and 0 of 1: mean 1/3, population scatter 1/3, pooled 2 of 4."""
    table = region_aggregate(injection_surfaces(_rows()))
    assert len(table) == 1
    row = table.iloc[0]
    assert row[["n_regions", "n_attempt_total", "n_valid_all_total", "n_recovered_all_total"]].tolist() == [2, 5, 4, 2]
    assert row["completeness_valid_all_mean"] == pytest.approx(1 / 3)
    assert row["completeness_valid_all_std"] == pytest.approx(1 / 3)
    assert row["completeness_valid_all_pooled"] == 0.5
    assert row["ci_low_pooled_all"] < 0.5 < row["ci_high_pooled_all"]
    assert "region_id" not in table
    with pytest.raises(VerificationError, match="region_id"):
        region_aggregate(injection_surfaces(_rows().drop(columns="region_id")))


def test_a_cell_without_a_valid_attempt_has_no_completeness() -> None:
    """All attempts failed: counts stay, fractions of valid rows and intervals are NaN; NaN keys are kept."""
    failed = _rows().assign(model_score=np.nan, theta_e_arcsec=np.nan, region_id=7)
    table = injection_surfaces(failed)
    assert table["n_attempt"].sum() == 5
    assert table[["completeness_valid_all", "ci_low_valid_clean", "model_score_p50"]].isna().all(axis=None)
    assert table["completeness_overall_all"].tolist() == [0.0]
    assert table["resolution_bin"].tolist() == ["NULL"]


def test_controls_have_false_positive_columns() -> None:
    """Flagged instead of recovered, fpr instead of completeness."""
    table = control_surfaces(_rows())
    assert list(table.columns) == [
        *KEYS, "n_attempt", "n_valid_all", "n_valid_clean", "n_flagged_all", "n_flagged_clean", "model_score_mean",
        "model_score_p50", "theta_over_psf_mean", "fpr_valid_all", "fpr_valid_clean", "ci_low_fpr_all",
        "ci_high_fpr_all", "ci_low_fpr_clean", "ci_high_fpr_clean",
    ]  # fmt: skip
    assert table["fpr_valid_all"].tolist() == pytest.approx([2 / 3, 0.0])
