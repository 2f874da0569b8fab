"""The state of a training: what is stored comes back; another training's is left alone."""

from __future__ import annotations

import pytest
import torch

from pipeline.contracts.errors import ContractError
from pipeline.training.history import EpochRecord
from pipeline.training.state import Progress, pack_state, unpack_state
from pipeline.training.tensor_file import pack_tensors

RECORD = EpochRecord(0, 0.7, 0.6, 0.5, {"0.01": None}, 1e-3, 1.0, 10.0)


def stepped(momentum: float = 0.9) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A convolution after one step."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 3, 3)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=momentum)
    layer(torch.ones(1, 2, 4, 4)).sum().backward()
    optimiser.step()
    return layer, optimiser


def test_state_comes_back() -> None:
    """Progress with history, weights by kind, momenta and rate."""
    layer, optimiser = stepped()
    progress = Progress(1, 7, 3.25, 112, 1.5, 0.5, [RECORD], 0)
    data = pack_state({"of": "this"}, progress, {"network": layer.state_dict(), "best": {}}, optimiser)
    _, fresh = stepped()
    fresh.param_groups[0]["lr"] = 9.0
    found = unpack_state(data, {"of": "this"}, fresh)
    assert found is not None
    assert found[0] == progress
    assert torch.equal(found[1]["network"]["weight"], layer.state_dict()["weight"])
    assert fresh.param_groups[0]["lr"] == 0.1
    before, after = (each.state_dict()["state"] for each in (optimiser, fresh))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key]["momentum_buffer"], after[key]["momentum_buffer"]) for key in before)


def test_other_states_are_not_used() -> None:
    """Another identity is None and leaves the optimiser alone; another version or a broken file is an error."""
    _, optimiser = stepped()
    data = pack_state({"of": "this"}, Progress(), {}, optimiser)
    assert unpack_state(data, {"of": "that"}, optimiser) is None
    for broken in (data[:100], pack_tensors({}, {"state_version": 0})):
        with pytest.raises(ContractError):
            unpack_state(broken, {"of": "this"}, optimiser)


def test_progress_counts_epochs_without_gain() -> None:
    """From the best epoch on; a new epoch begins with empty sums."""
    progress = Progress(3, 2, 1.0, 5, 1.0, 1.0, [RECORD] * 3, 0)
    assert progress.epochs_without_gain() == 2
    progress.next_epoch()
    assert (progress.epoch, progress.batch, progress.loss_sum, progress.n_seen) == (4, 0, 0.0, 0)
    assert Progress().epochs_without_gain() == 0
