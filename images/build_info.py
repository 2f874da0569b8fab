"""Write /opt/darkhaloscope/build.json, the build record of an image: its commit, its science code, its packages.

Run inside the image's environment by its build. Ends with a message if a package has not its pinned version.
"""

import argparse
import hashlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path

from pipeline.driver.provenance import code_version

_FOLDER = Path("/opt/darkhaloscope")
# The product itself has no pinned version.
_PRODUCT = "darkhaloscope"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--git-sha", required=True, help="commit of the checkout, with -dirty where it was changed")
    parser.add_argument("--created", required=True, help="UTC time of the build, ISO 8601")
    arguments = parser.parse_args()
    if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", arguments.git_sha):
        sys.exit(f"GIT_SHA: expected 40 hexadecimal digits, perhaps with -dirty, got {arguments.git_sha!r}")
    installed = {_canonical(found.metadata["Name"]): found.version for found in metadata.distributions()}
    wrong = differences(installed, (_FOLDER / "constraints.txt").read_text())
    if wrong:
        sys.exit("packages differ from constraints.txt:\n  " + "\n  ".join(wrong))
    listing = "".join(f"{name}=={version}\n" for name, version in sorted(installed.items()))
    build = {
        "git_sha": arguments.git_sha,
        "code_version": code_version(),
        "created": arguments.created,
        "packages_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }
    (_FOLDER / "build.json").write_text(json.dumps(build, indent=1) + "\n")


def differences(installed: dict[str, str], constraints: str) -> list[str]:
    """Texts for packages whose version is not the pinned one; a build variant such as +cpu is no difference."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", constraints, re.MULTILINE)
    pinned = {_canonical(name): version for name, version in lines}
    return [
        f"{name}: expected {pinned.get(name, 'a pinned version')}, got {version}"
        for name, version in sorted(installed.items())
        if name != _PRODUCT and pinned.get(name) not in {version, version.split("+")[0]}
    ]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
