"""The gap between splits on samples whose strata make all of it, or none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.stages.split_gap import ARC_VARIABLES, HOST_VARIABLES, explain_gap, matching_weights


def _split(n: int, bright_share: float, shift: float, seed: int) -> pd.DataFrame:
    """Pairs whose separation is 3 for bright and 0.5 for faint arcs, lowered by `shift` for every positive."""
    generator = np.random.default_rng(seed)
    host = np.arange(n) + 10_000 * seed
    bright = generator.uniform(size=n) < bright_share
    snr = np.where(bright, generator.uniform(8.0, 20.0, n), generator.uniform(1.0, 2.0, n))
    parts = []
    for label in (1, 0):
        frame = pd.DataFrame({"label": label, "host_id": host, "arc_snr": snr if label else np.nan}, index=range(n))
        for name in (*ARC_VARIABLES[1:], *HOST_VARIABLES):
            frame[name] = generator.normal(size=n)
        frame["logit"] = generator.normal(size=n) + label * (np.where(bright, 3.0, 0.5) - shift)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _row(table: pd.DataFrame, matched_on: str, metric: str = "auc") -> pd.Series:
    return table[(table["matched_on"] == matched_on) & (table["metric"] == metric)].iloc[0]


def test_matching_weights_make_shares_equal_and_drop_what_the_other_lacks() -> None:
    """Strata 1:1:2 against 3:1:0 become 3:1:0."""
    strata, other = np.array([0, 1, 2, 2]), np.array([0, 0, 0, 1])
    weight = matching_weights(strata, np.ones(4), other, np.ones(4))
    shares = np.bincount(strata, weights=weight) / weight.sum()
    np.testing.assert_allclose(shares, [0.75, 0.25, 0.0])


def test_a_gap_of_the_mix_is_explained_by_its_variable_and_by_no_other() -> None:
    """80 % bright against 30 % bright: arc_snr explains the gap, within its interval; seeing explains nothing."""
    table = explain_gap(_split(1500, 0.8, 0.0, 1), _split(1500, 0.3, 0.0, 2), 5, 100)
    row = _row(table, "arc_snr")
    assert row["gap_low"] > 0.05
    assert row["share_explained"] == pytest.approx(1.0, abs=0.2)
    assert row["share_explained_low"] < row["share_explained"] < row["share_explained_high"]
    assert abs(_row(table, "psf_fwhm")["share_explained"]) < 0.1
    assert 0.6 < _row(table, "joint")["share_explained"] < 1.1
    assert _row(table, "arc_snr", "tpr_at_fpr_0.01")["share_explained"] == pytest.approx(1.0, abs=0.3)


def test_a_gap_at_equal_mix_is_not_explained() -> None:
    """All positives of test one lower: the gap is certain, matched strata explain less than a tenth of it."""
    table = explain_gap(_split(1500, 0.5, 0.0, 1), _split(1500, 0.5, 1.0, 2), 5, 100)
    row = _row(table, "arc_snr")
    assert row["gap_low"] > 0.0
    assert abs(row["share_explained"]) < 0.1


def test_no_share_is_claimed_where_there_is_no_gap() -> None:
    """Two samples of one distribution: the gap's interval holds 0, so the share is NaN."""
    row = _row(explain_gap(_split(800, 0.5, 0.0, 1), _split(800, 0.5, 0.0, 2), 5, 100), "arc_snr")
    assert row["gap_low"] < 0.0 < row["gap_high"]
    assert np.isnan(row["share_explained"])


def test_rates_need_negatives_and_unknown_variables_are_left_out() -> None:
    """800 negatives do not carry FPR 0.01; a variable that is NaN everywhere is not matched on."""
    val, test = _split(800, 0.8, 0.0, 1), _split(800, 0.3, 0.0, 2)
    val["depth_5sig"], test["depth_5sig"] = np.nan, np.nan
    table = explain_gap(val, test, 5, 100)
    assert "depth_5sig" not in set(table["matched_on"])
    rates = table[table["metric"] == "tpr_at_fpr_0.01"]
    assert not rates["sufficient"].any()
    assert rates["gap"].isna().all()


def test_strata_that_one_split_lacks_are_stated() -> None:
    """Test arcs brighter than any of val: their share is the unmatched share."""
    val, test = _split(400, 0.0, 0.0, 1), _split(400, 0.5, 0.0, 2)
    share = float((test["arc_snr"] > 5.0).sum() / 400)
    assert _row(explain_gap(val, test, 5, 100), "arc_snr")["unmatched_test_share"] == pytest.approx(share, abs=0.15)


def test_same_seed_gives_the_same_table_and_one_class_is_refused() -> None:
    """Deterministic in the seed; a split without negatives is an error."""
    val, test = _split(200, 0.8, 0.0, 1), _split(200, 0.3, 0.0, 2)
    pd.testing.assert_frame_equal(explain_gap(val, test, 5, 100), explain_gap(val, test, 5, 100))
    with pytest.raises(VerificationError, match="both classes"):
        explain_gap(val[val["label"] == 1], test, 5, 100)
