"""A stage over all shards: submit in windows, retry what storage or workers lost, collect receipts.

Finished shards have a receipt whose objects are in the store; only the others are submitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker, NoValidWorkerError

from pipeline.contracts.errors import ClusterError, PlanChangedError, StorageError
from pipeline.driver.cluster import Cluster
from pipeline.driver.progress import StageProgress
from pipeline.driver.tasks import ShardTask
from pipeline.storage.locations import RunLayout
from pipeline.storage.receipts import Receipt, missing_objects, read_receipts

logger = logging.getLogger("pipeline.driver")

# Tasks in flight per worker thread: enough to hide latency, few enough for a small scheduler.
_WINDOW_PER_THREAD = 3


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
    tasks: Sequence[ShardTask],
    done: dict[int, Receipt],
    retries: int,
    *arguments: Any,
) -> dict[int, Receipt]:
    """Make the shards that are not done; returns the receipts of all.

    Args:
        function: called as function(task, *arguments) on a worker.
        done: receipts of finished shards; their tasks are not submitted.
        retries: how often a task is tried again after a StorageError or a lost worker.

    Raises:
        PipelineError: the first error of a task, once its retries are used up.
        ClusterError: a task's workers died again and again, or all workers are gone.
    """
    todo = [task for task in tasks if task.shard not in done]
    receipts = dict(done)
    if not todo:
        return receipts
    client = cluster.client
    with StageProgress(stage, len(tasks), len(done), client.dashboard_link) as progress:
        window = _Window(client, function, retries, arguments)
        waiting = iter(todo)
        size = max(_WINDOW_PER_THREAD * sum(client.nthreads().values()), 1)
        window.fill(waiting, size)
        for future in window.completed:
            receipt = window.result(future)
            if receipt is not None:
                receipts[receipt.shard] = receipt
                progress.shard_done(receipt)
            window.fill(waiting, size)
    return receipts


class _Window:
    """The tasks in flight."""

    def __init__(
        self, client: Client, function: Callable[..., Receipt], retries: int, arguments: Sequence[Any]
    ) -> None:
        self._client = client
        self._function = function
        self._retries = retries
        self._arguments = arguments
        self._tasks: dict[str, tuple[ShardTask, int]] = {}
        self.completed = as_completed()

    def fill(self, waiting: Any, size: int) -> None:
        while len(self._tasks) < size:
            task = next(waiting, None)
            if task is None:
                return
            self._submit(task, 0)

    def result(self, future: Future[Receipt]) -> Receipt | None:
        """The receipt of a finished future; None if its task was submitted again."""
        task, tries = self._tasks.pop(str(future.key))
        try:
            receipt: Receipt = future.result()
        except (KilledWorker, NoValidWorkerError) as error:
            raise ClusterError(f"shard {task.shard}: its workers died again and again: {error}") from error
        except StorageError as error:
            if tries >= self._retries:
                raise
            fields = {"shard": task.shard, "tries": tries + 1, "error": str(error)}
            logger.warning("storage failed, shard is tried again", extra={"fields": fields})
            self._submit(task, tries + 1)
            return None
        future.release()
        return receipt

    def _submit(self, task: ShardTask, tries: int) -> None:
        key = f"{self._function.__name__}-{task.plan_sha256[:8]}-{task.shard}-{tries}"
        future = self._client.submit(self._function, task, *self._arguments, key=key, pure=False)
        self._tasks[key] = (task, tries)
        self.completed.add(future)
