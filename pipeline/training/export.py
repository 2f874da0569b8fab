"""The trained network as one ONNX file: raw stamps in, logits out, preprocessing inside, no torch needed to run it.

Because the file normalises, nobody can normalise otherwise for it. A stamp with a pixel that is not finite, or without
noise in a band, has the logit NaN there, where the trainer refuses it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.features import FeatureSpec
from pipeline.training.models.staged import StagedNetwork
from pipeline.training.preprocess import normalised

OPSET = 20
STAMPS, FEATURES, LOGIT = "stamps", "features", "logit"
_DOCUMENT = "darkhaloscope"


class Finder(nn.Module):
    """Preprocessing, network and the rule for unusable stamps, as one module.

    Args:
        network: in evaluation mode.
        preprocess: normalisation of every stamp.
        features: how raw features are standardised; None for a network without.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: StagedNetwork, preprocess: PreprocessSection, features: FeatureSpec | None) -> None:
        super().__init__()
        self.network, self.preprocess = network, preprocess
        self.register_buffer("mean", torch.tensor([] if features is None else features.mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor([] if features is None else features.scale, dtype=torch.float32))

    def forward(self, stamps: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits of raw stamps.

        Args:
            stamps: (example, band, y, x) float32. [nmgy]
            features: (example, number) float32 as the feed gives them, not standardised; None without.

        Returns:
            (example) float32; NaN for an unusable stamp.
        """
        values, usable = normalised(stamps, self.preprocess)
        beside = None if features is None else (features - self.mean) / self.scale
        logit: Tensor = self.network(values, beside)
        return torch.where(usable, logit, torch.full_like(logit, torch.nan))


def export_onnx(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as an ONNX file.

    Returns:
        The file: input `stamps` (any number of examples) and, for a network that sees them, `features`; output `logit`;
        the checkpoint's document as JSON in the metadata `darkhaloscope`.

    Raises:
        VerificationError: the exporter made a file that ONNX's own checker refuses.
    """
    finder = Finder(checkpoint.build(torch.device("cpu")), checkpoint.preprocess, checkpoint.features).eval()
    size = checkpoint.stamp_size_px
    generator = np.random.default_rng(0)
    stamps = generator.normal(size=(2, len(checkpoint.bands), size, size)).astype(np.float32)
    inputs: tuple[Tensor, ...] = (torch.from_numpy(stamps),)
    names = [STAMPS]
    if checkpoint.features is not None:
        inputs = (*inputs, torch.zeros(2, len(checkpoint.features.mean)))
        names.append(FEATURES)
    examples = torch.export.Dim("example", min=1, max=2**20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            finder,
            inputs,
            path,
            input_names=names,
            output_names=[LOGIT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=tuple({0: examples} for _ in inputs),
            external_data=False,
            verbose=False,
        )
        model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = _DOCUMENT, json.dumps(checkpoint.document(), allow_nan=False)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise VerificationError(f"the exported network is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString()
    return data
