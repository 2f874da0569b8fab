"""Augmentation moves pixels; it changes nothing else."""

from __future__ import annotations

import torch

from pipeline.training.augment import augment, augmentation_generator


def _stamps(n: int = 64, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) + 1.0


def test_every_stamp_keeps_its_pixels_in_each_band() -> None:
    """The sorted pixels of every stamp and band are unchanged, and so is the input."""
    stamps = _stamps()
    before = stamps.clone()
    moved = augment(stamps, augmentation_generator(1, 0))
    assert torch.equal(moved.flatten(2).sort(dim=2).values, stamps.flatten(2).sort(dim=2).values)
    assert torch.equal(stamps, before)
    assert not torch.equal(moved, stamps)


def test_all_eight_symmetries_occur_equally_often() -> None:
    """4000 copies of one stamp become 8 pictures, each 500 times within 5 sigma."""
    stamp = _stamps(1, 4).expand(4000, -1, -1, -1)
    moved = augment(stamp, augmentation_generator(2, 0))
    _, counts = moved.flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert int((counts - 500).abs().max()) < 5 * 21


def test_bands_move_together() -> None:
    """Equal bands stay equal."""
    stamps = _stamps()[:, :1].expand(-1, 3, -1, -1)
    moved = augment(stamps, augmentation_generator(3, 0))
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_augmentation_follows_seed_and_epoch_only() -> None:
    """Same seed and epoch repeat; another epoch or seed differs; the global generator plays no part."""
    stamps = _stamps()
    first = augment(stamps, augmentation_generator(6, 0))
    torch.manual_seed(99)
    assert torch.equal(first, augment(stamps, augmentation_generator(6, 0)))
    assert not torch.equal(first, augment(stamps, augmentation_generator(6, 1)))
    assert not torch.equal(first, augment(stamps, augmentation_generator(7, 0)))
