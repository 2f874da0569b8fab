"""Every worker, late ones too, proves that it holds the driver's code and packages before it takes a task."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping

from distributed import Client, WorkerPlugin
from distributed.core import Status
from distributed.worker import Worker

from pipeline.contracts.errors import ClusterError
from pipeline.driver.provenance import UNKNOWN, proof_of_code
from pipeline.kernels.warm_up import warm_up

logger = logging.getLogger("pipeline.driver")

REFUSALS = "darkhaloscope-refused-workers"


class PreparedWorkerPlugin(WorkerPlugin):
    """Refuses a worker whose code or packages are not the driver's; compiles the kernels before its first task."""

    name = "prepared-worker"

    def __init__(self, expected: Mapping[str, str]) -> None:
        self.expected = dict(expected)

    def setup(self, worker: Worker) -> None:
        """Raise ClusterError if this process holds other code.

        Dask only logs what a late worker's plugin raises. So the worker is stopped here, before it can start a task,
        and the reason is sent to the scheduler, where `refused_workers` finds it.
        """
        differences = proof_differences(self.expected, proof_of_code())
        if differences:
            message = f"worker {worker.address}: {'; '.join(differences)}"
            worker.log_event(REFUSALS, message)
            worker.status = Status.closing_gracefully
            worker.loop.call_later(1.0, worker.close, reason="other code than the driver's")
            raise ClusterError(message)
        seconds = warm_up()
        # What is loaded by now stays: the collector need not walk through it.
        gc.freeze()
        logger.info("kernels are ready", extra={"fields": {"worker": worker.address, "seconds": round(seconds, 2)}})


def proof_differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Texts such as `numpy: driver 2.4.6, worker 2.3.0`; a git commit that one side does not know is not compared."""
    return [
        f"{name}: driver {wanted}, worker {found.get(name, 'nothing')}"
        for name, wanted in expected.items()
        if found.get(name) != wanted and not (name == "git_sha" and UNKNOWN in (wanted, found.get(name)))
    ]


def refused_workers(client: Client) -> list[str]:
    """What workers said that were refused since the scheduler started."""
    return [str(message) for _, message in client.get_events(REFUSALS)]
