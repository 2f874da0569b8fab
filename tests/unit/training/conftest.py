"""Small training cubes, written with the real cube writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline.contracts.datasets import ROLES, SPLITS, TRAINING
from pipeline.contracts.network_config import NetworkSection
from pipeline.contracts.schema import SAMPLE_DIM, Variable
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import CubeShape, PublishedCube, create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.cube import write_shard as write_cube_shard
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.epoch_order import batch_share, epoch_permutation
from pipeline.training.features import FeatureSpec
from pipeline.training.feed import Batch
from pipeline.training.models.catalogue import build_network

BANDS = ("g", "r", "z")
SIZE_PX = 32
SHARD_SAMPLES = 40
PROVENANCE = {"bands": list(BANDS), "plan_sha256": "p" * 64, "config_sha256": "c" * 64, "code_version": "abc"}

Edit = Callable[[dict[str, np.ndarray]], None]
CubeMaker = Callable[..., PublishedCube]


def cube_rows(n_rows: int = 120, seed: int = 3) -> dict[str, np.ndarray]:
    """Every variable of the training cube: noisy hosts with rings, splits 7:2:2:1, all roles."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX // 2
    radius = np.hypot(x, y)
    noise = generator.normal(0.0, 0.05, (n_rows, len(BANDS), SIZE_PX, SIZE_PX))
    host = generator.uniform(0.5, 2.0, (n_rows, 1, 1, 1)) * np.exp(-radius / 2.5)
    ring = 0.4 * np.exp(-(((radius - 6.0) / 1.2) ** 2))
    sizes = {SAMPLE_DIM: n_rows, "band": len(BANDS), "y": SIZE_PX, "x": SIZE_PX}
    rows = {variable.name: _zeros(variable, sizes) for variable in TRAINING.variables}
    number = np.arange(n_rows)
    rows["control"] = (host + noise).astype(np.float32)
    rows["injected"] = (host + noise + ring).astype(np.float32)
    rows["task_id"] = np.array([f"task-{i:04d}" for i in number], dtype=object)
    rows["pair_id"] = number.astype(np.int64)
    rows["host_id"] = (1000 + number).astype(np.int64)
    split_codes = [SPLITS.index(name) for name in ("train",) * 7 + ("val",) * 2 + ("test",) * 2 + ("guard",)]
    rows["split"] = np.array(split_codes, dtype=np.uint8)[number % len(split_codes)]
    role_codes = [ROLES.index(name) for name in ("pair", "pair", "control", "pair", "unused")]
    rows["role"] = np.array(role_codes, dtype=np.uint8)[number % len(role_codes)]
    rows["arc_snr"] = generator.uniform(1.0, 30.0, n_rows).astype(np.float32)
    rows["theta_e_arcsec"] = np.full(n_rows, 1.5, dtype=np.float32)
    rows["psfsize_arcsec"] = np.tile(np.array([1.4, 1.2, 1.1], dtype=np.float32), (n_rows, 1))
    return rows


def write_cube(location: Location, rows: dict[str, np.ndarray]) -> PublishedCube:
    """Write and publish a cube of these rows."""
    n_rows = len(rows["role"])
    sizes = {SAMPLE_DIM: n_rows, "band": len(BANDS), "y": SIZE_PX, "x": SIZE_PX}
    shape = CubeShape(sizes, SHARD_SAMPLES, 8)
    create_cube(location, TRAINING, shape)
    for shard in range(shape.n_shards):
        part = {v.name: (v.dims, rows[v.name][shape.rows(shard)]) for v in TRAINING.variables}
        write_cube_shard(location, TRAINING, shape, shard, xr.Dataset(part))
    publish_cube(location, cube_attributes(TRAINING, shape, PROVENANCE))
    return open_cube(location)


@pytest.fixture
def make_cube(tmp_path: Path) -> CubeMaker:
    """Write and publish a cube; `edit` changes the rows before they are written."""

    def make(edit: Edit | None = None, n_rows: int = 120, name: str = "cube") -> PublishedCube:
        rows = cube_rows(n_rows)
        if edit is not None:
            edit(rows)
        return write_cube(Location(str(tmp_path / name)), rows)

    return make


