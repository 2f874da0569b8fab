"""dhs submit, status, logs, cancel and resume on a release: a real API over HTTP, helm where it is asked."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands.runs import resume_command
from pipeline.commands.submit import submit_command
from pipeline.contracts.errors import ClusterError, ConfigError, ContractError, PipelineError
from pipeline.driver.helm_release import ReleaseName, chart_kind, submitted_config
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.release_end import resume_release
from pipeline.driver.release_watch import LogTail, follow_driver, wait_for_end

REPOSITORY = Path(__file__).parents[2]
PILOT = REPOSITORY / "configs" / "pilot.yaml"
CI_FILES = REPOSITORY / "helm" / "darkhaloscope" / "ci"
RELEASE = ReleaseName("science", "run-1")
DRIVER = {"app.kubernetes.io/instance": "run-1", "app.kubernetes.io/component": "driver"}
POD = "run-1-driver-x"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with helm and kubectl."""
    script = REPOSITORY / "helm" / "programs.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


@pytest.fixture
def helm_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """helm as a program that knows release run-1 at revision 3 and writes down what it is asked."""
    folder, record = tmp_path / "bin", tmp_path / "helm-calls"
    folder.mkdir()
    (folder / "helm").write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {shlex.quote(str(record))}\n"
        'case "$1 $2" in\n'
        "'status run-1') echo '{\"version\": 3}';;\n"
        "status*) echo 'Error: release: not found' >&2; exit 1;;\n"
        "version*) echo ${HELM_VERSION:-v4.3.1};;\n"
        "esac\n"
    )
    (folder / "helm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: [line.split() for line in record.read_text().splitlines()]


@pytest.fixture
def api(api_server: ApiServer) -> Iterator[KubeApi]:
    """The API of a namespace with the driver's Job and pod of release run-1."""
    notes = {"darkhaloscope/run": "/nowhere/pilot"}
    api_server.put("jobs", "run-1-driver", metadata={"labels": DRIVER, "annotations": notes}, spec={}, status={})
    with KubeApi("science") as api:
        yield api


def stamped(*lines: str) -> str:
    """Lines as Kubernetes gives them with time stamps, a second apart."""
    return "".join(f"2026-11-22T08:00:0{n}.000000000Z {line}\n" for n, line in enumerate(lines, 1))


def end_job(server: ApiServer, kind: str, exit_code: int, reason: str = "") -> None:
    """The Job and its pod as Kubernetes leaves them."""
    condition = {"type": kind, "status": "True", "reason": reason, "message": "as it is"}
    terminated = {"name": "driver", "state": {"terminated": {"exitCode": exit_code}}}
    server.objects["jobs", "run-1-driver"]["status"] = {"conditions": [condition]}
    server.objects["pods", POD]["status"] = {"phase": "Failed", "containerStatuses": [terminated]}


def test_submit_renders_what_would_be_installed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolved configuration in a ConfigMap, the driver's Job; nothing is sent."""
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    given = ["--values", str(CI_FILES / "spot-values.yaml"), "--set", "training.epochs=2", "--limit-shards", "3"]
    shown = CliRunner().invoke(app, ["submit", str(PILOT), "-n", "science", *given, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    found = {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(shown.output) if m}
    config = yaml.safe_load(found["ConfigMap", "run-pilot-grid-sota-config"]["data"]["config.yaml"])
    assert config["training"]["epochs"] == 2 and config["cluster"]["kind"] == "kubernetes"
    (driver,) = found["Job", "run-pilot-grid-sota-driver"]["spec"]["template"]["spec"]["containers"]
    assert driver["args"][-2:] == ["--limit-shards", "3"]
    assert found["Job", "run-pilot-grid-sota-driver"]["metadata"]["namespace"] == "science"


def test_the_chart_refuses_before_anything_is_sent(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message is a configuration error."""
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="expected a repository and a digest or tag"):
        submit_command(PILOT, dry_run=True, namespace="science")


def test_submit_installs_under_a_name_of_its_own(
    helm_calls: Callable[[], list[list[str]]], api: KubeApi, api_server: ApiServer
) -> None:
    """Validated, then installed; with --wait the log is shown and the driver's end is the command's."""
    given = ["-n", "science", "--release", "run-2", "--values", str(CI_FILES / "no-operator-values.yaml")]
    shown = CliRunner().invoke(app, ["submit", str(PILOT), *given])
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[-1] == "k8s://science/run-2"
    assert [call[:2] for call in helm_calls()] == [["status", "run-2"], ["template", "run-2"], ["install", "run-2"]]
    assert "--set-file" in helm_calls()[-1]
    with pytest.raises(ConfigError, match=r"k8s://science/run-1 exists: dhs resume"):
        submit_command(PILOT, release="run-1", namespace="science")


def test_submit_without_helm_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="helm is not on PATH"):
        submit_command(PILOT, namespace="science")


def test_kind_of_cluster_is_that_of_the_values(tmp_path: Path) -> None:
    """So that the configuration is checked as the driver will read it."""
    values = tmp_path / "values.yaml"
    values.write_text("cluster: {kind: deployment}\n")
    assert chart_kind([], []) == "kubernetes"
    assert chart_kind([values], []) == "deployment"
    assert chart_kind([values], ["cluster.kind=kubernetes"]) == "kubernetes"
    adaptive = ["cluster.adaptive={minimum: 1, maximum: 9}"]
    assert submitted_config(PILOT, adaptive, "deployment").cluster.most_workers == 9


def test_names_of_releases() -> None:
    """Handles are parsed strictly; run names become release names that Kubernetes takes."""
    assert ReleaseName.parse("k8s://science/run-1") == RELEASE
    assert RELEASE.handle == "k8s://science/run-1"
    for bad in ("k8s://science", "k8s://science/", "science/run-1", "k8s://a/b/c"):
        with pytest.raises(ConfigError, match="NAMESPACE/RELEASE"):
            ReleaseName.parse(bad)
    assert ReleaseName.of_run("science", "dr10.v2_a").name == "run-dr10-v2-a"
    long = ReleaseName.of_run("science", "x" * 62)
    assert len(long.name) <= 50 and long != ReleaseName.of_run("science", "x" * 63)


def test_status_of_a_release(api: KubeApi, api_server: ApiServer) -> None:
    """Conditions, pods, warnings, and the run's record or why it cannot be read."""
    api_server.put(
        "events", "e1", type="Warning", reason="BackOff", message="back-off pulling image",
        involvedObject={"kind": "Pod", "name": POD},
    )  # fmt: skip
    end_job(api_server, "Failed", 3, "PodFailurePolicy")
    shown = CliRunner().invoke(app, ["status", RELEASE.handle])
    assert shown.exit_code == 0, shown.output
    status = json.loads(shown.output)
    assert status["outcome"] == "Failed"
    assert status["job"]["conditions"][0]["reason"] == "PodFailurePolicy"
    assert [(pod["name"], pod["component"]) for pod in status["pods"]] == [(POD, "driver")]
    assert any("back-off pulling image" in line for line in status["problems"])
    assert "/nowhere/pilot holds no run" in status["run"]["unreadable"]


def test_logs_of_a_release(api: KubeApi, api_server: ApiServer) -> None:
    """Of a component, or of the driver until its Job has ended, each line once."""
    api_server.logs[POD, "driver"] = "one\ntwo\n"
    shown = CliRunner().invoke(app, ["logs", RELEASE.handle])
    assert shown.output == "one\ntwo\n"
    api_server.logs[POD, "driver"] = stamped("one", "two")
    assert CliRunner().invoke(app, ["logs", RELEASE.handle, "--component", "worker"]).exit_code != 0
    lines = follow_driver(api, RELEASE, poll_s=0.01)
    assert [next(lines), next(lines)] == ["one", "two"]
    api_server.logs[POD, "driver"] = stamped("one", "two", "three") + "2026-11-22T08:00:03.5Z not yet comp"
    end_job(api_server, "Complete", 0)
    assert list(lines) == ["three"]


def test_a_tail_finds_where_it_was(api: KubeApi, api_server: ApiServer) -> None:
    """Also where lines repeat, and where the server gives only what is new."""
    tail = LogTail(POD, "driver")
    assert tail.read(api) == []
    api_server.logs[POD, "driver"] = stamped("a", "b", "b")
    assert tail.read(api) == ["a", "b", "b"]
    api_server.logs[POD, "driver"] = stamped("a", "b", "b", "b", "c")
    assert tail.read(api) == ["b", "c"]
    assert tail.read(api) == []
    assert ("GET", "sinceTime=2026-11-22T08%3A00%3A05") in [
        (method, part) for method, path, _ in api_server.requests for part in re.findall(r"sinceTime=[^.&]+", path)
    ]


@pytest.mark.parametrize(("exit_code", "reason", "expected"), [(2, "", 2), (3, "", 3), (75, "DeadlineExceeded", 75)])
def test_wait_ends_as_the_driver_did(
    exit_code: int, reason: str, expected: int, api: KubeApi, api_server: ApiServer
) -> None:
    """Exit code and reason are the driver's; its log was shown before."""
    api_server.logs[POD, "driver"] = stamped("first root cause")
    end_job(api_server, "Failed", exit_code, reason)
    lines = wait_for_end(api, RELEASE, timeout_s=30.0, stuck_s=30.0, poll_s=0.01)
    assert next(lines) == "first root cause"
    with pytest.raises(PipelineError, match="k8s://science/run-1 failed") as caught:
        list(lines)
    assert caught.value.exit_code == expected


def test_wait_ends_well_with_a_complete_job(api: KubeApi, api_server: ApiServer) -> None:
    """The end comes while it waits."""
    timer = threading.Timer(0.2, end_job, (api_server, "Complete", 0))
    timer.start()
    assert list(wait_for_end(api, RELEASE, timeout_s=30.0, stuck_s=30.0, poll_s=0.01)) == []
    timer.join()


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": [{"name": "driver", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
        {
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
            ]
        },
    ],
)
def test_wait_fails_fast_where_the_driver_cannot_start(
    status: dict[str, Any], api: KubeApi, api_server: ApiServer
) -> None:
    """With what Kubernetes says about it."""
    api_server.objects["pods", POD]["status"] = {"phase": "Pending", **status}
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"has not started for 0.05 s: .*(ImagePullBackOff|Unschedulable)"):
        list(wait_for_end(api, RELEASE, timeout_s=30.0, stuck_s=0.05, poll_s=0.01))
    assert time.monotonic() - started < 30.0
    api_server.objects["pods", POD]["status"] = {"phase": "Running"}
    with pytest.raises(ClusterError, match="at work after 0.05 s"):
        list(wait_for_end(api, RELEASE, timeout_s=0.05, stuck_s=30.0, poll_s=0.01))


