"""Scores beside what was injected: one table of examples, one of injections, failures kept.

Columns of both, all float64 unless said otherwise, NaN where unknown: theta_e [arcsec], psf_fwhm (psfsize of the
band) [arcsec], theta_e_over_psf, depth_5sig [mag], source_mag (unlensed) [mag], lensed_mag (arc inside the stamp,
as observed) [mag], host_mag [mag], arc_snr, weight (weight_prior), logit, host_id int64, task_id text.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import INJECTED_ROLES, REJECT_REASONS, ROLES, SPLITS
from pipeline.contracts.errors import VerificationError
from pipeline.contracts.survey import FWHM_PER_SIGMA, PIXEL_SCALE_ARCSEC

SURVEY_DEPTH = "psfdepth_r_mag of the catalogue"
MEASURED_DEPTH = "5 sigma of sky_sigma_nmgy over the N_eff of psfsize_arcsec"
_ZERO_POINT_MAG = 22.5


def scored_examples(columns: xr.Dataset, scores: pd.DataFrame, bands: tuple[str, ...], band: str) -> pd.DataFrame:
    """One row per scored stamp, in the order of the scores.

    A control carries the values of its host; what belongs to an arc is NaN there.

    Args:
        columns: columns of the training cube, all rows.
        scores: task_id, label and logit per stamp.
        bands: bands of the cube in storage order.
        band: band of magnitudes and seeing.

    Returns:
        The columns of the module, label and cube_row int64.

    Raises:
        VerificationError: a score of a row that the cube does not hold, or that is not used there.
    """
    row = _rows_of(columns, scores)
    label = scores["label"].to_numpy().astype(np.int64)
    role = columns["role"].to_numpy()[row]
    has_arc = np.isin(role, [ROLES.index(name) for name in INJECTED_ROLES])
    wrong = int(np.count_nonzero((role == ROLES.index("unused")) | ((label == 1) & ~has_arc)))
    if wrong:
        raise VerificationError(f"{wrong} scores are of stamps that the training cube does not offer")
    frame = _coordinates(columns, bands, band).iloc[row].reset_index(drop=True)
    frame.loc[label == 0, ["theta_e", "theta_e_over_psf", "source_mag", "lensed_mag", "arc_snr", "weight"]] = np.nan
    frame["logit"] = scores["logit"].to_numpy(dtype=np.float64)
    frame["label"] = label
    frame["cube_row"] = row
    return frame


def injection_rows(
    columns: xr.Dataset, scores: pd.DataFrame, split: str, bands: tuple[str, ...], band: str
) -> pd.DataFrame:
    """One row per injection that was asked for in a split, scored or failed.

    Args:
        columns: columns of the training cube, all rows.
        scores: task_id, label and logit of the split's stamps.
        split: one of SPLITS.
        bands: bands of the cube in storage order.
        band: band of magnitudes and seeing.

    Returns:
        The columns of the module, failed (bool), reject_reason (text) and cube_row int64; logit is NaN and weight 0
        for failed rows.

    Raises:
        VerificationError: a pair without exactly one score, or a weight that is not positive.
    """
    positive = scores[scores["label"].to_numpy() == 1]
    logit = np.full(columns.sizes["sample"], np.nan)
    row = _rows_of(columns, positive)
    logit[row] = positive["logit"].to_numpy(dtype=np.float64)
    inside = columns["split"].to_numpy() == SPLITS.index(split)
    chosen = np.flatnonzero(inside & (columns["is_control"].to_numpy() == 0))
    is_pair = np.isin(columns["role"].to_numpy()[chosen], [ROLES.index(name) for name in INJECTED_ROLES])
    frame = _coordinates(columns, bands, band).iloc[chosen].reset_index(drop=True)
    frame["logit"] = logit[chosen]
    frame["failed"] = ~is_pair
    frame["reject_reason"] = np.array(REJECT_REASONS)[columns["reject_reason"].to_numpy()[chosen]]
    frame["cube_row"] = chosen
    if row.size != np.unique(row).size or not np.isfinite(frame["logit"].to_numpy()[is_pair]).all():
        raise VerificationError(f"expected one finite score per pair of split {split}")
    weight = frame["weight"].to_numpy()
    if not (np.isfinite(weight[is_pair]).all() and (weight[is_pair] > 0.0).all()):
        raise VerificationError(f"expected positive weight_prior of every pair of split {split}")
    frame.loc[~is_pair, "weight"] = 0.0
    return frame


def depth_definition(columns: xr.Dataset, band: str) -> str:
    """Which depth a cube's depth_5sig is: the survey's where every used row has it, else the measured one."""
    used = columns["role"].to_numpy() != ROLES.index("unused")
    known = np.isfinite(columns["psfdepth_r_mag"].to_numpy()[used]).all()
    return SURVEY_DEPTH if band == "r" and bool(known) else MEASURED_DEPTH


def measured_depth_mag(
    sky_sigma_nmgy: NDArray[np.floating], psfsize_arcsec: NDArray[np.floating]
) -> NDArray[np.float64]:
    """5-sigma point-source depth of a noise per pixel: 22.5 - 2.5 log10(5 sigma sqrt(N_eff)).

    N_eff = 4 pi (psfsize / (2.3548 pixel scale))**2 is the effective area of a Gaussian PSF in pixels.

    Args:
        sky_sigma_nmgy: (sample,) noise per pixel. [nmgy]
        psfsize_arcsec: (sample,) FWHM. [arcsec]

    Returns:
        (sample,) float64 AB magnitude; NaN where noise or seeing is unknown or not positive. [mag]
    """
    sigma = np.asarray(sky_sigma_nmgy, dtype=np.float64)
    fwhm = np.asarray(psfsize_arcsec, dtype=np.float64)
    known = (sigma > 0.0) & (fwhm > 0.0)
    side = 2.0 * math.sqrt(math.pi) * np.where(known, fwhm, 1.0) / (FWHM_PER_SIGMA * PIXEL_SCALE_ARCSEC)
    return np.where(known, _magnitude(5.0 * np.where(known, sigma, 1.0) * side), np.nan)


def _rows_of(columns: xr.Dataset, scores: pd.DataFrame) -> NDArray[np.int64]:
    found: NDArray[np.intp] = pd.Index(columns["task_id"].to_numpy().astype(object)).get_indexer(
        scores["task_id"].to_numpy()
    )
    if (found < 0).any():
        raise VerificationError(f"{int((found < 0).sum())} scores have a task_id that the training cube does not hold")
    return found.astype(np.int64)


def _coordinates(columns: xr.Dataset, bands: tuple[str, ...], band: str) -> pd.DataFrame:
    index = bands.index(band)

    def column(name: str) -> NDArray[np.float64]:
        values = columns[name].to_numpy()
        return np.asarray(values[:, index] if values.ndim == 2 else values, dtype=np.float64)

    seeing, theta = column("psfsize_arcsec"), column("theta_e_arcsec")
    theta = np.where(theta > 0.0, theta, np.nan)
    seeing = np.where(seeing > 0.0, seeing, np.nan)
    survey = depth_definition(columns, band) == SURVEY_DEPTH
    return pd.DataFrame(
        {
            "task_id": columns["task_id"].to_numpy().astype(object),
            "host_id": columns["host_id"].to_numpy().astype(np.int64),
            "theta_e": theta,
            "psf_fwhm": seeing,
            "theta_e_over_psf": theta / seeing,
            "depth_5sig": column("psfdepth_r_mag") if survey else measured_depth_mag(column("sky_sigma_nmgy"), seeing),
            "source_mag": column("src_mag"),
            "lensed_mag": _magnitude(column("arc_flux_nmgy")),
            "host_mag": column(f"mag_{band}"),
            "arc_snr": column("arc_snr"),
            "weight": column("weight_prior"),
        }
    )


def _magnitude(flux_nmgy: NDArray[np.float64]) -> NDArray[np.float64]:
    known = flux_nmgy > 0.0
    return np.where(known, _ZERO_POINT_MAG - 2.5 * np.log10(np.where(known, flux_nmgy, 1.0)), np.nan)