@pytest.fixture(scope="session")
def long_cube(tmp_path_factory: pytest.TempPathFactory) -> PublishedCube:
    """A cube of ten shards that no test changes."""
    return write_cube(Location(str(tmp_path_factory.mktemp("long") / "cube")), cube_rows(400))


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A whole run configuration for a short training."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
run: {{name: t, root: {tmp_path}, region: null, seed: 11}}
survey: {{bands: [g, r, z], stamp_size_px: {SIZE_PX}, bricks: {tmp_path}, layout: cache}}
manifest: {{kind: emr, url: {tmp_path}/m.parquet}}
injection: {{mode: frozen, extinction: true}}
sampling: {{method: none, metric: arc_snr}}
shards: {{samples: {SHARD_SAMPLES}, inner_chunk: 8}}
cluster: {{kind: local}}
training:
  {{epochs: 2, batch_size: 16, network: {{base_channels: 4}}, threads: 1, preprocess: {{annulus_px: [9, 16]}}}}
""",
        encoding="utf-8",
    )
    return path


def _zeros(variable: Variable, sizes: dict[str, int]) -> np.ndarray:
    shape = tuple(sizes[dim] for dim in variable.dims)
    return np.full(shape, "", dtype=object) if variable.dtype == "str" else np.zeros(shape, dtype=variable.dtype)


@pytest.fixture
def make_feed() -> Callable[..., ArrayFeed]:
    """A split of given stamps, read as a feed of a cube would be."""

    def make(
        stamps: np.ndarray,
        label: np.ndarray,
        row: np.ndarray | None = None,
        columns: dict[str, np.ndarray] | None = None,
        features: np.ndarray | None = None,
        split: str = "train",
    ) -> ArrayFeed:
        return ArrayFeed(stamps, label, row, columns or {}, features, split)

    return make


class ArrayFeed:
    """Stands for a SplitFeed in tests of what comes after it; keeps the ids it gave out."""

    def __init__(self, stamps, label, row, columns, features, split) -> None:
        self.stamps, self.label, self.split = stamps.astype(np.float32), label.astype(np.uint8), split
        self.row = np.arange(len(label)) if row is None else row
        self.columns = xr.Dataset({name: ("example", values) for name, values in columns.items()})
        self.features = np.empty((len(label), 0), np.float32) if features is None else features.astype(np.float32)
        self.stamp_shape = self.stamps.shape[1:]
        self.given: list[int] = []

    def __len__(self) -> int:
        return len(self.label)

    def shuffled(self, batch_size, seed, epoch, rank=0, world=1, start_batch=0):
        order = epoch_permutation(len(self), seed, epoch)
        for start in range(start_batch * batch_size, len(self), batch_size):
            share = order[start : start + batch_size]
            yield self._batch(share[slice(*batch_share(share.size, rank, world, 1))])

    def in_order(self, batch_size, rank=0, world=1):
        for start in range(0, len(self), batch_size):
            share = np.arange(start, min(start + batch_size, len(self)))
            yield self._batch(share[slice(*batch_share(share.size, rank, world, 1))])

    def _batch(self, chosen: np.ndarray) -> Batch:
        self.given.extend(chosen.tolist())
        label = torch.from_numpy(self.label[chosen].astype(np.float32))
        features = torch.from_numpy(self.features[chosen])
        return Batch(torch.from_numpy(self.stamps[chosen]), label, torch.ones_like(label), self.row[chosen], features)


@pytest.fixture
def make_checkpoint() -> Callable[..., Checkpoint]:
    """A network that was not trained."""

    def make(
        seed: int = 0,
        bands: tuple[str, ...] = BANDS,
        size: int = SIZE_PX,
        annulus_px: tuple[float, float] = (9.0, 16.0),
        features: FeatureSpec | None = None,
    ) -> Checkpoint:
        torch.manual_seed(seed)
        network = NetworkSection(base_channels=4)
        weights = build_network(network, len(bands), 0 if features is None else len(features.mean)).state_dict()
        spec = PreprocessSection(annulus_px=annulus_px)
        made = (weights, network, features, spec, bands, size, 0.262, 0, "val_auc", {}, 1)
        return Checkpoint(*made, "a", "b", "c", "d", "e")

    return make
