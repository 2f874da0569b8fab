"""Preflight: every guard can fail, says what to do, and never hides what it could not look at."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from api_server import ApiServer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands.preflight import preflight_command
from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ConfigError
from pipeline.driver.instance_types import instance_type
from pipeline.driver.preflight import as_table, demand_preflight, preflight
from pipeline.driver.preflight_checks import Check
from pipeline.driver.preflight_release import check_build, check_worker_container

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
DIGEST = "registry/dhs@sha256:" + 64 * "a"
Make = Callable[..., RunConfig]


@pytest.fixture
def make(tmp_path: Path, objects_folder: str, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A configuration of a release all of whose checks pass, with overrides."""
    (tmp_path / "coadd").mkdir()
    (tmp_path / "parent.parquet").touch()
    for name, value in {"AWS_REGION": "us-east-2", "AWS_DEFAULT_REGION": "us-east-2", "DHS_IMAGE": DIGEST}.items():
        monkeypatch.setenv(name, value)
    settings = [
        f"run.root={tmp_path / 'runs'}",
        "run.region=us-east-2",
        f"survey.bricks={tmp_path / 'coadd'}",
        f"manifest.url={tmp_path / 'parent.parquet'}",
        "cluster.kind=kubernetes",
        f"cluster.objects={objects_folder}",
        "cluster.workers=20",
        "cluster.memory_per_worker=4GiB",
        "cluster.vcpu_quota=64",
        "cluster.node_types={driver: [m5.xlarge], worker: [c5.xlarge, m6i.2xlarge], program: [g5.2xlarge]}",
    ]

    def build(*overrides: str) -> RunConfig:
        return load_config(DEMO, [*settings, *overrides])

    return build


def states(checks: list[Check]) -> dict[str, str]:
    """Name -> state."""
    return {check.name: check.state for check in checks}


def failures(config: RunConfig) -> str:
    """What a run would end with."""
    with pytest.raises(ConfigError, match="preflight checks? failed") as caught:
        demand_preflight(config)
    return str(caught.value)


def test_release_in_order_passes_and_says_what_it_could_not_see(api_server: ApiServer, make: Make) -> None:
    """Nodes that may not be listed are shown as such; nothing of the probe is left."""
    api_server.denied.add(("list", "nodes"))
    config = make()
    checks = preflight(config)
    found = states(checks)
    assert {name for name, state in found.items() if state == "unknown"} == {"node regions"}
    assert "failed" not in found.values(), as_table(checks)
    assert {
        "AWS_REGION",
        "rights",
        "Dask operator",
        "worker memory",
        "spill",
        "GPU",
        "vCPU quota",
        "git commit",
    } <= set(found)
    assert list(Path(config.run.root).iterdir()) == []
    demand_preflight(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("run.region=us-west-2",), "AWS_REGION: expected us-west-2, found us-east-2"),
        (("survey.bricks=/nowhere/coadd",), "read: file:///nowhere/coadd does not exist"),
        (("cluster.memory_per_worker=8GiB",), "memory_per_worker is 8 GiB, the pod's limit 4 GiB, Dask is told 4Gi"),
        (("cluster.node_types.worker=[c5.large]",), "worker memory: 4 GiB fits nowhere; too small: c5.large"),
        (("cluster.node_types.driver=[c5.large]",), "driver memory: 6 GiB fits nowhere"),
        (("cluster.vcpu_quota=10",), "vCPU quota: 20 needed, 10 allowed"),
        (("cluster.node_types.program=[m5.xlarge]",), r"GPU: 1 GPUs per pod, none of \['m5.xlarge'\] has them"),
        (("cluster.node_types.program=[g5.xlarge]",), "program memory: 24 GiB fits nowhere"),
        (("cluster.node_types.program=[]",), "name the pool that makes them in cluster.node_types.program"),
    ],
)
def test_configuration_that_does_not_fit_the_cluster_fails(
    api_server: ApiServer, make: Make, overrides: tuple[str, ...], message: str
) -> None:
    """Each guard names both sides; nothing is created."""
    assert re.search(message, failures(make(*overrides)))
    assert not api_server.asked("POST", "/daskclusters")


