"""EfficientNetV2-S of Tan & Le (2021), arXiv:2104.00298, Table 4, for stamps of about 64 px.

Differences from the paper: the stem keeps the size, as a 64-px stamp divided by 32 would end at 2 px; normalisation by
groups within a stamp; neither dropout nor stochastic depth (see `staged`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.training.models.staged import StagedNetwork, convolution, group_norm

BASE_CHANNELS = 24
HEAD_CHANNELS = 1280
_GROUPS = 8
_SQUEEZE = 4


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table.

    Attributes:
        expansion: inner over outer channels.
        channels: of the output, for 24 channels in the stem.
        blocks: number of blocks; the first carries the stride.
        stride: 1 or 2.
        fused: one 3x3 convolution in place of 1x1 and depthwise 3x3 with squeeze and excitation.
    """

    expansion: int
    channels: int
    blocks: int
    stride: int
    fused: bool


STAGES = (
    Stage(1, 24, 2, 1, fused=True),
    Stage(4, 48, 4, 2, fused=True),
    Stage(4, 64, 4, 2, fused=True),
    Stage(4, 128, 6, 2, fused=False),
    Stage(6, 160, 9, 1, fused=False),
    Stage(6, 256, 15, 2, fused=False),
)


class SqueezeExcitation(nn.Module):
    """Each channel times a weight that follows from the means of all of them (Hu et al. 2018, arXiv:1709.01507).

    Args:
        channels: of input and output.
        squeezed: of the hidden layer.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Linear(channels, squeezed), nn.SiLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(example, channel, y, x) in and out."""
        weighted: Tensor = features * self.weights(features.mean(dim=(2, 3)))[:, :, None, None]
        return weighted


class InvertedBlock(nn.Module):
    """MBConv or fused MBConv, beside an identity where the shape stays.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        stride: 1 or 2.
        stage: expansion and kind.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, stage: Stage) -> None:
        super().__init__()
        inner = channels_in * stage.expansion
        layers: list[nn.Module] = []
        if stage.fused:
            first = inner if stage.expansion > 1 else channels_out
            layers += [convolution(channels_in, first, 3, stride), group_norm(first, _GROUPS), nn.SiLU()]
        else:
            layers += [convolution(channels_in, inner, 1), group_norm(inner, _GROUPS), nn.SiLU()]
            layers += [convolution(inner, inner, 3, stride, groups=inner), group_norm(inner, _GROUPS), nn.SiLU()]
            layers += [SqueezeExcitation(inner, max(channels_in // _SQUEEZE, 1))]
        if stage.expansion > 1 or not stage.fused:
            layers += [convolution(inner, channels_out, 1), group_norm(channels_out, _GROUPS)]
        self.body = nn.Sequential(*layers)
        self.is_residual = stride == 1 and channels_in == channels_out

    def forward(self, features: Tensor) -> Tensor:
        """(example, channel, y, x) in, the same with `channels_out` and size / stride out."""
        changed: Tensor = self.body(features)
        return features + changed if self.is_residual else changed


class EfficientNetV2S(StagedNetwork):
    """Stem, six stages, a 1x1 convolution to 1280 channels, mean pool, one logit.

    Args:
        n_bands: bands of a stamp.
        base_channels: channels of the stem; all others follow in proportion, in multiples of 8.
        n_features: numbers that the head sees beside the maps' means.
    """

    def __init__(self, n_bands: int, base_channels: int = BASE_CHANNELS, n_features: int = 0) -> None:
        def scaled(channels: int) -> int:
            return max(8, round(channels * base_channels / BASE_CHANNELS / 8) * 8)

        width = scaled(BASE_CHANNELS)
        stem = nn.Sequential(convolution(n_bands, width, 3), group_norm(width, _GROUPS), nn.SiLU())
        stages: list[nn.Module] = []
        for stage in STAGES:
            channels = scaled(stage.channels)
            blocks = []
            for number in range(stage.blocks):
                blocks.append(InvertedBlock(width, channels, stage.stride if number == 0 else 1, stage))
                width = channels
            stages.append(nn.Sequential(*blocks))
        head = scaled(HEAD_CHANNELS)
        last = nn.Sequential(convolution(width, head, 1), group_norm(head, _GROUPS), nn.SiLU())
        super().__init__(stem, [*stages[:-1], nn.Sequential(stages[-1], last)], head, n_features)
