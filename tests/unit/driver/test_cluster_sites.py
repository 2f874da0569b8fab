"""Which site a kind of cluster means. Those on Kubernetes are in tests/k8s."""

from __future__ import annotations

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.driver.cluster_sites import GivenScheduler, LocalProcesses, site_of


def test_kinds_of_one_machine_and_of_a_given_scheduler() -> None:
    """A given scheduler is only named; local processes are not started before they are asked for."""
    given = site_of(ClusterSection(kind="address", address="tcp://a:1"))
    assert isinstance(given, GivenScheduler)
    assert (given.connect(), given.problems()) == ("tcp://a:1", [])
    given.scale(5)
    given.close()
    local = site_of(ClusterSection(kind="local"))
    assert isinstance(local, LocalProcesses)
    local.close()
    assert local.problems() == []
