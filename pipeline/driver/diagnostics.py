"""When a run fails: the reason, the trace, the cluster's logs and the report so far, saved before the driver exits."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from distributed.client import Client
from distributed.comm.core import CommClosedError

from pipeline.contracts.errors import PipelineError
from pipeline.driver.cubes import RunContext
from pipeline.driver.kube_diagnostics import save_release_diagnostics
from pipeline.report.page import write_report
from pipeline.storage.runs import utc_now

logger = logging.getLogger("pipeline.driver")


@contextmanager
def failures_recorded(context: RunContext) -> Iterator[None]:
    """Record what ended the block, with logs, and raise it again."""
    try:
        yield
    except BaseException as error:
        for step in (_save, _save_release, _write_report):
            try:
                step(context, error)
            except PipelineError as second:
                logger.warning("diagnostics are incomplete", extra={"fields": {"reason": str(second)}})
        raise


def _save(context: RunContext, error: BaseException) -> None:
    folder = context.layout.diagnostics
    folder.join("traceback.txt").write_bytes("".join(traceback.format_exception(error)).encode())
    if context.cluster.started:
        folder.join("cluster.log").write_bytes(_cluster_logs(context.cluster.client).encode())
    code = error.exit_code if isinstance(error, PipelineError) else None
    context.record.update(
        state="failed",
        error={"type": type(error).__name__, "message": str(error), "exit_code": code, "time_utc": utc_now()},
    )


def _save_release(context: RunContext, error: BaseException) -> None:
    section = context.config.cluster
    if not section.on_kubernetes:
        return
    problems = save_release_diagnostics(section, context.layout.diagnostics)
    cause = problems[0] if problems else f"{type(error).__name__}: {error}"
    fields = {"cause": cause, "diagnostics": context.layout.diagnostics.url}
    logger.error("first root cause", extra={"fields": fields})
    context.record.update(kubernetes_problems=problems)


def _write_report(context: RunContext, _: BaseException) -> None:
    write_report(context.layout)


def _cluster_logs(client: Client) -> str:
    try:
        logs = {"scheduler": client.get_scheduler_logs(), **client.get_worker_logs()}
    except (OSError, CommClosedError, RuntimeError) as error:
        return f"cluster logs could not be fetched: {type(error).__name__}: {error}\n"
    lines: list[str] = []
    for source, entries in logs.items():
        lines += [f"== {source}", *(str(entry[1] if isinstance(entry, tuple) else entry) for entry in entries)]
    return "\n".join(lines) + "\n"
