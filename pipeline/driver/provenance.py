"""Which code made this: a digest of the layers that decide a cube's bytes, and package versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import pipeline
from pipeline.contracts.errors import ConfigError

# Layers that decide the bytes of a cube; a change elsewhere does not make a run another run.
SCIENCE_LAYERS = ("contracts", "kernels", "stages", "storage")
UNKNOWN = "unknown"
BUILD_FILE = "/opt/darkhaloscope/build.json"
BUILD_FILE_VARIABLE = "DHS_BUILD_FILE"
IMAGE_VARIABLE = "DHS_IMAGE"
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
    """Python, platform and package versions, the git commit and the image where they are known."""
    return {
        "code_version": code_version(),
        "git_sha": git_sha(),
        "image": os.environ.get(IMAGE_VARIABLE) or UNKNOWN,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide numbers or talk to other processes."""
    return {name: metadata.version(name) for name in _PACKAGES}


def proof_of_code() -> dict[str, str]:
    """What driver and workers must have in common: code, git commit, Python's minor version, packages."""
    minor = ".".join(platform.python_version_tuple()[:2])
    return {"code_version": code_version(), "git_sha": git_sha(), "python": minor, **package_versions()}


def git_sha() -> str:
    """Commit of the checkout (with "-dirty"), or of the build that an image carries; else "unknown"."""
    root = Path(pipeline.__file__).parent.parent
    if not (root / ".git").exists():
        return build_record().get("git_sha", UNKNOWN)
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or UNKNOWN


def build_record() -> dict[str, str]:
    """What the image's build wrote down (git_sha, code_version, created, packages_sha256); empty outside an image.

    Raises:
        ConfigError: the file is there and is no JSON object.
    """
    path = Path(os.environ.get(BUILD_FILE_VARIABLE, BUILD_FILE))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return {str(name): str(value) for name, value in content.items()}
