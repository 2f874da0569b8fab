"""A network as it is used: raw stamps in, logits out, through the one preprocessing it was trained with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.features import FeatureSpec
from pipeline.training.models.staged import StagedNetwork
from pipeline.training.preprocess import normalise, require_same_spec

SCORING_BATCH = 256
REPRODUCED_SCORES = 8
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Scorer:
    """A network and its preprocessing, on a device; always float32, without augmentation.

    Attributes:
        network: on `device`; put in evaluation mode by every call.
        preprocess: normalisation of every stamp.
        features: what the head sees beside the stamp; None for nothing.
        device: where the network is.
    """

    network: StagedNetwork
    preprocess: PreprocessSection
    features: FeatureSpec | None
    device: torch.device

    def normalised(self, stamps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(example, band, y, x) raw stamps [nmgy] as the network sees them [1].

        Raises:
            ContractError: pixels that are not finite, or no noise in the annulus.
        """
        parts = [
            normalise(self._on_device(stamps[start : start + SCORING_BATCH]), self.preprocess).cpu().numpy()
            for start in range(0, len(stamps), SCORING_BATCH)
        ]
        return np.concatenate(parts) if parts else stamps.copy()

    def logits(self, stamps: NDArray[np.float32], features: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Logits of raw stamps.

        Args:
            stamps: (example, band, y, x) float32. [nmgy]
            features: (example, number) of `FeatureSpec.standardised`; None for a network without.

        Returns:
            (example) float32, finite.

        Raises:
            ContractError: unusable stamps, or features that are missing or not asked for.
            VerificationError: a logit is not finite.
        """
        return self._logits(stamps, features, is_raw=True)

    def logits_of_normalised(
        self, normalised: NDArray[np.float32], features: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """As `logits`, of stamps from `normalised`, which a probe may have changed since."""
        return self._logits(normalised, features, is_raw=False)

    def _logits(
        self, stamps: NDArray[np.float32], features: NDArray[np.float32] | None, *, is_raw: bool
    ) -> NDArray[np.float32]:
        if (features is None) != (self.features is None):
            wanted = "none" if self.features is None else self.features.columns
            raise ContractError(f"the network sees features {wanted}, got {'none' if features is None else 'some'}")
        self.network.eval()
        logits = np.empty(len(stamps), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(stamps), SCORING_BATCH):
                chosen = slice(start, start + SCORING_BATCH)
                batch = self._on_device(stamps[chosen])
                beside = None if features is None else self._on_device(features[chosen])
                seen = normalise(batch, self.preprocess) if is_raw else batch
                logits[chosen] = self.network(seen, beside).cpu().numpy()
        if not np.isfinite(logits).all():
            raise VerificationError(f"{np.count_nonzero(~np.isfinite(logits))} of {logits.size} logits are not finite")
        return logits

    def embeddings(self, normalised: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Mean over the stamp of the features after each stage; the last ones are what the head sees.

        Args:
            normalised: (example, band, y, x) float32 from `normalised`. [1]

        Returns:
            One (example, channel) float32 per stage.
        """
        self.network.eval()
        pooled: list[list[NDArray[np.float32]]] = []
        with torch.inference_mode():
            for start in range(0, max(len(normalised), 1), SCORING_BATCH):
                stages = self.network.embed(self._on_device(normalised[start : start + SCORING_BATCH]))
                pooled.append([stage.cpu().numpy() for stage in stages])
        return [np.concatenate(stage) for stage in zip(*pooled, strict=True)]

    def _on_device(self, values: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def load_checkpoint(checkpoint_file: Location, device: torch.device) -> tuple[Checkpoint, Scorer]:
    """A stored checkpoint, and its network ready to score.

    Raises:
        ContractError: no checkpoint is there, or the file is not one.
    """
    if not checkpoint_file.exists():
        raise ContractError(f"{checkpoint_file.url}: no checkpoint is there")
    checkpoint = Checkpoint.from_bytes(checkpoint_file.read_bytes())
    return checkpoint, Scorer(checkpoint.build(device), checkpoint.preprocess, checkpoint.features, device)


def require_cube(
    checkpoint: Checkpoint, cube: PublishedCube, size_px: int, preprocess: PreprocessSection | None = None
) -> None:
    """Refuse a cube whose stamps the network was not made for.

    Args:
        checkpoint: the network.
        cube: what is to be scored.
        size_px: rows and columns of its stamps.
        preprocess: what the configuration asks for; None asks for nothing.

    Raises:
        ContractError: other bands, stamp size or preprocessing.
    """
    bands = tuple(map(str, cube.attrs.get("bands", ())))
    if (checkpoint.bands, checkpoint.stamp_size_px) != (bands, size_px):
        raise ContractError(
            f"the checkpoint expects stamps of {checkpoint.stamp_size_px} px in {checkpoint.bands}, "
            f"{cube.location.url} has {size_px} px in {bands}"
        )
    if preprocess is not None:
        require_same_spec(checkpoint.preprocess, preprocess)


def require_reproduced(
    checkpoint_file: Location,
    stamps: NDArray[np.float32],
    features: NDArray[np.float32] | None,
    written: NDArray[np.float32],
    device: torch.device,
) -> None:
    """Read a checkpoint back and prove that it gives the logits that were stored.

    Args:
        checkpoint_file: the stored checkpoint.
        stamps: (example, band, y, x) raw. [nmgy]
        features: (example, number) standardised, or None.
        written: (example) the stored logits.
        device: where to score.

    Raises:
        VerificationError: a logit differs by more than 1e-4.
    """
    _, scorer = load_checkpoint(checkpoint_file, device)
    again = scorer.logits(stamps, features)
    if not np.allclose(again, written, rtol=LOGIT_TOLERANCE, atol=LOGIT_TOLERANCE):
        raise VerificationError(f"{checkpoint_file.url} does not reproduce its scores: {written} became {again}")
