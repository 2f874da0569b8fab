"""How the programs of this package end: with the exit code of what went wrong, and the reason in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pipeline.contracts.errors import PipelineError

logger = logging.getLogger(__name__)


def exit_code(work: Callable[[], int]) -> int:
    """Do a program's work.

    Returns:
        What the work returned, or the exit code of the PipelineError that ended it, which is logged. Other exceptions
        go on.
    """
    try:
        return work()
    except PipelineError as error:
        failure = error
    logger.error("failed", extra={"fields": {"error": type(failure).__name__, "reason": str(failure)}})
    return failure.exit_code
