"""The stage of the gates on the network: judged once, judged again for other bounds, exit 3 on a failure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import TRAINING
from pipeline.contracts.errors import GateError, VerificationError
from pipeline.contracts.network_gate_config import mask_name
from pipeline.driver import probing
from pipeline.driver.cluster import Cluster
from pipeline.driver.cubes import RunContext
from pipeline.driver.network_gating import check_network_gates
from pipeline.driver.plan import Plan
from pipeline.driver.probing import network_scores
from pipeline.stages.gates.suite import NETWORK_GATE_NAMES
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import EMBEDDED_COLUMNS, probe_folder, probe_identity, write_probes
from pipeline.storage.runs import RunRecord, read_json

SHAPE = CubeShape({"sample": 16, "band": 3, "y": 16, "x": 16}, 16, 16)
N_PAIRS = 120


def build_context(root: Path, ring_logit: float = -4.0, **gates: object) -> RunContext:
    """A run whose checkpoint has probes of a good network; rings score as given."""
    config = RunConfig.model_validate(
        {
            "run": {"name": "probed", "root": str(root), "region": None, "seed": 77},
            "survey": {"bands": ["g", "r", "z"], "stamp_size_px": 16, "bricks": "bricks", "layout": "cache"},
            "manifest": {"kind": "emr", "url": "rows.parquet"},
            "injection": {"mode": "frozen", "extinction": True},
            "sampling": {"method": "none", "metric": "arc_snr"},
            "gates": gates,
            "training": {"epochs": 1, "preprocess": {"annulus_px": (4, 8)}},
            "shards": {"samples": 16},
            "cluster": {"kind": "local"},
        }
    )
    layout = RunLayout.of(config.run)
    cube = layout.cube("training")
    create_cube(cube, TRAINING, SHAPE)
    publish_cube(cube, cube_attributes(TRAINING, SHAPE, {"bands": ["g", "r", "z"], "plan_sha256": "p" * 64}))
    checkpoint = layout.training.join("checkpoint.safetensors")
    checkpoint.write_bytes(b"weights")
    identity = probe_identity(config, layout, checkpoint)
    store_probes(probe_folder(checkpoint, identity), identity, config, ring_logit)
    record = RunRecord(layout, {"stages": {}})
    return RunContext(config, layout, Plan(SHAPE, (), None, "p" * 64, "c" * 64), record, Cluster(config.cluster))


def store_probes(folder: Location, identity: dict[str, object], config: RunConfig, ring_logit: float) -> None:
    """Arcs score 4, everything else -4."""
    injected = np.repeat([True, False], N_PAIRS)
    logit = np.where(injected, 4.0, -4.0) + np.random.default_rng(0).normal(0.0, 0.5, 2 * N_PAIRS)
    examples = pd.DataFrame(
        {
            "kind": np.where(injected, "injected", "control"),
            "label": injected.astype(int),
            "pair_id": np.tile(np.arange(N_PAIRS), 2),
            "host_id": np.tile(np.arange(N_PAIRS), 2),
            "theta_e_arcsec": 1.4,
            "psfsize_arcsec": 1.3,
            "sky_sigma_nmgy": 0.01,
            "logit": logit,
            "logit_snr_image": logit,
            "logit_arc_suppressed": -4.0,
            "logit_ring": ring_logit,
            "logit_fixed_ring": -4.0,
        }
    )
    for radius in config.gates.network.mask_radii_px:
        examples[f"logit_{mask_name(radius)}"], examples[f"arc_power_{mask_name(radius)}"] = logit, 0.5
    embedded = pd.DataFrame({name: ["injected"] if name == "kind" else [1.0] for name in EMBEDDED_COLUMNS})
    write_probes(folder, identity, examples, embedded, [np.ones((1, 4), np.float32)], {})


def test_stage_is_done_once_and_again_for_other_bounds(tmp_path: Path) -> None:
    """Results are stored with plan and verdicts; nothing is written twice; a changed bound is judged anew."""
    context = build_context(tmp_path)
    check_network_gates(context)
    stored = read_json(context.layout.network_gates)
    assert [gate["name"] for gate in stored["gates"]] == list(NETWORK_GATE_NAMES)
    assert stored["passed"]
    assert stored["plan_sha256"] == "p" * 64
    stage = context.record.stages["network_gates"]
    assert stage["state"] == "complete"
    assert stage["passed"] == list(NETWORK_GATE_NAMES)
    before = Path(context.layout.network_gates.path).stat().st_mtime_ns
    check_network_gates(context)
    assert Path(context.layout.network_gates.path).stat().st_mtime_ns == before
    other = build_context(tmp_path, network={"ring_called_max": 0.25})
    other.record.stages.update(context.record.stages)
    check_network_gates(other)
    assert read_json(context.layout.network_gates)["bounds"]["network"]["ring_called_max"] == 0.25


def test_failed_gate_ends_the_stage_unless_waived(tmp_path: Path) -> None:
    """A network that takes rings for lenses ends with exit code 3 and its results; a waiver keeps the verdict."""
    context = build_context(tmp_path / "a", ring_logit=4.0)
    with pytest.raises(GateError, match="synthetic_ring: 100.0 %") as caught:
        check_network_gates(context)
    assert caught.value.exit_code == 3
    assert context.record.stages["network_gates"] == {"state": "failed", "failed": ["synthetic_ring"]}
    assert not read_json(context.layout.network_gates)["passed"]
    waived = {"synthetic_ring": "rings were not put into this training on purpose"}
    context = build_context(tmp_path / "b", ring_logit=4.0, waive=waived)
    check_network_gates(context)
    assert context.record.stages["network_gates"]["waived"] == waived


def test_without_a_network_there_is_nothing_to_judge(tmp_path: Path) -> None:
    """Training switched off: no stage. Training without its checkpoint: an error."""
    context = build_context(tmp_path)
    context.layout.training.join("checkpoint.safetensors").remove()
    with pytest.raises(VerificationError, match="no network was trained"):
        check_network_gates(context)
    training = context.config.training.model_copy(update={"enabled": False})
    off = RunContext(
        context.config.model_copy(update={"training": training}),
        context.layout,
        context.plan,
        context.record,
        context.cluster,
    )
    check_network_gates(off)
    assert context.record.stages == {}


def test_missing_probes_are_made_by_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program gets the run and the checkpoint; if it leaves no probes, that is an error."""
    context = build_context(tmp_path)
    checkpoint = context.layout.training.join("checkpoint.safetensors")
    checkpoint.write_bytes(b"other weights")
    started: list[tuple[str, list[str]]] = []

    def program(config: RunConfig, module: str, *arguments: str) -> None:
        started.append((module, list(arguments)))
        if len(started) > 1:
            identity = probe_identity(config, context.layout, checkpoint)
            store_probes(probe_folder(checkpoint, identity), identity, config, -4.0)

    monkeypatch.setattr(probing, "run_program", program)
    with pytest.raises(VerificationError, match="without its marker"):
        network_scores(context.layout, context.config, checkpoint)
    assert network_scores(context.layout, context.config, checkpoint).sizes["example"] == 2 * N_PAIRS
    module, arguments = started[0]
    assert module == "pipeline.training.probes"
    assert arguments == ["--run", context.layout.root.url, "--checkpoint", checkpoint.url]
