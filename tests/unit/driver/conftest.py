"""Runs of the EMR system's own manifests, made in this process with the EMR system's own arcs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS, SNR_METRICS, TRAINING
from pipeline.driver.plan import make_plan
from pipeline.driver.provenance import code_version
from pipeline.driver.run import open_record
from pipeline.driver.tasks import ShardTask, make_cutouts_shard, make_training_shard
from pipeline.kernels.random import task_keys
from pipeline.stages import pairs
from pipeline.stages.injection import Accepted, Exposure, Host, Injector, expose
from pipeline.storage.cube import create_cube, cube_attributes, publish_cube
from pipeline.storage.locations import RunLayout
from pipeline.storage.source_bank import read_bank

REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY.parent / "shared" / "data" / "emr_golden"
BANK = GOLDEN / "inputs" / "cosmos_bank_16.h5"
SALT = "golden_v1"
CORE_RADIUS_PX = 5.0
# Of a table with more rows one in THINNED is taken.
WHOLE_ROWS, THINNED = 200, 12


@dataclass(frozen=True)
class GoldenRun:
    """A run and what the EMR code wrote for the same rows.

    Attributes:
        rows, metrics: by task_id, the EMR columns.
        stamps, arcs: (band, y, x) by task_id; arcs of some positives, which our run was given.
    """

    layout: RunLayout
    config: RunConfig
    rows: pd.DataFrame
    metrics: pd.DataFrame
    stamps: dict[str, np.ndarray]
    arcs: dict[str, np.ndarray]


def golden_stamps(name: str) -> dict[str, np.ndarray]:
    """Stamps of one EMR run by task_id; empty where none were kept."""
    path = GOLDEN / "stage4c" / name / "stamps.npz"
    if not path.exists():
        return {}
    stored = np.load(path, allow_pickle=False)
    return dict(zip(stored["task_id"].tolist(), stored["image"], strict=True))


def golden_arcs(name: str) -> dict[str, np.ndarray]:
    """The arcs behind one EMR run, as far as the runs over empty coadds have them.

    Those of the psfsize maps only where map and manifest agree in r, hence without g and z.
    """
    if name.startswith("unp1_debug"):
        return {}
    if name.startswith("unp1"):
        return same_arcs(name, "sersic_moffat")
    arcs = golden_stamps("arc_" + name.removeprefix("arc_").removesuffix("_core5").removesuffix("_psfmaps"))
    if name.endswith("_core5"):
        y, x = np.mgrid[:64, :64] - 32
        arcs = {task: np.where(np.hypot(x, y) < CORE_RADIUS_PX, np.float32(0), arc) for task, arc in arcs.items()}
    return arcs


def same_arcs(name: str, other: str) -> dict[str, np.ndarray]:
    """The arcs of another run's rows with the same seed, hence the same numbers, under this run's task_ids."""
    rows = [
        pd.read_parquet(GOLDEN / "stage4c" / run / "rows.parquet").query("is_control == 0") for run in (name, other)
    ]
    arcs = golden_arcs(other)
    known = {seed: task for task, seed in zip(rows[1]["task_id"], rows[1]["task_seed64"], strict=True) if task in arcs}
    own = zip(rows[0]["task_id"], rows[0]["task_seed64"], strict=True)
    return {task: arcs[known[seed]] for task, seed in own if seed in known}


@pytest.fixture(scope="session")
def golden_run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], GoldenRun]:
    """Makes the run of a folder of golden stage-4c output, `emr_compat` on; each is made once."""
    if not GOLDEN.is_dir():
        pytest.skip(f"real imaging is not here: {GOLDEN}")

    @cache
    def make(name: str) -> GoldenRun:
        folder = tmp_path_factory.mktemp(name)
        rows, metrics = (
            pd.read_parquet(GOLDEN / "stage4c" / name / f"{table}.parquet").set_index("task_id")
            for table in ("rows", "metrics")
        )
        arcs = golden_arcs(name)
        if name.endswith("_psfmaps"):
            arcs = {task: arc for task, arc in arcs.items() if rows.loc[task, "brickname"] == "0591m305"}
        manifest = GOLDEN / "manifests" / ("golden_unp1" if name.startswith("unp1") else "golden_all")
        manifest = manifest / f"{rows['experiment_id'].iloc[0]}.parquet"
        if len(rows) > WHOLE_ROWS:
            table = pd.read_parquet(manifest)[::THINNED]
            manifest = folder / "manifest.parquet"
            table.to_parquet(manifest, index=False)
            rows, metrics = rows.loc[table["task_id"]], metrics.loc[table["task_id"]]
        settings = [
            f"run.root={folder}",
            f"survey.bricks={empty_coadds(folder / 'coadds') if name.startswith('arc_') else GOLDEN / 'inputs/coadds'}",
            f"manifest.url={manifest}",
            "injection.emr_compat=true",
            f"injection.psf.profile={'gaussian' if 'gaussian' in name else 'moffat'}",
            f"injection.psf.psfsize_from={'map' if name.endswith('_psfmaps') else 'manifest'}",
            "shards.samples=48",
        ]
        if "cosmos" in name:
            bank = f"{{kind: bank, url: {BANK}, sha256: {read_bank(BANK).digest}, emr_salt: {SALT}}}"
            settings.append(f"injection.source={bank}")
        config = load_config(REPOSITORY / "configs" / "demo-real.yaml", settings)
        return GoldenRun(run_with_arcs(config, arcs), config, rows, metrics, golden_stamps(name), arcs)

    return make


@pytest.fixture(scope="session")
def golden_run(golden_run_of: Callable[[str], GoldenRun]) -> GoldenRun:
    """All 88 rows of golden_all in two shards."""
    return golden_run_of("sersic_moffat")


@pytest.fixture(scope="session")
def make_run() -> Callable[[RunConfig], RunLayout]:
    """See `make_run_here`."""
    return make_run_here


def empty_coadds(folder: Path) -> Path:
    """The golden bricks with images of zeros, as the EMR runs whose stamps are bare arcs had them."""
    for brick in (GOLDEN / "inputs" / "coadds").iterdir():
        (folder / brick.name).mkdir(parents=True)
        for file in brick.iterdir():
            target = folder / brick.name / file.name
            if "-image-" not in file.name:
                target.symlink_to(file)
                continue
            with fits.open(file) as opened:
                image = fits.CompImageHDU(np.zeros_like(opened[1].data), opened[1].header, compression_type="GZIP_2")
                fits.HDUList([fits.PrimaryHDU(), image]).writeto(target)
    return folder


def run_with_arcs(config: RunConfig, arcs: dict[str, np.ndarray]) -> RunLayout:
    """A run that is given some arcs (band, y, x) by task_id instead of rendering them; what is measured is of them."""
    by_key = dict(zip(task_keys(list(arcs)).tolist(), arcs.values(), strict=True))

    def expose_emr_arc(injector: Injector, host: Host, accepted: Accepted, invvar: np.ndarray) -> Exposure:
        ours = expose(injector, host, accepted, invvar)
        arc = by_key.get(int(host.task_key))
        if arc is None:
            return ours
        snr = dict(zip(SNR_METRICS, injector.snr(host, arc[1]), strict=True))
        return replace(ours, arc_nmgy=arc, columns={**ours.columns, **snr, **shape_of(injector, accepted, arc)})

    def shape_of(injector: Injector, accepted: Accepted, arc: np.ndarray) -> dict[str, float]:
        described = injector.renderer.describe(accepted.draw, arc[1])
        return {"lensed_hlr_arcsec": described["lensed_hlr_arcsec"]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "expose", expose_emr_arc)
        return make_run_here(config)


def make_run_here(config: RunConfig) -> RunLayout:
    """Both cubes of a run, published, without a cluster."""
    layout = RunLayout.of(config.run)
    plan = make_plan(config)
    open_record(layout, config, plan)
    for name, schema, function in (
        ("cutouts", CUTOUTS, make_cutouts_shard),
        ("training", TRAINING, lambda task: make_training_shard(task, None)),
    ):
        create_cube(layout.cube(name), schema, plan.shape)
        for shard in range(plan.shape.n_shards):
            function(
                ShardTask(config, layout, plan.shape, shard, tuple(plan.pieces(shard)), plan.sha256, code_version())
            )
        provenance = {"bands": list(config.survey.bands), "plan_sha256": plan.sha256}
        publish_cube(layout.cube(name), cube_attributes(schema, plan.shape, provenance))
    return layout
