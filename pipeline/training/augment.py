"""Augmentation: the eight symmetries of the square, and the hidden core.

Neither looks at the label: both classes get the same transforms with the same probabilities.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.training.preprocess import stamp_radius

AUGMENT_PURPOSE = 1


def augmentation_generator(seed: int, epoch: int) -> torch.Generator:
    """CPU generator of one epoch's augmentation: the same on every machine, another for every epoch."""
    state = np.random.SeedSequence([seed, epoch, AUGMENT_PURPOSE]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def augment(
    stamps: Tensor, generator: torch.Generator, centre_mask_px: float = 0.0, centre_mask_prob: float = 0.0
) -> Tensor:
    """Hide the core of some stamps, then flip and rotate every stamp at random.

    The core is hidden first, because the host is at pixel size // 2 only before a flip of an even stamp.

    Args:
        stamps: (example, band, y, x) float32 normalised, y and x equally long; left unchanged. [1]
        generator: CPU generator; the draws do not depend on the device of `stamps`.
        centre_mask_px: pixels nearer than this to pixel size // 2 are set to 0. [pixel]
        centre_mask_prob: probability per stamp, in [0, 1].

    Returns:
        (example, band, y, x) float32.
    """
    draw = torch.rand(4, len(stamps), generator=generator).to(stamps.device)
    core = (stamp_radius(stamps.shape[-1]) < centre_mask_px).to(stamps.device)
    hidden = _per_stamp(draw[0] < centre_mask_prob) & core
    stamps = stamps.masked_fill(hidden, 0.0)
    stamps = torch.where(_per_stamp(draw[1] < 0.5), stamps.flip(-1), stamps)
    stamps = torch.where(_per_stamp(draw[2] < 0.5), stamps.flip(-2), stamps)
    return torch.where(_per_stamp(draw[3] < 0.5), stamps.transpose(-1, -2), stamps)


def _per_stamp(choice: Tensor) -> Tensor:
    return choice[:, None, None, None]
