from __future__ import annotations

import pytest

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError
from pipeline.driver.cluster import open_cluster


def test_absent_scheduler_is_an_error_within_the_timeout() -> None:
    """An address where nothing listens is a ClusterError that names it."""
    section = ClusterSection(kind="address", address="tcp://127.0.0.1:9", no_workers_timeout_s=1.0)
    with open_cluster(section) as cluster, pytest.raises(ClusterError, match="127.0.0.1:9"):
        _ = cluster.client


def test_unused_cluster_is_never_started() -> None:
    """Opening a cluster starts no process."""
    with open_cluster(ClusterSection(kind="local")) as cluster:
        assert not cluster.started
