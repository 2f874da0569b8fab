"""Logs, cancellation and resumption of a run by its folder."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence

import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import build_config
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.driver.driver_lock import DriverRecord, driver_log, read_driver
from pipeline.driver.run import run
from pipeline.storage.locations import RunLayout
from pipeline.storage.runs import read_json

_POLL_S = 1.0


def driver_lines(layout: RunLayout, follow: bool = False, poll_s: float = _POLL_S) -> Iterator[str]:
    """Lines of a run's driver log; with `follow` until its driver has let go.

    Raises:
        ContractError: no driver of this version ever held the run.
    """
    location, shown = driver_log(layout), 0
    if not location.exists():
        raise ContractError(f"{layout.root.url} has no log: expected {location.url}")
    while True:
        driver = read_driver(layout)
        size = location.size()
        if size > shown:
            text = location.read_range(shown, size)
            complete = text[: text.rfind(b"\n") + 1]
            shown += len(complete)
            yield from complete.decode().splitlines()
        if not follow or driver is None or driver.ended_utc or (driver.is_here and not driver.is_alive_here):
            return
        time.sleep(poll_s)


def cancel_run(layout: RunLayout) -> DriverRecord:
    """Ask the driver of a run to end; finished shards stay, the same command resumes.

    Raises:
        ContractError: nothing drives the run.
        ConfigError: its driver runs on another machine.
    """
    driver = read_driver(layout)
    if driver is None or driver.ended_utc:
        raise ContractError(f"{layout.root.url}: no driver is at work")
    if not driver.is_here:
        raise ConfigError(
            f"{layout.root.url} is driven by process {driver.pid} on {driver.host}: cancel it there, or its release "
            "with dhs cancel k8s://NAMESPACE/RELEASE"
        )
    if not driver.is_alive_here:
        raise ContractError(f"{layout.root.url}: its driver, process {driver.pid}, is gone; dhs resume takes over")
    os.kill(driver.pid, signal.SIGTERM)
    return driver


def resume_run(layout: RunLayout, overrides: Sequence[str] = ()) -> RunLayout:
    """Run what the run's own config.yaml says, limited as it was.

    Raises:
        ContractError: no run lives there. PipelineError: as `dhs run`.
    """
    return run(*stored_request(layout, overrides))


def stored_request(layout: RunLayout, overrides: Sequence[str] = ()) -> tuple[RunConfig, int | None]:
    """Configuration and limit with which a run was started, as `run` takes them.

    Raises:
        ContractError: no run lives there. ConfigError: an override does not fit.
    """
    if not layout.config.exists():
        raise ContractError(f"{layout.root.url} holds no run: expected {layout.config.url}")
    content = yaml.safe_load(layout.config.read_bytes())
    limit = read_json(layout.plan)["limit_shards"]
    if limit is not None:
        content["run"]["name"] = re.sub(rf"-limit{limit}$", "", content["run"]["name"])
    return build_config(content, overrides, layout.config.url), limit


def write_lines(lines: Iterator[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
