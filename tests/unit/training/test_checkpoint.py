"""The checkpoint file: everything comes back, other files are refused."""

from __future__ import annotations

import io
import pickle

import pytest
import torch

from pipeline.contracts.errors import ContractError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.model import LensResNet


def _checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        weights=LensResNet(2, 4).state_dict(),
        last_weights=LensResNet(2, 4).state_dict(),
        preprocess=PreprocessSection(annulus_px=(9.0, 16.0), clip=7.0),
        bands=("g", "r"),
        stamp_size_px=32,
        base_channels=4,
        epoch=3,
        selected_by="val_auc",
        metrics={"val_auc": 0.75, "val_tpr_at_fpr": {"0.01": None}},
        config_sha256="a",
        plan_sha256="b",
        cube_config_sha256="c",
        cube_code_version="d",
        code_version="e",
    )


def test_every_field_survives_the_file() -> None:
    """Weights come back bitwise, the spec as a PreprocessSection, the rest equal."""
    written = _checkpoint()
    read = Checkpoint.from_bytes(written.to_bytes())
    for name, value in vars(written).items():
        if name in ("weights", "last_weights"):
            assert all(torch.equal(tensor, getattr(read, name)[key]) for key, tensor in value.items())
        else:
            assert getattr(read, name) == value


def test_network_has_the_best_weights() -> None:
    """The rebuilt network is in evaluation mode and holds `weights`, not `last_weights`."""
    checkpoint = _checkpoint()
    network = checkpoint.network(torch.device("cpu"))
    assert not network.training
    assert torch.equal(network.state_dict()["head.weight"], checkpoint.weights["head.weight"])
    assert not torch.equal(network.state_dict()["head.weight"], checkpoint.last_weights["head.weight"])


def test_other_files_are_refused() -> None:
    """Garbage, nothing, a truncated file, another version and a pickled function each raise ContractError."""
    whole = _checkpoint().to_bytes()
    other = io.BytesIO()
    torch.save({"checkpoint_version": 99}, other)
    for data in (b"garbage", b"", whole[: len(whole) // 2], other.getvalue(), pickle.dumps(print, protocol=2)):
        with pytest.raises(ContractError):
            Checkpoint.from_bytes(data)
