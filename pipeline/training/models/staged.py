"""What all networks share: stages of feature maps, their mean over the stamp, and a head that gives one logit.

Normalisation is by groups of channels within one stamp, not by batch: a pair's injected and control stamp may
share a batch, batch statistics would let one see the other; a score must not depend on its neighbours; and the step
of several processes is that of one. There is no dropout: nothing random happens inside a network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HEAD_WIDTH = 64


class StagedNetwork(nn.Module):
    """A stem, stages and a head.

    Args:
        stem: first layers.
        stages: each takes what the one before it gave, (example, channel, y, x).
        width: channels of the last stage.
        n_features: numbers that the head sees beside the maps' means; with them it gets a hidden layer.
    """

    def __init__(self, stem: nn.Module, stages: list[nn.Module], width: int, n_features: int = 0) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.n_features = n_features
        self.head: nn.Module = nn.Linear(width, 1)
        if n_features:
            hidden = nn.Linear(width + n_features, HEAD_WIDTH)
            self.head = nn.Sequential(hidden, nn.ReLU(), nn.Linear(HEAD_WIDTH, 1))

    def forward(self, stamps: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits of normalised stamps.

        Args:
            stamps: (example, band, y, x) float32. [1]
            features: (example, n_features) float32 standardised; None without.

        Returns:
            (example) float32.
        """
        maps = self.stem(stamps.contiguous(memory_format=torch.channels_last))
        for stage in self.stages:
            maps = stage(maps)
        seen = maps.mean(dim=(2, 3))
        if features is not None:
            seen = torch.cat([seen, features.to(seen.dtype)], dim=1)
        logits: Tensor = self.head(seen)
        return logits.squeeze(1)

    def embed(self, stamps: Tensor) -> list[Tensor]:
        """(example, channel) mean over the stamp of the maps after each stage; the last is what the head sees."""
        maps = self.stem(stamps.contiguous(memory_format=torch.channels_last))
        pooled = []
        for stage in self.stages:
            maps = stage(maps)
            pooled.append(maps.mean(dim=(2, 3)))
        return pooled


def placed(network: StagedNetwork, device: torch.device) -> StagedNetwork:
    """The network on a device, its convolutions in the order in which stamps pass: channels last."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def convolution(channels_in: int, channels_out: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without offset that keeps the size, or divides it by the stride."""
    padding = kernel_size // 2
    return nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding, groups=groups, bias=False)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Normalisation in the largest number of groups that divides both numbers."""
    return nn.GroupNorm(math.gcd(channels, groups), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, or beside a mean pool and 1x1 projection where the shape changes.

    The pool carries the stride. A strided 1x1 convolution would drop three pixels of four, and on a CPU its
    backward pass corrupts memory for few channels in channels-last order (github.com/uxlfoundation/oneDNN/issues/6035).

    Args:
        channels_in: of the input.
        channels_out: of the output.
        stride: 1 or 2.
        groups: of the normalisation.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels_in, channels_out, 3, stride),
            group_norm(channels_out, groups),
            nn.ReLU(),
            convolution(channels_out, channels_out, 3),
            group_norm(channels_out, groups),
        )
        self.shortcut = shortcut(channels_in, channels_out, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(example, channel, y, x) in, the same with `channels_out` and size / stride out."""
        total: Tensor = self.body(features) + self.shortcut(features)
        return total.relu()


def shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """The identity, or mean pool and 1x1 projection where the shape changes."""
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(channels_in, channels_out, kernel_size=1))
