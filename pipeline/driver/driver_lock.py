"""One driver per run: driver.json says who it is, and logs/driver.log what it said."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipeline.contracts.errors import RunBusyError, StorageError, VerificationError
from pipeline.logs import LOGGER_NAME, JsonFormatter
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_json, utc_now, write_json

logger = logging.getLogger("pipeline.driver")

BEAT_S = 20.0
# A driver elsewhere that says nothing for so many beats, or whose last word is older than this, is gone.
_SILENT_BEATS = 4
_OLD_S = 900.0
# Two readings of one process's start differ by rounding and by clock corrections.
_START_TOLERANCE_S = 2.0


@dataclass(frozen=True)
class DriverRecord:
    """What driver.json holds.

    Attributes:
        host: name of the machine or pod.
        pid: process id there.
        process_started_s: when that process began [s since 1970], so that a reused id is not mistaken for it.
        token: distinguishes drivers, also of one process.
        started_utc: when it took the run.
        beat_utc: when it last said that it lives.
        ended_utc: when it let go, or None.
    """

    host: str
    pid: int
    process_started_s: float
    token: str
    started_utc: str
    beat_utc: str
    ended_utc: str | None = None

    @property
    def is_here(self) -> bool:
        """True if it runs, or ran, on this machine."""
        return self.host == platform.node()

    @property
    def is_alive_here(self) -> bool:
        """True if it holds the run and its process runs on this machine."""
        if self.ended_utc or not self.is_here:
            return False
        try:
            started = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return False
        return bool(abs(started - self.process_started_s) < _START_TOLERANCE_S)

    @property
    def silent_s(self) -> float:
        """Seconds since its last word, by the clocks of two machines."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.beat_utc)).total_seconds()


def driver_file(layout: RunLayout) -> Location:
    """Where the driver of a run is named."""
    return layout.root.join("driver.json")


def driver_log(layout: RunLayout) -> Location:
    """What the drivers of a run said, one JSON object per line."""
    return layout.root.join("logs", "driver.log")


def read_driver(layout: RunLayout) -> DriverRecord | None:
    """The present or last driver of a run; VerificationError if its file is not one of ours."""
    location = driver_file(layout)
    if not location.exists():
        return None
    try:
        return DriverRecord(**read_json(location))
    except TypeError as error:
        raise VerificationError(f"{location.url} names no driver: {error}") from error


@contextmanager
def driving(layout: RunLayout, beat_s: float = BEAT_S) -> Iterator[DriverRecord]:
    """Hold a run during the block, and keep its log.

    Args:
        layout: of the run.
        beat_s: how often driver.json is renewed [s].

    Raises:
        RunBusyError: another driver holds it; a stale one is taken over.
        StorageError: the run's folder cannot be written.
    """
    gone = _silent_driver(layout, beat_s)
    now = utc_now()
    started = psutil.Process().create_time()
    record = DriverRecord(platform.node(), os.getpid(), started, uuid.uuid4().hex, now, now)
    log = _log_handler(driver_log(layout))
    log.setFormatter(JsonFormatter())
    package = logging.getLogger(LOGGER_NAME)
    level = package.level
    package.setLevel(min(package.getEffectiveLevel(), logging.INFO))
    package.addHandler(log)
    if gone is not None:
        fields = {"host": gone.host, "pid": gone.pid, "last_word_utc": gone.beat_utc}
        logger.warning("taking over from a driver that is gone", extra={"fields": fields})
    done = threading.Event()
    try:
        write_json(driver_file(layout), asdict(record))
        beats = threading.Thread(target=_beat, args=(layout, record, log, done, beat_s), daemon=True)
        beats.start()
        try:
            yield record
        finally:
            done.set()
            beats.join()
            found = read_driver(layout)
            if found is not None and found.token == record.token:
                write_json(driver_file(layout), asdict(replace(record, beat_utc=utc_now(), ended_utc=utc_now())))
    finally:
        package.removeHandler(log)
        package.setLevel(level)
        log.close()


def _silent_driver(layout: RunLayout, beat_s: float) -> DriverRecord | None:
    """The driver that left without letting go, None if there is none; RunBusyError if one lives."""
    known = read_driver(layout)
    if known is None or known.ended_utc:
        return None
    if known.is_here:
        if known.is_alive_here:
            raise _busy(layout, known)
    elif known.silent_s < _OLD_S:
        logger.warning(
            "a driver elsewhere did not let go; listening whether it lives",
            extra={"fields": {"host": known.host, "pid": known.pid, "seconds": _SILENT_BEATS * beat_s}},
        )
        for _ in range(_SILENT_BEATS):
            time.sleep(beat_s)
            now = read_driver(layout)
            if now is None or now.ended_utc:
                return None
            if (now.token, now.beat_utc) != (known.token, known.beat_utc):
                raise _busy(layout, now)
    return known


def _busy(layout: RunLayout, known: DriverRecord) -> RunBusyError:
    return RunBusyError(
        f"{layout.root.url} is driven by process {known.pid} on {known.host} since {known.started_utc}; "
        "wait for it, or end it with dhs cancel"
    )


def _beat(layout: RunLayout, record: DriverRecord, log: logging.Handler, done: threading.Event, beat_s: float) -> None:
    """Renew driver.json and store the log until the block ends; end this process if another driver took over."""
    while not done.wait(beat_s):
        try:
            found = read_driver(layout)
            if found is not None and found.token != record.token:
                logger.error(
                    "another driver took this run over", extra={"fields": {"host": found.host, "pid": found.pid}}
                )
                os.kill(os.getpid(), signal.SIGTERM)
                return
            write_json(driver_file(layout), asdict(replace(record, beat_utc=utc_now())))
            log.flush()
        except (StorageError, VerificationError) as error:
            logger.warning("driver.json was not renewed", extra={"fields": {"reason": str(error)}})


class _StoredLog(logging.Handler):
    """Keeps a log in an object store, where nothing can be appended: the whole text is written anew."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self._location = location
        self._text = location.read_bytes().decode() if location.exists() else ""
        self._stored = len(self._text)

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line."""
        self._text += self.format(record) + "\n"

    def flush(self) -> None:
        """Store what came since the last time."""
        with self.lock or threading.RLock():
            text = self._text
        if len(text) != self._stored:
            self._location.write_bytes(text.encode())
            self._stored = len(text)

    def close(self) -> None:
        """Store the rest; a store that fails now costs the last lines only."""
        try:
            self.flush()
        except StorageError as error:
            logger.warning("the driver's log is incomplete", extra={"fields": {"reason": str(error)}})
        super().close()


def _log_handler(location: Location) -> logging.Handler:
    if location.scheme != "file":
        return _StoredLog(location)
    path = Path(location.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{location.url} cannot be written: {error.strerror}") from error
