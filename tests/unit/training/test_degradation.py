"""Degraded centres: what each kind leaves, equal treatment of the classes, and what a network then lives on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contracts.survey import MAD_TO_SIGMA
from pipeline.contracts.training_config import PreprocessSection, TrainingSection
from pipeline.stages.evaluation import auc
from pipeline.training.degradation import core_blend, degrade_centres
from pipeline.training.processes import World, configure_torch
from pipeline.training.train import train

SIZE = 24
SPEC = PreprocessSection(annulus_px=(8.0, 12.0))


def _training(epochs: int = 4, **section: object) -> TrainingSection:
    degradation = {"radius_px": 4, "probability": 1.0, **section}
    return TrainingSection.model_validate(
        {
            "epochs": epochs,
            "batch_size": 16,
            "network": {"base_channels": 4},
            "augment": {"symmetries": True},
            "learning_rate": 5e-3,
            "preprocess": SPEC,
        }
        | {"centre_degradation": degradation}
    )


def _sky(n: int = 64, seed: int = 0) -> torch.Tensor:
    """Normalised stamps of sky: median 0 and MAD 1."""
    drawn = np.random.default_rng(seed).normal(0.0, MAD_TO_SIGMA, (n, 3, SIZE, SIZE))
    return torch.from_numpy(drawn.astype(np.float32))


def _radius() -> torch.Tensor:
    offset = torch.arange(SIZE) - SIZE // 2
    return torch.hypot(offset[:, None].double(), offset[None, :].double())


def test_blend_is_one_in_the_core_and_falls_softly_to_zero() -> None:
    """1 inside the radius, a half at the middle of the edge, 0 beyond it, falling with r; edge 0 is a hard disc."""
    training = _training(radius_px=4, edge_px=4)
    assert training.centre_degradation is not None
    weight, radius = core_blend(SIZE, training.centre_degradation), _radius()
    assert bool((weight[radius <= 4] == 1).all())
    assert bool((weight[radius >= 8] == 0).all())
    assert float(weight[SIZE // 2, SIZE // 2 + 6]) == pytest.approx(0.5)
    order = radius.flatten().argsort()
    assert bool((weight.flatten()[order].diff() <= 0).all())
    hard = training.centre_degradation.model_copy(update={"edge_px": 0.0})
    assert torch.equal(core_blend(SIZE, hard), (radius < 4).float())


@pytest.mark.parametrize("kind", ["mask", "noise", "blur"])
def test_only_the_core_changes_and_the_input_is_kept(kind: str) -> None:
    """Pixels beyond radius and edge keep their bits, pixels within the radius do not; the input is not written to."""
    stamps, row = _sky() + 3.0, torch.arange(64)
    before = stamps.clone()
    got = degrade_centres(stamps, row, _training(kinds=[kind]), 1, 0)
    outside = _radius() >= 6
    assert torch.equal(got[:, :, outside], stamps[:, :, outside])
    assert bool((got[:, :, _radius() < 4] != stamps[:, :, _radius() < 4]).all())
    assert torch.equal(stamps, before)


def test_mask_leaves_the_sky_level_in_proportion_to_its_strength() -> None:
    """Strength 1 leaves 0 in the core; strength 0.25 leaves three quarters of it; strength 0 every bit."""
    stamps, row = _sky(8) + 3.0, torch.arange(8)
    core = _radius() < 4
    assert bool((degrade_centres(stamps, row, _training(), 1, 0)[:, :, core] == 0).all())
    partly = degrade_centres(stamps, row, _training(strength=0.25), 1, 0)
    torch.testing.assert_close(partly[:, :, core], 0.75 * stamps[:, :, core])
    assert torch.equal(degrade_centres(stamps, row, _training(strength=0.0), 1, 0), stamps)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_noise_is_the_stamps_own_sky(strength: float) -> None:
    """In pure sky the variance after it is the sky's in core, edge and outside, so the place leaves no trace."""
    stamps = _sky(512)
    got = degrade_centres(stamps, torch.arange(512), _training(kinds=["noise"], strength=strength, edge_px=3), 1, 0)
    for low, high in ((0, 4), (4, 7), (7, 12)):
        ring = (_radius() >= low) & (_radius() < high)
        assert float(got[:, :, ring].std()) == pytest.approx(MAD_TO_SIGMA, rel=0.02)
    core = _radius() < 4
    kept = torch.corrcoef(torch.stack([got[:, :, core].flatten(), stamps[:, :, core].flatten()]))[0, 1]
    assert float(kept) == pytest.approx(1.0 - strength, abs=0.03)


