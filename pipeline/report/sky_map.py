"""The splits on the sky: cells, rows and guard band, in an equal-area projection."""

from __future__ import annotations

import healpy
import numpy as np
import xarray as xr
from astropy import units
from astropy.visualization.wcsaxes import WCSAxes
from astropy.visualization.wcsaxes.frame import EllipticalFrame, RectangularFrame
from astropy.wcs import WCS
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pipeline.contracts.config import SplitSection
from pipeline.contracts.datasets import SPLITS
from pipeline.report.charts import COLOUR_BY_SPLIT, blank_figure
from pipeline.stages.splits import assign_splits, split_of_cells

_INK = "#1c2228"
_HEIGHT_INCH = 5.0
# Beyond this distance from the footprint's middle a zenithal map distorts more than one of the whole sky.
_ZENITHAL_RADIUS_DEG = 60.0
_OVERVIEW_PX = 1000
_ZOOM_PX = 280
_ZOOM_CELLS = 3.0
_ROWS_SHOWN_MAX = 20_000
# Dots would hide narrower cells, unless there are few.
_CELL_SHOWN_PX = 8.0
_FEW_ROWS = 3000
_CELL_DEG_AT_NSIDE_1 = np.degrees(np.sqrt(np.pi / 3.0))
# Share of the split's colour in the shade of its cells.
_CELL_SHADE = 0.38
_GUARD_CODE = SPLITS.index("guard")


def draw_sky_map(columns: xr.Dataset, section: SplitSection, seed: int) -> Figure:
    """Two maps, East left: every sky cell that holds rows, and the surroundings of the cell with most guard rows.

    The first is Lambert's zenithal equal-area projection about the middle of the rows, or Hammer-Aitoff's of the
    whole sky if they reach farther than 60 deg from it; the second shows the guard as the rule draws it, whether
    rows are there or not. At most 20,000 rows are drawn on each, evenly thinned; on the first none where more than
    3000 would hide cells below 8 px.

    Args:
        columns: ra_deg, dec_deg, split and split_healpix of at least one row of the training cube.
        section: the rule that made split and split_healpix.
        seed: run seed.
    """
    ra, dec = columns["ra_deg"].to_numpy(), columns["dec_deg"].to_numpy()
    split, cell = columns["split"].to_numpy(), columns["split_healpix"].to_numpy()
    figure = blank_figure(_HEIGHT_INCH)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.15))
    grid = figure.add_gridspec(2, 2, width_ratios=(1.75, 1.0), height_ratios=(1.0, 0.08))

    wcs, shape, is_whole_sky = _overview_wcs(ra, dec, section)
    overview = _add_axes(figure, grid[0, 0], wcs, shape, is_whole_sky)
    has_dots = ra.size <= _FEW_ROWS or _cell_deg(section) / float(wcs.wcs.cdelt[1]) >= _CELL_SHOWN_PX
    shades = _shades(_CELL_SHADE if has_dots else 1.0)
    overview.imshow(_cell_colours(wcs, shape, shades, cell, seed, section), interpolation="nearest")
    if has_dots:
        _draw_rows(overview, ra, dec, split, 2.5 if ra.size > _FEW_ROWS else 7.0)
    _title(overview, f"Splits on the sky: {np.unique(cell).size:,} cells with rows")

    middle = _cell_to_show(split, cell)
    wcs, shape = _zoom_wcs(middle, section)
    zoom = _add_axes(figure, grid[0, 1], wcs, shape, False)
    zoom.imshow(_rule_colours(wcs, shape, seed, section), interpolation="nearest")
    x, y = wcs.world_to_pixel_values(ra, dec)
    shown = np.flatnonzero((np.abs(x - shape[1] / 2) < shape[1] / 2) & (np.abs(y - shape[0] / 2) < shape[0] / 2))
    _draw_rows(zoom, ra[shown], dec[shown], split[shown], 26.0)
    _title(zoom, f"Guard {section.guard_arcsec:g}\u2033 ({section.guard}), cells of nside {section.nside}")

    legend = figure.add_subplot(grid[1, :])
    legend.set_axis_off()
    legend.legend(
        handles=_legend(split, cell, seed, section),
        loc="center",
        ncols=4,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        columnspacing=2.2,
    )
    return figure


