"""The parts of e2e.sh and of the image test that can be tried without a cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.storage.locations import CHECKPOINT_FILE, Location, RunLayout

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
DIGEST = "sha256:" + "ab" * 32


def load(path: Path) -> ModuleType:
    """A program of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that has sourced the steps, as strictly as e2e.sh does."""
    script = f"set -euo pipefail; source {HERE / 'e2e_steps.sh'}; {command}"
    return subprocess.run(
        ["bash", "-c", script], env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def kubectl(tmp_path: Path) -> dict[str, str]:
    """Variables with a kubectl that answers everything with the content of a file, or fails where there is none."""
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\nexec cat {tmp_path / 'answer'}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"KUBECTL": str(program), "NAMESPACE": "test", "ANSWER": str(tmp_path / "answer")}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("registry:5000/dhs-worker:abc", ["image.worker.repository=registry:5000/dhs-worker", "image.worker.tag=abc"]),
        (f"r/dhs-worker@{DIGEST}", ["image.worker.repository=r/dhs-worker", f"image.worker.digest={DIGEST}"]),
    ],
)
def test_image_values_split_a_reference(reference: str, expected: list[str]) -> None:
    done = steps(f"image_values image.worker {reference}")
    assert [line for line in done.stdout.split() if line != "--set-string"] == expected


def test_operator_image_with_digest_survives_the_colon_of_its_chart() -> None:
    done = steps('echo "$(operator_name):$(operator_tag)"', OPERATOR_IMAGE=f"ghcr.io/x/operator@{DIGEST}")
    assert done.stdout.strip() == f"ghcr.io/x/operator@{DIGEST}"


@pytest.mark.parametrize(
    ("conditions", "code"), [("SuccessCriteriaMet Complete ", 0), ("FailureTarget Failed ", 1), ("Suspended ", 7)]
)
def test_a_job_is_waited_for_until_it_has_ended(kubectl: dict[str, str], conditions: str, code: int) -> None:
    """Complete is success, Failed is failure, anything else ends the test after the time given."""
    Path(kubectl["ANSWER"]).write_text(conditions)
    done = steps("fail() { echo $*; exit 7; }; wait_for_job driver 1", **kubectl)
    assert done.returncode == code
    assert ("neither complete nor failed" in done.stdout) == (code == 7)


def test_what_is_left_is_an_error_and_so_is_not_knowing(kubectl: dict[str, str]) -> None:
    answer = Path(kubectl["ANSWER"])
    unknown = steps("wait_until_gone release 1 remains run", **kubectl)
    assert unknown.returncode == 1
    assert "did not say what is left" in unknown.stderr
    answer.write_text("pod/run-worker-0\n")
    left = steps("wait_until_gone release 1 remains run", **kubectl)
    assert left.returncode == 1
    assert "pod/run-worker-0" in left.stderr
    answer.write_text("")
    assert steps("wait_until_gone release 1 remains run", **kubectl).returncode == 0


def test_an_operator_of_another_namespace_is_not_counted_on(kubectl: dict[str, str]) -> None:
    """The namespace itself or all of them; the operator that the test installed earlier is not somebody's."""
    Path(kubectl["ANSWER"]).write_text(
        'ops/all ["--liveness=x","--all-namespaces"]\nops/here ["--namespace=test"]\nops/other ["--namespace=tests"]\n'
        'dask-operator/e2e-dask-operator-x ["--namespace=test"]\n'
    )
    names = {"OPERATOR_NAMESPACE": "dask-operator", "OPERATOR": "e2e-dask-operator"}
    assert steps("operators_that_watch", **kubectl, **names).stdout.split() == ["ops/all", "ops/here"]


@pytest.mark.parametrize("missing", ["WORKER_IMAGE", "TRAINER_IMAGE", "OPERATOR_IMAGE"])
def test_every_image_must_be_named(missing: str) -> None:
    images = dict.fromkeys(("WORKER_IMAGE", "TRAINER_IMAGE", "OPERATOR_IMAGE", "E2E_IMAGE"), "name:tag")
    assert steps("check_images", **images).returncode == 0
    done = steps("check_images", **{**images, missing: ""})
    assert done.returncode == 1
    assert missing in done.stderr


def objects() -> list[dict[str, Any]]:
    """Everything that e2e.sh applies by itself."""
    job = load(HERE / "job_of.py").job_of("e2e-x", "image:tag", "IfNotPresent", "keys", "us-east-2", "default", ["dhs"])
    text = (HERE / "s3.yaml").read_text().replace("PULL_POLICY", "IfNotPresent")
    return [job, *yaml.safe_load_all(text)]


def test_own_objects_are_valid_and_as_restricted_as_pods_can_be() -> None:
    """The namespace of the test enforces the restricted pod security standard."""
    for content in objects():
        kubernetes_validate.validate(content, "1.29", strict=True)
        if content["kind"] == "Service":
            continue
        pod = content["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("script", ["tests/k8s/e2e_steps.sh", "images/test.sh"])
def test_outputs_that_are_demanded_are_those_of_a_run(script: str) -> None:
    """The names are said twice, here by the layout of a run."""
    (line,) = re.findall(r"^wanted = \[(.*)\]", (REPOSITORY / script).read_text(), re.MULTILINE)
    found = [part.replace("' + CHECKPOINT_FILE", CHECKPOINT_FILE).strip("'") for part in line.split(", ")]
    layout = RunLayout(Location("/run"))
    places = [layout.record, layout.gates, layout.success, layout.report.join("index.html"), layout.checkpoint]
    places.append(layout.training.join("_SUCCESS"))
    assert set(found) == {place.path.removeprefix("/run/") for place in places}


def test_pods_for_podman_keep_what_they_are_made_of() -> None:
    container = {
        "name": "worker",
        "args": ["dhs", "worker"],
        "env": [
            {"name": "DASK_SCHEDULER_ADDRESS", "value": "tcp://run-scheduler:8786"},
            {"name": "P", "valueFrom": {}},
        ],
        "ports": [{"containerPort": 8786}],
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "securityContext": {"runAsUser": 1},
    }
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "run-worker", "labels": {"app.kubernetes.io/component": "worker"}},
        "spec": {"replicas": 0, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}},
    }
    service = {"kind": "Service", "metadata": {"name": "run-scheduler"}}
    pods = load(HERE / "podman_pods.py").pods_of([service, deployment], workers=2)
    assert [pod["metadata"]["name"] for pod in pods] == ["run-worker-0", "run-worker-1"]
    made = pods[0]["spec"]["containers"][0]
    assert made["env"][0]["value"] == "tcp://127.0.0.1:8786"
    assert "ports" not in made
    assert {name: made[name] for name in ("args", "securityContext")} == {
        name: container[name] for name in ("args", "securityContext")
    }
    names = {pod["spec"]["volumes"][0]["name"] for pod in pods}
    assert len(names) == 2
    assert all(pod["spec"]["containers"][0]["volumeMounts"][0]["name"] in names for pod in pods)


def test_an_image_with_other_packages_than_the_pinned_ones_is_refused() -> None:
    differences = load(REPOSITORY / "images" / "build_info.py").differences
    constraints = "numpy==2.4.6\ntorch==2.13.0\nruamel.yaml==1.0\n"
    assert differences({"numpy": "2.4.6", "torch": "2.13.0+cpu", "ruamel-yaml": "1.0"}, constraints) == []
    assert differences({"numpy": "2.4.5"}, constraints) == ["numpy: expected 2.4.6, got 2.4.5"]
    assert differences({"stray": "1.0"}, constraints) == ["stray: expected a pinned version, got 1.0"]
