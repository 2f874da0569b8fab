"""The DaskCluster of a release over HTTP: made, owned, scaled, adopted, deleted; and every way in which it fails."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import ApiServer
from distributed import LocalCluster
from operator_stand_in import UNSCHEDULABLE, OperatorStandIn

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError, ConfigError
from pipeline.driver import kube_cluster
from pipeline.driver.cluster import Cluster, open_cluster
from pipeline.driver.kube_cluster import OperatorCluster
from pipeline.driver.kube_deployment import DeploymentCluster

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def section(objects_folder: str) -> ClusterSection:
    """Two workers through the operator."""
    return ClusterSection(kind="kubernetes", workers=2, objects=objects_folder, no_workers_timeout_s=20)


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """KubeCluster leaves sockets open; they are collected here, where their warnings fail no other test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_cluster, "_POLL_S", 0.05)
    monkeypatch.setattr(kube_cluster, "_DELETE_TIMEOUT_S", 0.5)


@pytest.fixture
def scheduler() -> Iterator[LocalCluster]:
    """A scheduler of this process, for the Service to lead to."""
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp://") as cluster:
        yield cluster


def port_of(scheduler: LocalCluster) -> int:
    """Port of a scheduler."""
    return int(scheduler.scheduler_address.rsplit(":", 1)[1])


def test_cluster_is_made_owned_scaled_and_deleted(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster
) -> None:
    """The driver's Job owns the DaskCluster, the group is scaled once, and nothing is left."""
    operator = OperatorStandIn(api_server, port=port_of(scheduler))
    scheduler.scale(1)
    with open_cluster(section) as cluster:
        assert not api_server.asked("POST", "/daskclusters")
        assert cluster.client.submit(len, "abc").result() == 3
        made = api_server.objects["daskclusters", "run-1"]
        assert made["metadata"]["ownerReferences"] == [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "run-1-driver", "uid": "job-uid"}
        ]
        assert made["spec"]["worker"]["replicas"] == 0
        assert len(operator.workers()) == 2
        assert cluster.threads == 2
    assert api_server.asked("PATCH", "/daskworkergroups/run-1-default") == 1
    assert [pod["metadata"]["name"] for pod in api_server.listed("pods")] == ["run-1-driver-x"]
    assert not api_server.listed("daskclusters")


