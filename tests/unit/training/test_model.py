"""The network: shape, size, independence of neighbours, capacity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.training.model import LensResNet, predict_embeddings, predict_logits

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n_bands", "base_channels", "size"), [(1, 4, 32), (3, 16, 64), (2, 27, 48)])
def test_one_logit_per_stamp(n_bands: int, base_channels: int, size: int) -> None:
    """(example, band, y, x) becomes (example) float32, for widths that are no multiple of 4 too."""
    logits = LensResNet(n_bands, base_channels)(torch.randn(5, n_bands, size, size))
    assert logits.shape == (5,)
    assert logits.dtype == torch.float32


def test_network_is_small() -> None:
    """The default width has between 100,000 and 500,000 parameters."""
    assert 100_000 < sum(parameter.numel() for parameter in LensResNet(3, 16).parameters()) < 500_000


@pytest.mark.parametrize("base_channels", [4, 8, 12, 16])
def test_backward_pass_is_finite_for_narrow_networks(base_channels: int) -> None:
    """Repeated gradients of few channels stay finite and equal."""
    torch.manual_seed(0)
    model, stamps = LensResNet(3, base_channels), torch.randn(32, 3, 64, 64)
    norms = []
    for _ in range(4):
        model.zero_grad()
        torch.autograd.backward(model(stamps).square().mean())
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item())
    assert np.isfinite(norms).all()
    assert len(set(norms)) == 1


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    """A stamp scores the same alone and beside others, in training mode too: nothing is shared in a batch."""
    torch.manual_seed(1)
    model, stamps = LensResNet(3, 8).train(), torch.randn(6, 3, 32, 32)
    alone = torch.cat([model(stamp[None]) for stamp in stamps])
    assert torch.allclose(model(stamps), alone, atol=1e-5)


def test_prediction_keeps_order_over_batches() -> None:
    """Batches of 4 over 10 stamps give the logits of one pass, in order, without gradients."""
    torch.manual_seed(2)
    model = LensResNet(3, 8)
    stamps = np.random.default_rng(2).normal(size=(10, 3, 32, 32)).astype(np.float32)
    logits = predict_logits(model, stamps, CPU, batch_size=4)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, model(torch.from_numpy(stamps)).numpy(), atol=1e-5)
    assert logits.dtype == np.float32


def test_network_can_overfit_32_random_stamps() -> None:
    """Noise with random labels is learned by heart, so capacity and gradients are sound."""
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(3)
    stamps = torch.randn(32, 3, 32, 32, generator=generator)
    label = (torch.arange(32) % 2).float()
    model = LensResNet(3, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(model(stamps), label)
        torch.autograd.backward(loss)
        optimizer.step()
    assert loss.item() < 0.05
    assert torch.equal(model(stamps) > 0, label > 0.5)


def test_embeddings_are_the_features_of_each_stage_and_the_head_reads_the_last() -> None:
    """One vector per stage, c, 2c and 4c wide; the head on the last gives the logits; batches do not matter."""
    torch.manual_seed(0)
    model = LensResNet(3, 4).eval()
    stamps = np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)
    layers = predict_embeddings(model, stamps, CPU)
    assert [layer.shape for layer in layers] == [(5, 4), (5, 8), (5, 16)]
    with torch.inference_mode():
        logits = model.head(torch.from_numpy(layers[-1])).squeeze(1).numpy()
    np.testing.assert_allclose(logits, predict_logits(model, stamps, CPU), atol=1e-6)
    again = predict_embeddings(model, stamps, CPU, batch_size=2)
    for one, other in zip(layers, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
