"""`dhs worker`: one worker of a cluster, as the chart starts it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pipeline.driver.worker_process import WorkerSettings, run_worker


def worker_command(
    scheduler: Annotated[
        str, typer.Option(envvar="DASK_SCHEDULER_ADDRESS", help="address of the scheduler, such as tcp://host:8786")
    ],
    name: Annotated[str | None, typer.Option(envvar="DASK_WORKER_NAME", help="what the scheduler calls it")] = None,
    threads: Annotated[int, typer.Option(envvar="DHS_WORKER_THREADS", min=1, help="tasks at the same time")] = 1,
    pod_memory: Annotated[
        str | None, typer.Option(envvar="DHS_WORKER_MEMORY_LIMIT", help="memory limit of the pod, such as 4Gi")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(envvar="DASK_TEMPORARY_DIRECTORY", help="where results spill to disk")
    ] = None,
    space: Annotated[
        str | None, typer.Option(envvar="DHS_WORKER_SPACE", help="size limit of that folder, such as 8Gi")
    ] = None,
    scheduler_timeout_s: Annotated[
        float, typer.Option(envvar="DHS_SCHEDULER_TIMEOUT_S", help="how long an absent scheduler is waited for")
    ] = 120.0,
) -> None:
    """Run one worker until it is told to end.

    Exit code 143 after SIGTERM, when its results were handed on; 75 if the scheduler was lost or never reached; 2 if
    compiled kernels cannot be stored; 0 if the scheduler sent it home. Writes only below the spill folder and the
    folder of compiled kernels.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"dhs-dask-{os.getuid()}"
    settings = WorkerSettings(scheduler, name, threads, pod_memory, folder, space, scheduler_timeout_s)
    code = run_worker(settings)
    if code:
        raise typer.Exit(code)
