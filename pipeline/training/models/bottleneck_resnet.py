"""A small residual network of bottleneck blocks with about 195,000 parameters.

That is the size of the network of the DESI Legacy Surveys lens searches (Huang et al. 2020, 2021; Storfer et al. 2024;
Inchausti et al. 2025, arXiv:2508.20087), which goes back to Lanusse et al. (2018), arXiv:1703.02642: 1x1 convolutions
reduce the channels before and restore them after the 3x3 ones. The exact layer list of the searches is not published
with them; depth and widths here are chosen to meet its size.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.training.models.staged import StagedNetwork, convolution, group_norm, shortcut

BASE_CHANNELS = 27
# Inner and outer channels of each stage in units of the base, and its stride.
_STAGES = ((1, 2, 1), (1, 4, 2), (2, 8, 2), (2, 8, 2))
_GROUPS = 9


class BottleneckBlock(nn.Module):
    """1x1 to the inner channels, 3x3 with the stride, 1x1 to the outer ones, beside a shortcut.

    Args:
        channels_in: of the input.
        channels_inner: of the 3x3 convolution.
        channels_out: of the output.
        stride: 1 or 2.
    """

    def __init__(self, channels_in: int, channels_inner: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels_in, channels_inner, 1),
            group_norm(channels_inner, _GROUPS),
            nn.ReLU(),
            convolution(channels_inner, channels_inner, 3, stride),
            group_norm(channels_inner, _GROUPS),
            nn.ReLU(),
            convolution(channels_inner, channels_out, 1),
            group_norm(channels_out, _GROUPS),
        )
        self.shortcut = shortcut(channels_in, channels_out, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(example, channel, y, x) in, the same with `channels_out` and size / stride out."""
        total: Tensor = self.body(features) + self.shortcut(features)
        return total.relu()


class BottleneckResNet(StagedNetwork):
    """5x5 stem of stride 2 and four bottleneck stages.

    Args:
        n_bands: bands of a stamp.
        base_channels: channels c of the stem.
        n_features: numbers that the head sees beside the maps' means.
    """

    def __init__(self, n_bands: int, base_channels: int = BASE_CHANNELS, n_features: int = 0) -> None:
        stem = nn.Sequential(convolution(n_bands, base_channels, 5, 2), group_norm(base_channels, _GROUPS), nn.ReLU())
        stages: list[nn.Module] = []
        width = base_channels
        for inner, outer, stride in _STAGES:
            stages.append(BottleneckBlock(width, inner * base_channels, outer * base_channels, stride))
            width = outer * base_channels
        super().__init__(stem, stages, width, n_features)
