"""The optimiser, the learning rate of every step, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn, optim

from pipeline.contracts.network_config import ScheduleSection
from pipeline.contracts.training_config import TrainingSection


def build_optimiser(network: nn.Module, training: TrainingSection) -> optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over all weights of a network."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimiser.kind == "adamw":
        return optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    momentum = training.optimiser.momentum
    return optim.SGD(network.parameters(), lr=rate, weight_decay=decay, momentum=momentum, nesterov=momentum > 0)


def set_learning_rate(optimiser: optim.Optimizer, rate: float) -> None:
    """Use a learning rate from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def learning_rate(step: int, steps_per_epoch: int, n_steps: int, peak: float, schedule: ScheduleSection) -> float:
    """Rate of one step.

    Linear from peak / w to peak over the w warm-up steps; then half a cosine that would reach
    final_fraction * peak at step `n_steps`, or peak * step_factor**(epoch // step_epochs).

    Args:
        step: 0-based, less than `n_steps`.
        steps_per_epoch: steps of an epoch.
        n_steps: steps of all epochs.
        peak: the configured learning rate.
        schedule: length of the warm-up, and what comes after.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * ((step + 1) / warmup)
    if schedule.kind == "step":
        return float(peak * schedule.step_factor ** (step // steps_per_epoch // schedule.step_epochs))
    progress = (step - warmup) / (n_steps - warmup)
    share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak * (schedule.final_fraction + (1.0 - schedule.final_fraction) * share)


def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move an average of weights towards a network's: a <- d a + (1 - d) w, d = min(decay, (1 + step) / (10 + step)).

    The first steps count more, so that the initial weights are forgotten.
    """
    kept = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - kept)
