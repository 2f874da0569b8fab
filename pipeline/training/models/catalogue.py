"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.contracts.network_config import NetworkSection
from pipeline.training.models.bottleneck_resnet import BottleneckResNet
from pipeline.training.models.efficientnet import EfficientNetV2S
from pipeline.training.models.lens_resnet import LensResNet
from pipeline.training.models.resnet18 import ResNet18
from pipeline.training.models.staged import StagedNetwork
from pipeline.training.models.timm_network import PREFIX, TimmNetwork

_BUILDERS: dict[str, Callable[..., StagedNetwork]] = {
    "lens_resnet": LensResNet,
    "bottleneck_resnet": BottleneckResNet,
    "resnet18": ResNet18,
    "efficientnet_v2_s": EfficientNetV2S,
}


def build_network(section: NetworkSection, n_bands: int, n_features: int = 0) -> StagedNetwork:
    """A network with fresh weights, drawn from torch's global generator.

    Args:
        section: name and width.
        n_bands: bands of a stamp.
        n_features: numbers that the head sees beside the maps' means.

    Raises:
        ConfigError: a network of timm that cannot be had.
    """
    if section.name.startswith(PREFIX):
        return TimmNetwork(section.name.removeprefix(PREFIX), n_bands, n_features)
    widths = {} if section.base_channels is None else {"base_channels": section.base_channels}
    return _BUILDERS[section.name](n_bands, n_features=n_features, **widths)


def count_parameters(network: StagedNetwork) -> int:
    """Number of weights that are trained."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
