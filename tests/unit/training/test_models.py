"""The networks: sizes, gradients, and that a stamp's logit is its own."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pipeline.contracts.errors import ConfigError
from pipeline.contracts.network_config import NETWORKS, NetworkSection
from pipeline.training.models.bottleneck_resnet import BottleneckResNet
from pipeline.training.models.catalogue import build_network, count_parameters
from pipeline.training.models.efficientnet import EfficientNetV2S
from pipeline.training.models.lens_resnet import LensResNet
from pipeline.training.models.resnet18 import ResNet18
from pipeline.training.models.staged import placed
from pipeline.training.models.timm_network import replace_layers

CPU = torch.device("cpu")
# Widths small enough for a test, by network.
NARROW = {"lens_resnet": 4, "bottleneck_resnet": 9, "resnet18": 8, "efficientnet_v2_s": 8}


def narrow(name: str, n_features: int = 0, n_bands: int = 3) -> torch.nn.Module:
    """A narrow network with fixed weights, placed as in training."""
    torch.manual_seed(0)
    section = NetworkSection.model_validate({"name": name, "base_channels": NARROW[name]})
    return placed(build_network(section, n_bands, n_features), CPU)


@pytest.mark.parametrize(
    ("network", "low", "high"),
    [
        (LensResNet, 174_000, 176_000),
        (BottleneckResNet, 190_000, 200_000),
        (ResNet18, 11_100_000, 11_200_000),
        (EfficientNetV2S, 20_000_000, 21_500_000),
    ],
)
def test_published_sizes_are_met(network: type, low: int, high: int) -> None:
    """ResNet-18 has 11.2 million weights, the network of the DESI searches about 195,000, EfficientNetV2-S 20.2."""
    with torch.device("meta"):
        assert low < count_parameters(network(3)) < high


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_of_single_stamps_and_gradients_are_finite(name: str) -> None:
    """A stamp has the same logit in any company; backward through channels-last stamps is finite for every weight."""
    network, stamps = narrow(name), torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits = network(stamps)
    assert logits.shape == (6,)
    torch.testing.assert_close(network(stamps[2:4]), logits[2:4], rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    for weight_name, weight in network.named_parameters():
        assert weight.grad is not None, weight_name
        assert bool(torch.isfinite(weight.grad).all()), weight_name


@pytest.mark.parametrize("name", NETWORKS)
def test_embeddings_end_in_what_the_head_sees(name: str) -> None:
    """The last stage's mean through the head is the logit; features enter there and nowhere else."""
    network, stamps = narrow(name, n_features=2), torch.randn(3, 3, 32, 32)
    stages = network.embed(stamps)
    beside = torch.randn(3, 2)
    torch.testing.assert_close(network.head(torch.cat([stages[-1], beside], 1)).squeeze(1), network(stamps, beside))
    assert not torch.allclose(network(stamps, beside), network(stamps, beside + 1.0))
    assert [len(stage) for stage in stages] == [3] * len(stages)


@pytest.mark.parametrize("base_channels", [4, 12, 16])
def test_backward_pass_is_finite_for_narrow_networks(base_channels: int) -> None:
    """Strided 1x1 convolutions would corrupt memory here; the mean pool does not."""
    torch.manual_seed(0)
    network, stamps = LensResNet(3, base_channels), torch.randn(32, 3, 64, 64)
    network(stamps).sum().backward()
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in network.parameters())


def test_other_bands_and_sizes_work() -> None:
    """One band and 48 px, five bands and 40 px."""
    for n_bands, size in ((1, 48), (5, 40)):
        assert narrow("bottleneck_resnet", n_bands=n_bands)(torch.randn(2, n_bands, size, size)).shape == (2,)


def test_batches_and_chance_are_taken_out_of_foreign_networks() -> None:
    """Groups in their place, an activation that was tied to them kept; a stamp's logit is its own, in training too."""
    tied = nn.BatchNorm2d(8)
    tied.act = nn.ReLU()
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3), tied, nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.Dropout(0.5))
    )
    replace_layers(body)
    kinds = [type(part) for part in body.modules()]
    assert kinds.count(nn.GroupNorm) == 2
    assert kinds.count(nn.ReLU) == 1
    assert not {nn.BatchNorm2d, nn.Dropout} & set(kinds)
    stamps = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(body.train()(stamps)[1:2], body(stamps[1:2]))


def test_networks_of_timm_are_built_where_it_is_installed() -> None:
    """Without the package, with an unknown name or without maps: an error that says so; a width is not taken."""
    section = NetworkSection(name="timm:resnet10t")
    with pytest.raises(ValidationError, match="has the width of its name"):
        NetworkSection(name="timm:resnet10t", base_channels=8)
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(ConfigError, match="timm:resnet10t needs the package timm"):
            build_network(section, 3)
        return
    network = placed(build_network(section, 3, n_features=2), CPU)
    stamps, beside = torch.randn(3, 3, 64, 64), torch.randn(3, 2)
    torch.testing.assert_close(network(stamps[:1], beside[:1]), network(stamps, beside)[:1], rtol=1e-4, atol=1e-5)
    for name, reason in (("no_such_network", "Unknown model"), ("vit_tiny_patch16_224", "expected maps")):
        with pytest.raises(ConfigError, match=reason):
            build_network(NetworkSection(name=f"timm:{name}"), 3)
