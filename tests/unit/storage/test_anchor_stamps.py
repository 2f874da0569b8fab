"""Stamps of a run's real lenses: rows with a tier in cube order, errors where cube or table are missing or differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.storage.anchor_stamps import ANCHOR_CUBE, measured_anchors, read_anchor_stamps
from pipeline.storage.cube import MARKER
from pipeline.storage.locations import Location, RunLayout

StoreAnchors = Callable[..., None]
IMAGE = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None, None], (6, 3, 8, 8))


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """A run of which nothing exists."""
    return RunLayout(Location(str(tmp_path / "run")))


def test_accepted_rows_come_in_cube_order_with_their_tiers(layout: RunLayout, store_anchors: StoreAnchors) -> None:
    """Rows of two shards, out of order in the table; rejected anchors and rows without anchor stay away."""
    store_anchors(layout, IMAGE, ["none", "none", "no_cutout", "none", "no_central_galaxy"], [5, 1, -1, 3, 2])
    found = read_anchor_stamps(layout, ["image", "psfsize_arcsec"])
    assert found["cube_row"].to_numpy().tolist() == [1, 3, 5]
    np.testing.assert_array_equal(found["image"], IMAGE[[1, 3, 5]])
    assert found["visibility_tier"].to_numpy().tolist() == ["tier of 1", "tier of 3", "tier of 5"]
    np.testing.assert_allclose(found["psfsize_arcsec"], [[1.5, 1.3, 1.1]] * 3, rtol=1e-6)
    assert measured_anchors(layout) == layout.anchors.join("measured.parquet")


def test_no_accepted_anchor_gives_no_stamp(layout: RunLayout, store_anchors: StoreAnchors) -> None:
    """An empty selection keeps the shape of the stamps."""
    store_anchors(layout, IMAGE, ["no_central_galaxy"], [2])
    assert read_anchor_stamps(layout, ["image"])["image"].shape == (0, 3, 8, 8)


def test_missing_or_foreign_products_are_refused(layout: RunLayout, store_anchors: StoreAnchors) -> None:
    """No table, a table of another cube, a cube without its marker."""
    with pytest.raises(ContractError, match="run the stage anchors first"):
        read_anchor_stamps(layout, ["image"])
    store_anchors(layout, IMAGE, ["none", "none"], [0, 6])
    with pytest.raises(ContractError, match="expected rows 0 to 5 .* got 0 to 6"):
        read_anchor_stamps(layout, ["image"])
    layout.cube(ANCHOR_CUBE).join(MARKER).remove()
    with pytest.raises(ContractError, match="not a published cube"):
        read_anchor_stamps(layout, ["image"])
