"""sampling.json of a training cube that the pipeline's own code made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import ROLES, TRAINING
from pipeline.driver.pilot import pilot_of_draws
from pipeline.driver.sampling_record import record_sampling
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.injection import Injector
from pipeline.stages.pairs import make_pairs
from pipeline.stages.pilot_draws import draw_on_hosts
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.locations import RunLayout
from pipeline.storage.receipts import Receipt
from pipeline.storage.runs import read_json

SIZE, N_ROWS = 24, 48
CHEAP = (
    f"survey.stamp_size_px={SIZE}",
    "injection.accuracy=0.02",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "sampling.pilot_error_max=1.0",
    "sampling.pilot_bins=8",
    "training.preprocess={annulus_px: [8, 12]}",
)
METHODS = [
    ("snr_first", "conditional"),
    ("rejection", "conditional"),
    ("direct", "conditional"),
    ("snr_first", "pooled"),
    ("rejection", "pooled"),
]


@pytest.mark.parametrize(("method", "hosts"), METHODS)
def test_record_agrees_with_cube_and_counters(
    make_config: Callable[..., RunConfig],
    make_cutouts: Callable[..., xr.Dataset],
    tmp_path: Path,
    method: str,
    hosts: str,
) -> None:
    """Rows, attempts, weights and renders are the cube's; a second call changes nothing; another plan writes anew."""
    config = make_config(*CHEAP, f"run.root={tmp_path}", f"sampling.method={method}", f"sampling.hosts={hosts}")
    cutouts = make_cutouts(N_ROWS, size=SIZE, is_control=(np.arange(N_ROWS) % 4 == 3).astype(np.uint8))
    drawing = Injector(config, None, InjectionAssets(), drawing_only=True)
    pilot = pilot_of_draws(config, draw_on_hosts(cutouts, drawing, 360, 0))
    injector = Injector(config, pilot, InjectionAssets())
    pairs = make_pairs(cutouts, cutouts, 0, config, injector)
    layout = RunLayout.of(config.run)
    shape = CubeShape({"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}, N_ROWS, 16)
    create_cube(layout.cube("training"), TRAINING, shape)
    write_shard(layout.cube("training"), TRAINING, shape, 0, pairs)
    publish_cube(layout.cube("training"), cube_attributes(TRAINING, shape, {"bands": ["g", "r", "z"]}))
    receipt = Receipt("training", 0, "p", "c", N_ROWS, {}, {}, injector.work(), (), 1.0, "w")
    record_sampling(config, layout, "p", {0: receipt}, pilot)
    document = read_json(layout.sampling)
    is_pair = pairs["role"].to_numpy() == ROLES.index("pair")
    assert document["rows"]["asked"] == 36
    assert document["rows"]["accepted"] == int(is_pair.sum()) > 0
    assert sum(bin_["accepted"] for bin_ in document["acceptance"]["bins"]) == int(is_pair.sum())
    assert document["acceptance"]["attempts"] == int(pairs["attempts"].to_numpy().sum())
    assert document["weights"]["mean"] == pytest.approx(pairs["weight_prior"].to_numpy()[is_pair].mean())
    assert document["cost"]["renders"] == injector.renders
    assert document["achieved"]["outside"] == 0
    if hosts == "pooled":
        assert set(pairs["attempts"].to_numpy()[pairs["is_control"].to_numpy() == 0].tolist()) == {1}
    if method == "direct":
        assert document["rows"]["accepted"] == 36
    before = layout.sampling.read_bytes()
    record_sampling(config, layout, "p", {0: replace(receipt, work={})}, pilot)
    assert layout.sampling.read_bytes() == before
    record_sampling(config, layout, "q", {0: receipt}, pilot)
    assert read_json(layout.sampling)["plan_sha256"] == "q"
