"""The program as the driver starts it: a process, its outputs, its exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import SPLITS
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.training.__main__ import main
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.feed import open_feed
from pipeline.training.processes import World, configure_torch
from pipeline.training.train import train

CubeMaker = Callable[..., PublishedCube]
OUTPUTS = [
    "_SUCCESS", "checkpoint.safetensors", "confusion.npz", "embeddings.parquet", "history.json", "history.parquet",
    "metrics.json", "network.onnx", "scores.parquet", "scores_val.parquet", "state.safetensors",
]  # fmt: skip
WITHOUT_DASK = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in ("dask", "distributed")
        return None if hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
from pipeline.training.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
IMPORT_ONLY = """
import sys
import pipeline.training.__main__
sys.exit(len({"dask", "distributed"} & sys.modules.keys()))
"""


def _arguments(config: Path, cube: PublishedCube, out: Path) -> list[str]:
    return ["--config", str(config), "--cube", cube.location.url, "--out", str(out)]


def test_importing_the_program_imports_no_dask() -> None:
    """Neither dask nor distributed is in sys.modules after the import, though both are installed."""
    done = subprocess.run([sys.executable, "-c", IMPORT_ONLY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_whole_program_runs_where_dask_is_not_installed(
    make_cube: CubeMaker, config_file: Path, tmp_path: Path
) -> None:
    """With dask hidden: exit 0, all outputs, one log line per epoch, one score per test example, provenance."""
    cube, out = make_cube(), tmp_path / "out"
    command = [sys.executable, "-W", "error", "-c", WITHOUT_DASK, *_arguments(config_file, cube, out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert [line["epoch"] for line in lines if line["message"] == "epoch"] == [0, 1]
    assert sorted(path.name for path in out.iterdir()) == OUTPUTS

    columns = cube.columns(["split", "role"])
    in_test = columns["split"].to_numpy() == SPLITS.index("test")
    n_positives, n_controls = (int(np.sum(in_test & (columns["role"].to_numpy() == role))) for role in (1, 2))
    table = pq.read_table(io.BytesIO((out / "scores.parquet").read_bytes()))
    assert table.num_rows == 2 * n_positives + n_controls
    n_val = np.sum((columns["split"].to_numpy() == SPLITS.index("val")) & (columns["role"].to_numpy() == 1))
    val_scores = pq.read_table(io.BytesIO((out / "scores_val.parquet").read_bytes()))
    assert set(val_scores["split"].to_pylist()) == {"val"}
    assert sum(val_scores["label"].to_pylist()) == n_val
    metrics = json.loads((out / "metrics.json").read_bytes())
    assert (metrics["n_positives"], metrics["n_negatives"]) == (n_positives, n_positives + n_controls)
    history = json.loads((out / "history.json").read_bytes())
    checkpoint = Checkpoint.from_bytes((out / "checkpoint.safetensors").read_bytes())
    assert checkpoint.metrics == history[checkpoint.epoch]
    assert checkpoint.preprocess == PreprocessSection(annulus_px=(9.0, 16.0))
    assert (checkpoint.bands, checkpoint.stamp_size_px, checkpoint.plan_sha256) == (("g", "r", "z"), 32, "p" * 64)


def test_processes_that_are_stopped_go_on_and_make_the_steps_of_one(
    make_cube: CubeMaker, config_file: Path, tmp_path: Path
) -> None:
    """Two processes, ended by SIGTERM after an epoch with exit code 75, started again: the history of one process.

    Losses agree to rounding, as the sums over a batch are taken in another order; the last batch of an epoch leaves
    one process without examples.
    """
    text = config_file.read_text().replace("epochs: 2", "epochs: 12").replace("batch_size: 16", "batch_size: 12")
    config_file.write_text(text)
    cube, two = make_cube(), tmp_path / "two"
    config = load_config(config_file)
    feeds, world = open_feed(cube, config.training.feed), World(configure_torch(1))
    alone = [asdict(record) for record in train(feeds, config.training, config.run.seed, world).history]
    config_file.write_text(text.replace("threads: 1", "threads: 1, processes: 2"))
    command = [sys.executable, "-m", "pipeline.training", *_arguments(config_file, cube, two)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if '"message": "epoch"' in line and not any('"stopping"' in old for old in lines):
                running.send_signal(signal.SIGTERM)
                lines.append('"stopping"')
    assert running.returncode == 75, "".join(lines)
    assert not (two / "_SUCCESS").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"resumed"' in done.stderr + done.stdout
    curves = [
        [(epoch["epoch"], epoch["train_loss"], epoch["val_loss"], epoch["val_auc"]) for epoch in history]
        for history in (alone, json.loads((two / "history.json").read_bytes()))
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=2e-3, atol=1e-4)


def test_done_training_is_not_repeated_and_another_one_is_refused(
    make_cube: CubeMaker, config_file: Path, tmp_path: Path
) -> None:
    """A second run writes nothing; other training settings on the same folder exit with 2 and change nothing."""
    cube, out = make_cube(), tmp_path / "out"
    assert main(_arguments(config_file, cube, out)) == 0
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    assert main(_arguments(config_file, cube, out)) == 0
    config_file.write_text(config_file.read_text().replace("epochs: 2", "epochs: 3"))
    assert main(_arguments(config_file, cube, out)) == 2
    assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}


@pytest.mark.parametrize(
    ("fault", "code"), [("unpublished", 2), ("nan", 2), ("one_class", 3), ("config", 2), ("band", 2)]
)
def test_faults_exit_with_their_code_and_leave_no_marker(
    make_cube: CubeMaker, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, code: int
) -> None:
    """Unpublished cube, NaN pixels, a bad key and bands in another order exit with 2, a one-class split with 3."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        if fault == "nan":
            rows["control"][0, 0, 0, 0] = np.nan
        if fault == "one_class":
            rows["role"][rows["split"] == SPLITS.index("test")] = 2

    cube, out = make_cube(spoil), tmp_path / "out"
    if fault == "unpublished":
        Path(cube.location.join("_SUCCESS").path).unlink()
    if fault == "config":
        config_file.write_text(config_file.read_text().replace("epochs", "epoch"))
    if fault == "band":
        config_file.write_text(config_file.read_text().replace("[g, r, z]", "[g, z, r]"))
    assert main(_arguments(config_file, cube, out)) == code
    assert fault != "band" or "expected the bands" in capsys.readouterr().err
    assert not Location(str(out)).join("_SUCCESS").exists()


def test_help_says_what_is_read_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    """--help exits with 0 and names every output."""
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in OUTPUTS)
    assert "--cube" in text
