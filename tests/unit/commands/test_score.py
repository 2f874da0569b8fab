"""`dhs score` as a command line; what it does is tested in tests/unit/driver/test_search.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.commands.score import score_command
from pipeline.contracts.errors import ConfigError


def test_options_that_cannot_be_followed_are_refused(tmp_path: Path) -> None:
    """An override without a configuration, an S3 place without region, a checkpoint that is not there."""
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match="give one with --config"):
        score_command("network.onnx", "cube", out, None, ["candidates.top=5"])
    with pytest.raises(ConfigError, match="an S3 location needs a region"):
        score_command("s3://bucket/network.onnx", "cube", out)
    with pytest.raises(ConfigError, match="no network is there"):
        score_command(str(tmp_path / "network.onnx"), "cube", out)
    assert not (tmp_path / "out").exists()


def test_help_names_what_is_read_and_written() -> None:
    """A user need not look into the code."""
    described = score_command.__doc__ or ""
    for name in ("scores.parquet", "candidates.csv", "index.html", "summary.json", "docs/scoring.md"):
        assert name in described