def test_cluster_that_is_not_prepared_fails(
    api_server: ApiServer, make: Make, objects_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing operator, rights, digest, commit and bounds of the spill are all in one error."""
    api_server.absent.add("kubernetes.dask.org/v1")
    api_server.denied |= {("create", "daskclusters"), ("get", "pods/log")}
    path = Path(objects_folder) / "daskcluster.yaml"
    template = yaml.safe_load(path.read_text())
    worker = template["spec"]["worker"]["spec"]["containers"][0]
    worker["env"] = [{"name": "DHS_WORKER_SPACE", "value": "13Gi"}]
    path.write_text(yaml.safe_dump(template))
    monkeypatch.setenv("DHS_IMAGE", "dhs:latest")
    monkeypatch.setattr("pipeline.driver.preflight_release._STATUS_PATIENCE_S", 0.0)
    monkeypatch.setattr("pipeline.driver.preflight_release.git_sha", lambda: "unknown")
    message = failures(make())
    assert "helm install dask-operator" in message
    assert "missing in science: get pods/log, create daskclusters" in message
    assert "no digest is known of image dhs:latest" in message
    assert "git commit: unknown" in message
    assert "13Gi is more than the pod's ephemeral-storage of 12Gi" in message
    assert "Dask is told None" in message


def test_image_that_the_node_names_late_is_waited_for(
    api_server: ApiServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tag alone the digest comes from the pod's status, which a node writes after the start."""
    monkeypatch.setenv("DHS_IMAGE", "dhs:dev")
    monkeypatch.setattr("pipeline.driver.preflight_release._STATUS_POLL_S", 0.05)
    status = {"containerStatuses": [{"imageID": "sha256:12"}]}
    late = threading.Timer(2.0, lambda: api_server.objects["pods", "run-1-driver-x"].update(status=status))
    late.start()
    assert states(preflight(make()))["image"] == "ok"
    late.join()


def test_live_nodes_replace_the_table(api_server: ApiServer, make: Make) -> None:
    """Where nodes may be listed, their region, allocatable memory and GPUs count."""
    labels = {"topology.kubernetes.io/region": "us-west-2"}
    allocatable = {"memory": "3000000Ki", "nvidia.com/gpu": "1"}
    api_server.put("nodes", "n1", metadata={"labels": labels}, status={"allocatable": allocatable})
    message = failures(make("cluster.node_types={}"))
    assert "nodes in ['us-west-2'], run.region us-east-2" in message
    assert "worker memory: 4 GiB fits nowhere; too small: n1 2.86 GiB" in message
    assert "GPU" not in message


def test_kind_deployment_asks_for_fewer_rights(api_server: ApiServer, make: Make) -> None:
    """Without custom resources neither definitions nor rights on them are looked for, only the scale of the workers."""
    api_server.absent.add("kubernetes.dask.org/v1")
    api_server.denied |= {("create", "daskclusters")}
    found = states(preflight(make("cluster.kind=deployment")))
    assert (found["rights"], "Dask operator" in found) == ("ok", False)
    api_server.denied.add(("patch", "deployments/scale"))
    assert "missing in science: patch deployments/scale" in failures(make("cluster.kind=deployment"))


def test_command_prints_a_table_and_fails_with_2(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine storage and numba are looked at; outside a release the table says that the rest was not."""
    path = tmp_path / "config.yaml"
    config = make("cluster={kind: local}")
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = CliRunner().invoke(app, ["preflight", str(path)])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == ["ok"] * 4
    monkeypatch.delenv("DHS_RELEASE", raising=False)
    assert preflight(make())[-1].detail.startswith("not checkable: cluster.kind: kubernetes is for the driver")
    done = CliRunner().invoke(app, ["preflight", str(path), "--set", "manifest.url=/nowhere"])
    assert isinstance(done.exception, ConfigError)
    assert "failed  read" in done.output


def test_image_and_worker_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A digest may come from the running pod; an image that does not hold the code of its build is refused."""
    monkeypatch.setenv("DHS_IMAGE", "dhs:dev")
    (tmp_path / "build.json").write_text(json.dumps({"code_version": "0+other"}))
    monkeypatch.setenv("DHS_BUILD_FILE", str(tmp_path / "build.json"))
    pod = {"status": {"containerStatuses": [{"imageID": "docker.io/library/dhs@sha256:12"}]}}
    assert states(list(check_build(pod))) == {"image": "ok", "git commit": "ok", "code": "failed"}
    bare = list(check_worker_container(ClusterSection(kind="kubernetes"), {}))
    assert states(bare) == {"memory limit": "failed", "spill": "failed"}
    assert preflight_command.__doc__


def test_allocatable_memory_of_instance_types() -> None:
    """Table and formula: known sizes, a safe estimate below the nominal memory, None for unknown types."""
    known = {name: instance_type(name) for name in ("m5.xlarge", "c6i.4xlarge", "r7g.2xlarge", "g4dn.12xlarge")}
    shapes = {name: (found.vcpus, found.memory_bytes // 2**30, found.gpus) for name, found in known.items() if found}
    assert shapes == {
        "m5.xlarge": (4, 16, 0),
        "c6i.4xlarge": (16, 32, 0),
        "r7g.2xlarge": (8, 64, 0),
        "g4dn.12xlarge": (48, 192, 4),
    }
    found = instance_type("m5.xlarge")
    assert found is not None
    assert found.allocatable_bytes == int(0.925 * 2**34) - (255 + 11 * 58 + 100) * 2**20
    assert [instance_type(name) for name in ("t3.large", "m5.huge", "x1.32xlarge")] == [None, None, None]
