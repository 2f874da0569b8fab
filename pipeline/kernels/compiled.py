"""Where compiled kernels are kept between processes, and compiling them ahead of work.

Numba's cache on disk notices a change of the file that holds a function, not of the functions it calls in other
files, and would go on using their old code. So each state of the kernels' sources has a folder of its own, named
by their digest, and old machine code can never be run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numba.core import config

from pipeline.contracts.errors import ConfigError

CACHE_VARIABLE = "NUMBA_CACHE_DIR"
_SOURCES = Path(__file__).parent
_DIGEST_LENGTH = 16


def use_compiled_cache() -> Path:
    """Point numba to the cache folder of these sources; called once, before the first kernel is declared.

    The first writable one of: the folder that NUMBA_CACHE_DIR names, beside the kernels, the user's cache folder. A
    folder that NUMBA_CACHE_DIR names must be writable.

    Returns:
        The folder.

    Raises:
        ConfigError: no folder can be written.
    """
    named = os.environ.get(CACHE_VARIABLE)
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "darkhaloscope"
    bases = [Path(named)] if named else [_SOURCES / "__pycache__", home]
    problems = []
    for base in bases:
        folder = base / f"kernels-{sources_digest()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        return folder
    raise ConfigError(
        f"no writable folder for compiled kernels ({'; '.join(problems)}); set {CACHE_VARIABLE} to one that is"
    )


@contextmanager
def compiling_alone() -> Iterator[None]:
    """Let one process of the machine compile into the cache folder while others wait.

    Code compiled beside functions that were just loaded is optimised otherwise, and rounds otherwise, than code
    compiled from nothing; so one process compiles everything, and all others load what it made.
    """
    with (Path(config.CACHE_DIR) / "lock").open("w") as lock:  # type: ignore[attr-defined]
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sources_digest() -> str:
    """Digest of the source files of all kernels."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:_DIGEST_LENGTH]
