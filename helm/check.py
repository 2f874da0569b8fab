"""`make chart`: lint, render and validate the chart for every file of ci/, then scan that and the images' Dockerfile.

python helm/check.py [--no-scan]        exit code 1 and every problem if there is one
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import yaml
from manifests import CHART, VERSIONS, embedded, problems_of
from programs import FOLDER, extract_programs

REPOSITORY = CHART.parents[1]
CONFIG = REPOSITORY / "configs" / "pilot.yaml"
RENDERED = REPOSITORY / ".tools" / "rendered"
SCANNER = REPOSITORY / ".tools" / "checkov"
CHECKOV = "checkov==3.3.30"
# Version to render for -> versions to validate against; 1.28 renders differently.
RENDER_VERSIONS = {"1.28.0": VERSIONS[:1], "1.36.0": VERSIONS[1:]}


def main() -> None:
    """Run every check and end with the problems."""
    programs = extract_programs(FOLDER)
    problems: list[str] = []
    for values in sorted((CHART / "ci").glob("*-values.yaml")):
        given = ["--values", str(values), "--set-file", f"config={CONFIG}"]
        _run([str(programs / "helm"), "lint", "--strict", str(CHART), *given])
        for version, versions in RENDER_VERSIONS.items():
            command = [str(programs / "helm"), "template", "run-demo", str(CHART), "--namespace", "lenses", *given]
            text = _run([*command, "--kube-version", version])
            folder = RENDERED / f"{values.stem.removesuffix('-values')}-{version}"
            problems += check_rendered(text, folder, versions)
    if "--no-scan" not in sys.argv[1:]:
        problems += scan(RENDERED)
    if problems:
        sys.exit("\n".join(problems))
    sys.stdout.write(f"every file of ci/ lints, renders and validates on Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}\n")


def check_rendered(text: str, folder: Path, versions: tuple[str, ...]) -> list[str]:
    """Problems of one rendering; its objects, also those that the driver creates, are written into the folder."""
    manifests = [document for document in yaml.safe_load_all(text) if document]
    manifests += embedded(manifests).values()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.yaml"):
        old.unlink()
    for manifest in manifests:
        path = folder / f"{manifest['kind']}-{manifest['metadata']['name']}.yaml".lower()
        path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    return [f"{folder.name}: {problem}" for manifest in manifests for problem in problems_of(manifest, versions)]


def scan(folder: Path) -> list[str]:
    """Findings of checkov that helm/checkov.yaml does not explain; the scanner has an environment of its own."""
    checkov = SCANNER / "bin" / "checkov"
    if not checkov.is_file():
        venv.create(SCANNER, with_pip=False)
        uv = Path(sys.executable).with_name("uv")
        _run([str(uv), "pip", "install", "--quiet", "--python", str(SCANNER / "bin" / "python"), CHECKOV])
    config = Path(__file__).with_name("checkov.yaml")
    targets = [("--directory", str(folder), "--framework", "kubernetes")]
    targets.append(("--file", str(REPOSITORY / "images" / "Dockerfile"), "--framework", "dockerfile"))
    problems = []
    for target in targets:
        done = subprocess.run(
            [str(checkov), "--config-file", str(config), *target, "--compact", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "BC_SKIP_MAPPING": "TRUE", "CHECKOV_RUN_SCA_PACKAGE_SCAN_V2": "false"},
        )
        problems += [done.stdout + done.stderr] if done.returncode else []
    return problems


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
