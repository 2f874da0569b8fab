"""The one way from raw stamps to logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.features import FeatureSpec
from pipeline.training.scorer import Scorer, load_checkpoint, require_cube, require_reproduced

CPU = torch.device("cpu")
CheckpointMaker = Callable[..., Checkpoint]


def _stamps(n: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(0.1, 0.03, (n, 3, 32, 32)).astype(np.float32)


def test_raw_stamps_pass_through_the_preprocessing(make_checkpoint: CheckpointMaker) -> None:
    """logits of raw stamps are logits of normalised ones, more than one batch of them, none too."""
    made = make_checkpoint()
    scorer = Scorer(made.build(CPU), made.preprocess, None, CPU)
    stamps = _stamps()
    np.testing.assert_array_equal(scorer.logits(stamps), scorer.logits_of_normalised(scorer.normalised(stamps)))
    np.testing.assert_allclose(scorer.logits(4.0 * stamps + 1.0), scorer.logits(stamps), atol=1e-3)
    assert scorer.logits(stamps[:0]).shape == (0,)
    assert [stage.shape for stage in scorer.embeddings(scorer.normalised(stamps))] == [(300, 4), (300, 8), (300, 16)]


def test_broken_input_and_weights_are_refused(make_checkpoint: CheckpointMaker) -> None:
    """NaN pixels, weights that give no number, features that are missing or too many."""
    made = make_checkpoint()
    made.weights["head.bias"].fill_(float("inf"))
    scorer = Scorer(made.build(CPU), made.preprocess, None, CPU)
    with pytest.raises(VerificationError, match="20 of 20 logits"):
        scorer.logits(_stamps(20))
    with pytest.raises(ContractError, match="not finite"):
        scorer.logits(np.full((1, 3, 32, 32), np.nan, np.float32))
    with pytest.raises(ContractError, match="sees features none, got some"):
        scorer.logits(_stamps(2), np.zeros((2, 1), np.float32))
    spec = FeatureSpec(("ebv_mag",), (0.0,), (1.0,))
    made = make_checkpoint(features=spec)
    with pytest.raises(ContractError, match="ebv_mag.*got none"):
        Scorer(made.build(CPU), made.preprocess, spec, CPU).logits(_stamps(2))


def test_stored_checkpoints_must_reproduce_their_logits(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    """The written file passes; other weights or other logits raise; a file that is not there is a contract error."""
    file, stamps = Location(str(tmp_path / "checkpoint.safetensors")), _stamps(8)
    with pytest.raises(ContractError, match="no checkpoint is there"):
        load_checkpoint(file, CPU)
    file.write_bytes(make_checkpoint().to_bytes())
    checkpoint, scorer = load_checkpoint(file, CPU)
    assert checkpoint.bands == ("g", "r", "z")
    logit = scorer.logits(stamps)
    require_reproduced(file, stamps, None, logit, CPU)
    with pytest.raises(VerificationError, match="does not reproduce"):
        require_reproduced(file, stamps, None, logit + 0.01, CPU)
    file.write_bytes(make_checkpoint(seed=1).to_bytes())
    with pytest.raises(VerificationError, match="does not reproduce"):
        require_reproduced(file, stamps, None, logit, CPU)


def test_cubes_of_other_stamps_are_refused(
    make_checkpoint: CheckpointMaker, make_cube: Callable[..., PublishedCube]
) -> None:
    """Bands, size and preprocessing must be the checkpoint's."""
    cube, spec = make_cube(), PreprocessSection(annulus_px=(9.0, 16.0))
    require_cube(make_checkpoint(), cube, 32, spec)
    with pytest.raises(ContractError, match="expects stamps of 32 px in"):
        require_cube(make_checkpoint(bands=("g", "r")), cube, 32)
    with pytest.raises(ContractError, match="has 64 px"):
        require_cube(make_checkpoint(), cube, 64)
    with pytest.raises(ContractError, match="trained with preprocess"):
        require_cube(make_checkpoint(), cube, 32, PreprocessSection())
