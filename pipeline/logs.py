"""One logging set-up: readable lines on a terminal, JSON lines elsewhere; UTC everywhere."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import Any

LOGGER_NAME = "pipeline"


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, message and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        for name, value in getattr(record, "fields", {}).items():
            content[f"{name}_" if name in content else name] = _finite(value)
        return json.dumps(content, default=str, allow_nan=False)


class LineFormatter(logging.Formatter):
    """`HH:MM:SS message key=value ...` for people."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_short(value)}" for key, value in getattr(record, "fields", {}).items())
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        clock = time.strftime("%H:%M:%S", time.gmtime(record.created))
        line = f"{clock} {level}{record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: int = logging.INFO) -> None:
    """Send the package's records to standard error; a second call replaces the first."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter() if sys.stderr.isatty() else JsonFormatter())
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def _finite(value: object) -> object:
    """JSON has no NaN or infinity; they become their names, also inside lists and mappings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
