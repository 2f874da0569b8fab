"""Augmentation where the stamps are: symmetries of the square, shifts, photometric jitter.

What a stamp gets follows from (seed, epoch, row of the cube) and never from its label, so that the injected stamp and
the control of a row are always moved and scaled alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.contracts.network_config import AugmentSection
from pipeline.training.keyed_random import (
    PURPOSE_PHOTOMETRY,
    PURPOSE_SHIFT,
    PURPOSE_SYMMETRY,
    keyed_normals,
    keyed_uniforms,
)


def augment(stamps: Tensor, row: Tensor, section: AugmentSection, clip: float, seed: int, epoch: int) -> Tensor:
    """Jitter, shift, flip and rotate every stamp.

    Args:
        stamps: (example, band, y, x) float32 normalised, y and x equally long; left unchanged. [1]
        row: (example) int64 row of the cube, on the same device.
        section: what is done, and how much.
        clip: bound of the normalisation, which holds after the jitter too.
        seed: seed of the run.
        epoch: 0-based.

    Returns:
        (example, band, y, x) float32.
    """
    if section.brightness or section.colour:
        stamps = _jittered(stamps, row, section, seed, epoch).clamp(-clip, clip)
    if section.shift_px:
        stamps = _shifted(stamps, row, section.shift_px, seed, epoch)
    if section.symmetries:
        draw = keyed_uniforms(seed, row, PURPOSE_SYMMETRY, epoch, 3) < 0.5
        stamps = torch.where(_per_stamp(draw[:, 0]), stamps.flip(-1), stamps)
        stamps = torch.where(_per_stamp(draw[:, 1]), stamps.flip(-2), stamps)
        stamps = torch.where(_per_stamp(draw[:, 2]), stamps.transpose(-1, -2), stamps)
    return stamps


def _jittered(stamps: Tensor, row: Tensor, section: AugmentSection, seed: int, epoch: int) -> Tensor:
    """Signal and noise of a stamp times exp of a normal number, one for all bands and one for each."""
    drawn = keyed_normals(seed, row, PURPOSE_PHOTOMETRY, epoch, 1 + stamps.shape[1])
    factor = torch.exp(section.brightness * drawn[:, :1] + section.colour * drawn[:, 1:])
    return stamps * factor.to(stamps.dtype)[:, :, None, None]


def _shifted(stamps: Tensor, row: Tensor, shift_px: int, seed: int, epoch: int) -> Tensor:
    """Stamps moved by whole pixels, which keeps their noise as it is; what comes in is mirrored at the edge."""
    size = stamps.shape[-1]
    draw = keyed_uniforms(seed, row, PURPOSE_SHIFT, epoch, 2)
    step = (draw * (2 * shift_px + 1)).floor().to(torch.int64) - shift_px
    place = torch.arange(size, device=stamps.device)[None, None, :] + step[:, :, None]
    place = torch.where(place < 0, -place, place)
    place = torch.where(place > size - 1, 2 * (size - 1) - place, place)
    rows = place[:, 0, None, :, None].expand(stamps.shape)
    return stamps.gather(2, rows).gather(3, place[:, 1, None, None, :].expand(stamps.shape))


def _per_stamp(choice: Tensor) -> Tensor:
    return choice[:, None, None, None]
