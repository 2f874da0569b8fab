"""Augmentation moves and scales; what it does follows from the row and never from the class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.contracts.network_config import AugmentSection
from pipeline.training.augment import augment

PLAIN = AugmentSection()
ALL = AugmentSection(shift_px=3, brightness=0.2, colour=0.1)


def _stamps(n: int = 64, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) + 1.0


def _augment(stamps: torch.Tensor, section: AugmentSection = PLAIN, seed: int = 1, epoch: int = 0) -> torch.Tensor:
    return augment(stamps, torch.arange(len(stamps)), section, 10.0, seed, epoch)


def test_every_stamp_keeps_its_pixels_in_each_band() -> None:
    """The sorted pixels of every stamp and band are unchanged by the symmetries, and so is the input."""
    stamps = _stamps()
    before = stamps.clone()
    moved = _augment(stamps)
    assert torch.equal(moved.flatten(2).sort(dim=2).values, stamps.flatten(2).sort(dim=2).values)
    assert torch.equal(stamps, before)
    assert not torch.equal(moved, stamps)


def test_all_eight_symmetries_occur_equally_often() -> None:
    """4000 copies of one stamp become 8 pictures, each 500 times within 5 sigma."""
    moved = _augment(_stamps(1, 4).expand(4000, -1, -1, -1))
    _, counts = moved.flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert int((counts - 500).abs().max()) < 5 * 21


def test_bands_move_together() -> None:
    """Equal bands stay equal under symmetries and shifts."""
    moved = _augment(_stamps()[:, :1].expand(-1, 3, -1, -1), AugmentSection(shift_px=3))
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_shift_is_by_whole_pixels_and_mirrors_the_edge() -> None:
    """A ramp comes out as the ramp moved by -2 to 2, every step equally often, with what comes in mirrored."""
    size = 9
    ramp = torch.arange(float(size)).expand(2000, 1, size, size)
    moved = _augment(ramp, AugmentSection(symmetries=False, shift_px=2))
    steps = moved[:, 0, 0, size // 2] - size // 2
    values, counts = steps.unique(return_counts=True)
    assert values.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert int((counts - 400).abs().max()) < 5 * 18
    assert moved[steps == 2][0, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 7, 6]
    assert moved[steps == -2][0, 0, 0].tolist() == [2, 1, 0, 1, 2, 3, 4, 5, 6]


def test_jitter_scales_bands_as_asked_and_keeps_the_clip() -> None:
    """Factors are lognormal: one of sigma 0.2 for all bands, one of 0.1 for each; nothing leaves the clip."""
    stamps = torch.ones(20_000, 2, 1, 1)
    logs = torch.log(_augment(stamps, AugmentSection(symmetries=False, brightness=0.2, colour=0.1)).flatten(1))
    assert float(logs[:, 0].std()) == pytest.approx(np.hypot(0.2, 0.1), rel=0.03)
    assert float((logs[:, 0] - logs[:, 1]).std()) == pytest.approx(0.1 * 2**0.5, rel=0.03)
    assert float(_augment(9.9 * stamps, AugmentSection(brightness=0.5)).max()) == 10.0


def test_both_stamps_of_a_row_are_treated_alike_in_any_batch() -> None:
    """What a row gets does not depend on batch or order, so a pair stays a pair."""
    row = torch.arange(40).repeat_interleave(2)
    stamps = _stamps(40).repeat_interleave(2, dim=0)
    got = augment(stamps, row, ALL, 10.0, 3, 2)
    assert torch.equal(got[0::2], got[1::2])
    order = torch.randperm(80, generator=torch.Generator().manual_seed(2))
    parts = [augment(stamps[part], row[part], ALL, 10.0, 3, 2) for part in order.split(11)]
    assert torch.equal(torch.cat(parts), got[order])


def test_augmentation_follows_seed_and_epoch_only() -> None:
    """Same seed and epoch repeat; another epoch or seed differs; the global generator plays no part."""
    stamps = _stamps()
    first = _augment(stamps, ALL, 6, 0)
    torch.manual_seed(99)
    assert torch.equal(first, _augment(stamps, ALL, 6, 0))
    assert not torch.equal(first, _augment(stamps, ALL, 6, 1))
    assert not torch.equal(first, _augment(stamps, ALL, 7, 0))


def test_nothing_asked_is_nothing_done() -> None:
    """Without symmetries, shift and jitter every bit stays."""
    stamps = _stamps()
    assert torch.equal(_augment(stamps, AugmentSection(symmetries=False)), stamps)
