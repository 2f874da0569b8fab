"""Configurations made from the demo's, and small synthetic cutouts that satisfy the CUTOUTS schema."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import QualitySection, RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.manifest import FROZEN_COLUMNS, ROWS
from pipeline.contracts.schema import validate
from pipeline.kernels.warm_up import warm_up
from pipeline.stages.cutouts import judge, measure_stamps
from pipeline.stages.manifest import host_ids

REPOSITORY = Path(__file__).parents[1]


def pytest_sessionstart() -> None:
    """Compile the kernels once, before any process runs one."""
    warm_up()


def pytest_collection_finish() -> None:
    """Modules and tests stay: the garbage collector need not walk through them in every test."""
    gc.collect()
    gc.freeze()


DEMO_CONFIG = REPOSITORY / "configs" / "demo.yaml"
GOLDEN = REPOSITORY.parent / "shared" / "data" / "emr_golden"
SKY_INVVAR = 2500.0
FROZEN_ROW = {
    "theta_e_arcsec": 1.2,
    "src_dmag": 1.5,
    "src_reff_arcsec": 0.25,
    "src_e": 0.2,
    "shear": 0.05,
    "src_x_arcsec": 0.2,
    "src_y_arcsec": -0.1,
    "src_phi_rad": 0.7,
    "shear_phi_rad": 1.1,
    "src_gr": 0.4,
    "src_rz": 0.3,
    "lens_e": 0.25,
    "lens_phi_rad": 2.0,
}


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """The demo configuration with `section.key=value` overrides."""

    def make(*overrides: str) -> RunConfig:
        return load_config(DEMO_CONFIG, overrides)

    return make


@pytest.fixture(scope="session")
def make_cutouts() -> Callable[..., xr.Dataset]:
    """Usable cutouts of noisy hosts in g, r, z; keyword arguments replace whole variables before judgement."""
    return synthetic_cutouts


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., xr.Dataset]:
    """Manifest rows that belong to some cutouts, all with one frozen arc; keyword arguments replace variables."""
    return synthetic_rows


@pytest.fixture(scope="session")
def golden_manifests() -> list[Path]:
    """The EMR system's own manifests."""
    files = sorted((GOLDEN / "manifests").rglob("*.parquet"))
    if not files:
        pytest.skip(f"no EMR manifests below {GOLDEN}")
    return files


@pytest.fixture(scope="session")
def golden_hashes() -> Path:
    """Folder of the hashes and texts that Spark itself made."""
    folder = GOLDEN / "hash"
    if not folder.is_dir():
        pytest.skip(f"no Spark vectors below {GOLDEN}")
    return folder


def synthetic_cutouts(n_rows: int, size: int = 32, seed: int = 1, **replaced: np.ndarray) -> xr.Dataset:
    """See `make_cutouts`."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size // 2
    host = generator.uniform(0.2, 1.0, (n_rows, 1, 1, 1)) * np.exp(-np.hypot(x, y) / 2.5)
    noise = generator.normal(0.0, SKY_INVVAR**-0.5, (n_rows, 3, size, size))
    values: dict[str, np.ndarray] = {
        "image": (host + noise).astype(np.float32),
        "invvar": np.full((n_rows, 3, size, size), SKY_INVVAR, np.float32),
        "maskbits": np.zeros((n_rows, size, size), np.int32),
        "task_id": np.array([f"task-{seed}-{row}" for row in range(n_rows)], dtype=object),
        "brickname": np.array(["0591m305"] * n_rows, dtype=object),
        "ra_deg": 59.0 + 0.001 * np.arange(n_rows),
        "dec_deg": np.full(n_rows, -30.5),
        "region_split": np.array([""] * n_rows, dtype=object),
        "is_control": np.zeros(n_rows, np.uint8),
        "ebv_mag": np.full(n_rows, 0.03, np.float32),
        "psfdepth_r_mag": np.full(n_rows, 24.0, np.float32),
        "centre_dx_px": generator.uniform(-0.5, 0.5, n_rows).astype(np.float32),
        "centre_dy_px": generator.uniform(-0.5, 0.5, n_rows).astype(np.float32),
        "psfsize_arcsec": np.tile(np.array([1.4, 1.2, 1.1], np.float32), (n_rows, 1)),
        "brick_x_px": generator.uniform(100, 3000, n_rows),
        "brick_y_px": generator.uniform(100, 3000, n_rows),
        "in_bounds": np.ones(n_rows, np.uint8),
        "cutout_ok": np.ones(n_rows, np.uint8),
        "usable": np.zeros(n_rows, np.uint8),
        "reject_reason": np.zeros(n_rows, np.uint8),
        **{f"mag_{band}": np.full(n_rows, mag, np.float32) for band, mag in (("g", 21.0), ("r", 19.5), ("z", 18.8))},
    }
    values.update(replaced)
    values["host_id"] = host_ids(values["brickname"].tolist(), values["ra_deg"].tolist(), values["dec_deg"].tolist())
    values.update(measure_stamps(values["image"], values["invvar"], values["maskbits"], mask_readable=True))
    dataset = xr.Dataset({variable.name: (variable.dims, values[variable.name]) for variable in CUTOUTS.variables})
    dataset = judge(dataset, QualitySection(bad_pixel_frac_max=1.0))
    validate(dataset, CUTOUTS, {"sample": n_rows, "band": 3, "y": size, "x": size})
    return dataset


def synthetic_rows(cutouts: xr.Dataset, **replaced: np.ndarray) -> xr.Dataset:
    """See `make_rows`."""
    n_rows = cutouts.sizes["sample"]
    values = {name: np.full(n_rows, FROZEN_ROW[name]) for name in FROZEN_COLUMNS}
    for variable in ROWS.variables:
        if variable.name in cutouts:
            values[variable.name] = cutouts[variable.name].to_numpy()
    values["psfsize_manifest_arcsec"] = cutouts["psfsize_arcsec"].to_numpy()
    values.update(replaced)
    return xr.Dataset({variable.name: (variable.dims, values[variable.name]) for variable in ROWS.variables})
