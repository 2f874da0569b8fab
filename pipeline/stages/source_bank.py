"""One galaxy stamp becomes one template: background off, galaxy alone, soft edge, positive, unit sum, centred.

The order matters. Clipping negatives first turns the noise of an empty stamp into a pedestal of 0.4 sigma per pixel,
which outshines a faint galaxy; here everything outside the galaxy's own segment is zero before anything is clipped,
and clipping inside it keeps the local flux.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.source_bank import (
    BANK_COLUMNS,
    MIN_STAMP_SIZE_PX,
    TEMPLATE_REJECT_REASONS,
    BankLimits,
    GalaxyStamp,
    SourceBank,
    bank_digest,
)
from pipeline.contracts.survey import FWHM_PER_SIGMA
from pipeline.stages.segmentation import Segmentation, find_galaxy, is_blended, touches_edge
from pipeline.stages.template_quality import (
    centroid_px,
    half_light_radius_arcsec,
    pedestal_share,
    psf_half_maximum_arcsec,
    template_clumpiness,
)

_GROWTH_PER_RADIUS = 0.5
_GROWTH_RANGE_PX = (2.0, 10.0)
_TAPER_PX = 4.0
_STAMP_EDGE_TAPER_PX = 3.0
_NEIGHBOUR_MARGIN_PX = 2.0
_CLIP_SCALE_PX = 2.0


@dataclass(frozen=True)
class Template:
    """A template and its numbers; the image is all zero and the numbers NaN where a stamp gave none."""

    image: NDArray[np.float32]
    index: int
    reject_reason: str
    hlr_arcsec: float = math.nan
    clumpiness: float = math.nan
    pedestal_fraction: float = math.nan
    snr: float = math.nan
    mag: float = math.nan
    redshift: float = math.nan
    psf_fwhm_arcsec: float = math.nan
    offset_x_px: float = math.nan
    offset_y_px: float = math.nan


def make_template(stamp: GalaxyStamp, pixel_scale_arcsec: float, limits: BankLimits) -> Template:
    """Turn a stamp into a template, or say why it cannot be one.

    A template is made whenever a galaxy was found, so that a rejected one can be looked at. The first reason that
    holds is recorded: non_finite, too_faint, pedestal_dominated, touches_edge, blended, hlr_out_of_range. Where no
    galaxy was found it is pedestal_dominated if a flat level carries the light, else too_faint.

    Args:
        stamp: the galaxy as observed.
        pixel_scale_arcsec: pixel side of the stamp and of the template. [arcsec]
        limits: sizes and limits.

    Raises:
        ConfigError: the common resolution asked for is finer than that of the stamp, or that of the stamp is unknown.
        ContractError: the stamp is not a picture, or its point-spread function is not one.
    """
    if stamp.image.ndim != 2 or min(stamp.image.shape) < MIN_STAMP_SIZE_PX:
        raise ContractError(
            f"galaxy {stamp.index}: expected a stamp of at least {MIN_STAMP_SIZE_PX} px a side, got {stamp.image.shape}"
        )
    size = limits.stamp_size_px
    psf_fwhm_arcsec = (
        stamp.psf_fwhm_arcsec if stamp.psf is None else psf_half_maximum_arcsec(stamp.psf, pixel_scale_arcsec)
    )
    blur_px = _blur_px(stamp.index, psf_fwhm_arcsec, limits.common_psf_fwhm_arcsec, pixel_scale_arcsec)
    known = {"mag": stamp.mag, "redshift": stamp.redshift, "psf_fwhm_arcsec": psf_fwhm_arcsec}
    if limits.common_psf_fwhm_arcsec is not None:
        known["psf_fwhm_arcsec"] = limits.common_psf_fwhm_arcsec
    empty = np.zeros((size, size), dtype=np.float32)
    if not np.isfinite(stamp.image).all():
        return Template(empty, stamp.index, "non_finite", **known)
    pedestal = pedestal_share(stamp.image)
    known["pedestal_fraction"] = pedestal
    found = find_galaxy(stamp.image, limits)
    if not found.galaxy.any():
        lifted = found.background * found.light.size > limits.max_pedestal_fraction * np.abs(stamp.image).sum()
        return Template(empty, stamp.index, "pedestal_dominated" if lifted else "too_faint", **known)

    sigma = stamp.noise_sigma if math.isfinite(stamp.noise_sigma) and stamp.noise_sigma > 0 else found.noise_sigma
    flux = float(found.light[found.galaxy].sum())
    known["snr"] = flux / (sigma * math.sqrt(found.galaxy.sum())) if sigma > 0 else math.nan
    image, cropped = _centred(_isolated(found), found, size)
    if blur_px > 0:
        image = gaussian_filter(image, blur_px, mode="constant")
    total = float(image.sum())
    if not (flux > 0 and total > 0):
        return Template(empty, stamp.index, "too_faint", **known)
    unit = (image / total).astype(np.float32)
    hlr_arcsec = half_light_radius_arcsec(unit, pixel_scale_arcsec)
    x_px, y_px = centroid_px(unit)
    low, high = limits.hlr_range_arcsec
    lifted_flux = found.background * float(found.galaxy.sum())
    faults = (
        ("too_faint", known["snr"] < limits.min_snr),
        ("pedestal_dominated", lifted_flux > limits.max_pedestal_fraction * (flux + lifted_flux)),
        ("touches_edge", cropped or touches_edge(found, limits)),
        ("blended", is_blended(found, limits, pixel_scale_arcsec)),
        ("hlr_out_of_range", not low <= hlr_arcsec <= high),
    )
    return Template(
        unit,
        stamp.index,
        next((name for name, holds in faults if holds), "none"),
        hlr_arcsec=hlr_arcsec,
        clumpiness=template_clumpiness(unit),
        offset_x_px=x_px - (size - 1) / 2,
        offset_y_px=y_px - (size - 1) / 2,
        **known,
    )


def assemble_bank(
    templates: Iterable[Template],
    pixel_scale_arcsec: float,
    galaxy_kind: str,
    source: str,
    created_utc: str,
    only_usable: bool = False,
) -> SourceBank:
    """Templates, in the order of their index, as a bank.

    Args:
        templates: from `make_template`, all of one size.
        pixel_scale_arcsec: pixel side. [arcsec]
        galaxy_kind: what the galaxies are.
        source: where they came from, with digests.
        created_utc: ISO 8601.
        only_usable: leave rejected templates out, for readers that do not know the column `usable`.

    Raises:
        ContractError: no template, or an index twice.
    """
    rows = sorted(
        (template for template in templates if not only_usable or template.reject_reason == "none"),
        key=lambda template: template.index,
    )
    if not rows:
        raise ContractError(f"{source}: expected at least one {'usable ' if only_usable else ''}galaxy, found none")
    twice = sorted({a.index for a, b in pairwise(rows) if a.index == b.index})
    if twice:
        raise ContractError(f"{source}: index used for more than one galaxy: {', '.join(map(str, twice[:10]))}")
    images = np.stack([template.image for template in rows])
    values: dict[str, list[float]] = {
        "usable": [template.reject_reason == "none" for template in rows],
        "reject_reason": [TEMPLATE_REJECT_REASONS.index(template.reject_reason) for template in rows],
    }
    columns: dict[str, NDArray[np.generic]] = {
        column.name: np.array(
            values.get(column.name) or [getattr(template, column.name) for template in rows], dtype=column.dtype
        )
        for column in BANK_COLUMNS
    }
    resolution = columns["psf_fwhm_arcsec"].astype(np.float64)[columns["usable"].astype(np.bool_)]
    return SourceBank(
        images=images,
        columns=columns,
        pixel_scale_arcsec=pixel_scale_arcsec,
        psf_fwhm_arcsec=float(np.median(resolution)) if resolution.size else math.nan,
        galaxy_kind=galaxy_kind,
        source=source,
        created_utc=created_utc,
        digest=bank_digest(images, columns, pixel_scale_arcsec),
    )


def _blur_px(index: int, psf_fwhm_arcsec: float, common_arcsec: float | None, pixel_scale_arcsec: float) -> float:
    if common_arcsec is None:
        return 0.0
    if not psf_fwhm_arcsec <= common_arcsec:
        raise ConfigError(
            f"galaxy {index}: its resolution is {psf_fwhm_arcsec:.4f} arcsec and cannot be brought to the common "
            f"{common_arcsec:.4f} arcsec by smoothing; ask for a larger one, or for none"
        )
    return math.sqrt(common_arcsec**2 - psf_fwhm_arcsec**2) / FWHM_PER_SIGMA / pixel_scale_arcsec


def _isolated(found: Segmentation) -> NDArray[np.float64]:
    """The galaxy's light alone: weight 1 on the grown segment, falling to 0; negatives clipped, local flux kept."""
    outside = distance_transform_edt(~found.galaxy)
    radius_px = math.sqrt(found.galaxy.sum() / math.pi)
    growth = float(np.clip(_GROWTH_PER_RADIUS * radius_px, *_GROWTH_RANGE_PX))
    weight = _fall((outside - growth) / _TAPER_PX)
    if found.others.any():
        to_others = distance_transform_edt(~found.others)
        weight = np.where((to_others <= _NEIGHBOUR_MARGIN_PX) | (to_others < outside), 0.0, weight)
    inside = np.pad(np.ones(weight.shape, dtype=np.bool_), 1)
    to_edge = distance_transform_edt(inside)[1:-1, 1:-1]
    weight *= _fall(1.0 - (to_edge - 0.5) / _STAMP_EDGE_TAPER_PX)
    light = found.light * weight
    positive = np.maximum(light, 0.0)
    kept = gaussian_filter(light, _CLIP_SCALE_PX, mode="constant")
    lifted = gaussian_filter(positive, _CLIP_SCALE_PX, mode="constant")
    share = np.divide(kept, lifted, out=np.zeros_like(kept), where=lifted > 0)
    kept_light: NDArray[np.float64] = positive * np.clip(share, 0.0, 1.0)
    return kept_light


def _fall(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for x <= 0, half a cosine down to 0 at x >= 1."""
    fall: NDArray[np.float64] = 0.5 * (1.0 + np.cos(math.pi * np.clip(x, 0.0, 1.0)))
    return fall


def _centred(light: NDArray[np.float64], found: Segmentation, size: int) -> tuple[NDArray[np.float64], bool]:
    """Light moved by whole pixels into a square stamp, its centroid at the centre; and whether the segment is cut."""
    if not light.sum() > 0:
        return np.zeros((size, size)), False
    x_px, y_px = centroid_px(light)
    first = (round(y_px - (size - 1) / 2), round(x_px - (size - 1) / 2))
    stamp = np.zeros((size, size))
    low = [max(0, start) for start in first]
    high = [min(side, start + size) for side, start in zip(light.shape, first, strict=True)]
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a - start, b - start) for a, b, start in zip(low, high, first, strict=True))
    stamp[target] = light[source]
    return stamp, bool(found.galaxy.sum() > found.galaxy[source].sum())
