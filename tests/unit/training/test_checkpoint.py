"""The checkpoint file: everything comes back, other files are refused."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import torch

from pipeline.contracts.errors import ContractError
from pipeline.contracts.network_config import NetworkSection
from pipeline.contracts.training_config import PreprocessSection
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.features import FeatureSpec
from pipeline.training.models.lens_resnet import LensResNet
from pipeline.training.tensor_file import pack_tensors, unpack_tensors

CPU = torch.device("cpu")


def make_checkpoint() -> Checkpoint:
    """A network that was not trained, with every field."""
    torch.manual_seed(0)
    return Checkpoint(
        weights=LensResNet(2, 4, 3).state_dict(),
        network=NetworkSection(base_channels=4),
        features=FeatureSpec(("psfsize_arcsec", "ebv_mag"), (1.0, 2.0, 0.1), (0.1, 0.2, 0.01)),
        preprocess=PreprocessSection(annulus_px=(9.0, 16.0), clip=7.0),
        bands=("g", "r"),
        stamp_size_px=32,
        pixel_scale_arcsec=0.262,
        epoch=3,
        selected_by="val_auc",
        metrics={"val_auc": 0.75, "val_tpr_at_fpr": {"0.01": None}},
        seed=2**62,
        config_sha256="a",
        plan_sha256="b",
        cube_config_sha256="c",
        cube_code_version="d",
        code_version="e",
    )


def test_every_field_survives_the_file() -> None:
    """Weights come back bitwise, sections as sections, the rest equal; the same checkpoint gives the same bytes."""
    written = make_checkpoint()
    read = Checkpoint.from_bytes(written.to_bytes())
    assert read.document() == written.document()
    assert read.preprocess == written.preprocess
    assert read.weights.keys() == written.weights.keys()
    assert all(torch.equal(tensor, read.weights[name]) for name, tensor in written.weights.items())
    assert read.to_bytes() == written.to_bytes()


def test_network_has_the_weights_and_is_ready_to_score() -> None:
    """The rebuilt network is in evaluation mode and holds `weights`; weights of another network are refused."""
    checkpoint = make_checkpoint()
    network = checkpoint.build(CPU)
    assert not network.training
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in network.state_dict().items())
    other = dataclasses.replace(checkpoint, network=NetworkSection(base_channels=8))
    with pytest.raises(ContractError, match="do not fit the network lens_resnet"):
        other.build(CPU)


def test_other_files_are_refused() -> None:
    """Garbage, nothing, a truncated file, another version and a pickled function each raise ContractError."""
    whole = make_checkpoint().to_bytes()
    other = pack_tensors({}, {"checkpoint_version": 99})
    for data in (b"garbage", b"", whole[: len(whole) // 2], other, pickle.dumps(print, protocol=2)):
        with pytest.raises(ContractError):
            Checkpoint.from_bytes(data)


@pytest.mark.parametrize("change", ["preprocess", "feature", "key"])
def test_a_document_changed_by_hand_is_refused(change: str) -> None:
    """Another clip than the hash was made of, a feature that is not allowed, and a missing key."""
    tensors, document = unpack_tensors(make_checkpoint().to_bytes())
    if change == "preprocess":
        document["preprocess"]["clip"] = 8.0
    if change == "feature":
        document["features"]["columns"] = ["arc_snr", "ebv_mag"]
    if change == "key":
        del document["bands"]
    reasons = {"preprocess": "not what its hash says", "feature": "arc_snr", "key": "not complete"}
    with pytest.raises(ContractError, match=reasons[change]):
        Checkpoint.from_bytes(pack_tensors(tensors, json.loads(json.dumps(document))))
