"""Write the build record of an image: which commit, which science code, which packages it holds.

Run inside the image's environment; prints the JSON that lies as /opt/darkhaloscope/build.json in the image. Ends with a
message if a package differs from its pinned version, or if the code is not that of the image below.
"""

import argparse
import hashlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path

from pipeline.driver.provenance import code_version

# Named by the caller: the build itself, and the product.
_UNPINNED = {"darkhaloscope"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--git-sha", required=True, help="commit of the checkout, with -dirty where it was changed")
    parser.add_argument("--created", required=True, help="UTC time of the build, ISO 8601")
    parser.add_argument("--constraints", required=True, type=Path, help="the pinned versions")
    parser.add_argument("--same-code-as", type=Path, help="build.json of the image below, whose code must be this")
    arguments = parser.parse_args()
    if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", arguments.git_sha):
        sys.exit(f"GIT_SHA: expected 40 hexadecimal digits, perhaps with -dirty, got {arguments.git_sha!r}")
    installed = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version for found in metadata.distributions()
    }
    _compare(installed, arguments.constraints)
    build = {
        "git_sha": arguments.git_sha,
        "code_version": code_version(),
        "created": arguments.created,
        "packages_sha256": _sha256("".join(f"{name}=={version}\n" for name, version in sorted(installed.items()))),
    }
    if arguments.same_code_as is not None:
        below = json.loads(arguments.same_code_as.read_text())
        for key in ("git_sha", "code_version"):
            if build[key] != below[key]:
                sys.exit(f"{key}: expected that of the image below, {below[key]}, got {build[key]}")
    print(json.dumps(build, indent=1))


def _compare(installed: dict[str, str], constraints: Path) -> None:
    """End with a message unless every installed package has the version that the constraints pin."""
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", constraints.read_text(), re.MULTILINE))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    wrong = [
        f"{name}: expected {pinned.get(name, 'a pinned version')}, got {version}"
        for name, version in sorted(installed.items())
        if name not in _UNPINNED and pinned.get(name) not in (version, version.split("+")[0])
    ]
    if wrong:
        sys.exit(f"packages differ from {constraints}:\n  " + "\n  ".join(wrong))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
