"""The one door to a cluster. It starts on first use, so a run with nothing left to do starts none."""

from __future__ import annotations

import logging
import time
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Future, wait
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker, NoValidWorkerError

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError, PipelineError
from pipeline.driver.cluster_sites import ClusterSite, site_of
from pipeline.driver.provenance import proof_of_code
from pipeline.driver.worker_proof import PreparedWorkerPlugin, refused_workers

logger = logging.getLogger("pipeline.driver")

CLUSTER_FAILURES = (
    KilledWorker,
    NoValidWorkerError,
    CommClosedError,
    CancelledError,
    FutureCancelledError,
    TimeoutError,
)
# A worker may die with several tasks assigned; each death counts against each of them.
_ALLOWED_FAILURES = 10
_POLL_SECONDS = 2.0
_WATCH_SECONDS = 15.0
_CLOSE_SECONDS = 30.0
# Growing is cheap; shrinking waits until the scheduler has wanted less for so many looks.
_LOOKS_BEFORE_SHRINKING = 8


class Cluster:
    """A Dask client made on first use."""

    def __init__(self, section: ClusterSection) -> None:
        self._section = section
        self._site: ClusterSite | None = None
        self._client: Client | None = None
        self._address = ""
        self._asked_for = 0
        self._shrinking_looks = 0
        self._watched_at = 0.0
        self._lonely_since: float | None = None
        # A driver that died may have left workers, which this one may not need.
        self._left_behind = section.on_kubernetes

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            ConfigError: this process cannot use such a cluster.
            ClusterError: no scheduler, no workers in time, or a worker with other code.
        """
        if self._client is None:
            with cluster_errors():
                self._client = self._connect()
        return self._client

    @property
    def started(self) -> bool:
        """True once the client was used."""
        return self._client is not None

    @property
    def threads(self) -> int:
        """Threads that the cluster has or may grow to; a worker of ours has one."""
        return max(self._section.most_workers, int(sum(self.client.nthreads().values())))

    def wait_for_any(self, futures: Sequence[Future[Any]]) -> None:
        """Return once one of the futures has ended; meanwhile the number of workers follows the work.

        Raises:
            ClusterError: there was no worker for `no_workers_timeout_s`, or one with other code.
        """
        while True:
            self._watch()
            try:
                wait(futures, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self._demand_workers(len(futures))
            else:
                self._lonely_since = None
                return

    def rest(self) -> None:
        """Give workers on Kubernetes back until they are next used; others cost nothing while they wait."""
        if self._section.on_kubernetes:
            self.close()

    def close(self) -> None:
        """Disconnect, and give back what this object or an earlier driver started; a lost scheduler is no error."""
        try:
            if self._client is not None:
                if self._section.on_kubernetes:
                    self._client.retire_workers(close_workers=False, remove=False)
                self._client.close(timeout=_CLOSE_SECONDS)
        except (*CLUSTER_FAILURES, OSError) as error:
            logger.warning("the client did not close", extra={"fields": {"reason": repr(error)}})
        try:
            if self._site is None and self._left_behind:
                self._site = site_of(self._section)
            if self._site is not None:
                self._site.close()
        except (*CLUSTER_FAILURES, PipelineError) as error:
            logger.warning("the cluster did not close", extra={"fields": {"reason": repr(error)}})
        self._client, self._site, self._left_behind = None, None, False

    def _connect(self) -> Client:
        section = self._section
        dask.config.set({"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES})
        fields = {"kind": section.kind, "workers": section.first_workers}
        logger.info("waiting for workers", extra={"fields": fields})
        self._site = site_of(section)
        address = self._address = self._site.connect()
        until = time.monotonic() + section.no_workers_timeout_s
        try:
            client = Client(address, timeout=section.no_workers_timeout_s)
        except OSError as error:
            raise ClusterError(self._lack(f"no scheduler at {address}", str(error))) from error
        try:
            # Before the first worker is asked for, so that each of them comes to it.
            client.register_plugin(PreparedWorkerPlugin(proof_of_code()))
            self._scale(section.first_workers)
            self._await_workers(client, until)
        except BaseException:
            client.close(timeout=_CLOSE_SECONDS)
            raise
        logger.info("workers are ready", extra={"fields": {"dashboard": client.dashboard_link}})
        return client

    def _await_workers(self, client: Client, until: float) -> None:
        """Wait for all workers of a fixed place; on Kubernetes for the first, the others join while it works."""
        needed = 1 if self._section.on_kubernetes else self._section.workers
        while (found := _n_workers(client)) < needed:
            _raise_refusals(client)
            if time.monotonic() > until:
                raise ClusterError(self._lack(f"{found} of {self._section.first_workers} workers at {self._address}"))
            time.sleep(min(_POLL_SECONDS, max(until - time.monotonic(), 0.05)) / 4)
        _raise_refusals(client)

    def _watch(self) -> None:
        """Every few seconds: refuse workers with other code, and let the number of workers follow the work."""
        if time.monotonic() - self._watched_at < _WATCH_SECONDS:
            return
        self._watched_at = time.monotonic()
        _raise_refusals(self.client)
        bounds = self._section.adaptive
        if bounds is None:
            return
        wanted = _wanted_workers(self.client)
        wanted = min(max(wanted, bounds.minimum), bounds.maximum)
        self._shrinking_looks = self._shrinking_looks + 1 if wanted < self._asked_for else 0
        if wanted > self._asked_for or self._shrinking_looks >= _LOOKS_BEFORE_SHRINKING:
            self._shrinking_looks = 0
            self._scale(wanted)

    def _demand_workers(self, n_tasks: int) -> None:
        if _n_workers(self.client):
            self._lonely_since = None
            return
        self._lonely_since = self._lonely_since or time.monotonic()
        if time.monotonic() - self._lonely_since > self._section.no_workers_timeout_s:
            limit = self._section.no_workers_timeout_s
            raise ClusterError(self._explained(f"no worker for {limit:g} s with {n_tasks} shards in flight"))

    def _scale(self, workers: int) -> None:
        if self._site is not None:
            self._site.scale(workers)
            self._asked_for = workers
            if self._section.on_kubernetes:
                logger.info("asked for workers", extra={"fields": {"workers": workers}})

    def _lack(self, what: str, reason: str = "") -> str:
        return self._explained(f"{what} within {self._section.no_workers_timeout_s:g} s", reason)

    def _explained(self, message: str, reason: str = "") -> str:
        reasons = [reason] if reason else []
        if self._site is not None:
            reasons += self._site.problems()
        return ": ".join([message, "; ".join(reasons)]) if reasons else message


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


def _n_workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _wanted_workers(client: Client) -> int:
    scheduler = client.scheduler
    if scheduler is None:
        raise ClusterError("the client is not connected to a scheduler")
    return int(client.sync(scheduler.adaptive_target))


def _raise_refusals(client: Client) -> None:
    refused = refused_workers(client)
    if refused:
        raise ClusterError(f"{refused[0]} ({len(refused)} workers refused)")
