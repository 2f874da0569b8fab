"""Stamps of a run's real lenses: rows of its cube `anchors` that the table of measured anchors accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from pipeline.contracts.anchors import MEASURED_ANCHORS, TIER_COLUMNS
from pipeline.contracts.errors import ContractError
from pipeline.storage.anchor_tables import read_anchor_table
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import Location, RunLayout

ANCHOR_CUBE = "anchors"


def measured_anchors(layout: RunLayout) -> Location:
    """The table of measured anchors of a run; ContractError if it is not there."""
    table = layout.anchors.join("measured.parquet")
    if not table.exists():
        raise ContractError(f"{table.url}: expected measured anchors, found none; run the stage anchors first")
    return table


def read_anchor_stamps(layout: RunLayout, names: Sequence[str]) -> xr.Dataset:
    """Variables of the cube `anchors` for the anchors that have a tier, in cube order.

    Args:
        layout: a run whose anchors are cut out.
        names: variables of the cutouts contract, such as image, task_id, ra_deg.

    Returns:
        The variables, dim `sample`, with the coordinates `cube_row`, `visibility_tier`, `annulus_tier`, `grade_tier`.

    Raises:
        ContractError: the cube is not published, the anchors are not measured, or the table names other rows than
            the cube has.
    """
    table = measured_anchors(layout)
    measured = read_anchor_table(table, MEASURED_ANCHORS)
    rows = measured[measured["reject_reason"] == "none"].sort_values("cube_row")
    wanted = rows["cube_row"].to_numpy(np.int64)
    cube = open_cube(layout.cube(ANCHOR_CUBE))
    if wanted.size and not 0 <= wanted[0] <= wanted[-1] < cube.n_samples:
        raise ContractError(
            f"{table.url}: expected rows 0 to {cube.n_samples - 1} of {cube.location.url}, "
            f"got {wanted[0]} to {wanted[-1]}"
        )
    parts = []
    for shard in range(cube.n_shards):
        first, stop = cube.shard_range(shard)
        inside = wanted[(wanted >= first) & (wanted < stop)] - first
        parts.append(cube.read_shard(shard, names).isel(sample=inside))
    coordinates: dict[str, Any] = {name: ("sample", rows[name].to_numpy(dtype=object)) for name in TIER_COLUMNS}
    return xr.concat(parts, "sample").assign_coords({"cube_row": ("sample", wanted), **coordinates})
