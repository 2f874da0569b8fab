"""`dhs gates` as a user calls it: a published training cube to a table, a JSON file and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from click.testing import Result
from typer.testing import CliRunner

from pipeline.commands.gates import app
from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ContractError, GateError
from pipeline.contracts.schema import CubeSchema
from pipeline.driver.gating import gate_cube
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.gates.suite import DATA_GATE_NAMES, GATE_NAMES, NETWORK_GATE_NAMES
from pipeline.stages.injection import Injector
from pipeline.stages.pairs import make_pairs
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import EMBEDDED_COLUMNS, probe_folder, probe_identity, write_probes
from pipeline.storage.runs import write_json

SIZE, N_ROWS = 32, 48
BANDS = ["g", "r", "z"]
REASON = "a cube of a test suite is too small for this gate"
CHEAP = (
    f"survey.stamp_size_px={SIZE}",
    "injection.accuracy=0.02",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "training.preprocess={annulus_px: [10, 16]}",
    "gates.min_per_class=10",
    "gates.folds=2",
    "gates.null_rows=6",
)


def store(layout: RunLayout, schema: CubeSchema, dataset: xr.Dataset) -> None:
    """Write and publish a cube of one shard."""
    shape = CubeShape({"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}, N_ROWS, 16)
    location = layout.cube(schema.name)
    create_cube(location, schema, shape)
    write_shard(location, schema, shape, 0, dataset)
    publish_cube(location, cube_attributes(schema, shape, {"bands": BANDS, "plan_sha256": "p" * 64}))


@pytest.fixture(scope="module")
def run_folder(
    tmp_path_factory: pytest.TempPathFactory,
    make_config: Callable[..., RunConfig],
    make_cutouts: Callable[..., xr.Dataset],
) -> Path:
    """A run with both cubes published, made by the pipeline's own code."""
    folder = tmp_path_factory.mktemp("gates")
    config = make_config(*CHEAP, f"run.root={folder}", "run.name=small")
    layout = RunLayout.of(config.run)
    is_control = (np.arange(N_ROWS) % 4 == 3).astype(np.uint8)
    cutouts = make_cutouts(N_ROWS, size=SIZE, is_control=is_control)
    store(layout, CUTOUTS, cutouts)
    store(layout, TRAINING, make_pairs(cutouts, cutouts, 0, config, Injector(config, None, InjectionAssets())))
    write_json(layout.record, {"config": config.model_dump(mode="json")})
    return folder / "small"


def dhs_gates(*arguments: str | Path) -> Result:
    """The command, run to its end or its error."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_failing_cube_ends_with_exit_code_3_after_its_table(run_folder: Path) -> None:
    """The table and the JSON are there although the command fails, and the run's own results are untouched."""
    done = dhs_gates(run_folder / "cubes" / "training")
    assert isinstance(done.exception, GateError)
    assert done.exception.exit_code == 3
    assert "split_proportions" in str(done.exception)
    document = json.loads((run_folder / "diagnostics" / "gates.json").read_text())
    assert [gate["name"] for gate in document["gates"]] == list(DATA_GATE_NAMES)
    assert all(name in done.output for name in DATA_GATE_NAMES)
    assert "core_brightness_ratio" in document["waived"]
    assert not (run_folder / "gates.json").exists()


def test_real_pairs_pass_the_null(run_folder: Path) -> None:
    """Pairs that the pipeline made are injected again, six of them, and change nothing."""
    results = {result.name: result for result in gate_cube(Location(str(run_folder / "cubes/training"))).results}
    assert results["null_injection"].passed
    assert results["null_injection"].detail["injected_again"] == 6
    assert results["finite_pixels"].passed
    assert results["duplicate_audit"].passed


def test_waivers_and_bounds_of_another_file_are_used(run_folder: Path, tmp_path: Path) -> None:
    """With every gate waived by the named file the command ends well and lists the waivers with their reason."""
    content = json.loads((run_folder / "run.json").read_text())["config"]
    content["gates"]["waive"] = dict.fromkeys(GATE_NAMES, REASON)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(content))
    done = dhs_gates(run_folder / "cubes/training", "--config", other, "-o", tmp_path / "found.json")
    assert done.exit_code == 0, done.exception
    assert f"waived: {REASON}" in done.output
    assert json.loads((tmp_path / "found.json").read_text())["passed"]


def test_folder_that_is_no_training_cube_is_refused(run_folder: Path, tmp_path: Path) -> None:
    """The cutouts cube and a folder outside a run are errors that say what was expected."""
    assert "expected the training cube" in str(dhs_gates(run_folder / "cubes" / "cutouts").exception)
    done = dhs_gates(tmp_path / "cubes" / "training")
    assert isinstance(done.exception, ContractError)


def test_network_is_judged_from_the_probes_beside_its_checkpoint(run_folder: Path, tmp_path: Path) -> None:
    """With --model the gates on the network follow those on the data; what they lack fails them, and the command."""
    cube, checkpoint = run_folder / "cubes/training", Location(str(tmp_path / "checkpoint.safetensors"))
    assert "no checkpoint is there" in str(dhs_gates(cube, "--model", checkpoint.path).exception)
    checkpoint.write_bytes(b"weights")
    config = RunConfig.model_validate(json.loads((run_folder / "run.json").read_text())["config"])
    identity = probe_identity(config, RunLayout.of(config.run), checkpoint)
    examples = pd.DataFrame({"label": np.repeat([1, 0], 20), "logit": np.zeros(40)})
    embedded = pd.DataFrame({name: ["injected"] if name == "kind" else [1.0] for name in EMBEDDED_COLUMNS})
    layers = [np.ones((1, 4), np.float32)]
    write_probes(probe_folder(checkpoint, identity), identity, examples, embedded, layers, {})
    done = dhs_gates(cube, "--model", checkpoint.path)
    assert isinstance(done.exception, GateError)
    document = json.loads((run_folder / "diagnostics" / "gates.json").read_text())
    assert [gate["name"] for gate in document["gates"]] == list(GATE_NAMES)
    failing = {gate["name"] for gate in document["gates"] if not gate["passed"]}
    assert set(NETWORK_GATE_NAMES) - {"realism"} <= failing
