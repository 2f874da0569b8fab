from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipeline.contracts.errors import ConfigError, ContractError, RunBusyError
from pipeline.driver.driver_lock import driver_file, driver_log, driving, read_driver
from pipeline.driver.local_runs import cancel_run, driver_lines, stored_request
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_json, write_json

PILOT = Path(__file__).parents[3] / "configs" / "pilot.yaml"
# A driver as `dhs run` is one: SIGTERM is an error, and the error an exit code.
DRIVER = """
import logging, signal, sys, time
from pipeline.contracts.errors import ClusterError
from pipeline.driver.driver_lock import driving
from pipeline.logs import configure_logging
from pipeline.storage.locations import Location, RunLayout
def end(number, frame):
    raise ClusterError("ended")
signal.signal(signal.SIGTERM, end)
configure_logging()
try:
    with driving(RunLayout(Location(sys.argv[1])), beat_s=0.05):
        logging.getLogger("pipeline.driver").info("at work")
        print("driving", flush=True)
        time.sleep(120)
except ClusterError as error:
    sys.exit(error.exit_code)
"""


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """A run that nobody drives."""
    return RunLayout(Location(str(tmp_path / "run")))


@pytest.fixture
def driver(layout: RunLayout) -> Iterator[subprocess.Popen[str]]:
    """A process that drives the run."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, layout.root.path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "driving\n"
        yield process
        process.kill()


def test_a_run_has_one_driver(layout: RunLayout, driver: subprocess.Popen[str]) -> None:
    """A second one is told who the first is; dhs cancel ends it with exit code 75, and then the run is free."""
    with pytest.raises(RunBusyError, match=f"process {driver.pid} on "), driving(layout):
        pass
    assert cancel_run(layout).pid == driver.pid
    assert driver.wait(timeout=30) == RunBusyError.exit_code == 75
    ended = read_driver(layout)
    assert ended is not None and ended.ended_utc
    with pytest.raises(ContractError, match="no driver is at work"):
        cancel_run(layout)
    with driving(layout) as mine:
        assert read_driver(layout) == mine
    messages = [json.loads(line)["message"] for line in driver_lines(layout)]
    assert messages == ["at work"]


def test_a_killed_driver_is_taken_over(layout: RunLayout, driver: subprocess.Popen[str]) -> None:
    """Its process is gone, so is its claim; following its log ends."""
    driver.kill()
    driver.wait(timeout=30)
    assert [json.loads(line)["message"] for line in driver_lines(layout, follow=True)] == ["at work"]
    with pytest.raises(ContractError, match="is gone; dhs resume takes over"):
        cancel_run(layout)
    with driving(layout) as mine:
        assert mine.pid == os.getpid()
    assert [json.loads(line)["level"] for line in driver_lines(layout)] == ["info", "warning"]


def test_a_reused_process_id_is_no_driver(layout: RunLayout) -> None:
    """The process began at another time than the driver did."""
    with driving(layout) as mine:
        pass
    found = read_json(driver_file(layout))
    write_json(driver_file(layout), {**found, "ended_utc": None, "process_started_s": mine.process_started_s - 3600})
    with driving(layout):
        pass


def test_a_driver_elsewhere_is_known_by_its_heartbeat(layout: RunLayout) -> None:
    """While its beats come it holds the run; when they stop, or are old, the run is taken over."""
    with driving(layout):
        pass
    elsewhere = {**read_json(driver_file(layout)), "host": "run-1-driver-x", "ended_utc": None}
    write_json(driver_file(layout), elsewhere)
    with pytest.raises(ConfigError, match="on run-1-driver-x: cancel it there"):
        cancel_run(layout)
    with driving(layout, beat_s=0.01):
        pass
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.01):
            write_json(driver_file(layout), {**elsewhere, "beat_utc": datetime.now(UTC).isoformat()})

    write_json(driver_file(layout), elsewhere | {"beat_utc": datetime.now(UTC).isoformat()})
    alive = threading.Thread(target=beat)
    alive.start()
    try:
        with pytest.raises(RunBusyError, match="on run-1-driver-x since"), driving(layout, beat_s=0.1):
            pass
    finally:
        done.set()
        alive.join()
    write_json(driver_file(layout), {**elsewhere, "beat_utc": "2026-01-01T00:00:00Z"})
    started = time.monotonic()
    with driving(layout, beat_s=30.0):
        assert time.monotonic() - started < 30.0


def test_log_lines_come_while_a_driver_is_at_work(layout: RunLayout, driver: subprocess.Popen[str]) -> None:
    """`--follow` shows what is there at once and ends with the driver."""
    lines = driver_lines(layout, follow=True, poll_s=0.01)
    assert json.loads(next(lines))["message"] == "at work"
    driver.send_signal(signal.SIGTERM)
    assert [json.loads(line) for line in lines] == []


def test_a_run_without_log_says_so(layout: RunLayout) -> None:
    """Nothing drove it."""
    with pytest.raises(ContractError, match="has no log"):
        list(driver_lines(layout))


@pytest.mark.parametrize(("name", "limit"), [("pilot-limit2", 2), ("pilot", None)])
def test_a_run_is_resumed_as_it_was_started(name: str, limit: int | None, layout: RunLayout) -> None:
    """From its own config.yaml, limited as it was, under the name that it was given."""
    with pytest.raises(ContractError, match="holds no run"):
        stored_request(layout)
    content = yaml.safe_load(PILOT.read_text(encoding="utf-8"))
    content["run"]["name"] = name
    layout.config.write_bytes(yaml.safe_dump(content).encode())
    write_json(layout.plan, {"limit_shards": limit})
    config, found = stored_request(layout, ["training.epochs=3"])
    assert (config.run.name, config.training.epochs, found) == ("pilot", 3, limit)


def test_drivers_share_one_log(layout: RunLayout) -> None:
    """What a driver says comes after what earlier ones said; other loggers are left as they were."""
    for word in ("first", "second"):
        with driving(layout):
            logging.getLogger("pipeline.driver").warning(word)
    lines = driver_log(layout).read_bytes().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["first", "second"]
    assert not [h for h in logging.getLogger("pipeline").handlers if isinstance(h, logging.FileHandler)]
