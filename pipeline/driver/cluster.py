"""Where tasks run. The cluster starts on first use, so a run with nothing left to do starts none."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, WorkerPlugin, wait
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker, NoValidWorkerError
from distributed.worker import Worker

from pipeline.contracts.config import ClusterSection
from pipeline.contracts.errors import ClusterError
from pipeline.driver.provenance import code_version
from pipeline.kernels.warm_up import warm_up

logger = logging.getLogger("pipeline.driver")

# A worker may die with several tasks assigned; each death counts against each of them.
_ALLOWED_FAILURES = 10
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


CLUSTER_FAILURES = (
    KilledWorker,
    NoValidWorkerError,
    CommClosedError,
    CancelledError,
    FutureCancelledError,
    TimeoutError,
)
_POLL_SECONDS = 2.0
_CLOSE_SECONDS = 30.0


class PreparedWorkerPlugin(WorkerPlugin):
    """Refuses a worker whose code is not the driver's; compiles the kernels before its first task. Late ones too."""

    name = "prepared-worker"

    def __init__(self, expected: str) -> None:
        self.expected = expected

    def setup(self, worker: Worker) -> None:
        """Raise ClusterError if this process holds other code."""
        found = code_version()
        if found != self.expected:
            raise ClusterError(f"worker {worker.address}: expected code {self.expected}, found {found}")
        seconds = warm_up()
        logger.info("kernels are ready", extra={"fields": {"worker": worker.address, "seconds": round(seconds, 2)}})


class Cluster:
    """A Dask client made on first use."""

    def __init__(self, section: ClusterSection) -> None:
        self._section = section
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            ClusterError: no scheduler, no workers in time, or a worker with other code.
        """
        if self._client is None:
            self._client = self._connect()
        return self._client

    @property
    def started(self) -> bool:
        """True once the client was used."""
        return self._client is not None

    def wait_for_any(self, futures: Sequence[Future[Any]]) -> None:
        """Return once one of the futures has ended.

        Raises:
            ClusterError: there was no worker for `no_workers_timeout_s`.
        """
        lonely_since: float | None = None
        while True:
            try:
                wait(futures, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                if self.client.scheduler_info(n_workers=-1)["workers"]:
                    lonely_since = None
                    continue
                lonely_since = lonely_since or time.monotonic()
                if time.monotonic() - lonely_since > self._section.no_workers_timeout_s:
                    limit = self._section.no_workers_timeout_s
                    raise ClusterError(f"no worker for {limit:g} s with {len(futures)} shards in flight") from None
            else:
                return

    def close(self) -> None:
        """Disconnect, and stop the workers that this object started; a scheduler that is gone is no error."""
        try:
            if self._client is not None:
                self._client.close(timeout=_CLOSE_SECONDS)
            if self._cluster is not None:
                self._cluster.close(timeout=_CLOSE_SECONDS)
        except CLUSTER_FAILURES as error:
            logger.warning("cluster did not close", extra={"fields": {"reason": repr(error)}})

    def _connect(self) -> Client:
        section = self._section
        dask.config.set({"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES})
        fields = {"kind": section.kind, "workers": section.workers}
        logger.info("waiting for workers", extra={"fields": fields})
        if section.kind == "local":
            # Once here, so that the workers find compiled code instead of each compiling its own.
            logger.info("kernels are ready", extra={"fields": {"worker": "driver", "seconds": round(warm_up(), 2)}})
            dask.config.set({"distributed.nanny.environ": dict.fromkeys(_THREAD_VARIABLES, "1")})
            try:
                self._cluster = LocalCluster(
                    n_workers=section.workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=section.memory_per_worker,
                    dashboard_address=f"127.0.0.1:{section.dashboard_port}",
                    local_directory=str(Path(tempfile.gettempdir()) / f"dhs-dask-{os.getuid()}"),
                )
            except (RuntimeError, OSError) as error:
                raise ClusterError(f"the local cluster did not start: {error}") from error
        try:
            client = Client(self._cluster or section.address, timeout=section.no_workers_timeout_s)
            client.wait_for_workers(section.workers, timeout=section.no_workers_timeout_s)
        except OSError as error:
            raise ClusterError(
                f"no {section.workers} workers at {section.address or 'the local cluster'} within "
                f"{section.no_workers_timeout_s:g} s: {error}"
            ) from error
        client.register_plugin(PreparedWorkerPlugin(code_version()))
        logger.info("workers are ready", extra={"fields": {"dashboard": client.dashboard_link}})
        return client


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Turn the loss of workers or scheduler into ClusterError."""
    try:
        yield
    except CLUSTER_FAILURES as error:
        raise ClusterError(f"the Dask cluster failed: {type(error).__name__}: {error}") from error


@contextmanager
def open_cluster(section: ClusterSection) -> Iterator[Cluster]:
    """A cluster that is closed at the end of the block, also after an error."""
    cluster = Cluster(section)
    try:
        yield cluster
    finally:
        cluster.close()
