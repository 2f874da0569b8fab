"""Check an image from inside: every module imports, the kernels compile, nothing but /tmp can be written.

The last step of the image's build, and of use later: `docker run --rm IMAGE python /opt/darkhaloscope/check.py`.
"""

import argparse
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from importlib import util
from pathlib import Path

_BUILD = Path("/opt/darkhaloscope/build.json")
_USER_ID = 10001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", choices=("none", "cpu", "cuda", "any"), default="any", help="the torch it must hold")
    arguments = parser.parse_args()
    if os.getuid() != _USER_ID:
        sys.exit(f"user: expected {_USER_ID}, got {os.getuid()}")
    _torch(arguments.torch)
    modules = _import_everything()
    build = _build_record()
    writable = [folder for folder in ("/opt/venv", "/opt/darkhaloscope", "/usr", "/") if os.access(folder, os.W_OK)]
    if writable:
        sys.exit(f"folders: expected none to be writable by user {_USER_ID}, got {', '.join(writable)}")
    for command in (["dhs", "--help"], ["dask", "scheduler", "--help"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = _compile()
    print(f"{modules} modules, kernels compiled in {seconds:.0f} s, code {build['code_version']}, {build['git_sha']}")


def _torch(expected: str) -> None:
    if util.find_spec("torch") is None:
        if expected in ("cpu", "cuda"):
            sys.exit(f"torch: expected the {expected} build, got none")
        return
    if expected == "none":
        sys.exit("torch: expected none in this image")
    found = "cpu" if importlib.import_module("torch").version.cuda is None else "cuda"
    if expected not in (found, "any"):
        sys.exit(f"torch: expected the {expected} build, got the {found} build")


def _import_everything() -> int:
    """Import every module of the product; those of the trainer only where torch is."""
    package = importlib.import_module("pipeline")
    skipped = () if util.find_spec("torch") else ("pipeline.training",)
    names = [
        found.name
        for found in pkgutil.walk_packages(package.__path__, "pipeline.", onerror=_fail)
        if not found.name.startswith(skipped)
    ]
    for name in names:
        importlib.import_module(name)
    return len(names)


def _fail(name: str) -> None:
    sys.exit(f"{name}: cannot be imported")


def _build_record() -> dict[str, str]:
    """The record baked in, compared with the code that is there."""
    build = json.loads(_BUILD.read_text())
    found = importlib.import_module("pipeline.driver.provenance").code_version()
    if build["code_version"] != found:
        sys.exit(f"{_BUILD}: expected code_version {found}, got {build['code_version']}")
    return build


def _compile() -> float:
    """Wall seconds in which every kernel compiled, in a process of its own with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", "from pipeline.kernels.warm_up import warm_up; print(warm_up())"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": folder},
        )
    return float(done.stdout)


if __name__ == "__main__":
    main()
