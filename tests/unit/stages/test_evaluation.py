"""Numbers of the evaluation against hand-made cases, brute force and scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from pipeline.contracts.errors import VerificationError
from pipeline.stages.evaluation import (
    auc,
    auc_interval,
    evaluate_scores,
    operating_point,
    roc_curve,
    tpr_at_fpr,
)


def _scores(n: int = 600, seed: int = 1, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, n)
    return label, np.round(generator.normal(label * 1.0, 1.0), digits)


def test_roc_takes_ties_as_one_step() -> None:
    """Two positives and two negatives at the same score give one diagonal step, whatever their order."""
    for label in ([1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0]):
        curve = roc_curve(label, [5.0, 5.0, 5.0, 5.0, 9.0, 1.0])
        assert curve.fpr.tolist() == pytest.approx([0.0, 0.0, 2 / 3, 1.0])
        assert curve.tpr.tolist() == pytest.approx([0.0, 1 / 3, 1.0, 1.0])


def test_auc_of_hand_made_cases() -> None:
    """Perfect, inverted, all tied, and 3.5 of 4 ordered pairs."""
    assert auc([0, 0, 1, 1], [1, 2, 3, 4]) == 1.0
    assert auc([1, 1, 0, 0], [1, 2, 3, 4]) == 0.0
    assert auc([0, 1, 0, 1], [2, 2, 2, 2]) == 0.5
    assert auc([0, 0, 1, 1], [1, 3, 3, 4]) == pytest.approx(3.5 / 4)


def test_roc_and_auc_agree_with_scikit_learn_on_tied_scores() -> None:
    """Same AUC and the same vertices as the reference implementation without dropped points."""
    label, score = _scores()
    fpr, tpr, _ = sklearn_roc_curve(label, score, drop_intermediate=False)
    curve = roc_curve(label, score)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_tpr_at_fpr_never_splits_a_tie() -> None:
    """With 50 of 100 negatives tied with the best positives, FPR 0.1 is reached by no positive of that tie."""
    label = np.r_[np.ones(10), np.zeros(100)]
    score = np.r_[np.full(5, 9.0), np.full(5, 5.0), np.full(50, 5.0), np.zeros(50)]
    assert tpr_at_fpr(roc_curve(label, score), 0.1) == 0.5
    saturated = roc_curve(label, np.ones(110))
    assert tpr_at_fpr(saturated, 0.1) == 0.0


def test_tpr_at_fpr_includes_the_threshold_that_meets_it_exactly() -> None:
    """A positive after exactly 10 of 100 false positives counts at FPR 0.1, one after the eleventh does not."""
    label = np.r_[np.zeros(10), np.ones(1), np.zeros(1), np.ones(1), np.zeros(89)]
    score = -np.arange(label.size, dtype=float)
    assert tpr_at_fpr(roc_curve(label, score), 0.1) == 0.5


def test_tpr_at_fpr_needs_ten_false_positives() -> None:
    """999 negatives say nothing at FPR 0.01, 1000 do."""
    for n_negatives, known in ((999, False), (1000, True)):
        curve = roc_curve(np.r_[np.ones(3), np.zeros(n_negatives)], np.r_[np.ones(3), np.zeros(n_negatives)])
        assert (tpr_at_fpr(curve, 0.01) is not None) == known
    with pytest.raises(VerificationError, match="false-positive rate"):
        tpr_at_fpr(curve, 0.0)


def test_operating_point_says_threshold_interval_and_method() -> None:
    """60 of 100 positives above the tenth of 1000 negatives: Wilson around 0.6, FPR 0.01 achieved."""
    label = np.r_[np.ones(60), np.zeros(10), np.ones(40), np.zeros(990)]
    score = np.r_[np.full(60, 9.0), np.full(10, 8.0), np.zeros(1030)]
    point = operating_point(roc_curve(label, score), 0.01)
    assert (point.tpr, point.fpr_achieved, point.threshold_logit, point.sufficient) == (0.6, 0.01, 8.0, True)
    assert [point.tpr_low, point.tpr_high] == pytest.approx(binomtest(60, 100).proportion_ci(method="wilson"), abs=1e-9)
    assert [point.fpr_low, point.fpr_high] == pytest.approx(
        binomtest(10, 1000).proportion_ci(method="wilson"), abs=1e-9
    )
    assert "Wilson" in point.method
    np.testing.assert_array_equal(score >= point.threshold_logit, np.arange(1100) < 70)


def test_operating_point_without_negatives_or_threshold_claims_nothing() -> None:
    """999 negatives at 0.01: only counts. Constant scores: TPR 0 and no threshold, never an extrapolated one."""
    few = operating_point(roc_curve(np.r_[np.ones(5), np.zeros(999)], np.arange(1004.0)), 0.01)
    assert (few.sufficient, few.n_negatives, few.n_positives) == (False, 999, 5)
    assert {few.tpr, few.threshold_logit, few.fpr_achieved, few.tpr_low, few.fpr_high} == {None}
    constant = operating_point(roc_curve(np.r_[np.ones(5), np.zeros(1000)], np.zeros(1005)), 0.01)
    assert (constant.sufficient, constant.tpr, constant.fpr_achieved, constant.threshold_logit) == (
        True,
        0.0,
        0.0,
        None,
    )


def test_unclustered_interval_is_that_of_delong() -> None:
    """Every example its own cluster: the variance is S10 / m + S01 / n of DeLong's structural components."""
    label, score = _scores(200)
    wins = (score[label == 1][:, None] > score[label == 0]) + 0.5 * (score[label == 1][:, None] == score[label == 0])
    variance = wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]
    value = wins.mean()
    half = 1.959963984540054 * np.sqrt(variance) / (value * (1 - value))
    interval = auc_interval(label, score, np.arange(200))
    centre = np.log(value / (1 - value))
    assert interval.value == pytest.approx(value)
    assert interval.low == pytest.approx(1 / (1 + np.exp(half - centre)), rel=1e-9)
    assert interval.high == pytest.approx(1 / (1 + np.exp(-half - centre)), rel=1e-9)


