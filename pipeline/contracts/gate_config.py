"""GateSection: bounds of the gates on a training cube, and the gates waived by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.network_gate_config import NetworkGateSection
from pipeline.contracts.priors import Fraction, Positive, Section

Edges = Annotated[tuple[Positive, ...], Field(min_length=2)]


class GateSection(Section):
    """Bounds of the gates, and the gates waived by name with the reason the run record keeps.

    `docs/gates.md` says what each gate measures and where its bound comes from.
    """

    max_samples: Annotated[int, Field(ge=200)] = Field(default=20_000, description="rows whose stamps are read")
    min_per_class: Annotated[int, Field(ge=10)] = Field(default=100, description="fewer samples of a class fail a gate")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(default=5, description="cross-validation folds, grouped by host")

    quality_ks_p_min: Fraction = 0.01
    quality_effect_max: Positive = 0.1
    null_rows: Annotated[int, Field(ge=1, le=4096)] = Field(default=32, description="pairs rendered again without flux")
    null_light_tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.01, description="light that may lack or be negative, over the arc's"
    )
    duplicate_radius_arcsec: Annotated[float, Field(gt=0.0, le=60.0)] = 1.0

    snr_target_tv_sigmas: Positive = 5.0
    snr_correlation_max: Fraction = 0.05
    snr_correlation_sigmas: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        default=3.0, description="sampling errors added to snr_correlation_max"
    )
    near_threshold_metric: Literal[
        "arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture", "arc_snr_annulus"
    ] = "arc_snr"
    near_threshold_snr: tuple[Positive, Positive] = (0.8, 2.0)
    near_threshold_share_min: Fraction = 0.2
    grid_theta_e_arcsec: Edges | None = Field(
        default=None, description="cell edges; null for four cells of the prior's range"
    )
    grid_snr: Edges | None = Field(default=None, description="cell edges; null for the bins of the target")
    grid_n_min: Annotated[int, Field(ge=1)] = 5
    grid_filled_min: Fraction = 0.9

    normalisation_d_max: Positive = 0.1
    core_ratio_range: tuple[Positive, Positive] = (0.95, 1.05)
    core_ratio_radius_px: Positive = 8.0
    core_auc_max: Fraction = 0.55
    core_auc_radius_px: Positive = 10.0
    core_radius: Literal["fixed", "theta_e"] = Field(
        default="fixed",
        description="theta_e: theta_E - 1.5 PSF FWHM of the pair, at least 2 px, at most the fixed radius",
    )
    radial_bins: Annotated[int, Field(ge=2, le=64)] = 16
    radial_auc_max: Fraction = 0.60
    metadata_auc_max: Fraction = 0.55
    anchor_delta_max: Fraction = Field(
        default=0.33, description="largest |Cliff delta| of a ring's brightness between injected stamps and anchors"
    )

    network: NetworkGateSection = NetworkGateSection()

    waive: dict[str, Annotated[str, Field(min_length=20)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> GateSection:
        for name in ("core_ratio_range", "near_threshold_snr"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} needs low < high, got {(low, high)}")
        for name in ("grid_theta_e_arcsec", "grid_snr"):
            edges = getattr(self, name)
            if edges is not None and list(edges) != sorted(set(edges)):
                raise ValueError(f"{name} needs increasing edges, got {edges}")
        return self
