"""The two cubes' schemas as promises to readers."""

from __future__ import annotations

from collections.abc import Callable

import astropy.units as u
import pytest
import xarray as xr

from pipeline.contracts.datasets import (
    CUTOUTS,
    HOST_COLUMNS,
    INJECTED_ROLES,
    REJECT_REASONS,
    ROLES,
    SNR_METRICS,
    SPLITS,
    TRAINING,
)
from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest import ROWS
from pipeline.contracts.schema import CubeSchema, validate

ALL = [*CUTOUTS.variables, *TRAINING.variables, *ROWS.variables]


@pytest.mark.parametrize("schema", [CUTOUTS, TRAINING, ROWS], ids=lambda schema: schema.name)
def test_names_are_unique_and_start_with_sample(schema: CubeSchema) -> None:
    """No name occurs twice and every first dimension is sample."""
    names = [variable.name for variable in schema.variables]
    assert len(names) == len(set(names))
    assert {variable.dims[0] for variable in schema.variables} == {"sample"}


def test_units_are_ones_that_astropy_reads_and_names_agree() -> None:
    """Units parse (nmgy is a survey unit), descriptions exist, and a unit in the name is the unit."""
    suffixes = {"_arcsec": "arcsec", "_deg": "deg", "_rad": "rad", "_px": "pixel", "_nmgy": "nmgy"}
    for variable in ALL:
        assert variable.unit == "1" or u.Unit(variable.unit.replace("nmgy", "Jy")) != u.dimensionless_unscaled
        assert len(variable.description) >= 5
        for suffix, unit in suffixes.items():
            assert not variable.name.endswith(suffix) or variable.unit == unit, variable.name


def test_host_columns_are_the_same_in_both_cubes() -> None:
    """The copied columns have one definition."""
    for column in HOST_COLUMNS:
        assert CUTOUTS[column.name] == column == TRAINING[column.name]


def test_flags_have_meanings_that_split_on_blanks() -> None:
    """CF flag meanings are words without blanks, and code 0 is the neutral one."""
    for flags in (REJECT_REASONS, ROLES, SPLITS):
        assert len(set(flags)) == len(flags) <= 256
        assert not any(" " in flag for flag in flags)
    assert REJECT_REASONS[0] == "none"
    assert ROLES == ("unused", "pair", "control", "injected")
    assert set(INJECTED_ROLES) <= set(ROLES)


def test_snr_metrics_are_columns() -> None:
    """Every selectable metric is stored."""
    assert {TRAINING[name].dtype for name in SNR_METRICS} == {"float32"}


def test_training_cube_has_a_new_version_with_its_new_columns() -> None:
    """The cube holds what describes lens, source and arc of a pair, the EMR relabel, and why a PSF is unreadable."""
    added = {
        "lens_slope", "src_template", "src_mirror", "src_components", "src_redshift", "arc_snr_annulus",
        "arc_snr_region", "arc_snr_cumulative", "magnification", "arc_radius_arcsec", "arc_core_frac",
        "arc_tangential_extent_rad", "lensed_hlr_arcsec", "sky_nmgy", "region_split_relabel", "arc_suppressed_frac",
        "mag_outside_prior",
    }  # fmt: skip
    assert TRAINING.version == 3
    assert added <= {variable.name for variable in TRAINING.variables}
    assert TRAINING["sky_nmgy"].dims == ("sample", "band")
    assert REJECT_REASONS.index("psf_unreadable") == 13
    assert CUTOUTS["reject_reason"].flags == TRAINING["reject_reason"].flags == REJECT_REASONS


def test_synthetic_cutouts_satisfy_the_schema_and_damage_does_not(make_cutouts: Callable[..., xr.Dataset]) -> None:
    """The shared fixture is valid, and dropping a variable from it is noticed."""
    cutouts = make_cutouts(3, size=16)
    sizes = {"sample": 3, "band": 3, "y": 16, "x": 16}
    validate(cutouts, CUTOUTS, sizes)
    with pytest.raises(ContractError, match="missing variable 'invvar'"):
        validate(cutouts.drop_vars("invvar"), CUTOUTS, sizes)
