"""Degraded centres: some training stamps lose their core, so that a network cannot live on it alone.

What happens to a stamp follows from (seed, epoch, row of the cube) and never from its label: the injected stamp and
the control of a row lose their centre together, by the same kind and with the same noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.contracts.survey import MAD_TO_SIGMA
from pipeline.contracts.training_config import CentreDegradation, TrainingSection
from pipeline.training.keyed_random import PURPOSE_CENTRE, PURPOSE_CENTRE_NOISE, keyed_normals, keyed_uniforms
from pipeline.training.preprocess import stamp_radius


def degrade_centres(stamps: Tensor, row: Tensor, training: TrainingSection, seed: int, epoch: int) -> Tensor:
    """Degrade the centre of some stamps, before any of them is moved.

    With w the weight of `core_blend` and a = strength * w, a degraded stamp x becomes
    mask: (1 - a) x, its core the sky level, which is 0;
    noise: (1 - a) x + sqrt(a (2 - a)) n, with n Gaussian of the stamp's own sky noise, so that pure sky keeps its
    variance everywhere;
    blur: (1 - a) x + a G x, with G a Gaussian of blur_sigma_px.

    Args:
        stamps: (example, band, y, x) float32 normalised, y and x equally long; left unchanged. [1]
        row: (example) int64 cube row of every stamp, on the same device.
        training: sections `centre_degradation`, None changes nothing, and `preprocess`, whose clip holds here too.
        seed: seed of the run.
        epoch: 0-based.

    Returns:
        (example, band, y, x) float32.
    """
    section = training.centre_degradation
    if section is None:
        return stamps
    strength, probability = section.strength.at(epoch), section.probability.at(epoch)
    if strength == 0.0 or probability == 0.0:
        return stamps
    draw = keyed_uniforms(seed, row, PURPOSE_CENTRE, epoch, 2)
    kind = torch.where(draw[:, 0] < probability, (draw[:, 1] * len(section.kinds)).floor(), -1.0)
    box = _core_box(stamps.shape[-1], section)
    share = (strength * core_blend(stamps.shape[-1], section)[box, box]).to(stamps.device, non_blocking=True)
    core = stamps[:, :, box, box]
    degraded_core = core
    for index, name in enumerate(section.kinds):
        changed = (1.0 - share) * core
        if name == "noise":
            sigma = MAD_TO_SIGMA / training.preprocess.unit_mad
            drawn = keyed_normals(seed, row, PURPOSE_CENTRE_NOISE, epoch, core[0].numel()).to(core.dtype)
            changed = changed + torch.sqrt(share * (2.0 - share)) * sigma * drawn.reshape(core.shape)
        elif name == "blur":
            changed = changed + share * _blurred(stamps, box, section.blur_sigma_px)
        changed = changed.clamp(-training.preprocess.clip, training.preprocess.clip)
        degraded_core = torch.where((kind == index)[:, None, None, None], changed, degraded_core)
    degraded = stamps.clone()
    degraded[:, :, box, box] = degraded_core
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


def _core_box(size_px: int, section: CentreDegradation) -> slice:
    """Rows, and columns, that the degradation can reach."""
    reach = math.ceil(section.radius_px + section.edge_px)
    return slice(max(size_px // 2 - reach, 0), min(size_px // 2 + reach + 1, size_px))


def _blurred(stamps: Tensor, box: slice, sigma_px: float) -> Tensor:
    """(example, band, y, x) the box of the stamps under a Gaussian, which is normalised inside the stamp."""
    place = torch.arange(stamps.shape[-1], dtype=torch.float64)
    weight = torch.exp(-0.5 * ((place[box, None] - place[None, :]) / sigma_px) ** 2)
    weight = (weight / weight.sum(dim=1, keepdim=True)).to(stamps, non_blocking=True)
    return weight @ stamps @ weight.T
