"""Metrics by stratum and recall by tier on samples whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import EvaluationSettings
from pipeline.stages.evaluation import operating_point, roc_curve
from pipeline.stages.strata import bin_codes, recall_by_tier, stratified_metrics

COORDINATES = ("theta_e", "theta_e_over_psf", "source_mag", "lensed_mag", "psf_fwhm", "depth_5sig", "host_mag")


def _examples(n: int = 4000) -> pd.DataFrame:
    """Half positives; arcs of arc_snr 1 score like controls, arcs of 10 score 6 higher."""
    generator = np.random.default_rng(3)
    label = np.arange(n) % 2
    snr = np.where(label == 1, np.where(generator.uniform(size=n) < 0.5, 1.0, 10.0), np.nan)
    frame = pd.DataFrame({"label": label, "host_id": np.arange(n), "arc_snr": snr})
    frame["logit"] = generator.normal(size=n) + np.where(snr == 10.0, 6.0, 0.0)
    for name in COORDINATES:
        frame[name] = np.where((label == 1) | (name in ("psf_fwhm", "depth_5sig", "host_mag")), 1.2, np.nan)
    frame["depth_5sig"] = np.where(np.arange(n) < n // 2, 23.0, 24.0)
    frame["host_mag"] = np.nan
    return frame


def test_codes_are_half_open_and_minus_one_outside() -> None:
    """A lower edge belongs to its bin, the last edge and NaN to none."""
    assert bin_codes([0.0, 1.0, 1.5, 2.0, -0.1, np.nan], (0.0, 1.0, 2.0)).tolist() == [0, 1, 1, -1, -1, -1]


def test_faint_arcs_have_auc_one_half_and_bright_ones_one() -> None:
    """Strata of arc_snr meet all negatives; TPR at the sample's FPR 0.01 threshold is 0.01 and 1."""
    table = stratified_metrics(_examples(), EvaluationSettings())
    rows = table[table["variable"] == "arc_snr"].set_index("low")
    assert set(rows["negatives"]) == {"all"}
    assert set(rows["n_negatives"]) == {2000}
    assert rows.loc[0.8, "auc_low"] < 0.5 < rows.loc[0.8, "auc_high"]
    assert rows.loc[8.0, "auc"] > 0.999
    assert rows.loc[0.8, "tpr_at_fpr_0.01"] == pytest.approx(0.01, abs=0.01)
    assert rows.loc[8.0, "tpr_at_fpr_0.01"] > 0.99
    assert rows["tpr_at_fpr_0.0001"].isna().all()


def test_host_strata_cut_both_classes_and_counts_add_up() -> None:
    """Depth bins have their own negatives; an unknown host magnitude is one row without edges."""
    table = stratified_metrics(_examples(), EvaluationSettings())
    depth = table[(table["variable"] == "depth_5sig") & (table["n_positives"] > 0)]
    assert depth["n_negatives"].tolist() == [1000, 1000]
    assert depth["fpr_at_0.01"].mean() == pytest.approx(0.01, abs=1e-3)
    unknown = table[(table["variable"] == "host_mag") & table["low"].isna()]
    assert unknown[["n_positives", "n_negatives"]].to_numpy().tolist() == [[2000, 2000]]
    for variable, rows in table.groupby("variable"):
        assert rows["n_positives"].sum() == 2000, variable


def test_small_strata_are_flagged_not_measured() -> None:
    """Nine positives give no AUC."""
    examples = _examples()
    bright = examples.index[examples["arc_snr"] == 10.0]
    examples.loc[bright[9:], "arc_snr"] = 1.0
    row = stratified_metrics(examples, EvaluationSettings()).query("variable == 'arc_snr' and low == 8.0").iloc[0]
    assert row["n_positives"] == 9
    assert not row["sufficient"]
    assert np.isnan(row["auc"])


def test_strata_use_the_threshold_of_the_whole_sample() -> None:
    """TPR of all strata together is the TPR of the sample's operating point."""
    examples = _examples()
    point = operating_point(roc_curve(examples["label"], examples["logit"]), 0.01)
    rows = stratified_metrics(examples, EvaluationSettings()).query("variable == 'arc_snr'")
    whole = (rows["tpr_at_fpr_0.01"] * rows["n_positives"]).sum() / rows["n_positives"].sum()
    assert whole == pytest.approx(point.tpr)


def test_tiers_are_reported_apart_under_each_definition() -> None:
    """100 of 112 of tier A with both intervals by name; no row holds two tiers; a NaN threshold gives NaN."""
    logit = np.r_[np.full(100, 5.0), np.full(12, -5.0), np.full(30, -5.0), [5.0]]
    anchors = pd.DataFrame({"logit": logit, "visibility_tier": ["A"] * 112 + ["B"] * 30 + [""]})
    anchors["grade_tier"] = "grade_confident"
    table = recall_by_tier(anchors, ("visibility_tier", "grade_tier"), (("score>=0.5", 0.0), ("FPR=1.0e-04", np.nan)))
    assert table.groupby(["tier_definition", "tier"])["n"].first().to_dict() == {
        ("grade_tier", "grade_confident"): 143,
        ("visibility_tier", "A"): 112,
        ("visibility_tier", "B"): 30,
        ("visibility_tier", "undetermined"): 1,
    }
    row = table[(table["tier"] == "A") & (table["threshold"] == "score>=0.5")].iloc[0]
    assert row["recall"] == pytest.approx(100 / 112)
    assert np.round([100 * row["wilson95_lo"], 100 * row["wilson95_hi"]], 1).tolist() == [82.2, 93.8]
    assert np.round([100 * row["jeffreys95_lo"], 100 * row["jeffreys95_hi"]], 1).tolist() == [82.6, 94.0]
    assert "Wilson" in row["wilson_method"] and "Jeffreys" in row["jeffreys_method"]
    assert table.loc[table["threshold_logit"].isna(), ["recall", "wilson95_lo"]].isna().all(axis=None)


def test_anchors_without_score_or_tier_are_refused() -> None:
    """No anchor, no tier column, or NaN scores give no table."""
    anchors = pd.DataFrame({"logit": [1.0, np.nan], "tier": ["A", "B"]})
    with pytest.raises(VerificationError, match="not finite"):
        recall_by_tier(anchors, ("tier",), (("x", 0.0),))
    for broken, columns in ((anchors.head(0), ("tier",)), (anchors, ("grade",)), (anchors, ())):
        with pytest.raises(VerificationError, match="expected scored anchors"):
            recall_by_tier(broken, columns, (("x", 0.0),))
