from __future__ import annotations

import re
from importlib import metadata

import pytest

from pipeline.driver.provenance import code_version, environment, git_sha


def test_code_version_is_version_and_digest() -> None:
    """The code version is the distribution's version and twelve hex digits."""
    assert re.fullmatch(re.escape(metadata.version("darkhaloscope")) + r"\+[0-9a-f]{12}", code_version())


def test_environment_names_what_decides_numbers() -> None:
    """Numerical packages and Python are in the record."""
    found = environment()
    assert found["numpy"] == metadata.version("numpy")
    assert {"numba", "zarr", "astropy", "python", "git_sha", "code_version"} <= set(found)


def test_image_git_sha_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package learns its commit from the environment of its image."""
    monkeypatch.setenv("DHS_GIT_SHA", "abc123")
    assert git_sha() == "abc123"
