"""Augmentation: the eight symmetries of the square, with the same probabilities for both classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

AUGMENT_PURPOSE = 1


def augmentation_generator(seed: int, epoch: int) -> torch.Generator:
    """CPU generator of one epoch's augmentation: the same on every machine, another for every epoch."""
    state = np.random.SeedSequence([seed, epoch, AUGMENT_PURPOSE]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def augment(stamps: Tensor, generator: torch.Generator) -> Tensor:
    """Flip and rotate every stamp at random.

    Args:
        stamps: (example, band, y, x) float32 normalised, y and x equally long; left unchanged. [1]
        generator: CPU generator; the draws do not depend on the device of `stamps`.

    Returns:
        (example, band, y, x) float32.
    """
    draw = torch.rand(3, len(stamps), generator=generator).to(stamps.device)
    stamps = torch.where(_per_stamp(draw[0] < 0.5), stamps.flip(-1), stamps)
    stamps = torch.where(_per_stamp(draw[1] < 0.5), stamps.flip(-2), stamps)
    return torch.where(_per_stamp(draw[2] < 0.5), stamps.transpose(-1, -2), stamps)


def _per_stamp(choice: Tensor) -> Tensor:
    return choice[:, None, None, None]
