"""What stage 4a of the EMR system reads and writes: columns, types, names, and the tables of a build in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIPELINE_VERSION = "phase4_pipeline_merged_v2"
AB_ZP_NMGY = 22.5
CONTROL_ID = "CONTROL"
SPLIT_NAMES = ("test", "train", "val")
DEFAULT_SPLIT_SEED = 13
CELLS_PER_AXIS = 4

# Parquet types of a manifest, in the order of its columns; any of them may be null.
MANIFEST_TYPES = {
    "task_id": "string",
    "experiment_id": "string",
    "selection_set_id": "string",
    "selection_strategy": "string",
    "ranking_mode": "string",
    "region_id": "int32",
    "region_split": "string",
    "brickname": "string",
    "ra": "double",
    "dec": "double",
    "zmag": "float",
    "rmag": "float",
    "w1mag": "float",
    "rz": "float",
    "zw1": "float",
    "psfsize_g": "double",
    "psfsize_r": "double",
    "psfsize_z": "double",
    "psfdepth_r": "double",
    "ebv": "double",
    "psf_bin": "int32",
    "depth_bin": "int32",
    "config_id": "string",
    "theta_e_arcsec": "double",
    "src_dmag": "double",
    "src_reff_arcsec": "double",
    "src_e": "double",
    "shear": "double",
    "stamp_size": "int32",
    "bandset": "string",
    "replicate": "int32",
    "is_control": "int32",
    "task_seed64": "int64",
    "src_x_arcsec": "double",
    "src_y_arcsec": "double",
    "src_phi_rad": "double",
    "shear_phi_rad": "double",
    "src_gr": "double",
    "src_rz": "double",
    "lens_model": "string",
    "lens_e": "double",
    "lens_phi_rad": "double",
    "ab_zp_nmgy": "double",
    "pipeline_version": "string",
}
PHOTOMETRY = ("zmag", "rmag", "w1mag", "rz", "zw1")
BRICK_NUMBERS = ("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_r", "ebv")
CONFIG_NUMBERS = ("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear")

# Types a parent catalogue must have: they decide how Spark hashes a value.
PARENT_TYPES = {
    "brickname": ("string",),
    "ra": ("double",),
    "dec": ("double",),
    "region_id": ("int16", "int32", "int64"),
    "region_split": ("string",),
    **dict.fromkeys(PHOTOMETRY, ("float",)),
}
SELECTION_TYPES = {
    "selection_set_id": ("string",),
    "selection_strategy": ("string",),
    "ranking_mode": ("string",),
    "region_id": ("int16", "int32", "int64"),
    "region_split": ("string",),
}
BRICK_TYPES = {
    "brickname": ("string",),
    "psfsize_r": ("double", "float"),
    "psfdepth_r": ("double", "float"),
    "ebv": ("double", "float"),
}
BRICK_OPTIONAL_TYPES = {"psfsize_g": ("double", "float"), "psfsize_z": ("double", "float")}

# Why rows of the parent catalogue were kept out, in the order in which they are asked.
DROP_REASONS = ("lrg_flag_unset", "region_not_selected", "brick_unknown", "psfsize_or_depth_missing")


@dataclass(frozen=True)
class BrickTable:
    """Bricks in the order of their names, which are distinct.

    Attributes:
        names: such as 0591m305.
        numbers: the BRICK_NUMBERS, each (brick,) float64, NaN where unknown; FWHM in arcsec, depth and ebv in mag.
    """

    names: tuple[str, ...]
    numbers: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Selections:
    """Which regions each selection set takes.

    Attributes:
        set_ids: sorted, distinct; strategies and modes belong to them.
        region_ids: (region,) int64, sorted, distinct.
        split: (region,) int8 index into SPLIT_NAMES.
        member: (set, region) bool.
    """

    set_ids: tuple[str, ...]
    strategies: tuple[str, ...]
    modes: tuple[str, ...]
    region_ids: NDArray[np.int64]
    split: NDArray[np.int8]
    member: NDArray[np.bool_]


@dataclass(frozen=True)
class HostBatch:
    """Consecutive rows of a parent catalogue; every array (row,).

    Attributes:
        first_row: number of the first one in the catalogue.
        flag: True where the row has the demanded flag.
        brick: int32 index into the brick table, -1 if it has no such brick.
        ra_deg, dec_deg: float64, NaN where null.
        region_id: int64, -1 where null.
        split: int8 index into SPLIT_NAMES, -1 if it is none of them.
        photometry: columns of PHOTOMETRY that were read, float32, masked where null.
    """

    first_row: int
    flag: NDArray[np.bool_]
    brick: NDArray[np.int32]
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    region_id: NDArray[np.int64]
    split: NDArray[np.int8]
    photometry: dict[str, np.ma.MaskedArray[Any, np.dtype[np.float32]]]

    def __len__(self) -> int:
        return len(self.flag)


@dataclass(frozen=True)
class HostSample:
    """Hosts that a tier takes: one entry for each selection set that a host is taken for; every array (entry,).

    Attributes:
        selection: int16 index of the selection set.
        split: int8 index into SPLIT_NAMES.
        row: int64 row of the parent catalogue.
        row_id: int64 hash of the host.
    """

    selection: NDArray[np.int16]
    split: NDArray[np.int8]
    row: NDArray[np.int64]
    row_id: NDArray[np.int64]


@dataclass(frozen=True)
class Hosts:
    """Hosts that are taken, ordered by brick, right ascension and declination; every array (host,).

    Attributes:
        row: int64 row of the parent catalogue.
        brick: int32 index into the brick table.
        ra_deg, dec_deg: float64.
        region_id: int32.
        photometry: the PHOTOMETRY, float32 [mag], masked where null.
    """

    row: NDArray[np.int64]
    brick: NDArray[np.int32]
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    region_id: NDArray[np.int32]
    photometry: dict[str, np.ma.MaskedArray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class CodedTexts:
    """A column of texts: row i is texts[codes[i]]."""

    codes: NDArray[np.int32]
    texts: tuple[str, ...]


def experiment_name(tier: str, stamp_size_px: int, bandset: str, grid: str) -> str:
    """The experiment_id, such as train_stamp64_bandsgrz_gridgrid_sota."""
    return f"{tier}_stamp{stamp_size_px}_bands{bandset}_grid{grid}"
