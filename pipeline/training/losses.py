"""Losses of single examples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.contracts.network_config import LossSection


def example_losses(logit: Tensor, label: Tensor, section: LossSection) -> Tensor:
    """Loss of each example.

    Args:
        logit: (example) float32.
        label: (example) float32, 0 or 1.
        section: cross-entropy, or the focal loss alpha_t (1 - p_t)**gamma times it, with p_t the probability of the
            right class, alpha_t alpha for positives and 1 - alpha for negatives (Lin et al. 2017, eq. 5).

    Returns:
        (example) float32. [nat]
    """
    entropy = binary_cross_entropy_with_logits(logit, label, reduction="none")
    if section.kind == "bce":
        return entropy
    right = torch.exp(-entropy)
    alpha = section.focal_alpha * label + (1.0 - section.focal_alpha) * (1.0 - label)
    return alpha * (1.0 - right) ** section.focal_gamma * entropy


def mean_loss(label: NDArray[np.uint8], logit: NDArray[np.float32]) -> float:
    """Mean binary cross-entropy in float64. [nat]

    Args:
        label: (example) 0 or 1.
        logit: (example) float32.
    """
    wide = logit.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, wide) - label * wide))
