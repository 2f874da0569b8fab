"""Real lenses for the network: cut to size, counted where they cannot be used, refused where they are not stamps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.anchors import MEASURED_ANCHORS
from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.network_gate_config import AnchorStampsSection
from pipeline.storage.anchor_tables import write_anchor_table
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.locations import Location
from pipeline.training.anchor_stamps import AnchorStamps, read_lens_stamps

BANDS = ("g", "r", "z")
N, SIZE = 12, 40


def anchor_cube(folder: Path) -> Location:
    """Twelve cutouts of 40 px; the middle pixel of each is its row; row 3 cannot be used, row 5 holds a NaN."""
    shape = CubeShape({"sample": N, "band": 3, "y": SIZE, "x": SIZE}, 8, 8)
    location = Location(str(folder))
    create_cube(location, CUTOUTS, shape)
    arrays = {}
    for variable in CUTOUTS.variables:
        sizes = tuple(shape.sizes[dim] for dim in variable.dims)
        arrays[variable.name] = (
            np.full(sizes, "" if variable.dtype == "str" else 0, object)
            if (variable.dtype == "str")
            else np.zeros(sizes, variable.dtype)
        )
    arrays["image"] += np.random.default_rng(0).normal(0.0, 0.01, arrays["image"].shape).astype(np.float32)
    arrays["image"][:, :, SIZE // 2, SIZE // 2] = np.arange(N)[:, None]
    arrays["image"][5, 1, 20, 21] = np.nan
    arrays["reject_reason"][3] = REJECT_REASONS.index("masked")
    arrays["psfsize_arcsec"] += np.array([1.5, 1.3, 1.2], np.float32)
    for shard in range(shape.n_shards):
        rows = shape.rows(shard)
        part = xr.Dataset({v.name: (v.dims, arrays[v.name][rows]) for v in CUTOUTS.variables})
        write_shard(location, CUTOUTS, shape, shard, part)
    publish_cube(location, cube_attributes(CUTOUTS, shape, {"bands": list(BANDS), "plan_sha256": "p" * 64}))
    return location


def measured(folder: Path, cube_row: list[int], reasons: list[str]) -> str:
    """A table as `dhs anchors measure` stores it."""
    columns: dict[str, list[object]] = {}
    for variable in MEASURED_ANCHORS.variables:
        fill: object = {"str": "", "int64": 0, "float64": 0.0}[variable.dtype]
        columns[variable.name] = [fill] * len(cube_row)
    columns["cube_row"], columns["reject_reason"] = list(cube_row), list(reasons)
    return write_anchor_table(Location(str(folder)), "tier_a", pd.DataFrame(columns)).url


def read(url: str, table: str | None = None, bands: tuple[str, ...] = BANDS, size_px: int = 32) -> AnchorStamps:
    """The anchors at a place, r the band of the seeing."""
    return read_lens_stamps(AnchorStampsSection(url=url, table=table), bands, "r", size_px, None, None)


def test_cube_gives_usable_rows_cut_about_their_middle(tmp_path: Path) -> None:
    """The pixel size // 2 stays the middle; rejected cutouts and NaN are counted by reason."""
    found = read(anchor_cube(tmp_path / "cube").url, bands=("r", "z"))
    assert found.stamps.shape == (10, 2, 32, 32)
    np.testing.assert_array_equal(found.stamps[:, 0, 16, 16], [0, 1, 2, 4, 6, 7, 8, 9, 10, 11])
    assert found.counts() == {"used": 10, "left out: cutout masked": 1, "left out: pixels that are not finite": 1}
    np.testing.assert_allclose(found.psfsize_arcsec, 1.3, rtol=1e-6)


def test_table_picks_rows_of_the_cube(tmp_path: Path) -> None:
    """Rows of accepted anchors alone, once each; the others are counted; a row beyond the cube is an error."""
    cube = anchor_cube(tmp_path / "cube")
    table = measured(tmp_path / "a", [9, 1, 1, -1, 2], ["none", "none", "none", "no_cutout", "unmatched"])
    found = read(cube.url, table)
    np.testing.assert_array_equal(found.stamps[:, 0, 16, 16], [1, 9])
    assert found.left_out == {"rejected or without cutout in the table": 2}
    with pytest.raises(ContractError, match="has 12 rows, the table names row 12"):
        read(cube.url, measured(tmp_path / "b", [12], ["none"]))


def test_folder_of_stamps_has_no_seeing(tmp_path: Path) -> None:
    """NPZ stamps work without seeing; small ones are counted; a table with them, or another band, is refused."""
    image = np.random.default_rng(1).normal(0.0, 0.01, (3, 3, 36, 36)).astype(np.float32)
    np.savez(tmp_path / "a.npz", image=image, ra_deg=np.zeros(3), dec_deg=np.zeros(3), bands=np.array(BANDS))
    np.savez(tmp_path / "b.npz", image=image[:1, :, :20, :20], ra_deg=np.zeros(1), dec_deg=np.zeros(1))
    found = read(str(tmp_path))
    assert found.counts() == {"used": 3, "left out: smaller than the network's stamps": 1}
    assert np.isnan(found.psfsize_arcsec).all()
    np.testing.assert_array_equal(found.stamps, image[:, :, 2:34, 2:34])
    with pytest.raises(ContractError, match="needs a published cutouts cube"):
        read(str(tmp_path), table="t.parquet")
    with pytest.raises(ContractError, match="expected bands"):
        read(str(tmp_path), bands=("g", "i"))


def test_other_cubes_are_refused_and_nothing_usable_is_counted(tmp_path: Path) -> None:
    """A band that the cube lacks is an error; stamps that are all too small give no anchor and say so."""
    cube = anchor_cube(tmp_path / "cube")
    with pytest.raises(ContractError, match="expected a cutouts cube with bands"):
        read(cube.url, bands=("g", "i"))
    found = read(cube.url, size_px=64)
    assert found.stamps.shape == (0, 3, 64, 64)
    assert found.left_out["smaller than the network's stamps"] == 11
