"""The table of networks: every one of them, with rates."""

from __future__ import annotations

import json

import pytest

from pipeline.contracts.network_config import NETWORKS
from pipeline.training.models_table import main


def test_every_network_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per network with its weights and two positive rates; the table has the same rows."""
    small = ["--batch-size", "1", "--size-px", "16", "--seconds", "0"]
    assert main([*small, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in found] == list(NETWORKS)
    assert all(row["training_per_s"] > 0 and row["scoring_per_s"] > 0 for row in found)
    assert found[1]["parameters"] == 194_995
