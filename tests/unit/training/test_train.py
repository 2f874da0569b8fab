"""The loop: it learns, repeats exactly, warms up, selects and stops as promised."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.training_config import CentreDegradation, PreprocessSection, TrainingSection
from pipeline.storage.cube import PublishedCube
from pipeline.training.loader import Examples, load_examples
from pipeline.training.model import LensResNet, predict_logits
from pipeline.training.train import EpochRecord, _is_better, configure_torch, learning_rate, mean_loss, train

CubeMaker = Callable[..., PublishedCube]
SPEC = PreprocessSection(annulus_px=(9.0, 16.0))
DEGRADED = CentreDegradation.model_validate({"kinds": ["mask", "noise"], "radius_px": 3, "probability": 0.5})
SHORT = TrainingSection(epochs=3, batch_size=16, base_channels=4, learning_rate=3e-3, preprocess=SPEC)


def _noise(n: int = 40, seed: int = 0) -> dict[str, Examples]:
    stamps = np.random.default_rng(seed).normal(size=(n, 3, 16, 16)).astype(np.float32)
    label = (np.arange(n) % 2).astype(np.uint8)
    one = Examples("train", stamps, label, np.arange(n), xr.Dataset(), SPEC)
    return {"train": one, "val": one}


def _same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_bright_rings_are_learned(make_cube: CubeMaker) -> None:
    """Rings far above the noise are told from controls of held-out hosts, and the losses fall."""
    device = configure_torch(1)
    examples = load_examples(make_cube(), SPEC)
    result = train(examples, SHORT.model_copy(update={"epochs": 8}), 1, device)
    assert result.best.record.val_auc > 0.95
    assert result.history[-1].train_loss < 0.7 * result.history[0].train_loss


def test_same_seed_gives_identical_weights() -> None:
    """Two runs agree in every bit of best and last weights; another seed does not."""
    device = configure_torch(1)
    training = SHORT.model_copy(update={"centre_degradation": DEGRADED})
    first, second, other = (train(_noise(), training, seed, device) for seed in (5, 5, 6))
    assert _same(first.last.weights, second.last.weights)
    assert _same(first.best.weights, second.best.weights)
    assert not _same(first.last.weights, other.last.weights)


def test_only_train_and_val_are_read() -> None:
    """The test split may be absent during training."""
    assert len(train(_noise(), SHORT, 1, configure_torch(1)).history) == 3


def test_snapshots_hold_the_weights_of_their_epoch() -> None:
    """The last snapshot's weights reproduce the last validation loss, the best snapshot's the best one's."""
    device = configure_torch(1)
    examples = _noise()
    result = train(examples, SHORT, 2, device)
    assert result.last.record == result.history[-1]
    assert result.best.record.val_auc == max(record.val_auc for record in result.history)
    for snapshot in (result.last, result.best):
        model = LensResNet(3, SHORT.base_channels)
        model.load_state_dict(snapshot.weights)
        logit = predict_logits(model, examples["val"].stamps, device)
        assert mean_loss(examples["val"].label, logit) == pytest.approx(snapshot.record.val_loss, rel=1e-5)


def test_nan_loss_stops_and_names_epoch_and_batch() -> None:
    """A NaN that reaches the network raises before any weight is updated with it."""
    examples = _noise()
    examples["train"].stamps[:] = np.nan
    with pytest.raises(VerificationError, match="epoch 0, batch 0: loss nan"):
        train(examples, SHORT, 1, configure_torch(1))


def test_rate_warms_up_over_one_epoch_and_then_falls() -> None:
    """Linear from peak / n to peak over the first epoch, monotonically down to almost 0 afterwards."""
    rates = [learning_rate(step, 10, 50, 2.0) for step in range(50)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[30] == pytest.approx(1.0)
    assert 0.0 < rates[-1] < 0.01


def test_history_records_the_rate_that_was_applied() -> None:
    """The first epoch ends at the peak, later ones below; all numbers of a record are finite."""
    history = train(_noise(), SHORT, 1, configure_torch(1)).history
    assert history[0].learning_rate == SHORT.learning_rate
    assert history[2].learning_rate < history[1].learning_rate < SHORT.learning_rate
    assert [record.epoch for record in history] == [0, 1, 2]
    assert {(record.centre_probability, record.centre_strength) for record in history} == {(0.0, 0.0)}
    assert all(record.val_tpr_at_fpr == {"0.01": None, "0.001": None} for record in history)


def test_validation_sees_whole_centres_and_history_the_schedule() -> None:
    """With every training centre masked the recorded validation loss is that of the stamps as they are."""
    device, examples = configure_torch(1), _noise()
    content = {"radius_px": 6, "probability": {"start": 0.5, "end": 1.0, "last_epoch": 2}}
    training = SHORT.model_copy(update={"centre_degradation": CentreDegradation.model_validate(content)})
    result = train(examples, training, 2, device)
    assert [record.centre_probability for record in result.history] == [0.5, 0.75, 1.0]
    assert [record.centre_strength for record in result.history] == [1.0, 1.0, 1.0]
    model = LensResNet(3, SHORT.base_channels)
    model.load_state_dict(result.last.weights)
    logit = predict_logits(model, examples["val"].stamps, device)
    assert mean_loss(examples["val"].label, logit) == pytest.approx(result.last.record.val_loss, rel=1e-6)
    plain = train(examples, SHORT, 2, device)
    assert plain.history[0].train_loss != result.history[0].train_loss


def test_optimizer_steps_follow_the_schedule() -> None:
    """With labels all 1 the head's bias rises by one rate per step, so its path is the sum of the schedule's rates."""
    device, examples = configure_torch(1), _noise()
    examples["train"] = dataclasses.replace(examples["val"], label=np.ones(40, dtype=np.uint8))
    training = TrainingSection(epochs=2, batch_size=4, base_channels=4, learning_rate=1e-3, weight_decay=0.0)
    torch.manual_seed(1)
    start = LensResNet(3, 4).state_dict()["head.bias"].item()
    path = train(examples, training, 1, device).last.weights["head.bias"].item() - start
    assert path == pytest.approx(sum(learning_rate(step, 10, 20, 1e-3) for step in range(20)), rel=0.05)


def test_ties_in_auc_go_to_the_lower_loss() -> None:
    """Equal AUC: lower loss wins; equal both: the earlier epoch stays."""

    def record(val_auc: float, val_loss: float) -> EpochRecord:
        return EpochRecord(0, 1.0, val_loss, val_auc, {}, 0.0, 1.0, 1.0)

    assert _is_better(record(0.9, 0.5), record(0.8, 0.1))
    assert _is_better(record(0.9, 0.4), record(0.9, 0.5))
    assert not _is_better(record(0.9, 0.5), record(0.9, 0.5))


def test_mean_loss_is_finite_for_saturated_logits() -> None:
    """Logits of +-200 give their exact loss in float64, where a probability would be 0 or 1."""
    label = np.array([1, 0, 1], dtype=np.uint8)
    assert mean_loss(label, np.array([200, -200, -200], dtype=np.float32)) == pytest.approx(200 / 3)
    assert mean_loss(label, np.zeros(3, dtype=np.float32)) == pytest.approx(np.log(2))
