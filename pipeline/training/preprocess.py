"""Normalisation of stamps: one function for training, validation, scoring, probes and the exported network.

It runs where the stamps are, on the CPU or the GPU, and uses only operations that ONNX has. What it cannot normalise,
a stamp with a pixel that is not finite or without noise, is never given a number: callers raise or score it NaN.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.training_config import PreprocessSection

MIN_ANNULUS_PIXELS = 32


def normalise(stamps: Tensor, spec: PreprocessSection) -> Tensor:
    """`normalised` for stamps that must all be usable.

    Args:
        stamps: (example, band, y, x) float32 finite pixels. [nmgy]
        spec: annulus radii [pixel] about the stamp centre, the unit, and the clip in units.

    Returns:
        (example, band, y, x) float32. [1]

    Raises:
        ContractError: non-finite pixels, or a MAD of zero; the message names how many stamps.
        ConfigError: the annulus holds fewer than 32 pixels.
    """
    values, usable = normalised(stamps, spec)
    if not bool(usable.all()):
        raise ContractError(unusable_text(stamps, usable, spec))
    return values


def normalised(stamps: Tensor, spec: PreprocessSection) -> tuple[Tensor, Tensor]:
    """(x - median) / unit per stamp and band, clipped to +-clip; median and unit over the annulus.

    The unit is the plain median of |x - median|, or 1.4826 times it if the spec says sigma; medians of even counts are
    the mean of the two middle values, as numpy's.

    Args:
        stamps: (example, band, y, x) float32, y and x equally long. [nmgy]
        spec: annulus radii [pixel] about the stamp centre, the unit, and the clip in units.

    Returns:
        (example, band, y, x) float32 [1], zeros where not usable; and (example) bool usable: every pixel is finite
        and no band has a MAD of zero.

    Raises:
        ConfigError: the annulus holds fewer than 32 pixels.
    """
    places = torch.tensor(_annulus_places(stamps.shape[-1], spec.annulus_px))
    inside = places.to(stamps.device, non_blocking=True)
    ring = stamps.flatten(2).index_select(2, inside)
    median = _median(ring)
    mad = _median((ring - median).abs())
    usable = stamps.isfinite().flatten(1).all(dim=1) & (mad > 0).flatten(1).all(dim=1)
    scaled = ((stamps - median[..., None]) / (mad[..., None] * spec.unit_mad)).clamp(-spec.clip, spec.clip)
    return torch.where(usable[:, None, None, None], scaled, torch.zeros_like(scaled)), usable


def unusable_text(stamps: Tensor, usable: Tensor, spec: PreprocessSection) -> str:
    """What is wrong with the stamps that `normalised` did not find usable."""
    broken = int((~stamps.isfinite().flatten(1).all(dim=1)).sum())
    if broken:
        return f"{broken} of {len(stamps)} stamps hold pixels that are not finite"
    return (
        f"{int((~usable).sum())} of {len(stamps)} stamps have a MAD of 0 in the annulus {spec.annulus_px} px; "
        "expected sky noise there"
    )


def annulus(size_px: int, spec: PreprocessSection) -> Tensor:
    """(y, x) bool, True where low <= r < high about pixel size // 2.

    Raises:
        ConfigError: fewer than 32 such pixels.
    """
    inside = torch.zeros(size_px * size_px, dtype=torch.bool)
    inside[list(_annulus_places(size_px, spec.annulus_px))] = True
    return inside.reshape(size_px, size_px)


def stamp_radius(size_px: int) -> Tensor:
    """(y, x) float64 distance of every pixel centre from the stamp centre, pixel size // 2. [pixel]"""
    offset = torch.arange(size_px, dtype=torch.float64) - size_px // 2
    return torch.hypot(offset[:, None], offset[None, :])


def spec_sha256(spec: PreprocessSection) -> str:
    """Hash of a specification, as a checkpoint states it."""
    return spec.sha256()


def require_same_spec(expected: PreprocessSection, got: PreprocessSection) -> None:
    """Refuse stamps that were normalised otherwise than the network was trained on.

    Raises:
        ContractError: the specs differ.
    """
    if expected != got:
        raise ContractError(f"checkpoint was trained with preprocess {expected!r}, stamps come with {got!r}")


@lru_cache(maxsize=8)
def _annulus_places(size_px: int, annulus_px: tuple[float, float]) -> tuple[int, ...]:
    """Places of the annulus in a flattened stamp; plain numbers, so that an exporter takes them as they are."""
    low, high = annulus_px
    offset = np.arange(size_px) - size_px // 2
    radius = np.hypot(offset[:, None], offset[None, :])
    places = np.flatnonzero((radius >= low) & (radius < high))
    if places.size < MIN_ANNULUS_PIXELS:
        raise ConfigError(
            f"training.preprocess.annulus_px {annulus_px} holds {places.size} pixels of a {size_px} px stamp; "
            f"expected at least {MIN_ANNULUS_PIXELS}"
        )
    return tuple(places.tolist())


def _median(values: Tensor) -> Tensor:
    """(..., 1) median along the last axis, by selection of the lower half."""
    count = values.shape[-1]
    lower = values.topk(count // 2 + 1, dim=-1, largest=False, sorted=False).values
    middle = lower.topk(2, dim=-1).values
    return middle[..., :1] if count % 2 else middle.mean(dim=-1, keepdim=True)
