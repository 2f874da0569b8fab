"""EMR rows of runs that draw their own arcs; frozen runs are compared with the EMR code in tests/unit/driver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.emr_columns import STAMP_COLUMN, STAMP_TABLE
from pipeline.contracts.emr_manifest import MANIFEST_TYPES
from pipeline.contracts.errors import ContractError
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.emr_stamps import EmrShard, emr_stamp_columns, rows_with_control
from pipeline.stages.injection import Injector
from pipeline.stages.pairs import make_pairs

SIZE = 24
CHEAP = (
    f"survey.stamp_size_px={SIZE}",
    "injection.accuracy=0.02",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "training.preprocess={annulus_px: [8, 12]}",
)


@pytest.fixture(scope="module")
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    """SNR-first on cheap stamps."""
    return make_config(*CHEAP)


@pytest.fixture(scope="module")
def shard(config: RunConfig, make_cutouts: Callable[..., xr.Dataset], make_rows: Callable[..., xr.Dataset]) -> EmrShard:
    """Four rows of a parent catalogue: two pairs, a row out of bounds, a control row with a split of its own."""
    cutouts = make_cutouts(
        4,
        size=SIZE,
        in_bounds=np.array([1, 1, 0, 1], np.uint8),
        is_control=np.array([0, 0, 0, 1], np.uint8),
        region_split=np.array(["", "", "", "val"], dtype=object),
    )
    pairs = make_pairs(cutouts, make_rows(cutouts), 0, config, Injector(config, None, InjectionAssets()))
    made = ~np.isnan(pairs["injected"].to_numpy()).all(axis=(1, 2, 3))
    pixels = [variable.name for schema in (CUTOUTS, TRAINING) for variable in schema.variables if variable.is_pixels]
    small = (dataset.drop_vars(pixels, errors="ignore") for dataset in (cutouts, pairs))
    return EmrShard(None, *small, made)


def test_drawn_arcs_are_written_as_emr_parameters(shard: EmrShard, config: RunConfig) -> None:
    """The cube's numbers come back out of the EMR ones; every column of the table is there."""
    columns = emr_stamp_columns(shard, config)
    assert {column.name for column in STAMP_TABLE} - set(columns) == {STAMP_COLUMN}
    pairs = shard.pairs
    for row in (0, 1):
        e = columns["lens_e"][row]
        assert (1 - e) / (1 + e) == pytest.approx(float(pairs["lens_q"][row]), rel=1e-6)
        shear, phi = columns["shear"][row], columns["shear_phi_rad"][row]
        assert shear * np.sin(2 * phi) == pytest.approx(float(pairs["shear_gamma2"][row]), abs=1e-7)
        assert columns["src_dmag"][row] == pytest.approx(
            float(pairs["src_mag"][row, 1] - pairs["mag_r"][row]), abs=1e-5
        )
        assert columns["arc_snr"][row] == pytest.approx(float(pairs["snr_target"][row]), rel=1e-5)
    assert columns["lens_model"].tolist() == ["SIE", "SIE", "SIE", "CONTROL"]
    assert columns["cutout_ok"].astype(int).tolist() == [1, 1, 0, 1]
    assert columns["metrics_ok"].astype(int).tolist() == [1, 1, 0, 1]
    assert columns["arc_snr"].mask.tolist() == [False, False, True, True]
    assert columns["physics_valid"].tolist() == [1, 1, 0, None]
    assert columns["physics_warnings"].tolist()[2] == "Processing error: out_of_bounds"
    assert columns["region_split"].tolist()[3] == "val"
    assert set(columns["region_split"].tolist()[:3]) <= {"train", "val", "test", "guard"}
    assert columns["region_id"].tolist() == [-1] * 4


def test_only_whole_positives_are_paired(shard: EmrShard, config: RunConfig) -> None:
    """Controls, rows without stamp and controls with an undefined pixel are left out."""
    control = np.zeros((4, 3, SIZE, SIZE), np.float32)
    control[1, 2, 0, 0] = np.nan
    cutout_ok = emr_stamp_columns(shard, config)["cutout_ok"].data
    assert rows_with_control(shard, cutout_ok, control).tolist() == [True, False, False, False]


def test_other_bands_and_other_rows_are_refused(
    shard: EmrShard, config: RunConfig, make_config: Callable[..., RunConfig]
) -> None:
    """arc_snr of another band is not the EMR column; a manifest of other rows is not this run's."""
    with pytest.raises(ContractError, match="band r"):
        emr_stamp_columns(shard, make_config(*CHEAP, "sampling.band=g"))
    other = EmrShard(pd.DataFrame({"task_id": ["a", "b", "c", "d"]}), shard.cutouts, shard.pairs, shard.has_stamp)
    with pytest.raises(ContractError, match="other rows"):
        emr_stamp_columns(other, config)


def test_labels_of_arcs_that_a_manifest_did_not_decide(shard: EmrShard, config: RunConfig) -> None:
    """A run that draws its arcs keeps the manifest's identity, not the grid cell and the seed of another arc."""
    manifest = pd.DataFrame({name: ["x" if kind == "string" else 1] * 4 for name, kind in MANIFEST_TYPES.items()})
    manifest["task_id"] = shard.pairs["task_id"].to_numpy()
    manifest["config_id"] = ["grid_sota_a", "grid_sota_b", "grid_sota_c", "CONTROL"]
    manifest["task_seed64"] = [1, 2, 3, 4]
    columns = emr_stamp_columns(EmrShard(manifest, shard.cutouts, shard.pairs, shard.has_stamp), config)
    assert columns["config_id"].tolist() == ["sample", "sample", "sample", "CONTROL"]
    assert columns["task_seed64"].mask.all()
    assert columns["experiment_id"].tolist() == ["x"] * 4
