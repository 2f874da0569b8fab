"""The hosts: are those with an arc like those that could have had one, and where on the sky do they lie?"""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    add_legend,
    as_png,
    common_edges,
    draw_steps,
    label_axes,
    new_figure,
    say_empty,
)
from pipeline.report.inputs import RunInputs, has_role_code, usable_hosts
from pipeline.report.markup import Html, details, figure, missing, number_text, section, table
from pipeline.report.sky_map import draw_sky_map

_BINS = 28
_MAG_COLUMNS = ("mag_g", "mag_r", "mag_z")


def host_section(inputs: RunInputs) -> Html:
    """Section 5: distributions of hosts with an arc against all usable hosts, and the splits on the sky."""
    title = "5. Hosts: seeing, noise, brightness, sky"
    if inputs.columns is None:
        return section("hosts", title, missing(inputs.why_no_cube("training")))
    is_pair, usable = has_role_code(inputs.columns, "pair"), usable_hosts(inputs.columns)
    if not is_pair.any():
        return section("hosts", title, missing(inputs.without_pairs("The training cube holds no pair.")))
    quantities = _quantities(inputs)
    return section(
        "hosts",
        title,
        figure(
            _distributions_png(quantities, is_pair, usable),
            "histograms of host properties of pairs and of all usable hosts",
            f"Share of hosts per bin: {int(is_pair.sum()):,} rows that became pairs and all {int(usable.sum()):,} rows "
            "with a usable stamp. Both members of a pair share their host, so these cannot separate the classes inside "
            "pairs; a difference here would mean that the sampler prefers some hosts.",
        ),
        details("Quantiles as a table", _median_table(quantities, is_pair, usable)),
        figure(
            as_png(draw_sky_map(inputs.columns, inputs.config.splits, inputs.config.run.seed)),
            "maps of the sky cells and rows, coloured by split, with the guard band",
            "Left: cells that hold rows, in the colour of their split; dots are rows, ringed in the guard. Right: the "
            "surroundings of the cell with most guard rows; the grey band is the guard, and cells are shown whether "
            "they hold rows or not. Equal-area projections, East is left; many rows are thinned evenly, or left out "
            "on the left where they would hide the cells.",
        ),
    )


def _quantities(inputs: RunInputs) -> dict[str, NDArray[np.float64]]:
    """Label with unit -> (sample,) values, in the order of the panels."""
    columns = inputs.columns
    if columns is None:
        raise ValueError("host distributions need the training cube")
    found: dict[str, NDArray[np.float64]] = {}
    for index, band in enumerate(inputs.bands):
        found[f"psfsize {band} [arcsec]"] = columns["psfsize_arcsec"].to_numpy()[:, index].astype(np.float64)
    for index, band in enumerate(inputs.bands):
        sigma = columns["sky_sigma_nmgy"].to_numpy()[:, index].astype(np.float64)
        found[f"sky \u03c3 {band} [0.001 nmgy / pixel]"] = 1000.0 * sigma
    for name in _MAG_COLUMNS:
        found[f"host {name.removeprefix('mag_')} [mag]"] = columns[name].to_numpy().astype(np.float64)
    found["psfdepth r, 5\u03c3 [mag]"] = columns["psfdepth_r_mag"].to_numpy().astype(np.float64)
    found["bad-pixel fraction"] = columns["bad_pixel_frac"].to_numpy().astype(np.float64)
    found["E(B\u2212V) [mag]"] = columns["ebv_mag"].to_numpy().astype(np.float64)
    return found


def _distributions_png(
    quantities: dict[str, NDArray[np.float64]], is_pair: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> bytes:
    n_rows = -(-len(quantities) // 3)
    picture, axes = new_figure(n_rows, 3, 2.25 * n_rows)
    for axis in axes[len(quantities) :]:
        axis.set_axis_off()
    for number, (axis, (label, values)) in enumerate(zip(axes, quantities.items(), strict=False)):
        label_axes(axis, "", label, "share of hosts" if number % 3 == 0 else "")
        if not np.isfinite(values[usable]).any():
            say_empty(axis, "unknown for every host of this run")
            continue
        edges = common_edges([values[usable]], _BINS)
        draw_steps(axis, values[usable], edges, COLOUR_CONTROL, "all usable hosts", filled=True)
        draw_steps(axis, values[is_pair], edges, COLOUR_POSITIVE, "hosts of pairs")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        if number == 0:
            add_legend(axis)
    return as_png(picture)


def _median_table(
    quantities: dict[str, NDArray[np.float64]], is_pair: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> Html:
    rows = []
    for label, values in quantities.items():
        cells = [label]
        for chosen in (is_pair, usable):
            finite = values[chosen & np.isfinite(values)]
            quantiles = np.quantile(finite, [0.05, 0.5, 0.95]).tolist() if finite.size else [None] * 3
            cells += [number_text(value, 4) for value in quantiles]
        rows.append(cells)
    head = ("Quantity", "Pairs 5 %", "Median", "95 %", "Usable 5 %", "Median", "95 %")
    return table(head, rows)
