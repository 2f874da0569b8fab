"""The loop: it learns, repeats exactly, goes on after an interruption, selects and stops as promised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contracts.errors import StoppedError, VerificationError
from pipeline.contracts.network_config import SELECTION_METRICS
from pipeline.contracts.training_config import TrainingSection
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.training.feed import open_feed
from pipeline.training.history import EpochRecord
from pipeline.training.losses import mean_loss
from pipeline.training.processes import World, configure_torch
from pipeline.training.train import Trainer, TrainingResult, is_better, train

CubeMaker = Callable[..., PublishedCube]
Feeds = dict[str, Any]
CPU = World(torch.device("cpu"))
SHORT: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "network": {"base_channels": 4},
    "preprocess": {"annulus_px": [5, 8]},
    "centre_degradation": {"kinds": ["mask", "noise"], "radius_px": 3, "probability": 0.5},
    "augment": {"shift_px": 1, "brightness": 0.1},
}


def section(**changes: object) -> TrainingSection:
    """The short training, changed."""
    return TrainingSection.model_validate(SHORT | changes)


@pytest.fixture
def noise(make_feed: Callable[..., Any]) -> Callable[..., Feeds]:
    """Train and val of pure noise, 40 examples, two of a row."""

    def make(n: int = 40, seed: int = 0) -> Feeds:
        configure_torch(1)
        stamps = np.random.default_rng(seed).normal(size=(n, 3, 16, 16))
        label = (np.arange(n) % 2 == 0).astype(np.uint8)
        features = np.random.default_rng(1).normal(5.0, 3.0, (n, 2))
        return {name: make_feed(stamps, label, np.arange(n) // 2, features=features) for name in ("train", "val")}

    return make


def _same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _losses(result: TrainingResult) -> list[tuple[float, float, float]]:
    return [(record.train_loss, record.val_loss, record.learning_rate) for record in result.history]


def test_bright_rings_are_learned(make_cube: CubeMaker) -> None:
    """Rings far above the noise are told from controls of held-out hosts, and the losses fall."""
    configure_torch(1)
    training = section(epochs=8, preprocess={"annulus_px": [9, 16]}, centre_degradation=None, augment={})
    result = train(open_feed(make_cube(), training.feed), training, 1, CPU)
    assert result.best.val_auc > 0.95
    assert result.history[-1].train_loss < 0.7 * result.history[0].train_loss
    assert 0.0 <= result.history[-1].data_wait_fraction <= 1.0


def test_same_seed_gives_identical_weights(noise: Callable[..., Feeds]) -> None:
    """Two runs agree in every bit of best and last weights; another seed does not."""
    first, second, other = (train(noise(), section(), seed, CPU) for seed in (5, 5, 6))
    assert _same(first.last_weights, second.last_weights)
    assert _same(first.weights, second.weights)
    assert not _same(first.last_weights, other.last_weights)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_interrupted_training_equals_the_uninterrupted_one(
    noise: Callable[..., Feeds], tmp_path: Path, optimiser: str
) -> None:
    """Stopped in the middle of three epochs and started again: every loss and every weight bit for bit, average too."""
    training = section(ema_decay=0.9, optimiser={"kind": optimiser})
    whole = train(noise(), training, 5, CPU)
    state, stops, seen = Location(str(tmp_path / "state")), [2, 2, 3], []
    for steps in stops:
        feeds, asked = noise(), iter([False] * (steps - 1) + [True])
        with pytest.raises(StoppedError, match="the state is stored"):
            train(feeds, training, 5, CPU, state, {"of": "this"}, lambda asked=asked: next(asked))
        seen += feeds["train"].given
    feeds = noise()
    again = train(feeds, training, 5, CPU, state, {"of": "this"})
    assert _losses(again) == _losses(whole)
    assert _same(again.last_weights, whole.last_weights)
    assert _same(again.weights, whole.weights)
    assert again.best.epoch == whole.best.epoch


def test_finished_epochs_are_kept_and_a_state_of_something_else_is_not_used(
    noise: Callable[..., Feeds], tmp_path: Path
) -> None:
    """A finished state trains nothing more; another identity begins anew."""
    state = Location(str(tmp_path / "state"))
    first = train(noise(), section(), 5, CPU, state, {"of": "this"})
    feeds = noise()
    again = train(feeds, section(), 5, CPU, state, {"of": "this"})
    assert feeds["train"].given == []
    assert again.history == first.history
    assert _same(again.weights, first.weights)
    feeds = noise()
    train(feeds, section(epochs=1, centre_degradation=None), 5, CPU, state, {"of": "that"})
    assert len(feeds["train"].given) == 40


def test_steps_ahead_of_what_is_known_change_nothing(noise: Callable[..., Feeds], tmp_path: Path) -> None:
    """As on a GPU, judged and stopped a step late: the same weights bit for bit, and NaN is found and named."""
    whole = train(noise(), section(), 5, CPU)
    state, asked = Location(str(tmp_path / "state")), iter([False, True, False])

    def ahead(feeds: Feeds, must_stop: Callable[[], bool]) -> Trainer:
        trainer = Trainer(feeds, section(), 5, CPU, state, {}, must_stop)
        trainer.steps_ahead = 1
        return trainer

    with pytest.raises(StoppedError, match="in epoch 0 after batch 2"):
        ahead(noise(), lambda: next(asked)).run()
    again = ahead(noise(), lambda: False).run()
    assert _losses(again) == _losses(whole)
    assert _same(again.last_weights, whole.last_weights)
    feeds = noise()
    feeds["train"].stamps[0] = np.nan
    state.remove()
    with pytest.raises(VerificationError, match=r"1 of 16 stamps hold pixels that are not finite, rows \[0\]"):
        ahead(feeds, lambda: False).run()


def test_every_example_is_seen_once_an_epoch(noise: Callable[..., Feeds]) -> None:
    """Ids given out in three epochs: each of them three times, in another order every epoch."""
    feeds = noise(43)
    train(feeds, section(), 1, CPU)
    epochs = np.array(feeds["train"].given).reshape(3, 43)
    assert (np.sort(epochs, axis=1) == np.arange(43)).all()
    assert not (epochs[0] == epochs[1]).all()


def test_lost_examples_are_noticed(noise: Callable[..., Feeds]) -> None:
    """A feed that gives a batch less than it has is an error, not a shorter epoch."""
    feeds = noise()
    complete = feeds["train"].shuffled
    feeds["train"].shuffled = lambda *arguments: (batch for number, batch in enumerate(complete(*arguments)) if number)
    with pytest.raises(VerificationError, match="24 examples were seen, expected 40"):
        train(feeds, section(), 1, CPU)


def test_kept_weights_are_those_of_the_kept_epoch(noise: Callable[..., Feeds]) -> None:
    """The scorer's logits give the validation loss of the best record; the best is the highest AUC."""
    feeds = noise()
    result = train(feeds, section(), 2, CPU)
    assert result.best.val_auc == max(record.val_auc for record in result.history)
    logit = result.scorer.logits(feeds["val"].stamps)
    assert mean_loss(feeds["val"].label, logit) == pytest.approx(result.best.val_loss, rel=1e-5)


