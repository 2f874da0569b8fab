"""The exit codes that scripts rely on."""

from __future__ import annotations

import inspect

import pytest

from pipeline.contracts import errors
from pipeline.contracts.errors import PipelineError

CODES = {
    "PipelineError": 75,
    "ConfigError": 2,
    "ContractError": 2,
    "PlanChangedError": 2,
    "VerificationError": 3,
    "GateError": 3,
    "StorageError": 75,
    "ClusterError": 75,
    "StoppedError": 75,
    "RunBusyError": 75,
    "BrickError": 75,
    "BrickMissingError": 75,
    "BrickCorruptError": 75,
}


def test_every_error_has_its_exit_code() -> None:
    """Each class derives from PipelineError and ends the program with its documented code."""
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    assert {name: kind.exit_code for name, kind in classes.items()} == CODES
    assert all(issubclass(kind, PipelineError) for kind in classes.values())


@pytest.mark.parametrize(
    ("child", "parent"),
    [("PlanChangedError", "ContractError"), ("GateError", "VerificationError"), ("BrickCorruptError", "BrickError")],
)
def test_tree_is_the_documented_one(child: str, parent: str) -> None:
    """Subclasses sit below the documented parent, and the docstring draws them."""
    assert issubclass(getattr(errors, child), getattr(errors, parent))
    assert f"-- {child}" in (errors.__doc__ or "")
