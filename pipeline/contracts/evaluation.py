"""Evaluation of a scored run: its settings and the columns of the tables that it publishes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from pipeline.contracts.errors import ConfigError

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
        edges: increasing bin edges; a bin holds low <= value < high.
    """

    name: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or any(not low < high for low, high in pairwise(self.edges)):
            raise ConfigError(f"axis {self.name!r}: expected at least two increasing edges, got {self.edges}")

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1


def centred_axis(name: str, first: float, step: float, count: int) -> Axis:
    """An axis of `count` bins of width `step` whose first bin is centred on `first`."""
    return Axis(name, tuple(round(first + (index - 0.5) * step, 9) for index in range(count + 1)))


_THETA_E = centred_axis("theta_e", 0.5, 0.25, 11)
_PSF_FWHM = centred_axis("psf_fwhm", 0.9, 0.15, 7)
_DEPTH = centred_axis("depth_5sig", 22.5, 0.5, 5)


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation measures.

    Attributes:
        false_positive_rates: rates at which thresholds are set; each needs 10 / rate negatives.
        score_thresholds: fixed thresholds on the score in (0, 1).
        base_rate: share of lenses among the objects of the sky that purity is quoted for.
        bootstrap_replicates: resamplings of the hosts behind every bootstrap interval.
        min_effective_n: effective number of injections below which a cell is not sufficient.
        calibration_bins: equal bins of the score in [0, 1] of the reliability curve.
        theta_e: Einstein radius. [arcsec]
        psf_fwhm: psfsize in r. [arcsec]
        depth_5sig: 5-sigma point-source depth in r. [mag]
        source_mag: unlensed source magnitude in r. [mag]
        lensed_mag: magnitude of the arc inside the stamp in r. [mag]
        host_mag: host magnitude in r. [mag]
        arc_snr: the EMR arc_snr. [1]
        theta_e_over_psf: Einstein radius over psfsize in r. [1]
    """

    false_positive_rates: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    score_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    base_rate: float = 1e-4
    bootstrap_replicates: int = 400
    min_effective_n: float = 30.0
    calibration_bins: int = 15
    theta_e: Axis = _THETA_E
    psf_fwhm: Axis = _PSF_FWHM
    depth_5sig: Axis = _DEPTH
    source_mag: Axis = Axis("source_mag", (20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0))
    lensed_mag: Axis = Axis("lensed_mag", (16.0, 18.0, 20.0, 22.0, 24.0, 27.0))
    host_mag: Axis = Axis("host_mag", (16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0))
    arc_snr: Axis = Axis("arc_snr", (0.0, 0.8, 2.0, 5.0, 8.0, 12.0, 20.0, 50.0, 100.0))
    theta_e_over_psf: Axis = Axis("theta_e_over_psf", (0.0, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0))

    def __post_init__(self) -> None:
        unit = (*self.false_positive_rates, *self.score_thresholds, self.base_rate)
        if not all(0.0 < value < 1.0 for value in unit):
            raise ConfigError(f"expected rates and thresholds in (0, 1), got {unit}")
        if self.bootstrap_replicates < 100 or self.calibration_bins < 2:
            raise ConfigError(
                f"expected at least 100 replicates and 2 calibration bins, got {self.bootstrap_replicates} and "
                f"{self.calibration_bins}"
            )
        if not (math.isfinite(self.min_effective_n) and self.min_effective_n >= 1.0):
            raise ConfigError(f"expected min_effective_n >= 1, got {self.min_effective_n}")

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
        return asdict(self)
