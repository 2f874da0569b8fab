"""Scheduler, `dhs worker` and driver as separate processes that are told to end, or killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

Start = Callable[..., subprocess.Popen[bytes]]


def free_port() -> int:
    """A port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m MODULE ...`; what is left at the end is killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"process-{len(processes)}.log").open("wb")
        environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path / "space"), **variables}
        command = [sys.executable, "-m", *arguments]
        with log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait(timeout=30)


@pytest.fixture
def scheduler(start: Start) -> tuple[subprocess.Popen[bytes], str]:
    """A scheduler process and its address."""
    port = free_port()
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0", "--no-show"]
    return start("dask", "scheduler", *arguments), f"tcp://127.0.0.1:{port}"


def work(start: Start, address: str, name: str) -> subprocess.Popen[bytes]:
    """A `dhs worker` for a scheduler."""
    variables = {"DASK_SCHEDULER_ADDRESS": address, "DASK_WORKER_NAME": name}
    return start("pipeline.entry", "worker", **variables, DHS_WORKER_MEMORY_LIMIT="2Gi", DHS_WORKER_SPACE="1Gi")


def test_end_of_a_worker_has_its_exit_code(
    start: Start, scheduler: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    """SIGTERM hands results on and exits with 143; a killed scheduler ends the others with 75."""
    process, address = scheduler
    first = work(start, address, "first")
    with Client(address, timeout=60) as client:
        client.wait_for_workers(1, timeout=240)
        made_by_first = client.submit(os.getpid, pure=False)
        pid = made_by_first.result(timeout=60)
        second = work(start, address, "second")
        client.wait_for_workers(2, timeout=240)
        info = client.scheduler_info(n_workers=-1)["workers"].values()
        assert {worker["memory_limit"] for worker in info} == {3 * 2**29}
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=60) == 143
        # Kept, not made again: the process that made it is gone.
        assert made_by_first.result(timeout=60) == pid
        assert {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()} == {"second"}
        assert "retired" in (tmp_path / "process-1.log").read_text()
    process.kill()
    assert second.wait(timeout=60) == 75
    assert "is gone" in (tmp_path / "process-2.log").read_text()


def test_worker_that_cannot_work_says_why(start: Start, tmp_path: Path) -> None:
    """No scheduler within the limit: 75. No folder for kernels: 2 before anything else. SIGTERM while waiting: 143."""
    address = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "file").touch()
    unwritable = str(tmp_path / "file" / "below")
    blocked = start("pipeline.entry", "worker", DASK_SCHEDULER_ADDRESS=address, NUMBA_CACHE_DIR=unwritable)
    waiting = start("pipeline.entry", "worker", DASK_SCHEDULER_ADDRESS=address)
    lonely = start("pipeline.entry", "worker", DASK_SCHEDULER_ADDRESS=address, DHS_SCHEDULER_TIMEOUT_S="0.5")
    assert (blocked.wait(timeout=240), lonely.wait(timeout=240)) == (2, 75)
    until = time.monotonic() + 240
    while "kernels are cached" not in (tmp_path / "process-1.log").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(timeout=60) == 143
    assert "set NUMBA_CACHE_DIR to one that is" in (tmp_path / "process-0.log").read_text()
    assert f"no scheduler at {address} within 0.5 s" in (tmp_path / "process-2.log").read_text()
