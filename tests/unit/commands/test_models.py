"""`dhs models` starts the training package's program and passes its options on."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands import models


def test_options_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Module, options and switch as the program takes them."""
    started: list[tuple[object, ...]] = []
    monkeypatch.setattr(models, "run_module", lambda *arguments: started.append(arguments))
    done = CliRunner().invoke(app, ["models", "--batch-size", "4", "--size-px", "32", "--seconds", "0", "--json"])
    assert done.exit_code == 0, done.output
    expected = "--batch-size 4 --size-px 32 --bands 3 --threads 1 --seconds 0.0 --json"
    assert started == [("pipeline.training.models_table", tuple(expected.split()), models._TIMEOUT_S)]
