"""Degraded centres: some training stamps lose their core, so that a network cannot live on it alone.

What happens to a stamp follows from (seed, epoch, row of the cube) and never from its label: the injected stamp and
the control of a row lose their centre together, by the same kind and with the same noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contracts.training_config import CentreDegradation, TrainingSection
from pipeline.training.preprocess import stamp_radius

DEGRADE_PURPOSE = 2
# Standard deviation of a Gaussian over its median absolute deviation, which is 1 in normalised sky.
SKY_SIGMA = 1.4826
_UNTOUCHED = -1


def degrade_centres(stamps: Tensor, row: NDArray[np.int64], training: TrainingSection, seed: int, epoch: int) -> Tensor:
    """Degrade the centre of some stamps, before any of them is flipped.

    With w the weight of `core_blend` and a = strength * w, a degraded stamp x becomes
    mask: (1 - a) x, its core the sky level, which is 0;
    noise: (1 - a) x + sqrt(a (2 - a)) n, with n Gaussian of the stamp's own sky noise, so that pure sky keeps its
    variance everywhere;
    blur: (1 - a) x + a G x, with G a Gaussian of blur_sigma_px.

    Args:
        stamps: (example, band, y, x) float32 normalised, y and x equally long; left unchanged. [1]
        row: (example,) cube row of every stamp.
        training: sections `centre_degradation`, None changes nothing, and `preprocess`, whose clip holds here too.
        seed: seed of the run.
        epoch: 0-based.

    Returns:
        (example, band, y, x) float32.
    """
    section = training.centre_degradation
    if section is None:
        return stamps
    generators = [_generator(seed, epoch, int(number)) for number in row]
    kind = _kinds(generators, section, section.probability.at(epoch))
    strength = section.strength.at(epoch)
    if strength == 0.0 or (kind == _UNTOUCHED).all():
        return stamps
    degraded = stamps.clone()
    box = _core_box(stamps.shape[-1], section)
    share = (strength * core_blend(stamps.shape[-1], section)[box, box]).to(stamps.device)
    for index, name in enumerate(section.kinds):
        chosen = np.flatnonzero(kind == index)
        if not chosen.size:
            continue
        core = (1.0 - share) * stamps[chosen][:, :, box, box]
        if name == "noise":
            shape = core.shape[1:]
            drawn = np.stack([generators[example].standard_normal(shape, np.float32) for example in chosen])
            core = core + torch.sqrt(share * (2.0 - share)) * SKY_SIGMA * torch.from_numpy(drawn).to(stamps.device)
        elif name == "blur":
            core = core + share * _blurred(stamps[chosen], box, section.blur_sigma_px)
        degraded[chosen, :, box, box] = core.clamp(-training.preprocess.clip, training.preprocess.clip)
    return degraded


def core_blend(size_px: int, section: CentreDegradation) -> Tensor:
    """(y, x) float32 weight of the degradation: 1 for r < radius_px, half a cosine down to 0 at radius_px + edge_px.

    Args:
        size_px: side of the stamp; r is measured from pixel size // 2. [px]
        section: radius and edge.
    """
    radius = stamp_radius(size_px)
    if section.edge_px == 0.0:
        return (radius < section.radius_px).to(torch.float32)
    fall = ((radius - section.radius_px) / section.edge_px).clamp(0.0, 1.0)
    return (0.5 * (1.0 + torch.cos(math.pi * fall))).to(torch.float32)


def _generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, row], counter=[0, epoch, DEGRADE_PURPOSE, 0]))


def _kinds(generators: list[np.random.Generator], section: CentreDegradation, probability: float) -> NDArray[np.int64]:
    """(example,) index into section.kinds, or _UNTOUCHED."""
    draw = np.array([generator.random(2) for generator in generators]).reshape(-1, 2)
    kind = np.floor(draw[:, 1] * len(section.kinds)).astype(np.int64)
    return np.where(draw[:, 0] < probability, kind, _UNTOUCHED)


def _core_box(size_px: int, section: CentreDegradation) -> slice:
    """Rows, and columns, that the degradation can reach."""
    reach = math.ceil(section.radius_px + section.edge_px)
    return slice(max(size_px // 2 - reach, 0), min(size_px // 2 + reach + 1, size_px))


def _blurred(stamps: Tensor, box: slice, sigma_px: float) -> Tensor:
    """(example, band, y, x) the box of the stamps under a Gaussian, which is normalised inside the stamp."""
    place = torch.arange(stamps.shape[-1], dtype=torch.float64)
    weight = torch.exp(-0.5 * ((place[box, None] - place[None, :]) / sigma_px) ** 2)
    weight = (weight / weight.sum(dim=1, keepdim=True)).to(stamps)
    return weight @ stamps @ weight.T