def _overview_wcs(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], section: SplitSection
) -> tuple[WCS, tuple[int, int], bool]:
    """Projection that holds every row with a margin of one cell, its (y, x) shape, and whether it is the whole sky."""
    vectors = healpy.ang2vec(ra_deg, dec_deg, lonlat=True)
    mean = vectors.mean(axis=0)
    mean = mean / np.linalg.norm(mean) if np.linalg.norm(mean) > 1e-6 else np.array([1.0, 0.0, 0.0])
    ra_middle, dec_middle = (float(angle[0]) for angle in healpy.vec2ang(mean, lonlat=True))
    radius_deg = float(np.degrees(np.arccos(np.clip(vectors @ mean, -1.0, 1.0)).max()))
    if radius_deg > _ZENITHAL_RADIUS_DEG:
        # Hammer-Aitoff spans 4 sqrt(2) by 2 sqrt(2) radians.
        scale_deg = float(np.degrees(4.0 * np.sqrt(2.0))) / _OVERVIEW_PX
        return (
            _wcs("AIT", (ra_middle, 0.0), scale_deg, (-_OVERVIEW_PX / 2, -_OVERVIEW_PX / 4)),
            (
                _OVERVIEW_PX // 2,
                _OVERVIEW_PX,
            ),
            True,
        )
    x, y = _wcs("ZEA", (ra_middle, dec_middle), 1.0, (0.0, 0.0)).world_to_pixel_values(ra_deg, dec_deg)
    margin_deg = _cell_deg(section)
    low = np.array([np.min(x), np.min(y)]) - margin_deg
    extent = np.array([np.max(x), np.max(y)]) + margin_deg - low
    scale_deg = float(extent.max()) / _OVERVIEW_PX
    shape = int(np.ceil(extent[1] / scale_deg)), int(np.ceil(extent[0] / scale_deg))
    return _wcs("ZEA", (ra_middle, dec_middle), scale_deg, tuple((low / scale_deg).tolist())), shape, False


def _zoom_wcs(cell: int, section: SplitSection) -> tuple[WCS, tuple[int, int]]:
    """Projection of a cell and its neighbours."""
    ra_deg, dec_deg = healpy.pix2ang(section.nside, cell, nest=True, lonlat=True)
    scale_deg = _ZOOM_CELLS * _cell_deg(section) / _ZOOM_PX
    low = (-_ZOOM_PX / 2, -_ZOOM_PX / 2)
    return _wcs("ZEA", (float(ra_deg), float(dec_deg)), scale_deg, low), (_ZOOM_PX, _ZOOM_PX)


def _wcs(projection: str, middle_deg: tuple[float, float], scale_deg: float, low_px: tuple[float, ...]) -> WCS:
    """Projection about a position; pixel (0, 0) lies at `low_px` from it, x to the West."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = middle_deg
    wcs.wcs.cdelt = [-scale_deg, scale_deg]
    wcs.wcs.crpix = [1.0 - low_px[0], 1.0 - low_px[1]]
    wcs.wcs.set()
    return wcs


def _pixel_positions(wcs: WCS, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(y, x) right ascension and declination of pixel centres; NaN off the sphere. [deg]"""
    y, x = np.mgrid[: shape[0], : shape[1]]
    ra, dec = wcs.pixel_to_world_values(x, y)
    back_x, back_y = wcs.world_to_pixel_values(ra, dec)
    # Points beyond the edge of the map come back wrapped to its other side.
    off = ~(np.hypot(back_x - x, back_y - y) < 0.1)
    return np.where(off, np.nan, ra), np.where(off, np.nan, dec)


def _cell_colours(
    wcs: WCS,
    shape: tuple[int, int],
    shades: NDArray[np.float64],
    occupied: NDArray[np.int64],
    seed: int,
    section: SplitSection,
) -> NDArray[np.float64]:
    """(y, x, RGBA) shade of the cell's split; transparent where a cell holds no row."""
    ra, dec = _pixel_positions(wcs, shape)
    on_sky = np.isfinite(ra)
    colours = np.zeros((*shape, 4))
    cell = healpy.ang2pix(section.nside, ra[on_sky], dec[on_sky], nest=True, lonlat=True)
    found = shades[split_of_cells(cell, seed, section)]
    found[~np.isin(cell, occupied), 3] = 0.0
    colours[on_sky] = found
    return colours


