"""Which code made this: a digest of the layers that decide a cube's bytes, and package versions."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import pipeline

# Layers that decide the bytes of a cube; a change elsewhere does not make a run another run.
SCIENCE_LAYERS = ("contracts", "kernels", "stages", "storage")
_PACKAGES = ("numpy", "numba", "scipy", "astropy", "healpy", "zarr", "numcodecs", "dask", "distributed", "pyarrow")


@cache
def code_version() -> str:
    """`<version>+<12 digits>`: package version and SHA-256 of the science layers' sources."""
    root = Path(pipeline.__file__).parent
    digest = hashlib.sha256()
    for layer in SCIENCE_LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{metadata.version('darkhaloscope')}+{digest.hexdigest()[:12]}"


def environment() -> dict[str, str]:
    """Python, platform and package versions, and the git commit where one is known."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {
        "code_version": code_version(),
        "git_sha": git_sha(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **versions,
    }


def git_sha() -> str:
    """Commit of the checkout (with "-dirty"), or of DHS_GIT_SHA where the package was installed; else "unknown"."""
    if sha := os.environ.get("DHS_GIT_SHA"):
        return sha
    root = Path(pipeline.__file__).parent.parent
    if not (root / ".git").exists():
        return "unknown"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
