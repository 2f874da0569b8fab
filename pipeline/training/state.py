"""How far a training got, in one file from which it goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, optim

from pipeline.contracts.errors import ContractError
from pipeline.training.history import EpochRecord
from pipeline.training.tensor_file import pack_tensors, unpack_tensors

STATE_VERSION = 1


@dataclass
class Progress:
    """Where a training is.

    Attributes:
        epoch: 0-based, the one being trained.
        batch: of that epoch, the next one.
        loss_sum: over the examples of the batches before. [nat]
        n_seen: number of those examples.
        trained_s: time they took.
        wait_s: time of it that was spent waiting for batches.
        history: records of the epochs before.
        best_epoch: the best of them; None before the first.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    n_seen: int = 0
    trained_s: float = 0.0
    wait_s: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.n_seen, self.trained_s, self.wait_s = 0.0, 0, 0.0, 0.0

    def epochs_without_gain(self) -> int:
        """Finished epochs since the best one."""
        return 0 if self.best_epoch is None else len(self.history) - 1 - self.best_epoch


def pack_state(
    identity: Mapping[str, Any],
    progress: Progress,
    weights: Mapping[str, Mapping[str, Tensor]],
    optimiser: optim.Optimizer,
) -> bytes:
    """The file.

    Args:
        identity: what the training is of.
        progress: where it is.
        weights: by what they are, such as network, average, best.
        optimiser: its state goes in as well.
    """
    tensors = {f"{kind}/{name}": tensor for kind, state in weights.items() for name, tensor in state.items()}
    stored = optimiser.state_dict()
    for number, state in stored["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    document = {
        "state_version": STATE_VERSION,
        "identity": dict(identity),
        "progress": asdict(progress),
        "param_groups": stored["param_groups"],
    }
    return pack_tensors(tensors, document)


def unpack_state(
    data: bytes, identity: Mapping[str, Any], optimiser: optim.Optimizer
) -> tuple[Progress, dict[str, dict[str, Tensor]]] | None:
    """Read the file and put the optimiser into the stored state; None if it is of another training.

    Raises:
        ContractError: not such a file.
    """
    tensors, document = unpack_tensors(data)
    if document.get("state_version") != STATE_VERSION:
        raise ContractError(f"expected training state version {STATE_VERSION}, got {document.get('state_version')}")
    if document["identity"] != dict(identity):
        return None
    weights: dict[str, dict[str, Tensor]] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, rest = name.split("/", 1)
        if kind == "optimiser":
            number, moment = rest.split("/", 1)
            # The layout of the weights decides which arithmetic the optimiser's kernels use.
            layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
            moments.setdefault(int(number), {})[moment] = tensor.contiguous(memory_format=layout)
        else:
            weights.setdefault(kind, {})[rest] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": document["param_groups"]})
    stored = document["progress"]
    history = [EpochRecord(**record) for record in stored.pop("history")]
    return Progress(**stored, history=history), weights
