"""The end of a program: its own result, or the exit code of what went wrong."""

from __future__ import annotations

import logging

import pytest

from pipeline.contracts.errors import ConfigError, PipelineError
from pipeline.training.exit_code import exit_code


def test_a_result_is_passed_on() -> None:
    """Also one that is not zero."""
    assert exit_code(lambda: 0) == 0
    assert exit_code(lambda: 7) == 7


@pytest.mark.parametrize("kind", [ConfigError, PipelineError])
def test_a_failure_becomes_its_code_and_a_line_in_the_log(
    kind: type[PipelineError], caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the error and the reason."""

    def work() -> int:
        raise kind("no such cube")

    with caplog.at_level(logging.ERROR):
        assert exit_code(work) == kind.exit_code != 0
    (record,) = caplog.records
    assert vars(record)["fields"] == {"error": kind.__name__, "reason": "no such cube"}


def test_other_exceptions_go_on() -> None:
    """A fault of the program is no failure of the run."""

    def work() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_code(work)
