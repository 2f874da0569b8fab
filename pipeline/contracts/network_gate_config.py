"""NetworkGateSection: which stamps a trained network is probed with, and the bounds of the gates that judge it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.priors import Fraction, Positive, Section

MaskRadii = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=32)]
# Bounds, which do not decide what a network says.
_BOUNDS = frozenset(
    {
        "called_lens_p",
        "visible_arc_snr",
        "control_mean_p_max",
        "control_called_max",
        "snr_ablation_drop_max",
        "arc_suppressed_mean_p_max",
        "ring_called_max",
        "mask_core_px",
        "mask_lost_share_max",
        "realism_min_anchors",
        "realism_auc_max",
        "realism_frechet_max",
    }
)


class NetworkGateSection(Section):
    """Probes of a trained network and the bounds of its gates; `docs/gates.md` says what each gate measures."""

    max_pairs: Annotated[int, Field(ge=10, le=100_000)] = Field(
        default=2000, description="pairs of the test split that are scored, and at most as many control rows"
    )
    called_lens_p: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.5, description="a stamp with a higher score counts as called a lens"
    )
    visible_arc_snr: Positive | None = Field(
        default=None,
        description="arc_snr below which an arc cannot be seen; control_scores, arc_suppressed and synthetic_ring then "
        "judge the score of a visible arc",
    )
    control_mean_p_max: Fraction = 0.2
    control_called_max: Fraction = 0.1
    snr_ablation_drop_max: Fraction = 0.05
    suppression: Literal["pair", "annulus"] = Field(
        default="pair",
        description="pair: beyond the core the pixels of the pair's control; annulus: pixels of the sky beyond it",
    )
    suppression_core: Fraction = Field(default=0.5, description="core of `pair` as a share of theta_E, at least 2 px")
    suppression_annulus_px: tuple[Positive, Positive] = (10.0, 25.0)
    arc_suppressed_mean_p_max: Fraction = 0.3
    ring_called_max: Fraction = 0.5
    mask_radii_px: MaskRadii = (3.0, 5.0, 7.0, 10.0, 12.0, 15.0)
    mask_core_px: Positive = Field(default=5.0, description="one of mask_radii_px")
    mask_lost_share_max: Fraction = Field(
        default=0.5, description="of AUC - 0.5, what may be lost by masking r < mask_core_px"
    )
    realism_min_anchors: Annotated[int, Field(ge=10)] = Field(
        default=30, description="real lenses of the section anchors below which realism fails"
    )
    realism_auc_max: Fraction = 0.8
    realism_frechet_max: Positive = 1.2

    @model_validator(mode="after")
    def _radii_are_ordered(self) -> NetworkGateSection:
        if list(self.mask_radii_px) != sorted(set(self.mask_radii_px)):
            raise ValueError(f"mask_radii_px needs increasing radii, got {self.mask_radii_px}")
        if self.mask_core_px not in self.mask_radii_px:
            raise ValueError(f"mask_core_px {self.mask_core_px} is not one of mask_radii_px {self.mask_radii_px}")
        if self.suppression_annulus_px[0] >= self.suppression_annulus_px[1]:
            raise ValueError(f"suppression_annulus_px needs inner < outer, got {self.suppression_annulus_px}")
        return self

    def probe_sha256(self) -> str:
        """Hash of what decides the probes; bounds do not."""
        return hashlib.sha256(self.model_dump_json(exclude=set(_BOUNDS)).encode()).hexdigest()


def mask_name(radius_px: float) -> str:
    """Name of the probe whose pixels nearer than a radius to the centre are hidden, such as mask_5px."""
    return f"mask_{radius_px:g}px"
