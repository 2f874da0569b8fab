from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import pipeline
from pipeline.contracts.errors import ConfigError
from pipeline.driver.provenance import code_version, environment, git_sha, proof_of_code


def test_code_version_is_version_and_digest() -> None:
    """The code version is the distribution's version and twelve hex digits."""
    assert re.fullmatch(re.escape(metadata.version("darkhaloscope")) + r"\+[0-9a-f]{12}", code_version())


def test_environment_names_what_decides_numbers() -> None:
    """Numerical packages and Python are in the record."""
    found = environment()
    assert found["numpy"] == metadata.version("numpy")
    assert {"numba", "zarr", "astropy", "python", "git_sha", "code_version"} <= set(found)


def test_image_knows_its_commit_from_its_build_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a checkout the commit is that of the build file, unknown without one; a broken file is an error."""
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "site-packages" / "pipeline" / "__init__.py"))
    monkeypatch.setenv("DHS_BUILD_FILE", str(tmp_path / "build.json"))
    assert git_sha() == "unknown"
    (tmp_path / "build.json").write_text('{"git_sha": "abc123"}')
    assert git_sha() == "abc123"
    (tmp_path / "build.json").write_text("[1]")
    with pytest.raises(ConfigError, match="expected a JSON object, got list"):
        git_sha()


def test_proof_holds_code_commit_and_packages() -> None:
    """What a worker must have in common with the driver names the packages and Python without its patch number."""
    proof = proof_of_code()
    assert {"code_version", "git_sha", "numpy", "numba", "zarr", "dask", "distributed"} <= set(proof)
    assert re.fullmatch(r"\d+\.\d+", proof["python"])
