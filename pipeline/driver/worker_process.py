"""A worker as a process of its own, whose exit code says why it ended; Dask's own worker always exits with 0.

143: told to end by SIGTERM, and its results were handed to other workers first. 75: the scheduler was lost or never
reached. 2: this machine cannot compile kernels. 0: the scheduler sent it home.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

import dask
from distributed import Nanny
from distributed.comm.core import CommClosedError, connect

from pipeline.contracts.cluster_config import parse_bytes
from pipeline.contracts.errors import ClusterError, ConfigError
from pipeline.kernels.compiled import use_compiled_cache

logger = logging.getLogger("pipeline.driver")

# The rest of a pod's memory is for the nanny, which holds the imports of all commands, and what Dask does not count.
MEMORY_FRACTION = 0.88
NANNY_BYTES = 2**29
# Dask stops spilling before the kubelet evicts the pod for its emptyDir.
SPACE_FRACTION = 0.8
TERMINATED = 128 + signal.SIGTERM
_RETIRE_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 5.0
_RETRY_S = 1.0
_LOST = (OSError, CommClosedError, TimeoutError)


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker runs.

    Attributes:
        scheduler: its address.
        name: what the scheduler calls this worker; None for its address.
        threads: tasks at the same time.
        pod_memory: memory limit of the pod, such as 4Gi; see `memory_limit_bytes`. None: all there is.
        folder: where results spill.
        space: size of that folder, such as 8Gi; None for no limit.
        scheduler_timeout_s: how long a scheduler that is not there is waited for.
    """

    scheduler: str
    name: str | None
    threads: int
    pod_memory: str | None
    folder: Path
    space: str | None
    scheduler_timeout_s: float


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker until it is told to end; returns the exit code.

    Raises:
        ConfigError: no folder for compiled kernels can be written, or a size cannot be read.
        ClusterError: the scheduler was lost, or not reached within `scheduler_timeout_s`.
    """
    folder = use_compiled_cache()
    logger.info("kernels are cached", extra={"fields": {"folder": str(folder)}})
    memory = memory_limit_bytes(settings.pod_memory)
    dask.config.set({"distributed.worker.memory.max-spill": spill_limit_bytes(settings.space)})
    return asyncio.run(_serve(settings, memory))


def memory_limit_bytes(pod_memory: str | None) -> int | str:
    """What Dask may use of a pod's memory limit; "auto" without one.

    `MEMORY_FRACTION` of it, in small pods less so that `NANNY_BYTES` are left, but never less than half.
    """
    if not pod_memory:
        return "auto"
    size = _size(pod_memory)
    return int(max(min(MEMORY_FRACTION * size, size - NANNY_BYTES), size / 2))


def spill_limit_bytes(space: str | None) -> int | bool:
    """What Dask may write of a folder's size limit; False, which means no limit, without one."""
    return int(SPACE_FRACTION * _size(space)) if space else False


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error


async def _serve(settings: WorkerSettings, memory: int | str) -> int:
    loop, terminated = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.set)
    told = asyncio.ensure_future(terminated.wait())
    starting = asyncio.ensure_future(_start(settings, memory))
    await asyncio.wait((told, starting), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return TERMINATED
    nanny = starting.result()
    ended = asyncio.ensure_future(nanny.finished())
    await asyncio.wait((told, ended), return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        await _retire(nanny)
        await nanny.close(reason="terminated")
        return TERMINATED
    told.cancel()
    # A scheduler that ends sends its workers home just before it stops listening.
    await asyncio.sleep(_RETRY_S)
    if await _listens(settings.scheduler):
        logger.info("sent home by the scheduler", extra={"fields": {"scheduler": settings.scheduler}})
        return 0
    raise ClusterError(f"the scheduler {settings.scheduler} is gone")


async def _start(settings: WorkerSettings, memory: int | str) -> Nanny:
    loop = asyncio.get_running_loop()
    until = loop.time() + settings.scheduler_timeout_s
    while not await _listens(settings.scheduler):
        if loop.time() > until:
            limit = settings.scheduler_timeout_s
            raise ClusterError(f"no scheduler at {settings.scheduler} within {limit:g} s")
        await asyncio.sleep(_RETRY_S)
    nanny = Nanny(
        settings.scheduler,
        nthreads=settings.threads,
        name=settings.name,
        memory_limit=memory,
        local_directory=str(settings.folder),
    )
    try:
        await nanny
    except (*_LOST, RuntimeError, ValueError) as error:
        raise ClusterError(f"the worker did not start at {settings.scheduler}: {error!r}") from error
    return nanny


async def _retire(nanny: Nanny) -> None:
    """Have the scheduler copy this worker's results to others and give it no more tasks."""
    address = nanny.worker_address
    if address is None:
        return
    try:
        retiring = nanny.scheduler.retire_workers(workers=[address], close_workers=False, remove=False)
        retired = await asyncio.wait_for(retiring, _RETIRE_TIMEOUT_S)
    except _LOST as error:
        logger.warning("not retired", extra={"fields": {"worker": address, "reason": repr(error)}})
        return
    logger.info("retired" if retired else "no other worker takes the results", extra={"fields": {"worker": address}})


async def _listens(address: str) -> bool:
    try:
        comm = await connect(address, timeout=_PROBE_TIMEOUT_S)
    except _LOST:
        return False
    await comm.close()
    return True
