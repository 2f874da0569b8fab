"""`dhs manifest` as a user calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.contracts.errors import ConfigError, ContractError

TRAIN = "train_stamp64_bandsgrz_gridgrid_sota"


def test_build_and_check(make_phase3: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    """A configuration file to a folder that passes the check; a bad key or seed ends with its reason."""
    config = {
        "variant": "v6_test",
        "output": str(tmp_path),
        "region": None,
        "inputs": make_phase3(),
        "tiers": {"train": {"grid": "grid_sota", "n_total_per_split": 10}},
    }
    file = tmp_path / "manifest.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    built = CliRunner().invoke(app, ["manifest", "build", str(file), "--set", "replicates=3"])
    assert built.exit_code == 0, built.output
    folder = tmp_path / "phase4a" / "v6_test" / "manifests" / TRAIN
    assert f"rows  file://{folder}" in built.output
    checked = CliRunner().invoke(app, ["manifest", "check", str(folder)])
    assert checked.exit_code == 0
    rows = int(built.output.split()[0])
    assert f'"rows": {rows}' in checked.output
    assert rows % 3 == 0
    with pytest.raises(ContractError, match="seed 12 say"):
        CliRunner().invoke(app, ["manifest", "check", str(folder), "--split-seed", "12"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="did you mean 'replicates'"):
        CliRunner().invoke(app, ["manifest", "build", str(file), "--set", "replicats=3"], catch_exceptions=False)


@pytest.mark.parametrize("command", ["build", "check"])
def test_help_says_what_is_written(command: str) -> None:
    """Each command's help says what it writes."""
    shown = CliRunner().invoke(app, ["manifest", command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "rites" in shown.output
