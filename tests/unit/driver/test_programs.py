"""Programs of the training package: their exit codes become errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ConfigError, PipelineError, VerificationError
from pipeline.driver.programs import run_program

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"
CODE = """
import sys
from pathlib import Path
sys.exit(int(sys.argv[3]) if "cluster:" in Path(sys.argv[2]).read_text() else 1)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A configuration, and a module `ends` that ends with the code it is given."""
    (tmp_path / "ends.py").write_text(CODE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return load_config(DEMO)


@pytest.mark.parametrize(
    ("code", "kind"), [("2", ConfigError), ("3", VerificationError), ("75", PipelineError), ("1", VerificationError)]
)
def test_exit_code_becomes_its_error(config: RunConfig, code: str, kind: type[PipelineError]) -> None:
    """2, 3 and 75 keep their meaning, any other code is no verified result; 0 returns."""
    with pytest.raises(kind, match=f"ends failed with exit code {code}") as caught:
        run_program(config, "ends", code)
    assert type(caught.value) is kind
    run_program(config, "ends", "0")


def test_program_that_hangs_and_missing_torch_are_errors(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is that of the training section; without torch the message says what to install."""
    short = config.model_copy(update={"training": config.training.model_copy(update={"timeout_s": 1e-4})})
    with pytest.raises(PipelineError, match="did not finish within"):
        run_program(short, "ends", "0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs torch"):
        run_program(config, "ends", "0")
