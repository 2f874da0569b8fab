"""Completeness and false-positive surfaces with the columns of the EMR phase-5 job.

They are unweighted counts, cell by cell of the manifest's own grid. Recovered means a score of at least the
threshold; an attempt is valid if it has a score; "clean" asks for few bad and few WISE-bright pixels besides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import EMR_KEYS
from pipeline.stages.intervals import wilson_score_interval

SCORE_THRESHOLD = 0.5
PSF_STEP_ARCSEC = 0.1
DEPTH_STEP_MAG = 0.25
RESOLUTION_EDGES = (0.4, 0.6, 0.8, 1.0)
RESOLUTION_LABELS = ("<0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0", ">=1.0")
# Wilson's z is 1.96 in the EMR job: the level of that interval.
_Z_196_LEVEL = 0.950004209703559
_INPUT = ("model_score", "psf_fwhm_r", "psfdepth_r", "bad_pixel_frac", "wise_brightmask_frac", "theta_e_arcsec")


def emr_bins(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with psf_bin, depth_bin, resolution_bin, theta_over_psf and the validity flags.

    Args:
        rows: model_score (NaN without a score), psf_fwhm_r [arcsec], psfdepth_r [mag], theta_e_arcsec,
            bad_pixel_frac, wise_brightmask_frac (NaN: unknown, taken as clean).

    Raises:
        VerificationError: a missing column.
    """
    absent = [name for name in _INPUT if name not in rows]
    if absent:
        raise VerificationError(f"expected the columns {_INPUT}, lacks {absent}")
    frame = rows.copy()
    psf = frame["psf_fwhm_r"].to_numpy(np.float64)
    theta_over_psf = np.divide(frame["theta_e_arcsec"], psf, out=np.full(len(frame), np.nan), where=psf > 0.0)
    frame["theta_over_psf"] = theta_over_psf
    frame["psf_bin"] = _rounded(psf, PSF_STEP_ARCSEC)
    frame["depth_bin"] = _rounded(frame["psfdepth_r"].to_numpy(np.float64), DEPTH_STEP_MAG)
    labels = np.array(RESOLUTION_LABELS)[np.searchsorted(RESOLUTION_EDGES, theta_over_psf, side="right").clip(max=4)]
    frame["resolution_bin"] = np.where(np.isnan(theta_over_psf), "NULL", labels).astype(object)
    score = frame["model_score"].to_numpy(np.float64)
    clean = ~((frame["bad_pixel_frac"] > 0.2) | (frame["wise_brightmask_frac"] > 0.2)).to_numpy(np.bool_)
    valid, above = np.isfinite(score), np.nan_to_num(score, nan=-1.0) >= SCORE_THRESHOLD
    flags = {"valid_all": valid, "valid_clean": valid & clean}
    flags |= {"recovered_all": valid & above, "recovered_clean": valid & clean & above}
    for name, flag in flags.items():
        frame[name] = flag.astype(np.int64)
    return frame


def injection_surfaces(rows: pd.DataFrame) -> pd.DataFrame:
    """completeness_surfaces_injections: one row per cell; a key that the rows lack is left out.

    Args:
        rows: one per asked-for injection, columns of `emr_bins` and the keys among EMR_KEYS.

    Returns:
        Keys, n_attempt, n_valid_all, n_valid_clean, n_recovered_all, n_recovered_clean, model_score_mean,
        model_score_p50, theta_over_psf_mean, completeness_valid_*, completeness_overall_*, valid_frac_*,
        ci_low_valid_*, ci_high_valid_* (Wilson, z = 1.96).
    """
    table = _counted(rows, {"recovered": "n_recovered"})
    for kind in ("all", "clean"):
        table[f"completeness_valid_{kind}"] = _share(table[f"n_recovered_{kind}"], table[f"n_valid_{kind}"])
    for kind in ("all", "clean"):
        table[f"completeness_overall_{kind}"] = _share(table[f"n_recovered_{kind}"], table["n_attempt"])
    for kind in ("all", "clean"):
        table[f"valid_frac_{kind}"] = _share(table[f"n_valid_{kind}"], table["n_attempt"])
    for kind in ("all", "clean"):
        _add_wilson(table, f"n_recovered_{kind}", f"n_valid_{kind}", f"valid_{kind}")
    return table


