"""Rows of a manifest against the contract: every derived column is computed again from those it follows from."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import (
    AB_ZP_NMGY,
    CELLS_PER_AXIS,
    CONFIG_NUMBERS,
    CONTROL_ID,
    MANIFEST_TYPES,
    PHOTOMETRY,
    SPLIT_NAMES,
    experiment_name,
)
from pipeline.kernels.spark_hash import TextColumn
from pipeline.stages.frozen_draws import draw_frozen, host_hashes, task_seeds
from pipeline.stages.injection_grids import GRID_NAMES, injection_grid
from pipeline.stages.spark_text import six_decimals

# Colours differ in the last digits between mathematical libraries.
DRAW_TOLERANCE = 1e-12
_MAY_BE_NULL = {*PHOTOMETRY, "psfsize_g", "psfsize_z", "ebv"}


def audit_manifest_rows(rows: pd.DataFrame, split_seed: int) -> dict[str, NDArray[np.bool_]]:
    """Violations in rows with the columns of a manifest.

    Args:
        rows: as read, with the types of the contract.
        split_seed: seed of the build.

    Returns:
        What is wrong -> (row,) True where it is; nothing that holds everywhere. Rows with a null are judged no further.
    """
    needed = [name for name in MANIFEST_TYPES if name not in _MAY_BE_NULL]
    incomplete = rows[needed].isna().any(axis=1).to_numpy()
    found = {"a null or NaN in a column that must have a value": incomplete}
    usable = np.flatnonzero(~incomplete)
    for what, wrong in {**_values(rows.iloc[usable]), **_derived(rows.iloc[usable], split_seed)}.items():
        everywhere = np.zeros(len(rows), np.bool_)
        everywhere[usable] = wrong
        found[what] = everywhere
    return {what: wrong for what, wrong in found.items() if wrong.any()}


def _values(rows: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    control = rows["is_control"].to_numpy() == 1
    model = rows["lens_model"].to_numpy()
    grid = np.array([_grid_of(name, of) for name, of in _texts(rows, "config_id", "experiment_id")])
    named = [
        experiment_name(experiment.split("_", 1)[0], int(size), bandset, entry)
        for (experiment, size, bandset), entry in zip(
            _texts(rows, "experiment_id", "stamp_size", "bandset"), grid.tolist(), strict=True
        )
    ]
    expected, known = _parameters(rows, control, grid)
    parameters = np.stack([rows[name].to_numpy() for name in CONFIG_NUMBERS], axis=1)
    bins = rows[["psf_bin", "depth_bin"]].to_numpy()
    return {
        "experiment_id other than tier, stamp_size, bandset and grid say": rows["experiment_id"].to_numpy() != named,
        "config_id of no known grid": ~known,
        "parameters other than config_id and is_control say": known & (parameters != expected).any(axis=1),
        "is_control other than 0 or 1": ~rows["is_control"].isin([0, 1]).to_numpy(),
        "lens_model other than SIE for positives, CONTROL for controls": model != np.where(control, "CONTROL", "SIE"),
        "ra or dec out of range": ~((rows["ra"].between(0, 360, "left")) & (rows["dec"].abs() <= 90)).to_numpy(),
        "region_split unknown": ~rows["region_split"].isin(SPLIT_NAMES).to_numpy(),
        "psf_bin or depth_bin outside 0..3": ((bins < 0) | (bins >= CELLS_PER_AXIS)).any(axis=1),
        "replicate below 0": rows["replicate"].to_numpy() < 0,
        "ab_zp_nmgy other than 22.5": rows["ab_zp_nmgy"].to_numpy() != AB_ZP_NMGY,
    }


def _derived(rows: pd.DataFrame, split_seed: int) -> dict[str, NDArray[np.bool_]]:
    hosts = host_hashes(
        TextColumn.of(rows["brickname"].tolist()), rows["ra"].to_numpy(np.float64), rows["dec"].to_numpy(np.float64)
    )
    replicate = np.maximum(rows["replicate"].to_numpy(), 0)
    seeds = task_seeds(hosts, TextColumn.of(rows["config_id"].tolist()), replicate, split_seed)
    draws = draw_frozen(rows["task_seed64"].to_numpy(np.int64), rows["theta_e_arcsec"].to_numpy(np.float64))
    task_ids = np.array([hashlib.sha256(text.encode()).hexdigest() for text in _task_texts(rows)], object)
    return {
        "task_id other than its columns say": rows["task_id"].to_numpy(object) != task_ids,
        f"task_seed64 other than its columns and seed {split_seed} say": rows["task_seed64"].to_numpy() != seeds,
        **{
            f"{name} other than task_seed64 says": np.abs(rows[name].to_numpy() - values) > DRAW_TOLERANCE
            for name, values in draws.items()
        },
    }


def _task_texts(rows: pd.DataFrame) -> list[str]:
    positions = zip(six_decimals(rows["ra"].tolist()), six_decimals(rows["dec"].tolist()), strict=True)
    names = _texts(rows, "experiment_id", "selection_set_id", "region_split", "brickname")
    ends = _texts(rows, "config_id", "replicate")
    return ["|".join((*name, *position, *end)) for name, position, end in zip(names, positions, ends, strict=True)]


def _parameters(
    rows: pd.DataFrame, control: NDArray[np.bool_], grid: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Parameters that each row should have, (row, 5), and whether its grid entry is known."""
    expected = np.zeros((len(rows), len(CONFIG_NUMBERS)))
    names = rows["config_id"].to_numpy(object)
    known = control & (names == CONTROL_ID)
    for name in set(grid.tolist()) & set(GRID_NAMES):
        table = injection_grid(name)
        entry = pd.Index(table.config_ids).get_indexer(pd.Index(names))
        here = entry >= 0
        known |= here
        values = np.stack([table.numbers[column] for column in CONFIG_NUMBERS], axis=1)
        expected[here & ~control] = values[entry[here & ~control]]
    return expected, known


def _grid_of(config_id: str, experiment_id: str) -> str:
    if config_id != CONTROL_ID:
        return "_".join(config_id.split("_")[:2])
    return next((name for name in GRID_NAMES if experiment_id.endswith(name)), "")


def _texts(rows: pd.DataFrame, *names: str) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, rows[name].tolist()) for name in names), strict=True))
