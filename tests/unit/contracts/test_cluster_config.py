"""The cluster section: what each kind needs, refuses and means."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.contracts.cluster_config import ClusterSection, parse_bytes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "address"}, "cluster.address is needed"),
        ({"kind": "local", "address": "tcp://a:1"}, "not to local"),
        ({"kind": "kubernetes", "address": "tcp://a:1"}, "not to kubernetes"),
        ({"kind": "local", "objects": "folder"}, "cluster.objects belongs to"),
        ({"kind": "address", "address": "tcp://a:1", "adaptive": {"minimum": 1, "maximum": 2}}, "cluster.adaptive"),
        ({"kind": "kubernetes", "adaptive": {"minimum": 3, "maximum": 2}}, "minimum 3 is above maximum 2"),
        ({"kind": "kubernetes", "adaptive": {"minimum": 0, "maximum": 2}}, "greater than or equal to 1"),
        ({"kind": "kubernetes", "node_types": {"worker": ["m5 xlarge"]}}, "should match pattern"),
        ({"kind": "yarn"}, "'local', 'address', 'kubernetes' or 'deployment'"),
    ],
)
def test_section_that_does_not_fit_its_kind_is_refused(fields: dict[str, Any], message: str) -> None:
    """Each kind says what it needs and what does not belong to it."""
    with pytest.raises(ValidationError, match=message):
        ClusterSection.model_validate(fields)


def test_adaptive_bounds_replace_the_fixed_number() -> None:
    """The run waits for the minimum and may grow to the maximum; without bounds both are `workers`."""
    fixed = ClusterSection(kind="kubernetes", workers=7)
    assert (fixed.first_workers, fixed.most_workers, fixed.on_kubernetes) == (7, 7, True)
    adaptive = ClusterSection.model_validate({"kind": "deployment", "adaptive": {"minimum": 2, "maximum": 9}})
    assert (adaptive.first_workers, adaptive.most_workers) == (2, 9)
    assert not ClusterSection(kind="local").on_kubernetes


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2**31), ("1.5Gi", 3 * 2**29), ("500MB", 500_000_000), ("512M", 512_000_000), ("1024", 1024)],
)
def test_sizes_of_dask_and_kubernetes_are_understood(text: str, size: int) -> None:
    """Binary and decimal units, with and without B."""
    assert parse_bytes(text) == size
    with pytest.raises(ValueError, match="expected a size"):
        parse_bytes(text + "x")
