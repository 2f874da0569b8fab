"""Scores of a cutouts cube: usable stamps only, through the checkpoint's preprocessing, read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import (
    CubeShape,
    PublishedCube,
    create_cube,
    cube_attributes,
    open_cube,
    publish_cube,
    write_shard,
)
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.features import FeatureSpec
from pipeline.training.preprocess import normalise
from pipeline.training.score_cutouts import main, score_cutouts

SIZE, N_ROWS = 32, 6
SPEC = PreprocessSection(annulus_px=(10.0, 16.0))


@pytest.fixture
def cube(make_cutouts: Callable[..., xr.Dataset], tmp_path: Path) -> PublishedCube:
    """Two shards of stamps; rows 1 and 4 are not usable."""
    dataset = make_cutouts(N_ROWS, SIZE)
    usable = np.ones(N_ROWS, np.uint8)
    usable[[1, 4]] = 0
    dataset = dataset.assign(usable=("sample", usable))
    location = Location(str(tmp_path / "cube"))
    shape = CubeShape({"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}, shard_samples=4, inner_chunk=2)
    create_cube(location, CUTOUTS, shape)
    for shard in range(shape.n_shards):
        write_shard(location, CUTOUTS, shape, shard, dataset.isel(sample=shape.rows(shard)))
    publish_cube(location, cube_attributes(CUTOUTS, shape, {"bands": ["g", "r", "z"]}))
    return open_cube(location)


@pytest.fixture
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    """The demo's with the checkpoint's annulus."""
    return make_config("survey.stamp_size_px=32", "training.preprocess.annulus_px=[10, 16]")


CheckpointMaker = Callable[..., Checkpoint]


def store(made: Checkpoint, folder: Path) -> Location:
    """A checkpoint as a file."""
    location = Location(str(folder / "checkpoint.safetensors"))
    location.write_bytes(made.to_bytes())
    return location


def test_usable_stamps_are_scored_as_in_training(
    config: RunConfig, cube: PublishedCube, make_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    """Logits are those of the network on normalised stamps beside their features; unusable rows have none."""
    features = FeatureSpec(("psfsize_arcsec",), (1.0, 1.0, 1.0), (0.1, 0.1, 0.1))
    made = make_checkpoint(annulus_px=SPEC.annulus_px, features=features)
    out = Location(str(tmp_path / "scores.parquet"))
    table = score_cutouts(config, store(made, tmp_path), cube, out)
    assert table["cube_row"].to_pylist() == [0, 2, 3, 5]
    names = ["image", "psfsize_arcsec"]
    rows = xr.concat([cube.read_shard(shard, names) for shard in (0, 1)], "sample").isel(sample=[0, 2, 3, 5])
    stamps = normalise(torch.from_numpy(rows["image"].to_numpy()), SPEC)
    beside = (torch.from_numpy(rows["psfsize_arcsec"].to_numpy()) - 1.0) / 0.1
    with torch.inference_mode():
        expected = made.build(torch.device("cpu"))(stamps, beside).numpy()
    np.testing.assert_allclose(table["logit"].to_numpy(), expected, rtol=1e-4, atol=1e-5)
    assert out.exists()


def test_other_stamps_or_preprocessing_are_refused(
    config: RunConfig,
    cube: PublishedCube,
    make_config: Callable[..., RunConfig],
    make_checkpoint: CheckpointMaker,
    tmp_path: Path,
) -> None:
    """Nothing is scored and nothing written."""
    out = Location(str(tmp_path / "scores.parquet"))
    with pytest.raises(ContractError, match="trained with preprocess"):
        score_cutouts(make_config(), store(make_checkpoint(annulus_px=SPEC.annulus_px), tmp_path), cube, out)
    with pytest.raises(ContractError, match="expects stamps of 64 px"):
        score_cutouts(config, store(make_checkpoint(size=64), tmp_path), cube, out)
    with pytest.raises(ContractError, match="no checkpoint"):
        score_cutouts(config, Location(str(tmp_path / "none.safetensors")), cube, out)
    assert not out.exists()


def test_the_program_ends_with_the_error_s_code(tmp_path: Path) -> None:
    """A configuration that is not there is exit code 2."""
    arguments = ["--config", str(tmp_path / "none.yaml"), "--checkpoint", "c", "--cube", "d", "--out", "e"]
    assert main(arguments) == 2
