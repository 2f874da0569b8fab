"""The checkpoint: weights with everything needed to score a stamp the way the network was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.contracts.errors import ContractError
from pipeline.contracts.network_config import NetworkSection
from pipeline.contracts.training_config import PreprocessSection
from pipeline.training.features import FeatureSpec
from pipeline.training.models.catalogue import build_network
from pipeline.training.models.staged import StagedNetwork, placed
from pipeline.training.preprocess import spec_sha256
from pipeline.training.tensor_file import pack_tensors, unpack_tensors

CHECKPOINT_VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """A trained network; a safetensors file, whose header holds everything but the weights as JSON.

    Attributes:
        weights: state of the best epoch, the moving average if one was kept.
        network: name and width.
        features: what the head sees beside the stamp, and how it is standardised; None for nothing.
        preprocess: normalisation that every stamp must have had.
        bands: bands of a stamp in order.
        stamp_size_px: rows and columns of a stamp.
        pixel_scale_arcsec: side of a pixel.
        epoch: 0-based best epoch.
        selected_by: the metric that made it best.
        metrics: record of the best epoch.
        seed: seed of the run.
        config_sha256: hash of the resolved configuration of the training run.
        plan_sha256: plan of the cube that was trained on.
        cube_config_sha256: configuration of the run that made the cube.
        cube_code_version: code that made the cube.
        code_version: code that trained.
    """

    weights: dict[str, Tensor]
    network: NetworkSection
    features: FeatureSpec | None
    preprocess: PreprocessSection
    bands: tuple[str, ...]
    stamp_size_px: int
    pixel_scale_arcsec: float
    epoch: int
    selected_by: str
    metrics: dict[str, Any]
    seed: int
    config_sha256: str
    plan_sha256: str
    cube_config_sha256: str
    cube_code_version: str
    code_version: str

    def document(self) -> dict[str, Any]:
        """Everything but the weights, as JSON can hold it."""
        content = {name: value for name, value in vars(self).items() if name != "weights"}
        return content | {
            "network": self.network.model_dump(mode="json"),
            "features": None if self.features is None else self.features.document(),
            "preprocess": self.preprocess.model_dump(mode="json"),
            "preprocess_sha256": spec_sha256(self.preprocess),
            "bands": list(self.bands),
            "checkpoint_version": CHECKPOINT_VERSION,
        }

    def to_bytes(self) -> bytes:
        """The file."""
        return pack_tensors(self.weights, self.document())

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Read the file; never executes code from it.

        Raises:
            ContractError: not a checkpoint of this version, or one whose preprocessing is not what its hash says.
        """
        weights, content = unpack_tensors(data)
        version = content.pop("checkpoint_version", None)
        if version != CHECKPOINT_VERSION:
            raise ContractError(f"expected checkpoint version {CHECKPOINT_VERSION}, got {version}")
        stated = content.pop("preprocess_sha256", None)
        try:
            content["network"] = NetworkSection.model_validate(content["network"])
            content["preprocess"] = PreprocessSection.model_validate(content["preprocess"])
            content["bands"] = tuple(content["bands"])
            features = content["features"]
            content["features"] = None if features is None else FeatureSpec.from_document(features)
            checkpoint = cls(weights=weights, **content)
        except (KeyError, TypeError, ValidationError) as error:
            raise ContractError(f"the checkpoint's document is not complete: {error}") from error
        if stated != spec_sha256(checkpoint.preprocess):
            raise ContractError(f"the checkpoint's preprocessing {checkpoint.preprocess!r} is not what its hash says")
        return checkpoint

    def build(self, device: torch.device) -> StagedNetwork:
        """The network with the best epoch's weights, in evaluation mode on `device`.

        Raises:
            ContractError: the weights are not those of such a network.
        """
        n_features = 0 if self.features is None else len(self.features.mean)
        network = build_network(self.network, len(self.bands), n_features)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ContractError(f"the weights do not fit the network {self.network.name}: {error}") from error
        return placed(network, device).eval()
