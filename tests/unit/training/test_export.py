"""The exported network against torch, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.stages.network import StampNetwork
from pipeline.storage.locations import Location
from pipeline.training import export
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.export import (
    StampScorer,
    is_independent_of_neighbours,
    main,
    random_features,
    random_stamps,
    verify_export,
)
from pipeline.training.features import FeatureSpec
from pipeline.training.scorer import Scorer

CPU = torch.device("cpu")
FEATURES = FeatureSpec(("ebv_mag", "psfdepth_r_mag"), (0.1, 23.0), (0.05, 0.4))
REFUSED = [1, 4, 7, 10, 13]

Maker = Callable[..., Checkpoint]


def trainers_logits(checkpoint: Checkpoint, stamps: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Logits by what the trainer scores with, one stamp at a time; NaN for a stamp that it refuses."""
    spec = checkpoint.features
    scorer, logits = Scorer(checkpoint.build(CPU), checkpoint.preprocess, spec, CPU), []
    for stamp, raw in zip(stamps, features, strict=True):
        try:
            beside = None if spec is None else spec.standardised(raw[None])
            logits.append(scorer.logits(stamp[None], beside)[0])
        except (ContractError, VerificationError):
            logits.append(np.nan)
    return np.array(logits, np.float32)


def test_exported_checkpoint_gives_the_trainers_logits(tmp_path: Path, make_checkpoint: Maker) -> None:
    """Through the program: file, metadata, logits, refused stamps, and no dependence on the neighbours.

    A network without features is exported by the trainer, in test___main__.
    """
    checkpoint = make_checkpoint(features=FEATURES)
    stored, out = Location(str(tmp_path / "checkpoint.safetensors")), Location(str(tmp_path / "network.onnx"))
    stored.write_bytes(checkpoint.to_bytes())
    assert main(["--checkpoint", stored.url, "--out", out.url]) == 0
    network = StampNetwork(out.read_bytes())
    network.spec.require_stamps(("g", "r", "z"), 32, 0.262, "this test")
    assert network.spec.preprocess == checkpoint.preprocess
    assert network.spec.features == FEATURES.columns
    assert network.spec.checkpoint_sha256 == hashlib.sha256(stored.read_bytes()).hexdigest()

    stamps, beside = random_stamps(checkpoint), random_features(checkpoint)
    logit = network.logits(stamps, beside)
    assert np.flatnonzero(np.isnan(logit)).tolist() == [*REFUSED, 16]
    np.testing.assert_allclose(logit, trainers_logits(checkpoint, stamps, beside), rtol=1e-4, atol=1e-4)
    assert is_independent_of_neighbours(network, stamps, beside)
    with pytest.raises(VerificationError, match="stamp 3 has"):
        verify_export(network, stamps, beside, logit + np.eye(len(logit), dtype=np.float32)[3])
    with pytest.raises(VerificationError, match="stamp 1 has nan, expected 0"):
        verify_export(network, stamps, beside, np.nan_to_num(logit))


def test_torch_marks_what_the_trainer_refuses(make_checkpoint: Maker) -> None:
    """The module that is exported gives the trainer's logits, and NaN where the trainer raises."""
    checkpoint = make_checkpoint()
    stamps = random_stamps(checkpoint)[:16]
    with torch.inference_mode():
        got = StampScorer(checkpoint).eval()(torch.from_numpy(stamps)).numpy()
    assert np.flatnonzero(np.isnan(got)).tolist() == REFUSED
    expected = trainers_logits(checkpoint, stamps, random_features(checkpoint)[:16])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_missing_checkpoint_ends_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported, nothing is written."""
    monkeypatch.setattr(export, "export_network", None)
    out = tmp_path / "network.onnx"
    assert main(["--checkpoint", str(tmp_path / "none.safetensors"), "--out", str(out)]) == 2
    assert not out.exists()
