"""Calibration and survey yield against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from pipeline.contracts.errors import VerificationError
from pipeline.stages.calibration import calibrate, candidates_per_million, probabilities, purity, survey_yield
from pipeline.stages.evaluation import operating_point, roc_curve


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1.0 - p))


def test_ece_and_brier_of_two_bins_by_hand() -> None:
    """Scores 0.2 (one of four positive) and 0.9 (one of two): ECE (4 x 0.05 + 2 x 0.4) / 6, Brier by definition."""
    score = np.array([0.2] * 4 + [0.9] * 2)
    label = np.array([1, 0, 0, 0, 1, 0])
    found = calibrate(label, _logit(score), 10)
    assert found["ece"] == pytest.approx((4 * 0.05 + 2 * 0.4) / 6)
    assert found["brier"] == pytest.approx(brier_score_loss(label, score))
    assert found["brier_of_constant"] == pytest.approx(2 / 6 * 4 / 6)
    assert [entry["n"] for entry in found["reliability"]] == [4, 2]
    assert [entry["positive_share"] for entry in found["reliability"]] == [0.25, 0.5]
    assert found["reliability"][0]["share_low"] < 0.25 < found["reliability"][0]["share_high"]
    assert "Wilson" in found["method"]


def test_calibrated_scores_have_small_ece_and_shifted_ones_do_not() -> None:
    """Labels drawn with the score as probability: ECE within its noise; logits 2 too high: far above."""
    generator = np.random.default_rng(1)
    logit = generator.normal(0.0, 1.5, 20_000)
    label = (generator.uniform(size=20_000) < probabilities(logit)).astype(int)
    assert calibrate(label, logit)["ece"] < 0.015
    assert calibrate(label, logit + 2.0)["ece"] > 0.2


def test_extreme_logits_stay_in_the_last_bins() -> None:
    """Logits of +-1e4 give scores 0 and 1 without overflow, all examples counted."""
    found = calibrate([0, 1], [-1e4, 1e4], 5)
    assert (found["ece"], found["brier"]) == (0.0, 0.0)
    assert sum(entry["n"] for entry in found["reliability"]) == 2


def test_purity_and_candidates_at_a_base_rate() -> None:
    """TPR 0.5 and FPR 1e-3 at 1e-4: 50 lenses and 999.9 others per million."""
    assert candidates_per_million(0.5, 1e-3, 1e-4) == pytest.approx(50 + 999.9)
    assert purity(0.5, 1e-3, 1e-4) == pytest.approx(50 / 1049.9)
    assert purity(0.5, 0.0, 1e-4) == 1.0
    assert np.isnan(purity(0.0, 0.0, 1e-4))
    with pytest.raises(VerificationError, match="base rate"):
        purity(0.5, 0.5, 0.0)


def test_yield_states_its_base_rate_and_knows_when_negatives_are_too_few() -> None:
    """A sufficient point has ordered ranges around its value; one with too few negatives has NaN only."""
    generator = np.random.default_rng(2)
    label = np.r_[np.ones(300), np.zeros(2000)]
    curve = roc_curve(label, generator.normal(2.0 * label, 1.0))
    found = survey_yield(operating_point(curve, 0.01), 1e-4)
    assert (found["base_rate"], found["sufficient"]) == (1e-4, True)
    for name in ("purity", "candidates_per_million"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    few = survey_yield(operating_point(curve, 1e-4), 1e-4)
    assert not few["sufficient"]
    assert all(np.isnan(few[name]) for name in ("purity", "purity_low", "candidates_per_million_high"))


def test_one_class_or_unusable_scores_are_refused() -> None:
    """Each is an error."""
    for label, logit in (([1, 1], [0.0, 1.0]), ([0, 1], [0.0, np.inf]), ([0, 1, 1], [0.0, 1.0])):
        with pytest.raises(VerificationError, match="expected"):
            calibrate(label, logit)
