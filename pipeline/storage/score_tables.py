"""The table of scores of a training cube: what the trainer and `dhs score` write and the evaluation reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray

# Columns of the cube that the table is made of.
SCORE_COLUMNS = (
    "task_id", "pair_id", "host_id", "split", "arc_snr", "theta_e_arcsec", "psfsize_arcsec", "psfdepth_r_mag",
    "bad_pixel_frac", "wise_brightmask_frac", "region_split", "split_healpix", "mag_r", "src_mag", "src_re_arcsec",
)  # fmt: skip


def example_table(
    columns: xr.Dataset,
    label: NDArray[np.uint8],
    logit: NDArray[np.float32],
    score: NDArray[np.float32],
    split: NDArray[np.object_],
    bands: tuple[str, ...],
) -> pa.Table:
    """One row per example, in order; rank by `logit`, because `score` saturates at 1 in float32.

    A control of a pair carries the arc_snr and theta_e_arcsec of its pair; `label` says which stamp was scored.

    Args:
        columns: SCORE_COLUMNS of the examples' rows.
        label: (example) 1 for an injected stamp, 0 for a control.
        logit, score: (example) what the network gave, and its logistic.
        split: (example) name of the split.
        bands: bands of the cube; psfsize_r and src_dmag are left out without r.

    Returns:
        task_id, pair_id, host_id, label, logit, score, split, arc_snr, theta_e_arcsec and psfsize_r [arcsec]; and what
        the EMR completeness job reads beside these: model_score (= score), y_true (= label), cutout_ok, psfdepth_r
        [mag], bad_pixel_frac, wise_brightmask_frac, region_id (the sky cell of the split), region_split, src_dmag
        [mag] and src_reff_arcsec, null for controls. Its keys selection_set_id and ranking_mode are the manifest's:
        they join by task_id.
    """
    is_control = label == 0
    arrays = {
        "task_id": _text(columns["task_id"].to_numpy()),
        "pair_id": pa.array(columns["pair_id"].to_numpy(), pa.int64()),
        "host_id": pa.array(columns["host_id"].to_numpy(), pa.int64()),
        "label": pa.array(label, pa.uint8()),
        "logit": pa.array(logit, pa.float32()),
        "score": pa.array(score, pa.float32()),
        "split": _text(split),
        "arc_snr": _float(columns, "arc_snr"),
        "theta_e_arcsec": _float(columns, "theta_e_arcsec"),
        "model_score": pa.array(score.astype(np.float64), pa.float64()),
        "y_true": pa.array(label, pa.int32()),
        "cutout_ok": pa.array(np.ones(label.size), pa.int32()),
        "psfdepth_r": _float(columns, "psfdepth_r_mag"),
        "bad_pixel_frac": _float(columns, "bad_pixel_frac"),
        "wise_brightmask_frac": _float(columns, "wise_brightmask_frac"),
        "region_id": pa.array(columns["split_healpix"].to_numpy(), pa.int64()),
        "region_split": _text(columns["region_split"].to_numpy()),
        "src_reff_arcsec": pa.array(columns["src_re_arcsec"].to_numpy(), pa.float32(), mask=is_control),
    }
    if "r" in bands:
        band = bands.index("r")
        offset = columns["src_mag"].to_numpy()[:, band] - columns["mag_r"].to_numpy()
        arrays["psfsize_r"] = pa.array(columns["psfsize_arcsec"].to_numpy()[:, band], pa.float32())
        arrays["src_dmag"] = pa.array(offset, pa.float32(), mask=is_control)
    return pa.table(arrays)


def _text(values: NDArray[np.object_]) -> pa.Array:
    return pa.array([str(value) for value in values.tolist()], pa.string())


def _float(columns: xr.Dataset, name: str) -> pa.Array:
    return pa.array(columns[name].to_numpy(), pa.float32())
