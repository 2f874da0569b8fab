"""The run record: one JSON document with configuration, plan, code, state and results of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.locations import Location, RunLayout


def utc_now() -> str:
    """The current time as ISO 8601 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_json(location: Location) -> dict[str, Any]:
    """A JSON object; VerificationError if the file is something else."""
    try:
        content = json.loads(location.read_bytes())
    except ValueError as error:
        raise VerificationError(f"{location.url} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise VerificationError(f"{location.url}: expected a JSON object, got {type(content).__name__}")
    return content


def write_json(location: Location, content: Mapping[str, Any]) -> None:
    """Replace a JSON document; NaN is an error."""
    location.write_bytes((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_record(layout: RunLayout) -> dict[str, Any]:
    """The record of a run; ContractError if no run lives there."""
    if not layout.record.exists():
        raise ContractError(f"{layout.root.url} holds no run: expected {layout.record.url}")
    return read_json(layout.record)


class RunRecord:
    """The record of a run being made; every change is stored at once."""

    def __init__(self, layout: RunLayout, content: dict[str, Any]) -> None:
        self._layout = layout
        self.content = content

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage name -> state, seconds, counts and results."""
        stages: dict[str, dict[str, Any]] = self.content["stages"]
        return stages

    def update(self, **fields: object) -> None:
        """Set top-level fields and store the record."""
        self.content.update(fields, updated_utc=utc_now())
        write_json(self._layout.record, self.content)

    def finish_stage(self, stage: str, **fields: object) -> None:
        """Record a stage's results and store the record."""
        self.stages[stage] = {"state": "complete", "finished_utc": utc_now(), **fields}
        self.update()
