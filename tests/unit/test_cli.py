from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app, main

REPOSITORY = Path(__file__).parents[2]
DEMO = str(REPOSITORY / "configs" / "demo.yaml")


def dhs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of the command line."""
    monkeypatch.setattr(sys, "argv", ["dhs", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    assert isinstance(code, int)
    return code, capfd.readouterr().err


@pytest.mark.parametrize("command", ["run", "plan", "status", "verify", "report", "inspect", "synth"])
def test_help_says_what_is_read_and_written(command: str) -> None:
    """Every command's help says what it reads and what it writes."""
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "Read" in shown.output or command == "synth"
    assert "rite" in shown.output


def test_schema_and_resolved_configuration_are_printed() -> None:
    """`config schema` is JSON with no additional properties; `config show` ends with the hash."""
    schema = json.loads(CliRunner().invoke(app, ["config", "schema"]).output)
    assert schema["additionalProperties"] is False
    shown = CliRunner().invoke(app, ["config", "show", DEMO, "--set", "shards.samples=256"]).output
    assert "samples: 256" in shown
    assert shown.strip().splitlines()[-1].startswith("# sha256 ")


def test_configuration_error_is_one_line_and_exit_code_2() -> None:
    """As a user calls it: an unknown key is exit code 2 and the nearest known key, without a traceback."""
    command = [sys.executable, "-m", "pipeline.entry", "plan", DEMO, "--set", "survey.stampsize=64"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False)
    assert done.returncode == 2
    assert "did you mean" in done.stderr
    assert "stamp_size_px" in done.stderr
    assert "Traceback" not in done.stderr


def test_absent_run_is_a_contract_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`status` of a folder without run is exit code 2."""
    code, message = dhs(monkeypatch, capfd, "status", str(tmp_path))
    assert code == 2
    assert "holds no run" in message


def test_unknown_stage_is_refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`--only` with a name that is no stage lists the stages."""
    code, message = dhs(monkeypatch, capfd, "run", DEMO, "--only", "cook")
    assert code == 2
    assert "cutouts, inject, anchors, gates, train, evaluate, network_gates, report" in message
