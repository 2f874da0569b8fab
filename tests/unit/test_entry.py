"""The program's entry: a machine on which the commands cannot be loaded ends with the error's exit code."""

from __future__ import annotations

import importlib

import pytest

from pipeline.contracts.errors import ConfigError
from pipeline.entry import main


def test_error_while_loading_becomes_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: one line and the code that tells Kubernetes not to try again."""

    def refuse(name: str) -> None:
        raise ConfigError(f"{name}: no writable folder for compiled kernels")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "ConfigError: pipeline.cli: no writable folder for compiled kernels\n"
