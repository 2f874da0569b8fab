"""The client of the API, and the release it is used for."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_server import ApiServer

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError, ConfigError
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.kube_release import Release, is_owned_by


def test_objects_logs_and_rights(api_server: ApiServer) -> None:
    """Found or None, listed by label, created once, patched, deleted with what they own; logs; rights; kinds."""
    with KubeApi("science") as api:
        assert api.version() == "v1.33.1"
        assert api.find("pods", "absent") is None
        (driver,) = api.listed("pods", "app.kubernetes.io/component=driver")
        assert driver["metadata"]["name"] == "run-1-driver-x"
        owned = {"metadata": {"name": "d", "ownerReferences": [{"uid": "job-uid"}]}, "spec": {"replicas": 1}}
        assert api.create("deployments", owned)["metadata"]["uid"]
        with pytest.raises(ClusterError, match='409 deployments "d" already exists'):
            api.create("deployments", owned)
        api.patch("deployments", "d", {"spec": {"replicas": 3}}, subresource="scale")
        assert api_server.objects["deployments", "d"]["spec"]["replicas"] == 3
        api.delete("jobs", "run-1-driver")
        api.delete("jobs", "run-1-driver")
        assert api.find("deployments", "d") is None
        api_server.logs["run-1-driver-x", "driver"] = "hello"
        assert api.log("run-1-driver-x", "driver") == "hello"
        assert api.log("run-1-driver-x", "driver", previous=True) == ""
        api_server.denied |= {("list", "events"), ("get", "pods/log")}
        assert api.allowed("list", "pods")
        assert not api.allowed("get", "pods", "log")
        with pytest.raises(ConfigError, match=r"GET events in namespace science: 403 .*cannot list resource"):
            api.listed("events")
        assert api.serves("daskclusters")
        api_server.absent.add("kubernetes.dask.org/v1")
        assert not api.serves("daskclusters")


def test_no_credentials_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a kubeconfig nor a pod's account."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no Kubernetes credentials"):
        KubeApi("science")


def test_release_owns_what_it_makes(api_server: ApiServer, objects_folder: str) -> None:
    """Names come from the environment; a template that is no object, or a Job that is gone, is an error."""
    release = Release.of(ClusterSection(kind="kubernetes", objects=objects_folder))
    assert (release.selector, release.scheduler_service) == ("app.kubernetes.io/instance=run-1", "run-1-scheduler")
    (Path(objects_folder) / "bad.yaml").write_text("kind: Job")
    with pytest.raises(ConfigError, match="bad.yaml: expected apiVersion, kind, metadata and spec"):
        release.template("bad")
    with pytest.raises(ConfigError, match="none.yaml"):
        release.template("none")
    with KubeApi("science") as api:
        owned = release.owned(api, release.template("daskcluster"))
        assert is_owned_by(owned, owned)
        assert not is_owned_by({"metadata": {}}, owned)
        api.delete("jobs", "run-1-driver")
        with pytest.raises(ClusterError, match="Job run-1-driver is not in namespace science"):
            release.owned(api, release.template("daskcluster"))
