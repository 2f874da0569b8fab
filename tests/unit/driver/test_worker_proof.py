"""The proof that a worker holds the driver's code: at the start, and of workers that come later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError
from pipeline.driver.cluster import open_cluster
from pipeline.driver.provenance import proof_of_code
from pipeline.driver.worker_proof import PreparedWorkerPlugin, proof_differences, refused_workers


@pytest.fixture
def scheduler() -> Iterator[LocalCluster]:
    """A scheduler without workers, in this process."""
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp://") as cluster:
        yield cluster


def test_differences_name_both_sides() -> None:
    """Code, commit and packages are compared; a commit that one side does not know is not."""
    driver = {"code_version": "1+a", "git_sha": "abc", "numpy": "2.4.6"}
    assert proof_differences(driver, driver) == []
    assert proof_differences(driver, driver | {"git_sha": "unknown"}) == []
    assert proof_differences(driver, {"code_version": "1+b", "git_sha": "abd"}) == [
        "code_version: driver 1+a, worker 1+b",
        "git_sha: driver abc, worker abd",
        "numpy: driver 2.4.6, worker nothing",
    ]


def test_late_worker_with_other_code_takes_no_task_and_ends_the_run(
    scheduler: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that joins after the driver's plugin is stopped before it works; the error names both sides."""
    with Client(scheduler) as client:
        client.register_plugin(PreparedWorkerPlugin(proof_of_code() | {"numpy": "0.1"}))
        future = client.submit(len, "abc")
        scheduler.scale(1)

        async def until_refused() -> None:
            while not await client.scheduler.events(topic="darkhaloscope-refused-workers"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        client.sync(until_refused, callback_timeout=30)
        (message,) = refused_workers(client)
        assert f"numpy: driver 0.1, worker {proof_of_code()['numpy']}" in message
        assert "worker tcp://127.0.0.1:" in message
        assert future.status == "pending"
    monkeypatch.setattr("pipeline.driver.cluster.proof_of_code", lambda: proof_of_code() | {"zarr": "0.2"})
    section = ClusterSection(kind="address", address=scheduler.scheduler_address, workers=1, no_workers_timeout_s=30)
    with open_cluster(section) as cluster, pytest.raises(ClusterError, match="numpy: driver 0.1|zarr: driver 0.2"):
        _ = cluster.client
