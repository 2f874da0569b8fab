"""The learning rate of every step, the optimisers and the average of the weights."""

from __future__ import annotations

import itertools

import pytest
import torch

from pipeline.contracts.network_config import ScheduleSection
from pipeline.contracts.training_config import TrainingSection
from pipeline.training.optimise import build_optimiser, learning_rate, set_learning_rate, update_average


def test_rate_warms_up_and_then_falls() -> None:
    """Linear from peak / n to peak over the first epoch, monotonically down to almost 0 afterwards."""
    rates = [learning_rate(step, 10, 50, 2.0, ScheduleSection()) for step in range(50)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[30] == pytest.approx(1.0)
    assert 0.0 < rates[-1] < 0.01


def test_warm_up_and_end_follow_the_section() -> None:
    """Half an epoch of warm-up; none; an end at a tenth; steps halve every second epoch."""
    short = ScheduleSection(warmup_epochs=0.5, final_fraction=0.1)
    assert learning_rate(4, 10, 50, 2.0, short) == 2.0
    assert learning_rate(3, 10, 50, 2.0, short) == pytest.approx(1.6)
    assert learning_rate(49, 10, 50, 2.0, short) == pytest.approx(0.2, rel=0.02)
    assert learning_rate(0, 10, 50, 2.0, ScheduleSection(warmup_epochs=0.0)) == 2.0
    steps = ScheduleSection(kind="step", warmup_epochs=0.0, step_epochs=2)
    assert [learning_rate(10 * epoch, 10, 60, 2.0, steps) for epoch in range(6)] == [2.0, 2.0, 1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(("kind", "expected"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimiser_is_the_configured_one(kind: str, expected: type) -> None:
    """Kind, rate and decay arrive, and a new rate is used."""
    training = TrainingSection.model_validate({"epochs": 1, "optimiser": {"kind": kind}, "weight_decay": 0.25})
    optimiser = build_optimiser(torch.nn.Linear(2, 1), training)
    assert isinstance(optimiser, expected)
    assert optimiser.param_groups[0]["weight_decay"] == 0.25
    set_learning_rate(optimiser, 0.5)
    assert optimiser.param_groups[0]["lr"] == 0.5


def test_average_forgets_the_initial_weights() -> None:
    """The first update moves nine tenths of the way; later ones a share of 1 - decay."""
    average, network = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    average.weight.data.fill_(0.0)
    network.weight.data.fill_(1.0)
    update_average(average, network, 0.99, 0)
    assert average.weight.item() == pytest.approx(0.9)
    update_average(average, network, 0.99, 10**6)
    assert average.weight.item() == pytest.approx(0.901)
