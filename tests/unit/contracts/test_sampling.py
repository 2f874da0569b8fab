"""Sampling sections: what goes together and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.contracts.sampling import SamplingSection

LOG = {"kind": "loguniform", "low": 2, "high": 50}
GRID = {"kind": "grid", "snr": [2, 8], "shares": [0.5, 0.5]}


def section(**values: Any) -> SamplingSection:
    """A section with a target."""
    return SamplingSection.model_validate({"metric": "arc_snr", "method": "snr_first", "target": LOG, **values})


def test_hosts_are_conditional_unless_asked() -> None:
    """The default keeps every host, and may try it often."""
    assert section().hosts == "conditional"
    assert section().max_attempts == 200


def test_pooled_tries_every_host_once() -> None:
    """Pooled sets the one attempt by itself, and the resolved section reads back."""
    pooled = section(hosts="pooled")
    assert pooled.max_attempts == 1
    assert SamplingSection.model_validate(pooled.model_dump()) == pooled
    with pytest.raises(ValidationError, match="max_attempts: 1, got 5"):
        section(hosts="pooled", max_attempts=5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hosts": "pooled", "method": "direct"}, "snr_first or rejection, got direct"),
        ({"hosts": "pooled", "method": "none", "target": None}, "snr_first or rejection, got none"),
        ({"method": "rejection", "target": GRID}, "needs method snr_first or direct"),
        ({"method": "none"}, "target is needed by every"),
        ({"target": None}, "target is needed by every"),
        ({"target": {**GRID, "shares": [0.5, 0.4]}}, "sum to 1"),
        ({"target": {**GRID, "snr": [8, 2]}}, "increasing snr"),
        ({"target": {"kind": "table", "snr": [1, 2], "density": [1]}}, "as many densities"),
        ({"target": {"kind": "table", "snr": [1, 2], "density": [1, -1]}}, "greater than or equal to 0"),
        ({"target": {"kind": "table", "snr": [1, 2, 3], "density": [0, 0, 0]}}, "zero everywhere"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    """Each with its own message."""
    with pytest.raises(ValidationError, match=message):
        section(**values)


@pytest.mark.parametrize(("method", "hosts"), [("direct", "conditional"), ("snr_first", "pooled")])
def test_grid_goes_with_methods_that_assign(method: str, hosts: str) -> None:
    """A grid can be assigned."""
    assert section(method=method, hosts=hosts, target=GRID).target is not None
