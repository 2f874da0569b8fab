"""`dhs worker`: what it reads from its environment. Its life is in tests/integration/test_worker_process.py."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands import worker
from pipeline.contracts.errors import ConfigError
from pipeline.driver.worker_process import WorkerSettings, memory_limit_bytes, spill_limit_bytes


def test_environment_of_a_pod_becomes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart and the operator say everything in variables; the exit code is that of the worker."""
    seen: list[WorkerSettings] = []
    monkeypatch.setattr(worker, "run_worker", lambda settings: seen.append(settings) or 143)
    variables = {
        "DASK_SCHEDULER_ADDRESS": "tcp://s:8786",
        "DASK_WORKER_NAME": "w",
        "DHS_WORKER_MEMORY_LIMIT": "4Gi",
        "DHS_WORKER_THREADS": "1",
        "DASK_TEMPORARY_DIRECTORY": "/var/dask",
        "DHS_WORKER_SPACE": "8Gi",
    }
    done = CliRunner().invoke(app, ["worker"], env=variables)
    assert done.exit_code == 143
    (settings,) = seen
    assert (settings.scheduler, settings.name, settings.threads) == ("tcp://s:8786", "w", 1)
    assert (settings.pod_memory, str(settings.folder), settings.space) == ("4Gi", "/var/dask", "8Gi")


def test_limits_are_fractions_of_what_the_pod_may_use() -> None:
    """Memory 0.88 of the pod's limit, spill 0.8 of the folder's; small pods keep room for the nanny."""
    assert memory_limit_bytes("8Gi") == int(0.88 * 2**33)
    assert memory_limit_bytes("2Gi") == 2**31 - 2**29
    assert memory_limit_bytes("768Mi") == 384 * 2**20
    assert spill_limit_bytes("10G") == 8_000_000_000
    assert (memory_limit_bytes(None), spill_limit_bytes(None)) == ("auto", False)
    with pytest.raises(ConfigError, match="expected a size such as 2GiB"):
        memory_limit_bytes("4 apples")
