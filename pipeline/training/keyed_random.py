"""The keyed random numbers of `kernels.random` on tensors, so that a GPU draws what a CPU draws.

Every number is a pure function of (seed, row of the cube, purpose, epoch, slot): order, batch, number of processes and
resumption play no part. Generator: Philox4x32-10, Salmon et al. (2011), doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Beside the purposes of kernels.random.
PURPOSE_SYMMETRY = 101
PURPOSE_SHIFT = 102
PURPOSE_PHOTOMETRY = 103
PURPOSE_CENTRE = 104
PURPOSE_CENTRE_NOISE = 105

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW_WORD = 0xFFFFFFFF


def keyed_uniforms(seed: int, row: Tensor, purpose: int, epoch: int, count: int) -> Tensor:
    """Uniform doubles in the open interval (0, 1), bit for bit those of `kernels.random.keyed_uniform`.

    Args:
        seed: seed of the run, 0 <= seed < 2**63.
        row: (example) int64 row of the cube, on the device that the numbers are wanted on.
        purpose: one of the PURPOSE_* constants.
        epoch: 0-based, the attempt of `keyed_uniform`.
        count: numbers per example, at most 65,536; their index is the slot.

    Returns:
        (example, count) float64.
    """
    words = _block(seed, row, purpose, epoch, count)
    return _open_unit(words[0], words[1])


def keyed_normals(seed: int, row: Tensor, purpose: int, epoch: int, count: int) -> Tensor:
    """Standard normal numbers, those of `kernels.random.keyed_normal` to rounding; arguments as `keyed_uniforms`.

    Returns:
        (example, count) float64.
    """
    words = _block(seed, row, purpose, epoch, count)
    radius = torch.sqrt(-2.0 * torch.log(_open_unit(words[0], words[1])))
    return radius * torch.cos(2.0 * math.pi * _open_unit(words[2], words[3]))


def _block(seed: int, row: Tensor, purpose: int, epoch: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four (example, count) int64 tensors of 32-bit words."""
    slot = torch.arange(count, device=row.device)
    shape = (len(row), count)
    w0 = (row & _LOW_WORD)[:, None].expand(shape)
    w1 = ((row >> 32) & _LOW_WORD)[:, None].expand(shape)
    w2 = torch.full(shape, epoch & _LOW_WORD, dtype=torch.int64, device=row.device)
    w3 = ((purpose << 16) | slot)[None, :].expand(shape)
    key0, key1 = seed & _LOW_WORD, (seed >> 32) & _LOW_WORD
    for _ in range(_ROUNDS):
        # A signed product wraps to the right 64 bits; the mask takes the sign from the high word again.
        product0, product1 = w0 * _MULTIPLIERS[0], w2 * _MULTIPLIERS[1]
        w0 = ((product1 >> 32) & _LOW_WORD) ^ w1 ^ key0
        w1 = product1 & _LOW_WORD
        w2 = ((product0 >> 32) & _LOW_WORD) ^ w3 ^ key1
        w3 = product0 & _LOW_WORD
        key0, key1 = (key0 + _WEYL[0]) & _LOW_WORD, (key1 + _WEYL[1]) & _LOW_WORD
    return w0, w1, w2, w3


def _open_unit(high: Tensor, low: Tensor) -> Tensor:
    return (((high << 21) | (low >> 11)) | 1).to(torch.float64) * 2.0**-53
