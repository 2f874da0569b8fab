"""A release on a test's API server: the driver's Job, the chart's templates, the environment of its pod."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from api_server import ApiServer, running_api_server

RELEASE = "run-1"
CLUSTER = {
    "apiVersion": "kubernetes.dask.org/v1",
    "kind": "DaskCluster",
    "metadata": {"name": RELEASE, "labels": {"app.kubernetes.io/instance": RELEASE}},
    "spec": {
        "idleTimeout": 0,
        "scheduler": {
            "spec": {"containers": [{"name": "scheduler", "image": "dhs", "args": ["dask", "scheduler"]}]},
            "service": {},
        },
        "worker": {
            "replicas": 0,
            "spec": {
                "containers": [
                    {
                        "name": "worker",
                        "image": "dhs",
                        "args": ["dhs", "worker"],
                        "resources": {
                            "requests": {"cpu": "1", "memory": "4Gi", "ephemeral-storage": "12Gi"},
                            "limits": {"memory": "4Gi", "ephemeral-storage": "12Gi"},
                        },
                        "env": [
                            {"name": "DHS_WORKER_MEMORY_LIMIT", "value": "4Gi"},
                            {"name": "DHS_WORKER_SPACE", "value": "8Gi"},
                            {"name": "DHS_IMAGE", "value": "registry/dhs@sha256:" + 64 * "a"},
                        ],
                    }
                ]
            },
        },
    },
}
PROGRAM = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": f"{RELEASE}-program", "labels": {"app.kubernetes.io/instance": RELEASE}},
    "spec": {
        "backoffLimit": 1,
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "program"}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "program",
                        "command": ["torchrun", "--standalone"],
                        "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "24Gi"}, "requests": {"cpu": "6"}},
                    }
                ],
            },
        },
    },
}


@pytest.fixture
def api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server with the driver's Job and pod; this process is the driver of the release `run-1`."""
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "daskcluster.yaml").write_text(yaml.safe_dump(CLUSTER))
    (objects / "program-job.yaml").write_text(yaml.safe_dump(PROGRAM))
    variables = {"NAMESPACE": "science", "RELEASE": RELEASE, "FULLNAME": RELEASE, "JOB_NAME": f"{RELEASE}-driver"}
    for name, value in {**variables, "POD_NAME": f"{RELEASE}-driver-x"}.items():
        monkeypatch.setenv(f"DHS_{name}", value)
    with running_api_server() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.write_kubeconfig(tmp_path / "kubeconfig")))
        job = server.put("jobs", f"{RELEASE}-driver", metadata={"uid": "job-uid"}, spec={})
        server.put(
            "pods",
            f"{RELEASE}-driver-x",
            metadata={"labels": {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "driver"}},
            spec={"containers": [{"name": "driver", "resources": {"limits": {"memory": "6Gi"}}}]},
            status={"phase": "Running"},
        )
        assert job["metadata"]["uid"] == "job-uid"
        yield server


@pytest.fixture
def objects_folder(tmp_path: Path) -> str:
    """Where the chart's templates lie."""
    return str(tmp_path / "objects")