def test_cancel_saves_logs_and_uninstalls(
    helm_calls: Callable[[], list[list[str]]], api: KubeApi, api_server: ApiServer, tmp_path: Path
) -> None:
    """What was said is on this machine before the release goes."""
    api_server.logs[POD, "driver"] = "last words\n"
    shown = CliRunner().invoke(app, ["cancel", RELEASE.handle, "--logs", str(tmp_path / "saved")])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "saved" / f"{POD}-driver.log").read_text() == "last words\n"
    assert json.loads((tmp_path / "saved" / "pods.json").read_text())[0]["metadata"]["name"] == POD
    assert helm_calls()[-1][:4] == ["uninstall", "run-1", "--namespace", "science"]


def test_resume_makes_the_job_anew(
    helm_calls: Callable[[], list[list[str]]], api: KubeApi, api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed Job is deleted and comes back from the release's own record; a living or complete one is left alone."""
    with pytest.raises(ConfigError, match="is at work"):
        resume_release(api, RELEASE)
    end_job(api_server, "Complete", 0)
    with pytest.raises(ConfigError, match="is complete"):
        resume_release(api, RELEASE)
    end_job(api_server, "Failed", 75)
    resume_command(RELEASE.handle)
    assert api.find("jobs", "run-1-driver") is None
    common = ["rollback", "run-1", "3", "--namespace", "science"]
    assert helm_calls()[-1] == [*common, "--server-side=true", "--force-conflicts"]
    monkeypatch.setenv("HELM_VERSION", "v3.19.0")
    resume_command(RELEASE.handle)
    assert helm_calls()[-1] == common
    with pytest.raises(ConfigError, match="no release of that name"):
        resume_command("k8s://science/run-9")
    with pytest.raises(ConfigError, match="--set is for folders"):
        resume_command(RELEASE.handle, ["cluster.workers=3"])


def test_a_release_without_job_says_so(api: KubeApi, api_server: ApiServer) -> None:
    """Finished Jobs are removed after their time."""
    api_server.remove("jobs", "run-1-driver")
    with pytest.raises(ContractError, match="no driver Job"):
        list(follow_driver(api, RELEASE))
