"""ResNet-18 of He et al. (2016), arXiv:1512.03385, with a stem for stamps of about 64 px.

The stem of the paper divides the size by four before the first block; an arc of one seeing disc would be lost there.
Here it is one 3x3 convolution, so that the stages see 64, 32, 16 and 8 px.
"""

from __future__ import annotations

import itertools

from torch import nn

from pipeline.training.models.staged import ResidualBlock, StagedNetwork, convolution, group_norm

BASE_CHANNELS = 64
_GROUPS = 32


class ResNet18(StagedNetwork):
    """Four stages of two basic blocks with c, 2c, 4c, 8c channels; every stage but the first halves the size.

    Args:
        n_bands: bands of a stamp.
        base_channels: channels c of the stem and first stage.
        n_features: numbers that the head sees beside the maps' means.
    """

    def __init__(self, n_bands: int, base_channels: int = BASE_CHANNELS, n_features: int = 0) -> None:
        widths = [base_channels, *(base_channels * 2**stage for stage in range(4))]
        stem = nn.Sequential(convolution(n_bands, base_channels, 3), group_norm(base_channels, _GROUPS), nn.ReLU())
        stages: list[nn.Module] = [
            nn.Sequential(
                ResidualBlock(width_in, width, 1 if number == 0 else 2, _GROUPS),
                ResidualBlock(width, width, 1, _GROUPS),
            )
            for number, (width_in, width) in enumerate(itertools.pairwise(widths))
        ]
        super().__init__(stem, stages, widths[-1], n_features)
