"""A frozen run of the EMR system's own manifest, made in this process with the EMR system's own arcs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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

REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY.parent / "shared" / "data" / "emr_golden"


@dataclass(frozen=True)
class GoldenRun:
    """A run and what the EMR code wrote for the same rows.

    Attributes:
        rows: by task_id, the EMR columns.
        stamps, arcs: (band, y, x) by task_id; arcs of some positives, which our run was given.
    """

    layout: RunLayout
    config: RunConfig
    rows: pd.DataFrame
    stamps: dict[str, np.ndarray]
    arcs: dict[str, np.ndarray]


def golden_stamps(name: str) -> dict[str, np.ndarray]:
    """Stamps of one EMR run by task_id."""
    stored = np.load(GOLDEN / "stage4c" / name / "stamps.npz", allow_pickle=False)
    return dict(zip(stored["task_id"].tolist(), stored["image"], strict=True))


@pytest.fixture(scope="session")
def golden_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoldenRun]:
    """All 88 rows of golden_all in two shards, `emr_compat` on."""
    if not GOLDEN.is_dir():
        pytest.skip(f"real imaging is not here: {GOLDEN}")
    settings = [
        f"run.root={tmp_path_factory.mktemp('golden')}",
        f"survey.bricks={GOLDEN / 'inputs/coadds'}",
        f"manifest.url={GOLDEN / 'manifests/golden_all'}",
        "injection.emr_compat=true",
        "shards.samples=48",
    ]
    config = load_config(REPOSITORY / "configs" / "demo-real.yaml", settings)
    arcs = golden_stamps("arc_sersic_moffat")
    by_key = dict(zip(task_keys(list(arcs)).tolist(), arcs.values(), strict=True))

    def expose_emr_arc(injector: Injector, host: Host, accepted: Accepted, invvar: np.ndarray) -> Exposure:
        ours = expose(injector, host, accepted, invvar)
        arc = by_key.get(int(host.task_key))
        if arc is None:
            return ours
        snr = dict(zip(SNR_METRICS, injector.snr(host, arc[1]), strict=True))
        return replace(ours, arc_nmgy=arc, columns={**ours.columns, **snr})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "expose", expose_emr_arc)
        layout = make_run_here(config)
    rows = pd.read_parquet(GOLDEN / "stage4c" / "sersic_moffat" / "rows.parquet").set_index("task_id")
    return GoldenRun(layout, config, rows, golden_stamps("sersic_moffat"), arcs)


@pytest.fixture(scope="session")
def make_run() -> Callable[[RunConfig], RunLayout]:
    """See `make_run_here`."""
    return make_run_here


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
