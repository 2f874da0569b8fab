"""The checkpoint: weights with everything needed to score a stamp the way the network was trained."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.contracts.errors import ContractError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.training.model import LensResNet

CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained network.

    Attributes:
        weights: state of the best epoch.
        last_weights: state of the last epoch.
        preprocess: normalisation that every stamp must have had.
        bands: bands of a stamp in order.
        stamp_size_px: rows and columns of a stamp.
        base_channels: width of the network.
        epoch: 0-based best epoch.
        selected_by: the metric that made it best.
        metrics: record of the best epoch.
        config_sha256: hash of the resolved configuration of the training run.
        plan_sha256: plan of the cube that was trained on.
        cube_config_sha256: configuration of the run that made the cube.
        cube_code_version: code that made the cube.
        code_version: code that trained.
    """

    weights: dict[str, Tensor]
    last_weights: dict[str, Tensor]
    preprocess: PreprocessSection
    bands: tuple[str, ...]
    stamp_size_px: int
    base_channels: int
    epoch: int
    selected_by: str
    metrics: dict[str, Any]
    config_sha256: str
    plan_sha256: str
    cube_config_sha256: str
    cube_code_version: str
    code_version: str

    def to_bytes(self) -> bytes:
        """The file `checkpoint.pt`; holds only tensors, numbers and strings."""
        content = {name: value for name, value in vars(self).items() if name != "preprocess"}
        content["preprocess"] = self.preprocess.model_dump(mode="json")
        content["bands"] = list(self.bands)
        content["checkpoint_version"] = CHECKPOINT_VERSION
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Read `checkpoint.pt`; never executes code from the file.

        Raises:
            ContractError: not a checkpoint of this version.
        """
        try:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise ContractError(f"not a checkpoint: {error}") from error
        version = content.pop("checkpoint_version", None) if isinstance(content, dict) else None
        if version != CHECKPOINT_VERSION:
            raise ContractError(f"expected checkpoint version {CHECKPOINT_VERSION}, got {version}")
        content["preprocess"] = PreprocessSection.model_validate(content["preprocess"])
        content["bands"] = tuple(content["bands"])
        return cls(**content)

    def network(self, device: torch.device) -> LensResNet:
        """The network with the best epoch's weights, in evaluation mode on `device`."""
        model = LensResNet(len(self.bands), self.base_channels)
        model.load_state_dict(self.weights)
        return model.to(device).eval()
