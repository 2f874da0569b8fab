"""Completeness by grid cell from arc_snr alone, as EMR phase 4d made it, with injections counted as they should be.

An injection counts if its stamp is whole and its arc_snr is known. The EMR table also counted controls and injections
that failed, which can never be recovered; its number and its completeness are kept beside ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.contracts.errors import ContractError

RECOVERY_INPUT = (
    *("selection_set_id", "ranking_mode", "theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear"),
    *("cutout_ok", "arc_snr", "psfsize_r", "psfdepth_r", "region_split"),
)
_KEYS = (
    *("selection_set_id", "ranking_mode", "theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear"),
    *("psf_bin", "depth_bin"),
)
# Widths of the cells of a parameter that is drawn from a prior and not from a grid.
CELL_WIDTHS = {"theta_e_arcsec": 0.25, "src_dmag": 0.5, "src_reff_arcsec": 0.1, "src_e": 0.25, "shear": 0.05}
_GRID_VALUES_MAX = 64
_PSF_BINS_PER_ARCSEC = 10
_DEPTH_BINS_PER_MAG = 2


def cell_widths(distinct: Mapping[str, int]) -> dict[str, float]:
    """Parameters with more distinct values than a grid has, and the width of their cells (CELL_WIDTHS)."""
    return {name: width for name, width in CELL_WIDTHS.items() if distinct[name] > _GRID_VALUES_MAX}


def recovery_completeness(
    metrics: pd.DataFrame, snr_min: float, theta_over_psf_min: float, widths: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Recovered injections of every cell of one or more splits.

    Recovered means arc_snr >= `snr_min` and theta_E / psfsize_r >= `theta_over_psf_min`. psf_bin is
    floor(10 psfsize_r), depth_bin floor(2 psfdepth_r): not the bins of the manifest.

    Args:
        metrics: the columns RECOVERY_INPUT, one row per row of the metrics table; controls have theta_e_arcsec 0.
        snr_min: least arc_snr.
        theta_over_psf_min: least theta_E over seeing.
        widths: parameters whose values are counted in cells of this width from 0, and named by their middle.

    Returns:
        Keys, n, n_recovered, arc_snr_mean, arc_snr_p50 (the lower of two middle values), completeness (NaN for n = 0),
        n_controls, n_failed, n_emr = n + n_controls + n_failed, completeness_emr = n_recovered / n_emr, region_split.

    Raises:
        ContractError: a missing column.
    """
    absent = [name for name in RECOVERY_INPUT if name not in metrics]
    if absent:
        raise ContractError(f"metrics lack the columns {', '.join(absent)}")
    frame = metrics[list(RECOVERY_INPUT)].copy()
    number = {name: frame[name].to_numpy(np.float64) for name in ("theta_e_arcsec", "arc_snr", "psfsize_r")}
    frame["psf_bin"] = np.floor(frame["psfsize_r"] * _PSF_BINS_PER_ARCSEC)
    frame["depth_bin"] = np.floor(frame["psfdepth_r"] * _DEPTH_BINS_PER_MAG)
    injection = number["theta_e_arcsec"] > 0
    valid = injection & (frame["cutout_ok"].to_numpy() == 1) & np.isfinite(number["arc_snr"])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(number["psfsize_r"] > 0, number["theta_e_arcsec"] / number["psfsize_r"], np.nan)
        recovered = valid & (number["arc_snr"] >= snr_min) & (ratio >= theta_over_psf_min)
    flags = {"n": valid, "n_recovered": recovered, "n_controls": ~injection, "n_failed": injection & ~valid}
    frame = frame.assign(**{name: flag.astype(np.int64) for name, flag in flags.items()})
    for name, width in (widths or {}).items():
        middle = (np.floor(frame[name].to_numpy(np.float64) / width) + 0.5) * width
        frame[name] = np.where(injection, middle, 0.0)
    groups = frame.groupby(["region_split", *_KEYS], dropna=False, sort=True)
    columns: dict[str, Any] = {name: groups[name].sum() for name in flags}
    columns["arc_snr_mean"] = groups["arc_snr"].mean()
    columns["arc_snr_p50"] = groups["arc_snr"].apply(_lower_middle)
    table = pd.DataFrame(columns).reset_index()
    table["n_emr"] = table["n"] + table["n_controls"] + table["n_failed"]
    table["completeness"] = _share(table["n_recovered"], table["n"])
    table["completeness_emr"] = _share(table["n_recovered"], table["n_emr"])
    order = [*_KEYS, "n", "n_recovered", "arc_snr_mean", "arc_snr_p50", "completeness"]
    return table[[*order, "n_controls", "n_failed", "n_emr", "completeness_emr", "region_split"]]


def _lower_middle(values: pd.Series) -> float:
    known = np.sort(values.dropna().to_numpy(np.float64))
    return float(known[(known.size - 1) // 2]) if known.size else float("nan")


def _share(part: pd.Series, whole: pd.Series) -> pd.Series:
    return part / whole.where(whole > 0)
