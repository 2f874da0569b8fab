"""The anchors stage before any pixel is read: no section, no table, no accepted anchor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.contracts.anchors import AnchorLimits
from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.driver.anchor_cutouts import anchors_location, build_anchor_cutouts, demand_anchors
from pipeline.driver.anchors import write_anchors
from pipeline.driver.cluster import Cluster
from pipeline.driver.cubes import RunContext
from pipeline.driver.plan import Plan
from pipeline.storage.cube import CubeShape
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import RunRecord

SHAPE = CubeShape({"sample": 1, "band": 3, "y": 64, "x": 64}, 32, 16)


def context(config: RunConfig) -> RunContext:
    """A run that has not begun."""
    layout = RunLayout.of(config.run)
    plan = Plan(SHAPE, (), None, "p" * 64, "c" * 64)
    return RunContext(config, layout, plan, RunRecord(layout, {"stages": {}}), Cluster.__new__(Cluster))


def test_without_the_section_nothing_is_made(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    """No folder, no stage."""
    run = context(make_config(f"run.root={tmp_path}"))
    build_anchor_cutouts(run)
    assert run.record.stages == {}
    assert not run.layout.anchors.exists()
    with pytest.raises(ContractError, match="section anchors"):
        anchors_location(run.config)


def test_a_table_without_accepted_anchors_is_refused(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    """A run that asks for anchors must have some."""
    known = pd.DataFrame({"name": ["L"], "ra": [10.0], "dec": [80.0], "ref": ["arXiv:1906.00970"]})
    known.to_csv(tmp_path / "known.csv", index=False)
    write_anchors(Location(str(tmp_path)), [], Location(str(tmp_path / "known.csv")), None, AnchorLimits())
    run = context(make_config(f"run.root={tmp_path}", f"anchors.url={tmp_path}/anchors.parquet"))
    with pytest.raises(ContractError, match="found none"):
        build_anchor_cutouts(run)
    missing = context(make_config(f"run.root={tmp_path}", f"anchors.url={tmp_path}/other.parquet"))
    with pytest.raises(ContractError, match="found nothing there"):
        build_anchor_cutouts(missing)
    demand_anchors(run.config)
    with pytest.raises(ConfigError, match="make it with dhs anchors build"):
        demand_anchors(missing.config)
