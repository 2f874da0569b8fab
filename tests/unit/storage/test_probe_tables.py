"""Stored probes: a folder per identity, arrays that come back as they were, anchors that tell themselves apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import TRAINING
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import EMBEDDED_COLUMNS, probe_folder, probe_identity, read_probes, write_probes

IDENTITY = {"checkpoint_sha256": "c", "plan_sha256": "p", "seed": 1}


def config(folder: Path, anchors: dict[str, str] | None = None, **network: object) -> RunConfig:
    """A configuration with settings of the gates on networks."""
    return RunConfig.model_validate(
        {
            "run": {"name": "probed", "root": str(folder), "region": None, "seed": 7},
            "survey": {"bands": ["g", "r", "z"], "stamp_size_px": 16, "bricks": "bricks", "layout": "cache"},
            "manifest": {"kind": "emr", "url": "rows.parquet"},
            "injection": {"mode": "frozen", "extinction": True},
            "sampling": {"method": "none", "metric": "arc_snr"},
            "anchors": anchors,
            "gates": {"network": network},
            "training": {"epochs": 1, "preprocess": {"annulus_px": (4, 8)}},
            "shards": {"samples": 16},
            "cluster": {"kind": "local"},
        }
    )


def run_with_cube(folder: Path, **attributes: object) -> RunLayout:
    """A run whose training cube is published without shards."""
    shape = CubeShape({"sample": 16, "band": 3, "y": 16, "x": 16}, 16, 16)
    layout = RunLayout(Location(str(folder)))
    location = layout.cube("training")
    create_cube(location, TRAINING, shape)
    publish_cube(location, cube_attributes(TRAINING, shape, {"bands": ["g", "r", "z"], **attributes}))
    return layout


def write(folder: Location, identity: dict[str, object]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Probes of three stamps with two layers."""
    rng = np.random.default_rng(0)
    examples = pd.DataFrame({"kind": ["injected", "control", "control_row"], "logit": [1.0, np.nan, -2.0]})
    embedded = pd.DataFrame({name: ["anchor"] * 3 if name == "kind" else np.arange(3.0) for name in EMBEDDED_COLUMNS})
    layers = [rng.normal(size=(3, width)).astype(np.float32) for width in (4, 12)]
    write_probes(folder, identity, examples, embedded, layers, {"used": 3})
    return examples, layers


def test_round_trip(tmp_path: Path) -> None:
    """Scores, embeddings in the order of their features, and counts come back; NaN stays NaN."""
    folder = probe_folder(Location(str(tmp_path)).join("checkpoint.safetensors"), IDENTITY)
    assert read_probes(folder, IDENTITY) is None
    examples, layers = write(folder, IDENTITY)
    stored = read_probes(folder, IDENTITY)
    assert stored is not None
    np.testing.assert_array_equal(stored["logit"], examples["logit"])
    for number, values in enumerate(layers):
        np.testing.assert_array_equal(stored[f"layer_{number}"], values)
    assert stored["embedded_kind"].to_numpy().tolist() == ["anchor"] * 3
    assert stored.attrs == {"anchors": {"used": 3}}
    with pytest.raises(VerificationError, match="holds probes of"):
        read_probes(folder, {**IDENTITY, "seed": 2})


def test_folder_lies_beside_the_checkpoint_and_depends_on_the_identity() -> None:
    """Another seed has another folder; the order of the keys is no part of it."""
    checkpoint = Location("s3://bucket/run/training/checkpoint.safetensors", "eu-west-1")
    folder = probe_folder(checkpoint, IDENTITY)
    assert folder.url.startswith("s3://bucket/run/training/probes/")
    assert folder.region == "eu-west-1"
    assert probe_folder(checkpoint, dict(reversed(IDENTITY.items()))) == folder
    assert probe_folder(checkpoint, {**IDENTITY, "seed": 2}) != folder


def test_identity_follows_weights_plan_and_settings(tmp_path: Path) -> None:
    """Everything that decides a score changes the identity; a bound does not; what is missing is an error."""
    run, checkpoint = run_with_cube(tmp_path / "a", plan_sha256="p"), Location(str(tmp_path / "checkpoint.safetensors"))
    with pytest.raises(ContractError, match="no checkpoint is there"):
        probe_identity(config(tmp_path), run, checkpoint)
    checkpoint.write_bytes(b"weights")
    plain = probe_identity(config(tmp_path), run, checkpoint)
    assert probe_identity(config(tmp_path, ring_called_max=0.1), run, checkpoint) == plain
    assert probe_identity(config(tmp_path, max_pairs=50), run, checkpoint) != plain
    other = run_with_cube(tmp_path / "b", plan_sha256="q")
    assert probe_identity(config(tmp_path), other, checkpoint) == {**plain, "plan_sha256": "q"}
    with pytest.raises(ContractError, match="plan_sha256"):
        probe_identity(config(tmp_path), run_with_cube(tmp_path / "bare"), checkpoint)
    with pytest.raises(ContractError, match="not a published cube"):
        probe_identity(config(tmp_path), RunLayout(Location(str(tmp_path / "c"))), checkpoint)
    checkpoint.write_bytes(b"others")
    assert probe_identity(config(tmp_path), run, checkpoint)["checkpoint_sha256"] != plain["checkpoint_sha256"]


def test_anchors_are_known_by_their_measured_table(tmp_path: Path) -> None:
    """Without the section the table is not looked at; with it its bytes count, and its absence is an error."""
    run = run_with_cube(tmp_path / "run", plan_sha256="p")
    checkpoint = Location(str(tmp_path / "checkpoint.safetensors"))
    checkpoint.write_bytes(b"weights")
    named = config(tmp_path, anchors={"url": "anchors.parquet"})
    with pytest.raises(ContractError, match=r"measured\.parquet: expected measured anchors, found none"):
        probe_identity(named, run, checkpoint)
    table = run.anchors.join("measured.parquet")
    table.write_bytes(b"1")
    first = probe_identity(named, run, checkpoint)["anchors_sha256"]
    table.write_bytes(b"2")
    second = probe_identity(named, run, checkpoint)["anchors_sha256"]
    plain = probe_identity(config(tmp_path), run, checkpoint)["anchors_sha256"]
    assert plain is None
    assert len({first, second, plain}) == 3
