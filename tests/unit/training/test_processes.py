"""One process alone: what several are, the program's own test shows."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from pipeline.contracts.training_config import TrainingSection
from pipeline.training.processes import World, configure_torch, is_launched, joined_world, launch, on_host

ALONE = World(torch.device("cpu"))


def test_one_process_is_its_own_world() -> None:
    """Sums and gathered values are its own; it writes the files."""
    assert ALONE.summed(torch.tensor([1.0, 2.5])).tolist() == [1.0, 2.5]
    assert ALONE.gather("mine") == ["mine"]
    assert ALONE.from_first(3) == 3
    assert (ALONE.rank, ALONE.size) == (0, 1)


def test_threads_and_algorithms_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchrun's variables nobody is waited for; switches reach torch."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert not is_launched()
    with joined_world(TrainingSection(epochs=1, deterministic=False)) as world:
        assert world.size == 1
        assert not torch.are_deterministic_algorithms_enabled()
    configure_torch(1)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_numbers_of_the_host_are_not_waited_for() -> None:
    """Without a GPU they are there already."""
    values = torch.tensor([1.0, 2.0])
    found, ready = on_host(values)
    assert found is values
    assert ready is None


def test_exit_code_of_the_first_failure_is_passed_on() -> None:
    """A process that ends with 3 makes the launcher return 3; both ending well give 0."""
    assert launch((sys.executable, "-c", "import sys, os; sys.exit(3 * int(os.environ['RANK']))"), 2) == 3
    assert launch((sys.executable, "-c", "pass"), 2) == 0
