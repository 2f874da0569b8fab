from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError
from pipeline.driver.cluster import PreparedWorkerPlugin, open_cluster
from pipeline.driver.provenance import code_version


def test_worker_with_other_code_is_refused() -> None:
    """The plugin names the worker and both versions."""
    worker = SimpleNamespace(address="tcp://127.0.0.1:1234")
    PreparedWorkerPlugin(code_version()).setup(worker)
    with pytest.raises(ClusterError, match=r"tcp://127.0.0.1:1234: expected code 0\.0\+other"):
        PreparedWorkerPlugin("0.0+other").setup(worker)


def test_absent_scheduler_is_an_error_within_the_timeout() -> None:
    """An address where nothing listens is a ClusterError that names it."""
    section = ClusterSection(kind="address", address="tcp://127.0.0.1:9", no_workers_timeout_s=1.0)
    with open_cluster(section) as cluster, pytest.raises(ClusterError, match="127.0.0.1:9"):
        _ = cluster.client


def test_unused_cluster_is_never_started() -> None:
    """Opening a cluster starts no process."""
    with open_cluster(ClusterSection(kind="local")) as cluster:
        assert not cluster.started
