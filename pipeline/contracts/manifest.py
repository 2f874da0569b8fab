"""Columns of the two kinds of input table, and the columns of a row once read.

The EMR names are those of the phase-4a manifests; families are "string", "integer", "number".
"""

from __future__ import annotations

from pipeline.contracts.schema import CubeSchema, Variable

EMR_COLUMNS = {
    "task_id": "string",
    "brickname": "string",
    "ra": "number",
    "dec": "number",
    "region_split": "string",
    "zmag": "number",
    "rmag": "number",
    "psfsize_g": "number",
    "psfsize_r": "number",
    "psfsize_z": "number",
    "psfdepth_r": "number",
    "ebv": "number",
    "config_id": "string",
    "theta_e_arcsec": "number",
    "src_dmag": "number",
    "src_reff_arcsec": "number",
    "src_e": "number",
    "shear": "number",
    "stamp_size": "integer",
    "bandset": "string",
    "replicate": "integer",
    "is_control": "integer",
    "src_x_arcsec": "number",
    "src_y_arcsec": "number",
    "src_phi_rad": "number",
    "shear_phi_rad": "number",
    "src_gr": "number",
    "src_rz": "number",
    "lens_model": "string",
    "lens_e": "number",
    "lens_phi_rad": "number",
    "ab_zp_nmgy": "number",
}
PARENT_COLUMNS = {
    "brickname": "string",
    "ra": "number",
    "dec": "number",
    "gmag": "number",
    "rmag": "number",
    "zmag": "number",
}
PARENT_OPTIONAL_COLUMNS = {
    "ebv": "number",
    "psfdepth_r": "number",
    "psfsize_g": "number",
    "psfsize_r": "number",
    "psfsize_z": "number",
    "region_split": "string",
}

_FROZEN = {
    "theta_e_arcsec": "arcsec",
    "src_dmag": "mag",
    "src_reff_arcsec": "arcsec",
    "src_e": "1",
    "shear": "1",
    "src_x_arcsec": "arcsec",
    "src_y_arcsec": "arcsec",
    "src_phi_rad": "rad",
    "shear_phi_rad": "rad",
    "src_gr": "mag",
    "src_rz": "mag",
    "lens_e": "1",
    "lens_phi_rad": "rad",
}
FROZEN_COLUMNS = tuple(_FROZEN)

# What `stages.manifest` hands to the next stages; frozen columns are NaN for a parent catalogue.
ROWS = CubeSchema(
    "rows",
    1,
    (
        Variable("task_id", ("sample",), "str", "1", "Identity of the row"),
        Variable("host_id", ("sample",), "int64", "1", "Hash of brick and position"),
        Variable("brickname", ("sample",), "str", "1", "DR10 brick"),
        Variable("ra_deg", ("sample",), "float64", "deg", "ICRS right ascension"),
        Variable("dec_deg", ("sample",), "float64", "deg", "ICRS declination"),
        Variable("region_split", ("sample",), "str", "1", "EMR split, empty if none"),
        Variable("is_control", ("sample",), "uint8", "1", "1 if no injection is asked for"),
        Variable("mag_g", ("sample",), "float32", "mag", "Host g magnitude"),
        Variable("mag_r", ("sample",), "float32", "mag", "Host r magnitude"),
        Variable("mag_z", ("sample",), "float32", "mag", "Host z magnitude"),
        Variable("ebv_mag", ("sample",), "float32", "mag", "Galactic E(B-V)"),
        Variable("psfdepth_r_mag", ("sample",), "float32", "mag", "5-sigma depth of the brick"),
        Variable("psfsize_manifest_arcsec", ("sample", "band"), "float32", "arcsec", "Brick-average seeing"),
        *(
            Variable(name, ("sample",), "float64", unit, f"Frozen value of the manifest column {name}")
            for name, unit in _FROZEN.items()
        ),
    ),
)