def test_unusable_stamps_stop_the_training_with_rows_and_batch(noise: Callable[..., Feeds]) -> None:
    """NaN pixels, and a stamp without noise, raise before any state is stored."""
    feeds = noise()
    feeds["train"].stamps[:] = np.nan
    with pytest.raises(VerificationError, match="epoch 0, batch 0: loss nan.*16 of 16 stamps hold pixels.*rows"):
        train(feeds, section(), 1, CPU)
    feeds["train"].stamps[:] = 1.0
    with pytest.raises(VerificationError, match="16 of 16 stamps have a MAD of 0"):
        train(feeds, section(), 1, CPU)


def test_features_reach_the_head(noise: Callable[..., Feeds]) -> None:
    """With features that tell the classes apart the network needs no pixels."""
    feeds = noise()
    for feed in feeds.values():
        feed.features[:, 0] = 5.0 + 3.0 * feed.label
    training = section(epochs=12, feed={"features": ["ebv_mag", "psfdepth_r_mag"]}, learning_rate=0.01)
    result = train(feeds, training, 1, CPU)
    assert result.history[-1].val_auc > 0.95
    assert result.scorer.features is not None
    assert result.scorer.features.mean[0] == pytest.approx(6.5)


def test_training_stops_when_nothing_gets_better(noise: Callable[..., Feeds]) -> None:
    """On noise with patience 1 the last epoch is the first without gain."""
    training = section(epochs=40, early_stopping={"patience": 1}, select_by="val_loss")
    history = train(noise(), training, 1, CPU).history
    losses = [record.val_loss for record in history]
    assert 2 <= len(history) < 40
    assert losses[-1] >= min(losses)
    assert losses[:-1] == sorted(losses[:-1], reverse=True)


def test_bfloat16_and_focal_loss_train(noise: Callable[..., Feeds]) -> None:
    """Other switches change the curve and leave finite losses; scores stay float32."""
    plain = _losses(train(noise(), section(), 1, CPU))
    for changes in ({"amp": "bf16"}, {"loss": {"kind": "focal"}}, {"network": {"name": "bottleneck_resnet"}}):
        losses = _losses(train(noise(), section(**changes), 1, CPU))
        assert np.isfinite(losses).all()
        assert losses != plain


def test_history_records_what_was_applied(noise: Callable[..., Feeds]) -> None:
    """The first epoch ends at the peak rate, later ones below; a record survives JSON."""
    history = train(noise(), section(), 1, CPU).history
    assert history[0].learning_rate == SHORT["learning_rate"]
    assert history[2].learning_rate < history[1].learning_rate < SHORT["learning_rate"]
    assert [record.epoch for record in history] == [0, 1, 2]
    assert EpochRecord(**json.loads(json.dumps(vars(history[0])))) == history[0]


@pytest.mark.parametrize("metric", SELECTION_METRICS)
def test_better_is_the_metric_and_then_the_loss(metric: str) -> None:
    """A higher value wins, equal values go to the lower loss; too few negatives for a metric are an error."""

    def record(value: float, loss: float, rate: float | None = 0.5) -> EpochRecord:
        return EpochRecord(0, 0.0, loss, value, {"0.01": rate, "0.001": rate}, 0.0, 0.0, 0.0)

    first = record(0.8, 0.5)
    assert is_better(first, None, metric)
    assert is_better(record(0.8, 0.4), first, metric)
    assert not is_better(record(0.8, 0.6), first, metric)
    assert is_better(record(0.9, 0.6), first, metric) == (metric == "val_auc")
    if metric.startswith("val_tpr"):
        with pytest.raises(VerificationError, match="too few negatives"):
            is_better(record(0.8, 0.5, None), first, metric)