def test_clustered_interval_covers_where_the_unclustered_one_is_too_narrow() -> None:
    """Hosts seen eight times: 95 % intervals by host cover the truth in 90-99 % of 300 draws, per example in < 85 %."""
    generator = np.random.default_rng(5)
    truth = 0.7602499389065233  # Phi(1 / sqrt 2) for unit total variance
    covered = {"host": 0, "example": 0}
    for _ in range(300):
        host = np.repeat(np.arange(60), 8)
        label = (np.repeat(np.arange(60), 8) % 2).astype(int)
        score = np.sqrt(0.5) * (generator.normal(size=60)[host] + generator.normal(size=480)) + label
        for name, cluster in (("host", host), ("example", np.arange(480))):
            interval = auc_interval(label, score, cluster)
            assert interval.low is not None
            assert interval.high is not None
            covered[name] += interval.low <= truth <= interval.high
    assert 270 <= covered["host"] <= 297
    assert covered["example"] < 255


def test_pairs_narrow_the_interval() -> None:
    """Injected and control stamps that share a host vary together, so their AUC is known better than of strangers."""
    generator = np.random.default_rng(6)
    host = np.tile(np.arange(200), 2)
    label = np.repeat([1, 0], 200)
    score = generator.normal(size=200)[host] + 0.3 * generator.normal(size=400) + label
    paired, unpaired = auc_interval(label, score, host), auc_interval(label, score, np.arange(400))
    assert paired.low is not None
    assert unpaired.low is not None
    assert paired.low > unpaired.low


def test_interval_is_absent_when_classes_separate_or_a_class_has_one_host() -> None:
    """No variance can be estimated there, so no interval is claimed."""
    assert auc_interval([0, 0, 1, 1], [1, 2, 3, 4], [0, 1, 2, 3]).low is None
    assert auc_interval([0, 0, 1, 1], [1, 3, 2, 4], [0, 1, 2, 2]).high is None


@pytest.mark.parametrize(
    ("label", "score", "reason"),
    [
        ([1, 1], [0.0, 1.0], "both classes"),
        ([0, 0], [0.0, 1.0], "both classes"),
        ([], [], "both classes"),
        ([0, 1], [0.0, np.nan], "not finite"),
        ([0, 2], [0.0, 1.0], "labels 0 and 1"),
        ([0, 1, 1], [0.0, 1.0], "equally long"),
    ],
)
def test_unusable_scores_are_refused(label: list[int], score: list[float], reason: str) -> None:
    """One class, non-finite scores, other labels and unequal lengths each raise, none returns a number."""
    for measure in (auc, roc_curve):
        with pytest.raises(VerificationError, match=reason):
            measure(label, score)


def test_evaluation_is_json_with_a_short_roc() -> None:
    """All numbers serialise strictly, the ROC has at most 200 points and keeps both ends."""
    label, score = _scores(3000, digits=6)
    result = evaluate_scores(label, score, np.arange(3000))
    content = json.loads(json.dumps(result, allow_nan=False))
    assert len(content["roc"]["fpr"]) <= 200
    assert (content["roc"]["fpr"][0], content["roc"]["tpr"][0]) == (0.0, 0.0)
    assert (content["roc"]["fpr"][-1], content["roc"]["tpr"][-1]) == (1.0, 1.0)
    assert content["n_positives"] + content["n_negatives"] == 3000
    assert [entry["fpr"] for entry in content["tpr_at_fpr"]] == [0.01, 0.001, 0.0001]
    assert [entry["sufficient"] for entry in content["tpr_at_fpr"]] == [True, False, False]
    assert [entry["tpr"] is None for entry in content["tpr_at_fpr"]] == [False, True, True]
    assert content["auc"]["low"] < content["auc"]["value"] < content["auc"]["high"]
