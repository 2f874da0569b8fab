"""What the trainer must learn, what it must not, and that the gates see a shortcut before it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contracts.config_file import load_config
from pipeline.contracts.training_config import TrainingSection
from pipeline.stages.evaluation import auc
from pipeline.stages.gates.result import GateInput, GateResult
from pipeline.stages.gates.suite import GATES, run_gate
from pipeline.storage.cube import PublishedCube
from pipeline.training.feed import open_feed
from pipeline.training.processes import World, configure_torch
from pipeline.training.scan import scan_split
from pipeline.training.train import train

CubeMaker = Callable[..., PublishedCube]
RADIUS = np.hypot(*(np.mgrid[:32, :32] - 16))
RING = np.exp(-(((RADIUS - 6.0) / 1.2) ** 2))
SKY = 0.05


def section(**changes: object) -> TrainingSection:
    """A short training without degradation."""
    values: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "network": {"base_channels": 4}}
    return TrainingSection.model_validate(values | {"preprocess": {"annulus_px": [9, 16]}} | changes)


def core_gate(cube: PublishedCube, config_file: Path) -> GateResult:
    """Verdict of the gate that classifies cores."""
    config = load_config(config_file, ["gates.min_per_class=10", "gates.folds=2"])
    columns = cube.columns(cube.column_names())
    stamps = cube.read_shard(0, ["injected", "control", *cube.column_names()])
    sample = GateInput(columns, stamps, config, tuple(cube.attrs["bands"]), None, None, None)
    return next(run_gate(gate, sample) for gate in GATES if gate.name == "core_only_auc")


def test_brighter_arcs_are_found_more_often(make_cube: CubeMaker) -> None:
    """With rings in proportion to arc_snr the AUC of the brighter half of a held-out split is the higher one."""

    def edit(rows: dict[str, np.ndarray]) -> None:
        rows["arc_snr"][:] = np.random.default_rng(5).uniform(0.1, 6.0, len(rows["arc_snr"]))
        ring = rows["arc_snr"][:, None, None, None] * SKY * RING
        rows["injected"][:] = rows["control"] + ring.astype(np.float32)

    world = World(configure_torch(1))
    feeds = open_feed(make_cube(edit, n_rows=360), section().feed)
    result = train(feeds, section(epochs=8), 1, world)
    logit = scan_split(result.scorer, feeds["test"], world).logit
    label, snr = feeds["test"].label, feeds["test"].columns["arc_snr"].to_numpy()
    faint, bright = (
        auc(label[chosen], logit[chosen]) for chosen in ((label == 0) | (snr < 3), (label == 0) | (snr > 3))
    )
    assert bright > 0.9
    assert bright > faint + 0.05


def test_nothing_is_learned_from_random_labels(make_feed: Callable[..., Any]) -> None:
    """Hosts without arcs under random labels: the AUC of held-out hosts is a half within 4 sigma."""
    world, generator = World(configure_torch(1)), np.random.default_rng(8)

    def controls(n: int) -> Any:
        host = generator.uniform(0.5, 2.0, (n, 1, 1, 1)) * np.exp(-RADIUS / 2.5)
        stamps = host + generator.normal(0.0, SKY, (n, 3, 32, 32))
        return make_feed(stamps, generator.permutation(np.arange(n) % 2))

    feeds = {"train": controls(160), "val": controls(400)}
    last = train(feeds, section(epochs=4), 1, world).history[-1]
    sigma = np.sqrt(401 / (12 * 200 * 200))
    assert last.val_auc == pytest.approx(0.5, abs=4 * sigma)


def test_a_planted_shortcut_is_learned_and_the_gate_catches_it(make_cube: CubeMaker, config_file: Path) -> None:
    """Injected stamps that hold no ring but a brighter, wider core: high scores, and the gate on cores fails.

    With a faint ring far from the core in its place that gate finds less.
    """

    def bright_cores(rows: dict[str, np.ndarray]) -> None:
        core = 0.4 * np.exp(-((RADIUS / 4.0) ** 2))
        rows["injected"][:] = rows["control"] + core.astype(np.float32)

    def equal_cores(rows: dict[str, np.ndarray]) -> None:
        rows["injected"][:] = rows["control"] + (0.1 * RING * (RADIUS > 7)).astype(np.float32)

    spoiled = make_cube(bright_cores, n_rows=200, name="spoiled")
    result = train(open_feed(spoiled, section().feed), section(epochs=8), 1, World(configure_torch(1)))
    assert result.best.val_auc > 0.85
    caught = core_gate(spoiled, config_file)
    assert not caught.passed
    assert caught.value is not None
    fair = core_gate(make_cube(equal_cores, n_rows=200, name="fair"), config_file)
    assert fair.value is not None
    assert caught.value > fair.value + 0.1
