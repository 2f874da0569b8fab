"""The section anchors: absent by default, and its band must be one of the survey's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError


def test_without_the_section_a_run_has_no_anchors(make_config: Callable[..., RunConfig]) -> None:
    """None, not an empty table."""
    assert make_config().anchors is None


def test_the_section_names_a_table_and_a_band(make_config: Callable[..., RunConfig]) -> None:
    """r unless another band of the survey is asked for."""
    assert make_config("anchors.url=a.parquet").anchors.band == "r"
    assert make_config("anchors.url=a.parquet", "anchors.band=z").anchors.band == "z"
    with pytest.raises(ConfigError, match=r"anchors\.band"):
        make_config("anchors.url=a.parquet", "anchors.band=i")


def test_a_table_on_s3_needs_a_region(make_config: Callable[..., RunConfig]) -> None:
    """As every other URL of the configuration."""
    with pytest.raises(ConfigError, match=r"run\.region"):
        make_config("anchors.url=s3://bucket/a.parquet")
