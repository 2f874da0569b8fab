"""What `dhs run` refuses before it reads a pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import GateError
from pipeline.driver.cluster import Cluster
from pipeline.driver.cubes import RunContext
from pipeline.driver.plan import make_plan
from pipeline.driver.run import demand_shares, make_products, open_record
from pipeline.storage.locations import RunLayout

WAIVED = "gates.waive.split_proportions=a catalogue of the test suite on a short line"


@pytest.fixture
def make_context(make_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., RunContext]:
    """A new run on a catalogue of sixty hosts in one sky cell, with configuration overrides."""
    catalogue = pd.DataFrame({"brickname": "0000m005", "ra": 10.0 + 1e-4 * np.arange(60), "dec": -0.5, "ebv": 0.03})
    catalogue = catalogue.assign(gmag=20.0, rmag=19.0, zmag=18.5)
    catalogue.to_parquet(tmp_path / "parent.parquet")

    def make(*overrides: str) -> RunContext:
        place = (f"manifest.url={tmp_path / 'parent.parquet'}", f"run.root={tmp_path}")
        config = make_config(*place, "splits.guard_arcsec=0", *overrides)
        layout, plan = RunLayout.of(config.run), make_plan(config)
        # Nothing here may ask the cluster for work.
        return RunContext(config, layout, plan, open_record(layout, config, plan), Cluster.__new__(Cluster))

    return make


def test_shares_outside_the_tolerance_end_a_run_before_the_cutouts(make_context: Callable[..., RunContext]) -> None:
    """One sky cell cannot be split 70/15/15: the error names the numbers, and nothing was cut out."""
    context = make_context("splits.tolerance=0.1")
    with pytest.raises(GateError, match=r"tolerance 0\.1: train \d\.\d{4} for 0\.7000, val .* for 0\.1500"):
        make_products(context)
    counts = context.record.stages["manifest"]["pairs_by_split"]
    assert sorted(counts.values()) == [0, 0, 0, 60]
    assert not context.layout.cube("cutouts").exists()
    with pytest.raises(GateError, match="waive split_proportions"):
        make_products(context)


@pytest.mark.parametrize(
    ("counts", "override"),
    [
        ({"train": 71, "val": 15, "test": 14, "guard": 40}, "splits.tolerance=0.02"),
        ({"train": 10, "val": 80, "test": 10, "guard": 0}, WAIVED),
    ],
)
def test_shares_within_the_tolerance_or_waived_pass(
    make_context: Callable[..., RunContext], counts: dict[str, int], override: str
) -> None:
    """Guard rows do not count, and the waiver of the gate holds here too."""
    context = make_context(override)
    context.record.finish_stage("manifest", pairs_by_split=counts)
    demand_shares(context)
