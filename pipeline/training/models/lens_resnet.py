"""The small network of the demo: a residual network for 64-px stamps that trains in minutes on a CPU."""

from __future__ import annotations

import itertools

from torch import nn

from pipeline.training.models.staged import ResidualBlock, StagedNetwork, convolution, group_norm

BASE_CHANNELS = 16
_BLOCKS = 2
_GROUPS = 4


class LensResNet(StagedNetwork):
    """3x3 stem, three stages of two basic blocks (c, 2c, 4c channels, stride 2 each), mean pool, one logit.

    Args:
        n_bands: bands of a stamp.
        base_channels: channels c of the stem and first stage.
        n_features: numbers that the head sees beside the maps' means.
    """

    def __init__(self, n_bands: int, base_channels: int = BASE_CHANNELS, n_features: int = 0) -> None:
        widths = [base_channels, base_channels, 2 * base_channels, 4 * base_channels]
        stem = nn.Sequential(convolution(n_bands, base_channels, 3), group_norm(base_channels, _GROUPS), nn.ReLU())
        stages: list[nn.Module] = [
            nn.Sequential(
                ResidualBlock(width_in, width, 2, _GROUPS),
                *(ResidualBlock(width, width, 1, _GROUPS) for _ in range(_BLOCKS - 1)),
            )
            for width_in, width in itertools.pairwise(widths)
        ]
        super().__init__(stem, stages, widths[-1], n_features)