def test_blur_is_a_gaussian_that_keeps_a_flat_stamp() -> None:
    """A constant stays; a point becomes exp(-r**2 / 2 sigma**2) / (2 pi sigma**2)."""
    training = _training(kinds=["blur"], blur_sigma_px=2.0)
    flat = torch.full((1, 3, SIZE, SIZE), 2.5)
    torch.testing.assert_close(degrade_centres(flat, torch.zeros(1, dtype=torch.int64), training, 1, 0), flat)
    point = torch.zeros(1, 3, SIZE, SIZE)
    point[..., SIZE // 2, SIZE // 2] = 8.0
    got = degrade_centres(point, torch.zeros(1, dtype=torch.int64), training, 1, 0)
    expected = 8.0 * torch.exp(-(_radius() ** 2) / 8.0) / (8.0 * torch.pi)
    inside = _radius() < 4
    torch.testing.assert_close(got[0, 1][inside], expected[inside].float(), rtol=1e-3, atol=1e-6)


def test_what_comes_out_stays_within_the_clip() -> None:
    """Noise on a saturated host does not leave the range of the normalisation."""
    stamps = torch.full((200, 3, SIZE, SIZE), SPEC.clip)
    got = degrade_centres(stamps, torch.arange(200), _training(kinds=["noise"], strength=0.3), 1, 0)
    assert float(got.max()) == SPEC.clip
    assert float(got.min()) >= -SPEC.clip


def test_probability_and_kinds_are_shared_out_as_asked() -> None:
    """Of 4000 stamps a share of 0.3 is degraded, half of these by each kind, within 5 sigma."""
    stamps = torch.full((4000, 1, SIZE, SIZE), 2.0)
    training = _training(kinds=["mask", "noise"], probability=0.3, edge_px=0)
    core = degrade_centres(stamps, torch.arange(4000), training, 1, 0)[:, 0, SIZE // 2, SIZE // 2]
    masked, noisy = int((core == 0).sum()), int(((core != 0) & (core != 2)).sum())
    assert abs(masked + noisy - 1200) < 5 * 29
    assert abs(masked - 600) < 5 * 23


def test_both_stamps_of_a_row_are_treated_alike_whatever_the_batch() -> None:
    """Injected stamp and control of a row get the same decision, kind and noise, in any order and batch."""
    row = torch.arange(100).repeat_interleave(2)
    stamps = _sky(100).repeat_interleave(2, dim=0)
    training = _training(kinds=["mask", "noise", "blur"], probability=0.5)
    got = degrade_centres(stamps, row, training, 3, 2)
    assert torch.equal(got[0::2], got[1::2])
    assert 20 < int((got[0::2] != stamps[0::2]).flatten(1).any(dim=1).sum()) < 80
    order = np.random.default_rng(0).permutation(200)
    parts = [degrade_centres(stamps[part], row[part], training, 3, 2) for part in np.array_split(order, 7)]
    torch.testing.assert_close(torch.cat(parts), got[order], rtol=0, atol=1e-6)


def test_randomness_follows_seed_epoch_and_row_only() -> None:
    """The same key repeats bit for bit whatever global generators did; another seed, epoch or row differs."""
    stamps, row = _sky(), torch.arange(64)
    training = _training(kinds=["noise"])
    first = degrade_centres(stamps, row, training, 2**62, 1)
    torch.manual_seed(9)
    assert torch.equal(first, degrade_centres(stamps, row, training, 2**62, 1))
    for seed, epoch, shift in ((2**62 + 1, 1, 0), (2**62, 2, 0), (2**62, 1, 1)):
        assert not torch.equal(first, degrade_centres(stamps, row + shift, training, seed, epoch))


def test_schedule_of_probability_and_strength_is_followed() -> None:
    """Epoch 0 of a ramp from 0 changes nothing, its end masks in full, its middle by half."""
    stamps, row = _sky(8) + 3.0, torch.arange(8)
    ramp = {"start": 0.0, "end": 1.0, "first_epoch": 0, "last_epoch": 2}
    for name in ("probability", "strength"):
        training = _training(**{name: ramp})
        assert torch.equal(degrade_centres(stamps, row, training, 1, 0), stamps)
        assert bool((degrade_centres(stamps, row, training, 1, 2)[:, :, _radius() < 4] == 0).all())
    half = degrade_centres(stamps, row, _training(strength=ramp), 1, 1)
    torch.testing.assert_close(half[:, :, _radius() < 4], 0.5 * stamps[:, :, _radius() < 4])


CORE, RING = (
    4.0 * np.exp(-(_radius().numpy() ** 2) / 8.0),
    np.exp(-((_radius().numpy() - 9.0) ** 2) / 2.0),
)


def _planted(make_feed: Callable[..., Any], n: int, seed: int) -> Any:
    """Sky; positives have a bright core, which is the easy tell, and a faint ring, which is the harder one."""
    label = (np.arange(n) % 2).astype(np.uint8)
    stamps = _sky(n, seed).numpy()
    stamps += (label[:, None, None, None] * (CORE + RING)).astype(np.float32)
    return make_feed(stamps, label, np.arange(n) // 2)


def test_planted_bright_core_is_used_less(make_feed: Callable[..., Any]) -> None:
    """Shown all centres the network lives on the core and is blind to a ring alone; with half of them hidden it is not.

    What it makes of a core alone falls too.
    """
    world = World(configure_torch(1))
    feeds = {"train": _planted(make_feed, 160, 1), "val": _planted(make_feed, 60, 2)}
    sky, other = _sky(100, 3).numpy(), _sky(100, 5).numpy()
    ring_auc, core_gain = [], []
    for probability in (0.0, 0.5):
        result = train(feeds, _training(8, radius_px=6, probability=probability), 4, world)
        core, ring, none, empty = (
            result.scorer.logits(stamps.astype(np.float32)) for stamps in (sky + CORE, sky + RING, sky, other)
        )
        ring_auc.append(auc(np.repeat([1, 0], 100), np.concatenate([ring, empty])))
        core_gain.append(float((core - none).mean()))
    assert ring_auc[0] < 0.7
    assert ring_auc[1] > 0.9
    assert core_gain[1] < 0.75 * core_gain[0]
