"""The network: a small residual network that turns one stamp into one logit.

Normalisation is by groups of channels within one stamp, not by batch: a pair's injected and control stamp may
share a batch, batch statistics would let one see the other; and a score must not depend on its neighbours.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BLOCKS_PER_STAGE = 2
PREDICTION_BATCH = 256


class LensResNet(nn.Module):
    """3x3 stem, three stages of two basic blocks (c, 2c, 4c channels, stride 2 each), mean pool, one logit.

    Args:
        n_bands: bands of a stamp.
        base_channels: channels c of the stem and first stage.
    """

    def __init__(self, n_bands: int, base_channels: int) -> None:
        super().__init__()
        widths = [base_channels, base_channels, 2 * base_channels, 4 * base_channels]
        self.stem = nn.Sequential(_convolution(n_bands, base_channels, 1), _norm(base_channels), nn.ReLU())
        self.stages = nn.Sequential(
            *(
                ResidualBlock(width_in if block == 0 else width, width, 2 if block == 0 else 1)
                for width_in, width in itertools.pairwise(widths)
                for block in range(BLOCKS_PER_STAGE)
            )
        )
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, stamps: Tensor) -> Tensor:
        """Logits of normalised stamps.

        Args:
            stamps: (example, band, y, x) float32. [1]

        Returns:
            (example) float32.
        """
        features: Tensor = self.stages(self.stem(stamps.contiguous(memory_format=torch.channels_last)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits.squeeze(1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, or beside a mean pool and 1x1 projection where the shape changes.

    The pool carries the stride. A strided 1x1 convolution would drop three pixels of four, and on a CPU its
    backward pass corrupts memory for few channels in channels-last order (github.com/uxlfoundation/oneDNN/issues/6035).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels_in, channels_out, stride),
            _norm(channels_out),
            nn.ReLU(),
            _convolution(channels_out, channels_out, 1),
            _norm(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(channels_in, channels_out, kernel_size=1))

    def forward(self, features: Tensor) -> Tensor:
        """(example, channel, y, x) in, the same with `channels_out` and size / stride out."""
        total: Tensor = self.body(features) + self.shortcut(features)
        return total.relu()


def predict_logits(
    model: nn.Module, stamps: NDArray[np.float32], device: torch.device, batch_size: int = PREDICTION_BATCH
) -> NDArray[np.float32]:
    """Logits of all stamps in order, without gradients or augmentation.

    Args:
        model: network on `device`; left in evaluation mode.
        stamps: (example, band, y, x) float32 normalised. [1]
        device: where the network is.
        batch_size: stamps per forward pass.

    Returns:
        (example) float32.
    """
    model.eval()
    logits = np.empty(len(stamps), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(stamps), batch_size):
            batch = torch.from_numpy(stamps[start : start + batch_size]).to(device)
            logits[start : start + batch_size] = model(batch).cpu().numpy()
    return logits


def predict_embeddings(
    model: LensResNet, stamps: NDArray[np.float32], device: torch.device, batch_size: int = PREDICTION_BATCH
) -> list[NDArray[np.float32]]:
    """Mean over the stamp of the features after each stage; the last ones are what the head sees.

    Args:
        model: network on `device`; left in evaluation mode.
        stamps: (example, band, y, x) float32 normalised. [1]
        device: where the network is.
        batch_size: stamps per forward pass.

    Returns:
        One (example, channel) float32 per stage.
    """
    model.eval()
    pooled: list[list[NDArray[np.float32]]] = []
    with torch.inference_mode():
        for start in range(0, max(len(stamps), 1), batch_size):
            batch = torch.from_numpy(stamps[start : start + batch_size]).to(device)
            features: Tensor = model.stem(batch.contiguous(memory_format=torch.channels_last))
            pooled.append([])
            for number, block in enumerate(model.stages):
                features = block(features)
                if number % BLOCKS_PER_STAGE == BLOCKS_PER_STAGE - 1:
                    pooled[-1].append(features.mean(dim=(2, 3)).cpu().numpy())
    return [np.concatenate(stage) for stage in zip(*pooled, strict=True)]


def _convolution(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 4), channels)
