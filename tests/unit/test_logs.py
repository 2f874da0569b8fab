"""Log records as people and machines read them."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator

import pytest

from pipeline.logs import LOGGER_NAME, JsonFormatter, LineFormatter, configure_logging


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logger() -> Iterator[None]:
    logger = logging.getLogger(LOGGER_NAME)
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


def record(message: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    """A record as a logger makes it, created at 2026-01-02T03:04:05Z."""
    made = logging.LogRecord("pipeline.x", level, __file__, 1, message, args, None)
    made.created = 1767323045.7
    made.__dict__.update(extra)
    return made


def test_json_line_holds_time_level_message_and_fields() -> None:
    """A JSON line is one object with UTC time, lower-case level, formatted message and every field."""
    line = JsonFormatter().format(record("made %d", 3, level=logging.WARNING, fields={"shard": 7, "path": object}))
    assert "\n" not in line
    content = json.loads(line)
    assert content["time"] == "2026-01-02T03:04:05Z"
    assert (content["level"], content["message"], content["shard"]) == ("warning", "made 3", 7)
    assert content["path"] == str(object)


def test_json_line_without_fields_is_complete() -> None:
    """A record without fields has exactly the three common keys."""
    assert set(json.loads(JsonFormatter().format(record("plain")))) == {"time", "level", "message"}


@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter()])
def test_traceback_is_kept(formatter: logging.Formatter) -> None:
    """The traceback of a logged exception is part of the output, on one line for JSON."""
    try:
        _ = 7 / int("0")
    except ZeroDivisionError:
        text = formatter.format(record("failed", exc_info=sys.exc_info()))
    assert "ZeroDivisionError: division by zero" in text
    if isinstance(formatter, JsonFormatter):
        assert "ZeroDivisionError" in json.loads(text)["traceback"]


def test_line_shows_clock_level_and_short_floats() -> None:
    """A line for people has the UTC clock, the level only above INFO, and four digits of floats."""
    fields = {"rate": 12.3456789, "shard": 4}
    assert LineFormatter().format(record("done", fields=fields)) == "03:04:05 done rate=12.35 shard=4"
    assert LineFormatter().format(record("slow", level=logging.WARNING)) == "03:04:05 WARNING: slow"


def test_lines_are_utc_in_any_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats show UTC whatever the time zone of the process is."""
    monkeypatch.setitem(os.environ, "TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert LineFormatter().format(record("x")).startswith("03:04:05")
        assert json.loads(JsonFormatter().format(record("x")))["time"].endswith("T03:04:05Z")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("stream", "formatter"), [(Terminal(), LineFormatter), (io.StringIO(), JsonFormatter)])
def test_output_is_lines_on_a_terminal_and_json_elsewhere(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, formatter: type[logging.Formatter]
) -> None:
    """Records of child loggers reach standard error once, in the format that suits it."""
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()
    configure_logging()
    logger = logging.getLogger(LOGGER_NAME)
    assert [type(handler.formatter) for handler in logger.handlers] == [formatter]
    logging.getLogger(f"{LOGGER_NAME}.driver").info("hello", extra={"fields": {"shard": 1}})
    logging.getLogger(f"{LOGGER_NAME}.driver").debug("hidden")
    assert len(re.findall("hello", stream.getvalue())) == 1
    assert "hidden" not in stream.getvalue()


def test_level_is_adjustable(capsys: pytest.CaptureFixture[str]) -> None:
    """configure_logging(DEBUG) lets debug records through."""
    configure_logging(logging.DEBUG)
    logging.getLogger(f"{LOGGER_NAME}.driver").debug("visible")
    assert "visible" in capsys.readouterr().err


def test_a_field_cannot_replace_time_level_or_message() -> None:
    """A field named like a common key does not hide the record's own value."""
    content = json.loads(JsonFormatter().format(record("kept", fields={"message": "lost", "level": 3, "time": 0})))
    assert (content["message"], content["level"], content["time"]) == ("kept", "info", "2026-01-02T03:04:05Z")


def test_nan_in_a_field_stays_json() -> None:
    """Not-a-number in a field does not make the line unreadable for a strict JSON parser."""
    line = JsonFormatter().format(record("x", fields={"auc": float("nan")}))

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    json.loads(line, parse_constant=refuse)
