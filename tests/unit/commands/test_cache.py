from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands.cache import cache_command
from pipeline.contracts.errors import ConfigError

DR10 = Path(__file__).parents[3] / "configs" / "cache-dr10.yaml"


def test_help_says_what_is_read_and_written() -> None:
    """The help names the source, the cache, the record and the exit code."""
    shown = CliRunner().invoke(app, ["cache", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for word in ("Reads", "Writes", "assets_manifest", "brick_blacklist.json", "75"):
        assert word in shown.output


def test_wrong_key_names_the_nearest_one() -> None:
    """The configuration is strict."""
    with pytest.raises(ConfigError, match="did you mean 'layout'"):
        cache_command(DR10, None, ["source.layuot=cache"])
