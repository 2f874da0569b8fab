"""The exported network against torch, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.stages.network import StampNetwork
from pipeline.storage.locations import Location
from pipeline.training import export
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.export import (
    StampScorer,
    is_independent_of_neighbours,
    main,
    random_stamps,
    verify_export,
)
from pipeline.training.model import LensResNet
from pipeline.training.preprocess import normalise

SPEC = PreprocessSection(annulus_px=(9.0, 16.0), clip=6.0)
REFUSED = [1, 4, 7, 10, 13]


def small_checkpoint() -> Checkpoint:
    """A network of two bands that nobody trained."""
    torch.manual_seed(4)
    weights = LensResNet(2, 4).state_dict()
    return Checkpoint(weights, weights, SPEC, ("g", "r"), 32, 4, 0, "val_auc", {}, "a", "b", "c", "d", "e")


def expected_logits(checkpoint: Checkpoint, stamps: np.ndarray) -> np.ndarray:
    """Logits by the trainer's own functions, one stamp at a time; NaN for a stamp that they refuse."""
    network, logits = checkpoint.network(torch.device("cpu")), []
    for stamp in stamps:
        try:
            normalised = normalise(torch.from_numpy(stamp[None]), checkpoint.preprocess)
        except ContractError:
            logits.append(np.nan)
        else:
            with torch.inference_mode():
                logits.append(float(network(normalised)[0]))
    return np.array(logits, np.float32)


def test_exported_checkpoint_gives_the_trainers_logits(tmp_path: Path) -> None:
    """Through the program: file, metadata, logits, refused stamps, and no dependence on the neighbours."""
    checkpoint = small_checkpoint()
    stored, out = Location(str(tmp_path / "checkpoint.pt")), Location(str(tmp_path / "network.onnx"))
    stored.write_bytes(checkpoint.to_bytes())
    assert main(["--checkpoint", stored.url, "--out", out.url]) == 0
    network = StampNetwork(out.read_bytes())
    assert network.spec.bands == ("g", "r")
    assert network.spec.stamp_size_px == 32
    assert network.spec.preprocess == SPEC
    assert network.spec.checkpoint_sha256 == hashlib.sha256(stored.read_bytes()).hexdigest()

    stamps = random_stamps(checkpoint)
    logit = network.logits(stamps)
    assert np.flatnonzero(np.isnan(logit)).tolist() == REFUSED
    np.testing.assert_allclose(logit, expected_logits(checkpoint, stamps), rtol=1e-4, atol=1e-4)
    assert is_independent_of_neighbours(network, stamps)
    with pytest.raises(VerificationError, match="stamp 3 has"):
        verify_export(network, stamps, logit + np.eye(len(logit), dtype=np.float32)[3])
    with pytest.raises(VerificationError, match="stamp 1 has nan, expected 0"):
        verify_export(network, stamps, np.nan_to_num(logit))


def test_torch_marks_what_the_trainer_refuses() -> None:
    """The module that is exported gives the trainer's logits, and NaN where the trainer raises."""
    checkpoint = small_checkpoint()
    stamps = random_stamps(checkpoint)[:16]
    with torch.inference_mode():
        got = StampScorer(checkpoint).eval()(torch.from_numpy(stamps)).numpy()
    assert np.flatnonzero(np.isnan(got)).tolist() == REFUSED
    np.testing.assert_allclose(got, expected_logits(checkpoint, stamps), rtol=1e-5, atol=1e-5)


def test_missing_checkpoint_ends_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported, nothing is written."""
    monkeypatch.setattr(export, "export_network", None)
    out = tmp_path / "network.onnx"
    assert main(["--checkpoint", str(tmp_path / "none.pt"), "--out", str(out)]) == 2
    assert not out.exists()
