"""The map of the splits shows the rule and the rows as they are."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipeline.contracts.config import SplitSection
from pipeline.contracts.datasets import SPLITS
from pipeline.report.charts import COLOUR_BY_SPLIT
from pipeline.report.sky_map import draw_sky_map
from pipeline.stages.splits import assign_splits

SEED = 3
GUARD = SPLITS.index("guard")


def columns_of(ra: np.ndarray, dec: np.ndarray, section: SplitSection) -> xr.Dataset:
    """The columns of a training cube that the map reads."""
    split, cell = assign_splits(ra, dec, SEED, section)
    values = {"ra_deg": ra, "dec_deg": dec, "split": split, "split_healpix": cell}
    return xr.Dataset({name: ("sample", column) for name, column in values.items()})


def square(n_rows: int, ra_middle: float, dec_middle: float, side_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions in a square about a position."""
    rng = np.random.default_rng(5)
    ra = (ra_middle + rng.uniform(-0.5, 0.5, n_rows) * side_deg / np.cos(np.radians(dec_middle))) % 360.0
    return ra, dec_middle + rng.uniform(-0.5, 0.5, n_rows) * side_deg


def colour_at(figure: Figure, panel: int, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(position, RGBA) of the shaded cells; NaN where the position is outside the panel."""
    axes = figure.axes[panel]
    pixels = np.asarray(axes.images[0].get_array())
    x, y = (np.rint(value).astype(int) for value in axes.wcs.world_to_pixel_values(ra, dec))
    inside = (x >= 0) & (x < pixels.shape[1]) & (y >= 0) & (y < pixels.shape[0])
    found = np.full((ra.size, 4), np.nan)
    found[inside] = pixels[y[inside], x[inside]]
    return found


def hue_of(colours: np.ndarray) -> np.ndarray:
    """Index in SPLITS whose colour, paled or not, is nearest in direction from white."""
    wanted = 1.0 - np.array([to_rgb(COLOUR_BY_SPLIT[name]) for name in SPLITS])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    return np.argmax((1.0 - colours[:, :3]) @ wanted.T / np.linalg.norm(1.0 - colours[:, :3], axis=1)[:, None], axis=1)


@pytest.mark.parametrize(
    ("ra_middle", "dec_middle"), [(59.1, -30.5), (0.0, 2.0), (120.0, -88.0)], ids=["field", "seam", "pole"]
)
def test_cells_have_the_colour_of_their_split(ra_middle: float, dec_middle: float) -> None:
    """A row outside the guard lies on its split's colour, across the seam and at the pole too; empty sky is blank."""
    section = SplitSection(nside=64)
    columns = columns_of(*square(1500, ra_middle, dec_middle, 12.0 if dec_middle > -80 else 3.0), section)
    figure = draw_sky_map(columns, section, SEED)
    ra, dec, split = (columns[name].to_numpy() for name in ("ra_deg", "dec_deg", "split"))
    kept = split != GUARD
    colours = colour_at(figure, 0, ra, dec)
    assert np.isfinite(colours).all()
    assert (colours[:, 3] == 1.0).all()
    assert np.mean(hue_of(colours)[kept] == split[kept]) > 0.99
    pixels = np.asarray(figure.axes[0].images[0].get_array())
    assert 0.0 < np.mean(pixels[..., 3] == 0.0) < 0.6
    x, _ = figure.axes[0].wcs.world_to_pixel_values([ra_middle, ra_middle + 0.5], [dec_middle, dec_middle])
    assert x[1] < x[0]


@pytest.mark.parametrize("guard", ["drop", "assign"])
def test_second_map_shows_the_guard_where_its_rows_are(guard: str) -> None:
    """Every row of the second map lies on the colour of its split, guard rows on the grey band."""
    section = SplitSection(nside=64, guard_arcsec=120.0, guard=guard)
    columns = columns_of(*square(6000, 200.0, 10.0, 8.0), section)
    figure = draw_sky_map(columns, section, SEED)
    ra, dec, split = (columns[name].to_numpy() for name in ("ra_deg", "dec_deg", "split"))
    colours = colour_at(figure, 1, ra, dec)
    shown = np.isfinite(colours[:, 0])
    assert shown.sum() > 100
    assert (split[shown] == GUARD).sum() >= 5
    assert np.mean(hue_of(colours[shown]) == split[shown]) > 0.98


def test_legend_counts_rows_cells_and_shares() -> None:
    """The numbers are those of the columns, and shares stand beside the request."""
    section = SplitSection(nside=64)
    columns = columns_of(*square(1500, 59.1, -30.5, 12.0), section)
    texts = [text.get_text() for text in draw_sky_map(columns, section, SEED).axes[2].get_legend().get_texts()]
    split, cell = columns["split"].to_numpy(), columns["split_healpix"].to_numpy()
    outside = (split != GUARD).sum()
    n_test = int((split == 2).sum())
    assert texts[2].startswith(f"test: {n_test:,} rows, ")
    assert texts[2].endswith(f"{n_test / outside:.1%} for 15%")
    assert sum(int(text.split(", ")[-1].split(" cells")[0]) for text in texts[:3]) == np.unique(cell).size
    assert texts[3] == f"guard: {(split == GUARD).sum():,} rows\n{np.mean(split == GUARD):.1%} of all rows"


def test_rows_all_over_the_sky_are_drawn_on_an_all_sky_map() -> None:
    """A footprint wider than 60 deg gets an ellipse with nothing outside, and a run without guard rows its map."""
    rng = np.random.default_rng(8)
    ra, dec = rng.uniform(0.0, 360.0, 4000), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 4000)))
    section = SplitSection(nside=32, guard_arcsec=0.0)
    figure = draw_sky_map(columns_of(ra, dec, section), section, SEED)
    pixels = np.asarray(figure.axes[0].images[0].get_array())
    assert figure.axes[0].wcs.wcs.ctype[0] == "RA---AIT"
    assert pixels[0, 0, 3] == pixels[-1, -1, 3] == 0.0
    # Cells with rows: 1 - exp(-4000 / 12288) of the ellipse, which is pi/4 of the frame.
    assert np.mean(pixels[..., 3] > 0.0) == pytest.approx(np.pi / 4 * 0.278, abs=0.02)
