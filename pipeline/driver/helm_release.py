"""Releases of the chart: install one for a configuration, take it away, start its Job again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

import pipeline
from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ClusterError, ConfigError

HANDLE_SCHEME = "k8s://"
_LONGEST_NAME = 50
# A ConfigMap, and Helm's own record of the release, end at 1 MiB.
_LONGEST_CONFIG = 700_000
_HELM_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class ReleaseName:
    """Where a release is: `k8s://NAMESPACE/RELEASE` on the command line."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, handle: str) -> ReleaseName:
        """The release of a handle; ConfigError if it is none."""
        namespace, slash, name = handle.removeprefix(HANDLE_SCHEME).partition("/")
        if not (handle.startswith(HANDLE_SCHEME) and namespace and slash and name and "/" not in name):
            raise ConfigError(f"{handle}: expected {HANDLE_SCHEME}NAMESPACE/RELEASE")
        return cls(namespace, name)

    @classmethod
    def of_run(cls, namespace: str, run: str) -> ReleaseName:
        """The usual name of the release of a run: `run-` and its name, with a digest where it is too long."""
        name = "run-" + re.sub(r"[^a-z0-9-]+", "-", run).strip("-")
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 9].rstrip('-')}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"
        return cls(namespace, name)

    @property
    def handle(self) -> str:
        """What the command line takes and prints."""
        return f"{HANDLE_SCHEME}{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Submission:
    """What is installed.

    Attributes:
        config: the run configuration, resolved, as the driver will read it.
        release: its name and namespace.
        chart: folder, archive or oci:// address of the chart.
        values: files with values of the chart, later ones win.
        settings: `key=value` of the chart, over the files.
        limit_shards: only the first N shards, or None.
    """

    config: RunConfig
    release: ReleaseName
    chart: str
    values: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    limit_shards: int | None = None


def submitted_config(path: Path, overrides: Sequence[str], kind: str) -> RunConfig:
    """A configuration as the driver inside the release will read it.

    Raises:
        ConfigError: as `load_config`, or if it cannot run on a cluster.
    """
    fixed = (f"cluster.kind={kind}", "cluster.address=null", "cluster.objects=null")
    config = load_config(path, [*overrides, *fixed])
    size = len(config_text(config))
    if size > _LONGEST_CONFIG:
        raise ConfigError(f"{path}: {size} bytes with its tables, a release holds at most {_LONGEST_CONFIG}")
    return config


def config_text(config: RunConfig) -> str:
    """A resolved configuration as YAML, its tables inlined."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def chart_kind(values: Sequence[Path], settings: Sequence[str]) -> str:
    """`cluster.kind` that values and settings ask for; kubernetes if none does."""
    kind = "kubernetes"
    for path in values:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"values file {path}: {error}") from error
        if isinstance(content, dict) and isinstance(content.get("cluster"), dict):
            kind = content["cluster"].get("kind", kind)
    for setting in settings:
        if setting.startswith("cluster.kind="):
            kind = setting.partition("=")[2]
    return str(kind)


def default_chart() -> str:
    """The chart of this checkout; ConfigError where the package was installed without it."""
    folder = Path(pipeline.__file__).parents[1] / "helm" / "darkhaloscope"
    if not (folder / "Chart.yaml").is_file():
        raise ConfigError(f"no chart at {folder}: name a folder, an archive or an oci:// address with --chart")
    return str(folder)


def rendered(submission: Submission) -> str:
    """Every object of the release as YAML; nothing is sent to a cluster."""
    return _with_config(submission, "template")


def install(submission: Submission) -> str:
    """Install a release; returns the chart's notes.

    Raises:
        ConfigError: helm is missing, or the chart refuses the values, or a release of this name exists.
        ClusterError: the API server did not take it.
    """
    if release_revision(submission.release) is not None:
        raise ConfigError(
            f"{submission.release.handle} exists: dhs resume starts it again, dhs cancel removes it, "
            "--release gives another name"
        )
    # Validated without a cluster first: what is wrong with values is told apart from what is wrong with the cluster.
    rendered(submission)
    return _with_config(submission, "install")


def uninstall(release: ReleaseName) -> None:
    """Remove a release and all that it owns; what the run wrote stays."""
    helm("uninstall", release.name, "--namespace", release.namespace, "--wait", "--timeout", "5m")


def reinstate(release: ReleaseName) -> None:
    """Create again what is missing of a release, from its own record: the very same objects, the chart is not read."""
    revision = release_revision(release)
    options = ["--namespace", release.namespace]
    if not helm("version", "--template", "{{.Version}}").startswith("v3."):
        # Helm 4 applies on the server, which refuses to reset replicas that a driver has scaled.
        options += ["--server-side=true", "--force-conflicts"]
    helm("rollback", release.name, str(revision), *options)


def release_revision(release: ReleaseName) -> int | None:
    """Number of the release's newest revision, or None if there is no such release."""
    try:
        found = helm("status", release.name, "--namespace", release.namespace, "--output", "json")
    except ClusterError as error:
        if "release: not found" in str(error):
            return None
        raise
    return int(json.loads(found)["version"])


def helm(*arguments: str) -> str:
    """Run helm and return its output.

    Raises:
        ConfigError: there is no helm on PATH, or it refused values or arguments.
        ClusterError: everything else.
    """
    program = shutil.which("helm")
    if program is None:
        raise ConfigError(
            "helm is not on PATH: install it from helm.sh, or in a checkout put the folder that "
            "`python helm/programs.py` prints on PATH"
        )
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_HELM_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"helm {arguments[0]} did not end within {_HELM_TIMEOUT_S:g} s") from error
    if done.returncode:
        message = done.stderr.strip()
        refused = "execution error at" in message or "specifications of the schema" in message
        raise (ConfigError if refused else ClusterError)(f"helm {' '.join(arguments[:2])}: {message}")
    return done.stdout


def _with_config(submission: Submission, verb: str) -> str:
    """helm template or install with the configuration in a file, which --set-file takes as it is."""
    release = submission.release
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config_text(submission.config), encoding="utf-8")
        options = [f"--values={file}" for file in submission.values]
        options += [f"--set={setting}" for setting in submission.settings]
        if submission.limit_shards is not None:
            options.append(f"--set=driver.limitShards={submission.limit_shards}")
        return helm(
            verb, release.name, submission.chart, "--namespace", release.namespace, *options,
            "--set-file", f"config={path}",
        )  # fmt: skip
