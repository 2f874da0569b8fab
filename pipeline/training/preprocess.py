"""Normalisation of stamps, one function for training, validation and scoring."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.training_config import PreprocessSection

MIN_ANNULUS_PIXELS = 32


def normalise(stamps: Tensor, spec: PreprocessSection) -> Tensor:
    """(x - median) / MAD per stamp and band, clipped to +-clip; median and MAD over the annulus.

    The MAD is the plain median of |x - median|, without the factor 1.4826; medians of even counts are the mean
    of the two middle values, as numpy's.

    Args:
        stamps: (example, band, y, x) float32 finite pixels. [nmgy]
        spec: annulus radii [pixel] about the stamp centre, and the clip [MAD].

    Returns:
        (example, band, y, x) float32. [1]

    Raises:
        ContractError: non-finite pixels, or a MAD of zero; the message names how many stamps.
        ConfigError: the annulus holds fewer than 32 pixels.
    """
    finite = torch.isfinite(stamps).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ContractError(f"{int((~finite).sum())} of {len(stamps)} stamps hold pixels that are not finite")
    inside = annulus(stamps.shape[-1], spec).to(stamps.device)
    ring = stamps[:, :, inside]
    median = _median(ring)
    mad = _median((ring - median).abs())
    flat = (mad == 0).flatten(1).any(dim=1)
    if bool(flat.any()):
        raise ContractError(
            f"{int(flat.sum())} of {len(stamps)} stamps have a MAD of 0 in the annulus {spec.annulus_px} px; "
            "expected sky noise there"
        )
    return ((stamps - median[..., None]) / mad[..., None]).clamp_(-spec.clip, spec.clip)


def annulus(size_px: int, spec: PreprocessSection) -> Tensor:
    """(y, x) bool, True where low <= r < high about pixel size // 2.

    Raises:
        ConfigError: fewer than 32 such pixels.
    """
    low, high = spec.annulus_px
    radius = stamp_radius(size_px)
    inside = (radius >= low) & (radius < high)
    if int(inside.sum()) < MIN_ANNULUS_PIXELS:
        raise ConfigError(
            f"training.preprocess.annulus_px {spec.annulus_px} holds {int(inside.sum())} pixels of a "
            f"{size_px} px stamp; expected at least {MIN_ANNULUS_PIXELS}"
        )
    return inside


def stamp_radius(size_px: int) -> Tensor:
    """(y, x) float64 distance of every pixel centre from the stamp centre, pixel size // 2. [pixel]"""
    offset = torch.arange(size_px, dtype=torch.float64) - size_px // 2
    return torch.hypot(offset[:, None], offset[None, :])


def require_same_spec(expected: PreprocessSection, got: PreprocessSection) -> None:
    """Refuse stamps that were normalised otherwise than the network was trained on.

    Raises:
        ContractError: the specs differ.
    """
    if expected != got:
        raise ContractError(f"checkpoint was trained with preprocess {expected!r}, stamps come with {got!r}")


def _median(values: Tensor) -> Tensor:
    ordered = values.sort(dim=-1).values
    count = values.shape[-1]
    return ((ordered[..., (count - 1) // 2] + ordered[..., count // 2]) * 0.5)[..., None]
