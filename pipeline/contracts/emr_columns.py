"""The EMR system's stamp and metric tables: names, types, order and nullability of their columns.

Types are those of Arrow: string, int32, int64, double, binary. `region_split` is the Hive partition of both tables:
it is last in their schemas and not inside the files.
"""

from __future__ import annotations

from dataclasses import dataclass

PARTITION = "region_split"
STAMP_COLUMN = "stamp_npz"
CONTROL_COLUMN = "ctrl_stamp_npz"
PIPELINE_VERSION = "phase4_pipeline_v1"
ERROR_PREFIX = "Processing error: "


@dataclass(frozen=True)
class EmrColumn:
    """One column.

    Attributes:
        kind: Arrow type.
        nullable: False where every row has a value.
    """

    name: str
    kind: str
    nullable: bool = True


def _columns(kind: str, names: str, *, nullable: bool = True) -> tuple[EmrColumn, ...]:
    return tuple(EmrColumn(name, kind, nullable) for name in names.split())


STAMP_TABLE = (
    *_columns("string", "task_id experiment_id selection_set_id ranking_mode selection_strategy", nullable=False),
    *_columns("int32", "region_id", nullable=False),
    *_columns("string", "brickname", nullable=False),
    *_columns("double", "ra dec", nullable=False),
    *_columns("int32", "stamp_size", nullable=False),
    *_columns("string", "bandset config_id", nullable=False),
    *_columns("double", "theta_e_arcsec src_dmag src_reff_arcsec src_e shear", nullable=False),
    *_columns("int32", "replicate is_control", nullable=False),
    *_columns("int64", "task_seed64"),
    *_columns("double", "src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz"),
    *_columns("int32", "psf_bin depth_bin"),
    *_columns("double", "ab_zp_nmgy"),
    *_columns("string", "pipeline_version"),
    *_columns("double", "psfsize_r psfdepth_r ebv"),
    *_columns("binary", STAMP_COLUMN),
    *_columns("int32", "cutout_ok", nullable=False),
    *_columns("double", "arc_snr arc_snr_sum bad_pixel_frac wise_brightmask_frac"),
    *_columns("int32", "metrics_ok"),
    *_columns("double", "psf_fwhm_used_g psf_fwhm_used_r psf_fwhm_used_z"),
    *_columns("int32", "metrics_only", nullable=False),
    *_columns("string", "lens_model"),
    *_columns("double", "lens_e lens_phi_rad magnification tangential_stretch radial_stretch expected_arc_radius"),
    *_columns("int32", "physics_valid"),
    *_columns("string", "physics_warnings source_mode"),
    *_columns("int32", "cosmos_index"),
    *_columns("double", "lensed_hlr_arcsec"),
    *_columns("string", PARTITION, nullable=False),
)
_METRICS = (
    *("task_id", "experiment_id", "selection_set_id", "ranking_mode", "selection_strategy", "region_id"),
    *("brickname", "config_id", "theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear", "replicate"),
    *("cutout_ok", "arc_snr", "psfsize_r", "psfdepth_r", "ebv", PARTITION),
)
METRICS_TABLE = tuple(column for name in _METRICS for column in STAMP_TABLE if column.name == name)
PAIRED_TABLE = (*STAMP_TABLE, EmrColumn(CONTROL_COLUMN, "binary"))

# What an export takes from the manifest besides `manifest.EMR_COLUMNS`, unchanged.
IDENTITY_COLUMNS = {
    "experiment_id": "string",
    "selection_set_id": "string",
    "ranking_mode": "string",
    "selection_strategy": "string",
    "region_id": "integer",
    "task_seed64": "integer",
    "psf_bin": "integer",
    "depth_bin": "integer",
}