def _rule_colours(wcs: WCS, shape: tuple[int, int], seed: int, section: SplitSection) -> NDArray[np.float64]:
    """(y, x, RGBA) shade of the split of every position, guard included."""
    ra, dec = _pixel_positions(wcs, shape)
    split, _ = assign_splits(ra.ravel(), dec.ravel(), seed, section)
    return _shades(_CELL_SHADE)[split].reshape(*shape, 4)


def _shades(cell_weight: float) -> NDArray[np.float64]:
    """(split, RGBA) colours of cells, a share of the split's on white, and the guard in full."""
    shades = np.ones((len(SPLITS), 4))
    for code, name in enumerate(SPLITS):
        weight = 1.0 if code == _GUARD_CODE else cell_weight
        shades[code, :3] = weight * np.array(to_rgb(COLOUR_BY_SPLIT[name])) + (1.0 - weight)
    return shades


def _cell_to_show(split: NDArray[np.uint8], cell: NDArray[np.int64]) -> int:
    """The cell with most guard rows; with most rows if there is no guard row."""
    guarded = cell[split == _GUARD_CODE]
    cells, counts = np.unique(guarded if guarded.size else cell, return_counts=True)
    return int(cells[np.argmax(counts)])


def _add_axes(figure: Figure, place: SubplotSpec, wcs: WCS, shape: tuple[int, int], is_whole_sky: bool) -> WCSAxes:
    frame = EllipticalFrame if is_whole_sky else RectangularFrame
    axes = WCSAxes(figure, place, wcs=wcs, frame_class=frame)
    figure.add_subplot(axes)
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(-0.5, shape[0] - 0.5)
    axes.coords.grid(color="#5b6670", alpha=0.35, linewidth=0.6)
    for coordinate, label in zip(axes.coords, ("right ascension [deg]", "declination [deg]"), strict=True):
        coordinate.set_axislabel("" if is_whole_sky else label, fontsize=10, color=_INK)
        coordinate.set_ticklabel(size=9, color=_INK, exclude_overlapping=True)
        coordinate.set_format_unit("deg", decimal=True)
    if is_whole_sky:
        axes.coords[0].set_ticks(spacing=60.0 * units.deg)
        axes.coords[1].set_ticks(spacing=30.0 * units.deg)
    return axes


def _draw_rows(
    axes: WCSAxes,
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    split: NDArray[np.uint8],
    area: float,
) -> None:
    """A dot per row in the colour of its split, ringed for the guard."""
    sky = axes.get_transform("icrs")
    stride = max(1, -(-ra_deg.size // _ROWS_SHOWN_MAX))
    ra_deg, dec_deg, split = ra_deg[::stride], dec_deg[::stride], split[::stride]
    for code, name in enumerate(SPLITS):
        inside = split == code
        guard = code == _GUARD_CODE
        axes.scatter(
            ra_deg[inside],
            dec_deg[inside],
            s=area,
            transform=sky,
            facecolors=COLOUR_BY_SPLIT[name],
            edgecolors=_INK if guard else "none",
            linewidths=0.7 if guard else 0.0,
        )


def _title(axes: WCSAxes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, color=_INK, fontweight="bold")


def _legend(split: NDArray[np.uint8], cell: NDArray[np.int64], seed: int, section: SplitSection) -> list[Line2D]:
    """Per split its rows, its share and the request, and the cells with rows; for the guard its share of all rows."""
    cells = np.bincount(split_of_cells(np.unique(cell), seed, section), minlength=len(SPLITS))
    outside = int((split != _GUARD_CODE).sum())
    handles = []
    for code, name in enumerate(SPLITS):
        rows = int((split == code).sum())
        if code == _GUARD_CODE:
            text = f"guard: {rows:,} rows\n{rows / split.size:.1%} of all rows"
        else:
            share = rows / outside if outside else float("nan")
            text = f"{name}: {rows:,} rows, {int(cells[code]):,} cells\n{share:.1%} for {getattr(section, name):.0%}"
        edge = _INK if code == _GUARD_CODE else "none"
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                markersize=8,
                markerfacecolor=COLOUR_BY_SPLIT[name],
                markeredgecolor=edge,
                label=text,
            )
        )
    return handles


def _cell_deg(section: SplitSection) -> float:
    """Side of a square of a cell's area. [deg]"""
    return float(_CELL_DEG_AT_NSIDE_1) / section.nside
