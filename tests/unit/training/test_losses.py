"""Losses against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.contracts.network_config import LossSection
from pipeline.training.losses import example_losses, mean_loss

LOGIT, LABEL = torch.tensor([-2.0, 0.0, 3.0, 100.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])


def test_cross_entropy_is_that_of_numpy() -> None:
    """The mean of the examples' losses is the float64 mean, without overflow at a logit of 100."""
    losses = example_losses(LOGIT, LABEL, LossSection())
    assert losses[3].item() == 100.0
    assert losses.mean().item() == pytest.approx(mean_loss(LABEL.numpy().astype(np.uint8), LOGIT.numpy()), rel=1e-6)


def test_focal_loss_is_its_formula() -> None:
    """alpha_t (1 - p_t)^gamma times the cross-entropy; gamma 0 and alpha a half give half of that."""
    probability = torch.sigmoid(LOGIT.double())
    right = torch.where(LABEL == 1, probability, 1 - probability)
    alpha = torch.where(LABEL == 1, 0.3, 0.7).double()
    section = LossSection(kind="focal", focal_alpha=0.3, focal_gamma=1.5)
    expected = -alpha[:3] * (1 - right[:3]) ** 1.5 * torch.log(right[:3])
    torch.testing.assert_close(example_losses(LOGIT, LABEL, section)[:3].double(), expected, rtol=1e-5, atol=1e-7)
    even = example_losses(LOGIT, LABEL, LossSection(kind="focal", focal_alpha=0.5, focal_gamma=0.0))
    torch.testing.assert_close(even, 0.5 * example_losses(LOGIT, LABEL, LossSection()))
