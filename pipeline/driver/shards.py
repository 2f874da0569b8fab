"""A stage over all shards: submit in windows, retry what storage or workers lost, collect receipts.

Finished shards have a receipt whose objects are in the store; only the others are submitted.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from distributed import Future

from pipeline.contracts.errors import PlanChangedError, StorageError
from pipeline.driver.cluster import Cluster, cluster_errors
from pipeline.driver.progress import StageProgress
from pipeline.storage.locations import RunLayout
from pipeline.storage.receipts import Receipt, missing_objects, read_receipts

logger = logging.getLogger("pipeline.driver")

# Tasks in flight per worker thread: enough to hide latency, few enough for a small scheduler.
_WINDOW_PER_THREAD = 3


class NumberedTask(Protocol):
    """What a worker needs to make one shard; small, because it travels."""

    @property
    def shard(self) -> int:
        """Number of the shard."""


def finished_shards(layout: RunLayout, cube: str, plan_sha256: str, code_version: str) -> dict[int, Receipt]:
    """Receipts whose objects are in the store with the right size.

    Raises:
        PlanChangedError: a receipt of another plan or of other code lies under this run.
    """
    receipts = read_receipts(layout.receipts(cube))
    for receipt in receipts.values():
        if receipt.plan_sha256 != plan_sha256 or receipt.code_version != code_version:
            raise PlanChangedError(
                f"{layout.root.url}: shard {receipt.shard} of {cube} was made by plan {receipt.plan_sha256[:12]} with "
                f"code {receipt.code_version}; this is plan {plan_sha256[:12]} with code {code_version}. "
                "Give the run another name"
            )
    lost = missing_objects(layout.cube(cube), receipts.values())
    for shard, reason in lost.items():
        logger.warning("shard is made again", extra={"fields": {"cube": cube, "shard": shard, "reason": reason}})
    return {shard: receipt for shard, receipt in receipts.items() if shard not in lost}


def run_shards(
    cluster: Cluster,
    stage: str,
    function: Callable[..., Receipt],
    tasks: Sequence[NumberedTask],
    done: dict[int, Receipt],
    retries: int,
    *arguments: Any,
    inspect: Callable[[Sequence[Receipt]], None] | None = None,
) -> dict[int, Receipt]:
    """Make the shards that are not done; returns the receipts of all.

    Args:
        function: called as function(task, *arguments) on a worker.
        done: receipts of finished shards; their tasks are not submitted.
        retries: how often a task is tried again after a StorageError.
        inspect: sees all receipts after each new one, and may end the stage by raising.

    Raises:
        PipelineError: the first error of a task, once its retries are used up.
        ClusterError: a task's workers died again and again, or workers or scheduler are gone.
    """
    todo = [task for task in tasks if task.shard not in done]
    receipts = dict(done)
    if not todo:
        return receipts
    with cluster_errors():
        client = cluster.client
        with StageProgress(stage, len(tasks), len(done), client.dashboard_link) as progress:
            window = _Window(cluster, function, retries, arguments, progress)
            waiting = iter(todo)
            size = _WINDOW_PER_THREAD * cluster.threads
            window.fill(waiting, size)
            while window.in_flight:
                for receipt in window.finished():
                    receipts[receipt.shard] = receipt
                    progress.shard_done(receipt)
                    if inspect is not None:
                        inspect(list(receipts.values()))
                window.fill(waiting, size)
    return receipts


class _Window:
    """The tasks in flight."""

    def __init__(
        self,
        cluster: Cluster,
        function: Callable[..., Receipt],
        retries: int,
        arguments: Sequence[Any],
        progress: StageProgress,
    ) -> None:
        self._cluster = cluster
        self._function = function
        self._retries = retries
        self._arguments = arguments
        self._progress = progress
        self.in_flight: dict[Future[Receipt], tuple[NumberedTask, int]] = {}

    def fill(self, waiting: Iterator[NumberedTask], size: int) -> None:
        """Submit tasks until `size` are in flight or none is waiting."""
        for task in itertools.islice(waiting, max(size - len(self.in_flight), 0)):
            self._submit(task, 0)

    def finished(self) -> list[Receipt]:
        """Wait for at least one task to end; the receipts of those that ended well."""
        self._cluster.wait_for_any(list(self.in_flight))
        ended = [future for future in self.in_flight if future.done()]
        receipts = [self._result(future) for future in ended]
        return [receipt for receipt in receipts if receipt is not None]

    def _result(self, future: Future[Receipt]) -> Receipt | None:
        task, tries = self.in_flight.pop(future)
        try:
            return future.result()
        except StorageError as error:
            if tries >= self._retries:
                raise
            fields = {"shard": task.shard, "tries": tries + 1, "error": str(error)}
            logger.warning("storage failed, shard is tried again", extra={"fields": fields})
            self._progress.shard_failed()
            self._submit(task, tries + 1)
            return None

    def _submit(self, task: NumberedTask, tries: int) -> None:
        # The key is this driver's own: two runs of one plan on one scheduler share nothing.
        key = f"{self._function.__name__}-{task.shard}-{tries}-{uuid.uuid4().hex}"
        future = self._cluster.client.submit(self._function, task, *self._arguments, key=key, pure=False)
        self.in_flight[future] = (task, tries)
