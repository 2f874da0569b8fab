"""Folder of compiled kernels: named by their sources, writable or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from numba.core import config

from pipeline.contracts.errors import ConfigError
from pipeline.kernels import compiled
from pipeline.kernels.compiled import CACHE_VARIABLE, sources_digest, use_compiled_cache


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", config.CACHE_DIR)


def test_kernels_are_cached_in_the_folder_of_their_sources() -> None:
    """Importing the kernels has chosen a folder that carries the digest of their sources."""
    assert Path(config.CACHE_DIR).name == f"kernels-{sources_digest()}"


def test_named_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUMBA_CACHE_DIR names the base; each state of the sources has its own folder there."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folder = use_compiled_cache()
    assert folder == tmp_path / "cache" / f"kernels-{sources_digest()}"
    assert folder.is_dir() and str(folder) == config.CACHE_DIR


def test_changed_source_changes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code of one state of any kernel file is never used with another."""
    (tmp_path / "a.py").write_text("x = 1")
    monkeypatch.setattr(compiled, "_SOURCES", tmp_path)
    before = sources_digest()
    (tmp_path / "a.py").write_text("x = 2")
    assert sources_digest() != before


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the folder and the variable; a named folder is not replaced by another."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocker))
    with pytest.raises(ConfigError, match=f"{blocker}.*{CACHE_VARIABLE}"):
        use_compiled_cache()


def test_user_cache_serves_where_the_package_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NUMBA_CACHE_DIR and without right to write beside the kernels, the user's cache folder is used."""
    blocker = tmp_path / "package"
    blocker.mkdir()
    (blocker / "__pycache__").write_text("")
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compiled, "_SOURCES", blocker)
    assert use_compiled_cache().parent == tmp_path / "home" / "darkhaloscope"
