"""Evaluation of a scored run: its settings and the columns of the tables that it publishes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.contracts.priors import Section

OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]

# Negatives that must lie above a threshold before its false-positive rate is called known.
MIN_FALSE_POSITIVES = 10

# The published selection function: one row per cell, threshold and magnitude bin.
SELECTION_FUNCTION_COLUMNS = (
    "theta_e",
    "psf_fwhm",
    "depth_5sig",
    "threshold",
    "threshold_type",
    "fpr_target",
    "source_mag_bin",
    "n_injections",
    "n_detected",
    "n_failed",
    "completeness",
    "ci68_lo",
    "ci68_hi",
    "ci95_lo",
    "ci95_hi",
    "mean_score",
    "mean_arc_snr",
    "sufficient",
)

EMR_KEYS = (
    "region_id",
    "selection_set_id",
    "ranking_mode",
    "theta_e_arcsec",
    "src_dmag",
    "src_reff_arcsec",
    "psf_bin",
    "depth_bin",
    "resolution_bin",
    "region_split",
)


@dataclass(frozen=True)
class Axis:
    """One coordinate of a completeness surface.

    Attributes:
        name: as in the tables; the columns are `<name>_low` and `<name>_high`.
        edges: at least two, increasing; a bin holds low <= value < high.
    """

    name: str
    edges: tuple[float, ...]

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1


def _centred(first: float, step: float, count: int) -> tuple[float, ...]:
    """Edges of `count` bins of width `step` whose first bin is centred on `first`."""
    return tuple(round(first + (index - 0.5) * step, 9) for index in range(count + 1))


def _increasing(edges: tuple[float, ...]) -> tuple[float, ...]:
    if any(not low < high for low, high in pairwise(edges)):
        raise ValueError(f"edges must increase, got {edges}")
    return edges


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"values must be distinct, got {values}")
    return values


Edges = Annotated[tuple[float, ...], Field(min_length=2), AfterValidator(_increasing)]
Shares = Annotated[tuple[OpenFraction, ...], Field(min_length=1), AfterValidator(_distinct)]


class EvaluationEdges(Section):
    """Bin edges of every axis; a bin holds low <= value < high.

    theta_e is the Einstein radius, psf_fwhm psfsize in sampling.band, depth_5sig the 5-sigma point-source depth,
    source_mag unlensed, lensed_mag that of the arc inside the stamp, arc_snr the EMR one.
    """

    theta_e_arcsec: Edges = _centred(0.5, 0.25, 11)
    psf_fwhm_arcsec: Edges = _centred(0.9, 0.15, 7)
    depth_5sig_mag: Edges = _centred(22.5, 0.5, 5)
    source_mag: Edges = (20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0)
    lensed_mag: Edges = (16.0, 18.0, 20.0, 22.0, 24.0, 27.0)
    host_mag: Edges = (16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0)
    arc_snr: Edges = (0.0, 0.8, 2.0, 5.0, 8.0, 12.0, 20.0, 50.0, 100.0)
    theta_e_over_psf: Edges = (0.0, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0)


class EvaluationSettings(Section):
    """What the evaluation measures; no part of the plan, so that a change evaluates again and nothing else."""

    false_positive_rates: Shares = Field(default=(1e-2, 1e-3, 1e-4), description="each needs 10 / rate negatives")
    score_thresholds: Shares = Field(default=(0.3, 0.5, 0.7), description="fixed thresholds on the score")
    base_rate: OpenFraction = Field(default=1e-4, description="share of lenses on the sky that purity is quoted for")
    bootstrap_replicates: Annotated[int, Field(ge=100, le=100_000)] = Field(
        default=400, description="resamplings of the hosts"
    )
    min_effective_n: Annotated[float, Field(ge=1.0)] = Field(
        default=30.0, description="below it a cell is not sufficient"
    )
    calibration_bins: Annotated[int, Field(ge=2, le=1000)] = Field(default=15, description="equal bins of the score")
    edges: EvaluationEdges = EvaluationEdges()

    @property
    def theta_e(self) -> Axis:
        """Einstein radius. [arcsec]"""
        return Axis("theta_e", self.edges.theta_e_arcsec)

    @property
    def psf_fwhm(self) -> Axis:
        """Seeing, psfsize. [arcsec]"""
        return Axis("psf_fwhm", self.edges.psf_fwhm_arcsec)

    @property
    def depth_5sig(self) -> Axis:
        """5-sigma point-source depth. [mag]"""
        return Axis("depth_5sig", self.edges.depth_5sig_mag)

    @property
    def source_mag(self) -> Axis:
        """Unlensed source magnitude. [mag]"""
        return Axis("source_mag", self.edges.source_mag)

    @property
    def lensed_mag(self) -> Axis:
        """Magnitude of the arc inside the stamp. [mag]"""
        return Axis("lensed_mag", self.edges.lensed_mag)

    @property
    def host_mag(self) -> Axis:
        """Host magnitude. [mag]"""
        return Axis("host_mag", self.edges.host_mag)

    @property
    def arc_snr(self) -> Axis:
        """The EMR arc_snr. [1]"""
        return Axis("arc_snr", self.edges.arc_snr)

    @property
    def theta_e_over_psf(self) -> Axis:
        """Einstein radius over psfsize. [1]"""
        return Axis("theta_e_over_psf", self.edges.theta_e_over_psf)

    @property
    def surfaces(self) -> tuple[tuple[Axis, ...], ...]:
        """Axes of every completeness surface: the sample as a whole, each axis, (theta_e, psf_fwhm), and all five."""
        lens = (self.theta_e, self.psf_fwhm, self.theta_e_over_psf, self.depth_5sig)
        light = (self.source_mag, self.lensed_mag, self.host_mag, self.arc_snr)
        grid = (self.theta_e, self.psf_fwhm)
        return (
            (),
            *((axis,) for axis in (*lens, *light)),
            grid,
            (*grid, self.depth_5sig, self.source_mag, self.arc_snr),
        )

    def document(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return self.model_dump(mode="json")
