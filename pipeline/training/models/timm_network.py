"""Any convolutional network of timm, `timm:NAME`, where that package is installed; nothing here depends on it.

Its batch normalisations become normalisations by groups and its random layers go, so that what holds for our own
networks (`staged.py`) holds for these: a score depends on one stamp, and a step on nothing that is not keyed.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from pipeline.contracts.errors import ConfigError
from pipeline.training.models.staged import StagedNetwork, group_norm

PREFIX = "timm:"
_GROUPS = 32
_TRIED_SIZE_PX = 64


class TimmNetwork(StagedNetwork):
    """The convolutions of a timm network as one stage, mean pool, one logit.

    Args:
        name: as in `timm.list_models()`; the weights are fresh.
        n_bands: bands of a stamp.
        n_features: numbers that the head sees beside the maps' means.

    Raises:
        ConfigError: timm is not installed, has no such network, or the network gives no feature maps at 64 px.
    """

    def __init__(self, name: str, n_bands: int, n_features: int = 0) -> None:
        body = _body(name, n_bands)
        replace_layers(body)
        width = _maps_width(name, body, n_bands)
        super().__init__(nn.Identity(), [FeatureMaps(body)], width, n_features)


class FeatureMaps(nn.Module):
    """What a timm network computes before its pool."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, stamps: Tensor) -> Tensor:
        """(example, band, y, x) to (example, channel, y, x)."""
        maps: Tensor = self.body.forward_features(stamps)  # type: ignore[operator]
        return maps


def replace_layers(body: nn.Module) -> None:
    """Put groups in the place of batches, with the activation that timm ties to them, and nothing where dropout was."""
    for name, child in body.named_children():
        if isinstance(child, nn.BatchNorm2d):
            tied = getattr(child, "act", None)
            norm = group_norm(child.num_features, _GROUPS)
            setattr(body, name, norm if tied is None else nn.Sequential(norm, tied))
        elif isinstance(child, nn.Dropout | nn.Dropout2d) or hasattr(child, "drop_prob"):
            setattr(body, name, nn.Identity())
        else:
            replace_layers(child)


def _body(name: str, n_bands: int) -> nn.Module:
    try:
        package = importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(
            f"training.network.name {PREFIX}{name} needs the package timm, which cannot be imported ({error}); "
            "pip install timm, or take a network of `dhs models`"
        ) from error
    try:
        body: nn.Module = package.create_model(name, pretrained=False, in_chans=n_bands, num_classes=0)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"training.network.name {PREFIX}{name}: timm {package.__version__} says {error}") from error
    return body


def _maps_width(name: str, body: nn.Module, n_bands: int) -> int:
    """Channels of the feature maps."""
    expected = (
        f"training.network.name {PREFIX}{name}: expected maps (stamp, channel, y, x) of {_TRIED_SIZE_PX} px stamps"
    )
    try:
        with torch.no_grad():
            shape = FeatureMaps(body)(torch.zeros(1, n_bands, _TRIED_SIZE_PX, _TRIED_SIZE_PX)).shape
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{expected}, got: {error}") from error
    if len(shape) != 4 or shape[1] != body.num_features:
        raise ConfigError(f"{expected}, got {tuple(shape)}; such a network is not convolutional")
    return int(shape[1])
