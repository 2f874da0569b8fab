from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DEMO = str(REPOSITORY / "configs" / "demo.yaml")


def dhs(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False)


@pytest.mark.parametrize("command", ["run", "plan", "status", "verify", "report", "inspect", "synth"])
def test_help_says_what_is_read_and_written(command: str) -> None:
    """Every command's help says what it reads or writes."""
    done = dhs(command, "--help")
    assert done.returncode == 0
    assert "Reads" in done.stdout or "Read" in done.stdout or "Writes" in done.stdout
    assert "rite" in done.stdout


def test_schema_and_resolved_configuration_are_printed() -> None:
    """`config schema` is JSON with no additional properties; `config show` ends with the hash."""
    schema = json.loads(dhs("config", "schema").stdout)
    assert schema["additionalProperties"] is False
    shown = dhs("config", "show", DEMO, "--set", "shards.samples=256").stdout
    assert "samples: 256" in shown
    assert shown.strip().splitlines()[-1].startswith("# sha256 ")


def test_configuration_error_is_one_line_and_exit_code_2() -> None:
    """An unknown key ends with exit code 2 and the nearest known key, without a traceback."""
    done = dhs("plan", DEMO, "--set", "survey.stampsize=64")
    assert done.returncode == 2
    assert "did you mean" in done.stderr
    assert "stamp_size_px" in done.stderr
    assert "Traceback" not in done.stderr


def test_absent_run_is_a_contract_error(tmp_path: Path) -> None:
    """`status` of a folder without run is exit code 2."""
    done = dhs("status", str(tmp_path))
    assert done.returncode == 2
    assert "holds no run" in done.stderr


def test_unknown_stage_is_refused() -> None:
    """`--only` with a name that is no stage lists the stages."""
    done = dhs("run", DEMO, "--only", "cook")
    assert done.returncode == 2
    assert "cutouts, inject, gates, train, report" in done.stderr