def test_number_of_workers_follows_the_work(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bounds the group starts at the minimum and grows while tasks wait, up to the maximum."""
    monkeypatch.setattr("pipeline.driver.cluster._WATCH_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.driver.cluster._LOOKS_BEFORE_SHRINKING", 1)
    operator = OperatorStandIn(api_server, port=port_of(scheduler))
    scheduler.scale(1)
    bounds = {"adaptive": {"minimum": 1, "maximum": 3}}
    adaptive = ClusterSection.model_validate({**section.model_dump(), **bounds})
    targets = iter([9, 0])
    with open_cluster(adaptive) as cluster:
        client = cluster.client
        assert (len(operator.workers()), cluster.threads) == (1, 3)
        monkeypatch.setattr("pipeline.driver.cluster._wanted_workers", lambda _: next(targets))
        cluster.wait_for_any([client.submit(len, "abc")])
        assert len(operator.workers()) == 3
        cluster.wait_for_any([client.submit(len, "abcd")])
        assert len(operator.workers()) == 1


def test_never_ready_scheduler_quotes_pods_and_events(api_server: ApiServer, section: ClusterSection) -> None:
    """A cluster that does not come up ends in time, and its error repeats what Kubernetes says."""
    OperatorStandIn(api_server, status=UNSCHEDULABLE)
    api_server.put(
        "events",
        "e1",
        type="Warning",
        reason="FailedCreate",
        message='exceeded quota: "compute"',
        involvedObject={"kind": "ReplicaSet", "name": "run-1-default-worker-0-5f"},
        lastTimestamp="2026-01-01T00:00:00Z",
    )
    api_server.put("events", "e2", type="Warning", reason="Other", involvedObject={"kind": "Pod", "name": "foreign"})
    hasty = section.model_copy(update={"no_workers_timeout_s": 0.3})
    with pytest.raises(ClusterError) as caught, open_cluster(hasty) as cluster:
        _ = cluster.client
    message = str(caught.value)
    assert "not ready within 0.3 s" in message
    assert "pod run-1-scheduler: Unschedulable: 0/3 nodes are available: 3 Insufficient memory." in message
    assert 'replicaset run-1-default-worker-0-5f: FailedCreate: exceeded quota: "compute"' in message
    assert "foreign" not in message
    assert not api_server.listed("daskclusters")


def test_absent_operator_is_named(api_server: ApiServer, section: ClusterSection) -> None:
    """No definitions: a configuration error with the install command. Definitions without operator: said in time."""
    hasty = section.model_copy(update={"no_workers_timeout_s": 0.2})
    with pytest.raises(ClusterError, match="operator made no scheduler pod; is it running"), open_cluster(hasty) as one:
        _ = one.client
    api_server.absent.add("kubernetes.dask.org/v1")
    with pytest.raises(ConfigError, match="helm install dask-operator"), open_cluster(section) as cluster:
        _ = cluster.client


def test_forbidden_is_a_configuration_error(api_server: ApiServer, section: ClusterSection) -> None:
    """A missing right is never retried; the message names verb and resource."""
    api_server.denied.add(("create", "daskclusters"))
    with pytest.raises(ConfigError, match='403 .*cannot create resource "daskclusters"'), open_cluster(section) as one:
        _ = one.client


def test_cluster_of_a_dead_driver_is_adopted_or_replaced(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster
) -> None:
    """Same owner and template: used as it is. Another owner: deleted and made anew."""
    OperatorStandIn(api_server, port=port_of(scheduler))
    OperatorCluster(section).connect()
    uid = api_server.objects["daskclusters", "run-1"]["metadata"]["uid"]
    address = OperatorCluster(section).connect()
    assert address == scheduler.scheduler_address
    assert api_server.objects["daskclusters", "run-1"]["metadata"]["uid"] == uid
    api_server.objects["jobs", "run-1-driver"]["metadata"]["uid"] = "job-of-a-new-release"
    successor = OperatorCluster(section)
    successor.connect()
    assert api_server.objects["daskclusters", "run-1"]["metadata"]["uid"] != uid
    successor.close()
    assert not api_server.listed("daskclusters")


def test_what_a_deleted_cluster_left_is_waited_for(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster
) -> None:
    """The operator makes no scheduler where one of that name is still being collected; one that stays is named."""
    OperatorStandIn(api_server, port=port_of(scheduler))
    labels = {"dask.org/cluster-name": "run-1", "dask.org/component": "scheduler"}
    api_server.put("deployments", "run-1-scheduler", metadata={"labels": labels}, spec={})
    hasty = OperatorCluster(section.model_copy(update={"no_workers_timeout_s": 0.2}))
    with pytest.raises(ClusterError, match="still there are deployments/run-1-scheduler"):
        hasty.connect()
    assert not api_server.asked("POST", "/daskclusters")
    collector = threading.Timer(0.3, api_server.remove, ("deployments", "run-1-scheduler"))
    collector.start()
    site = OperatorCluster(section)
    assert site.connect() == scheduler.scheduler_address
    collector.join()
    for cluster in (hasty, site):
        cluster.close()


def test_finalizer_that_hangs_is_said_and_ends_in_time(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing does not wait for an absent operator for ever; a successor that must replace it fails with the remedy."""
    OperatorStandIn(api_server, port=port_of(scheduler))
    site = OperatorCluster(section)
    site.connect()
    api_server.objects["daskclusters", "run-1"]["metadata"]["finalizers"] = ["kopf.zalando.org/KopfFinalizerMarker"]
    with caplog.at_level(logging.WARNING, logger="pipeline.driver"):
        site.close()
    (record,) = [record for record in caplog.records if record.message == "the DaskCluster stays behind"]
    assert "KopfFinalizerMarker" in str(vars(record)["fields"])
    with pytest.raises(ClusterError, match="kubectl -n science patch daskcluster run-1"), open_cluster(section) as one:
        _ = one.client


def test_outage_of_the_api_server_is_outlasted(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy answers are tried again; an outage longer than the patience is a ClusterError."""
    monkeypatch.setattr("pipeline.driver.kube_api._FIRST_WAIT_S", 0.01)
    OperatorStandIn(api_server, port=port_of(scheduler))
    site = OperatorCluster(section)
    api_server.outages += [503, 429, 500]
    site.connect()
    site._api._patience_s = 0.05
    api_server.outages += 20 * [503]
    with pytest.raises(ClusterError, match="503"):
        site.problems()
    api_server.outages.clear()
    site.close()


def test_long_names_and_missing_templates_are_refused(api_server: ApiServer, section: ClusterSection) -> None:
    """What the operator would refuse later is refused at once; outside a release the error says what to use."""
    with pytest.raises(ConfigError, match="is no folder"):
        OperatorCluster(section.model_copy(update={"objects": "/nowhere"}))
    path = Path(str(section.objects)) / "daskcluster.yaml"
    path.write_text(path.read_text().replace("name: run-1\n", "name: run.1\n"))
    with pytest.raises(ConfigError, match=r"DaskCluster 'run.1': the operator takes names of at most 53 characters"):
        OperatorCluster(section)


def test_driver_outside_a_release_is_sent_to_submit(monkeypatch: pytest.MonkeyPatch, section: ClusterSection) -> None:
    """Without the chart's environment there is no release."""
    monkeypatch.delenv("DHS_RELEASE", raising=False)
    with pytest.raises(ConfigError, match=r"DHS_RELEASE.*dhs submit"):
        OperatorCluster(section)


def test_cluster_of_a_dead_driver_is_deleted_though_nobody_needs_it(
    api_server: ApiServer, section: ClusterSection, scheduler: LocalCluster
) -> None:
    """A driver that finds all shards done sends the workers home that an earlier one had asked for."""
    OperatorStandIn(api_server, port=port_of(scheduler))
    scheduler.scale(1)
    OperatorCluster(section).connect()
    assert api_server.listed("daskclusters")
    with open_cluster(section) as cluster:
        cluster.rest()
        assert not api_server.listed("daskclusters")
        asked = api_server.asked("DELETE", "/daskclusters")
    assert api_server.asked("DELETE", "/daskclusters") == asked
    assert not cluster.started


def test_workers_of_a_dead_driver_are_sent_home_without_operator(api_server: ApiServer) -> None:
    """The same for plain Deployments, also where no driver has anything to do any more."""
    for name in ("run-1-worker", "run-1-scheduler"):
        api_server.put("deployments", name, spec={"replicas": 2})
    Cluster(ClusterSection(kind="deployment", workers=3)).close()
    assert [found["spec"]["replicas"] for found in api_server.listed("deployments")] == [0, 0]


def test_deployment_kind_needs_no_custom_resource(api_server: ApiServer, scheduler: LocalCluster) -> None:
    """Workers of the release are scaled up and down through the scale subresource alone."""
    api_server.absent.add("kubernetes.dask.org/v1")
    api_server.denied.add(("patch", "deployments"))
    for name in ("run-1-worker", "run-1-scheduler"):
        api_server.put("deployments", name, spec={"replicas": 0})
    scheduler.scale(1)
    section = ClusterSection(kind="deployment", workers=3, address=scheduler.scheduler_address)
    with open_cluster(section) as cluster:
        assert cluster.client.submit(len, "abc").result() == 3
        assert api_server.objects["deployments", "run-1-worker"]["spec"]["replicas"] == 3
        assert api_server.objects["deployments", "run-1-scheduler"]["spec"]["replicas"] == 1
    assert [found["spec"]["replicas"] for found in api_server.listed("deployments")] == [0, 0]
    bare = DeploymentCluster(section.model_copy(update={"address": None}))
    assert bare.connect() == "tcp://run-1-scheduler.science:8786"
    bare.close()
