"""The linear probe on features whose separability is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.stages.gates.baselines import (
    fit_baseline,
    out_of_fold_auc,
    pair_swap_null,
    shuffle_labels,
    swap_within_pairs,
)

LABEL = np.repeat(np.array([1, 0]), 500)
HOSTS = np.arange(1000)


def probe(features, label=LABEL, hosts=HOSTS):
    """The probe with shuffled labels as its null."""
    return fit_baseline(features, label, hosts, 5, shuffle_labels, np.random.default_rng(1))


def test_auc_of_shifted_normals_is_the_textbook_value():
    """Two unit normals one apart have AUC Phi(1 / sqrt 2) = 0.760, inside the interval and above the null."""
    features = np.random.default_rng(2).normal(size=(1000, 1)) + LABEL[:, None]
    found = probe(features)
    assert found.auc == pytest.approx(0.760, abs=0.03)
    low, high = found.interval_95
    assert low < 0.760 < high
    assert 0.03 < high - low < 0.09
    assert found.null.max() < low
    assert found.auc == out_of_fold_auc(features, LABEL, HOSTS, 5)
    assert found.chance("labels shuffled").p == pytest.approx(1 / 21)


def test_noise_with_many_features_is_worth_nothing():
    """Three hundred features of noise score 0.5 out of fold."""
    found = probe(np.random.default_rng(3).normal(size=(1000, 300)))
    assert found.auc == pytest.approx(0.5, abs=0.06)
    assert found.chance("labels shuffled").p > 0.05


def test_one_class_in_a_fold_is_an_error():
    """A host group that fills a fold with one class has no AUC."""
    with pytest.raises(ValueError, match="one class only"):
        probe(np.zeros((1000, 1)), hosts=np.repeat(np.arange(5), 200))


def test_swaps_keep_one_member_of_each_pair_positive():
    """Every pair keeps one injected label, and control rows stay controls."""
    label, twin = np.array([1, 1, 0, 0, 0]), np.array([2, 4])
    relabel = swap_within_pairs(twin)
    drawn = np.stack([relabel(label, np.random.default_rng(seed)) for seed in range(20)])
    assert (drawn[:, 0] + drawn[:, 2] == 1).all()
    assert (drawn[:, 1] + drawn[:, 4] == 1).all()
    assert (drawn[:, 3] == 0).all()
    assert 0 < drawn[:, 0].sum() < 20


def test_swapping_pair_members_tells_a_difference_from_none():
    """A shift of every pair is never reached by swaps; noise of either sign is; equal members give p of 1."""
    generator = np.random.default_rng(5)
    control = generator.normal(0.0, 1.0, 300)
    noise = generator.normal(0.0, 0.2, 300)

    def statistic(injected, other):
        return float((injected - other).mean())

    p = [
        pair_swap_null(statistic, control + shift, control, 0.0, np.random.default_rng(1))[0].p
        for shift in (noise + 0.1, noise - noise.mean(), np.zeros(300))
    ]
    assert p[0] == 1 / 500
    assert p[1] > 0.9
    assert p[2] == 1.0
    _, null_std = pair_swap_null(statistic, control + noise, control, 0.0, np.random.default_rng(1))
    assert null_std == pytest.approx(np.sqrt((noise**2).mean() / 300), rel=0.1)
