"""Bootstrap over hosts: exact weighted metrics, determinism, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.stages.evaluation import auc, roc_curve, tpr_at_fpr
from pipeline.stages.host_bootstrap import (
    RankedScores,
    bootstrap_ranking,
    bootstrap_weights,
    centred_interval,
    percentile_interval,
    rate_name,
)


def _scores(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, n)
    return label, np.round(generator.normal(label * 1.0, 1.0), 1)


def test_unit_weights_give_the_plain_metrics_on_tied_scores() -> None:
    """AUC and TPR at FPR equal those of the ROC curve."""
    label, score = _scores(4000)
    ranked = RankedScores(label, score)
    ones = np.ones(4000)
    assert ranked.auc(ones) == pytest.approx(auc(label, score), abs=1e-12)
    curve = roc_curve(label, score)
    for fpr in (0.1, 0.01):
        assert ranked.tpr_at_fpr(ones, fpr) == pytest.approx(tpr_at_fpr(curve, fpr), abs=1e-12)
    assert np.isnan(ranked.tpr_at_fpr(ones, 0.001))


def test_whole_weights_are_repetitions() -> None:
    """A weight of three is the same as the example three times, a weight of zero as its absence."""
    label, score = _scores(60)
    weight = np.random.default_rng(2).integers(0, 4, 60)
    ranked = RankedScores(label, score)
    repeated_label, repeated = np.repeat(label, weight), np.repeat(score, weight)
    assert ranked.auc(weight.astype(float)) == pytest.approx(auc(repeated_label, repeated), abs=1e-12)
    assert np.isnan(ranked.auc(np.zeros(60)))


def test_constant_scores_have_auc_one_half_and_detect_nothing() -> None:
    """One tie: every replicate's AUC is exactly 1/2, and no threshold keeps a rate below 1."""
    label = np.r_[np.ones(50), np.zeros(1000)]
    found = bootstrap_ranking(label, np.zeros(1050), np.arange(1050), (0.01,), 3, 100)
    assert (found["auc"].value, found["auc"].low, found["auc"].high) == (0.5, 0.5, 0.5)
    assert found[rate_name(0.01)].high == 0.0


def test_same_seed_same_interval_whatever_the_order() -> None:
    """Rows in another order give the same replicates; another seed does not; a host's stamps move together."""
    label, score = _scores(600)
    host = np.arange(600) // 3 - 100
    first = bootstrap_ranking(label, score, host, (0.1,), 7, 100)
    order = np.random.default_rng(0).permutation(600)
    assert bootstrap_ranking(label[order], score[order], host[order], (0.1,), 7, 100) == first
    assert bootstrap_ranking(label, score, host, (0.1,), 8, 100) != first
    for weight in bootstrap_weights(host, 7, 5):
        assert (weight.reshape(-1, 3) == weight.reshape(-1, 3)[:, :1]).all()


def test_interval_covers_the_truth_for_clustered_hosts() -> None:
    """Hosts seen eight times: 95 % intervals cover the known AUC in at least 88 % of 60 samples."""
    generator = np.random.default_rng(5)
    truth, covered = 0.7602499389065233, 0  # Phi(1 / sqrt 2) for unit total variance
    host = np.repeat(np.arange(60), 8)
    for draw in range(60):
        score = np.sqrt(0.5) * (generator.normal(size=60)[host] + generator.normal(size=480)) + host % 2
        found = bootstrap_ranking(host % 2, score, host, (), draw, 100)["auc"]
        covered += found.low <= truth <= found.high
    assert covered >= 53


def test_one_class_and_nan_scores_are_refused() -> None:
    """Neither gives a number; a percentile of nothing is NaN."""
    with pytest.raises(VerificationError, match="both classes"):
        bootstrap_ranking([1, 1], [0.0, 1.0], [1, 2], (), 1, 100)
    with pytest.raises(VerificationError, match="finite"):
        RankedScores([0, 1], [0.0, np.nan])
    assert np.isnan(percentile_interval(1.0, [np.nan]).low)


def test_centred_interval_keeps_the_spread_about_the_value() -> None:
    """Replicates that all lie above the value give an interval of their width around it."""
    found = centred_interval(0.1, 0.5 + np.linspace(-0.05, 0.05, 101))
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.0525, 0.1475))
    assert np.isnan(centred_interval(1.0, [np.nan]).high)