def region_aggregate(surfaces: pd.DataFrame) -> pd.DataFrame:
    """completeness_surfaces_region_agg_injections: the surfaces over all regions, mean, scatter and pooled.

    Args:
        surfaces: from `injection_surfaces`, with region_id.

    Returns:
        Keys without region_id, n_regions, n_*_total, completeness_valid_*_mean and _std (population), model_score_*,
        theta_over_psf_mean, completeness_valid_*_pooled, ci_low_pooled_*, ci_high_pooled_* (Wilson, z = 1.96).

    Raises:
        VerificationError: no region_id.
    """
    if "region_id" not in surfaces:
        raise VerificationError("expected surfaces with region_id")
    keys = [name for name in EMR_KEYS if name in surfaces and name != "region_id"]
    groups = surfaces.groupby(keys, dropna=False, sort=True)
    columns: dict[str, Any] = {"n_regions": groups["region_id"].nunique()}
    for name in ("attempt", "valid_all", "valid_clean", "recovered_all", "recovered_clean"):
        columns[f"n_{name}_total"] = groups[f"n_{name}"].sum()
    for kind in ("all", "clean"):
        columns[f"completeness_valid_{kind}_mean"] = groups[f"completeness_valid_{kind}"].mean()
        columns[f"completeness_valid_{kind}_std"] = groups[f"completeness_valid_{kind}"].std(ddof=0)
    columns["model_score_mean"] = groups["model_score_mean"].mean()
    columns["model_score_p50"] = groups["model_score_p50"].apply(_lower_median)
    columns["theta_over_psf_mean"] = groups["theta_over_psf_mean"].mean()
    table = pd.DataFrame(columns).reset_index()
    for kind in ("all", "clean"):
        pooled = _share(table[f"n_recovered_{kind}_total"], table[f"n_valid_{kind}_total"])
        table[f"completeness_valid_{kind}_pooled"] = pooled
    for kind in ("all", "clean"):
        _add_wilson(table, f"n_recovered_{kind}_total", f"n_valid_{kind}_total", f"pooled_{kind}")
    return table


def control_surfaces(rows: pd.DataFrame) -> pd.DataFrame:
    """fpr_surfaces_controls: the same cells for stamps without an arc, recovered meaning flagged.

    Args:
        rows: one per control, columns as in `injection_surfaces`.

    Returns:
        Keys, n_attempt, n_valid_*, n_flagged_*, model_score_*, theta_over_psf_mean, fpr_valid_*, ci_low_fpr_*,
        ci_high_fpr_* (Wilson, z = 1.96).
    """
    table = _counted(rows, {"recovered": "n_flagged"})
    for kind in ("all", "clean"):
        table[f"fpr_valid_{kind}"] = _share(table[f"n_flagged_{kind}"], table[f"n_valid_{kind}"])
    for kind in ("all", "clean"):
        _add_wilson(table, f"n_flagged_{kind}", f"n_valid_{kind}", f"fpr_{kind}")
    return table


def _counted(rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    binned = emr_bins(rows)
    keys = [name for name in EMR_KEYS if name in binned]
    groups = binned.groupby(keys, dropna=False, sort=True)
    columns: dict[str, Any] = {"n_attempt": groups.size()}
    for flag in ("valid", *names):
        for kind in ("all", "clean"):
            columns[f"{names.get(flag, 'n_' + flag)}_{kind}"] = groups[f"{flag}_{kind}"].sum()
    columns["model_score_mean"] = groups["model_score"].mean()
    columns["model_score_p50"] = groups["model_score"].apply(_lower_median)
    columns["theta_over_psf_mean"] = groups["theta_over_psf"].mean()
    return pd.DataFrame(columns).reset_index()


def _rounded(values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """To the nearest multiple, halves away from zero as Spark rounds; 12 decimals so that equal bins are equal."""
    return np.round(np.floor(values / step + 0.5) * step, 12)


def _share(part: pd.Series, whole: pd.Series) -> NDArray[np.float64]:
    n = whole.to_numpy(np.float64)
    share: NDArray[np.float64] = np.divide(part.to_numpy(np.float64), n, out=np.full(n.size, np.nan), where=n > 0.0)
    return share


def _lower_median(values: pd.Series) -> float:
    """The element in the middle, the lower one of two: what percentile_approx returns at one half."""
    known = np.sort(values.dropna().to_numpy(np.float64))
    return float(known[(known.size - 1) // 2]) if known.size else float("nan")


def _add_wilson(table: pd.DataFrame, successes: str, trials: str, name: str) -> None:
    low, high = wilson_score_interval(table[successes].to_numpy(), table[trials].to_numpy(), _Z_196_LEVEL)
    table[f"ci_low_{name}"], table[f"ci_high_{name}"] = low, high
