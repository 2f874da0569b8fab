"""Completeness restored to the prior: the (theta_E, PSF) plane, and against SNR, depth and magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    add_legend,
    as_png,
    label_axes,
    new_figure,
    pin_log_ticks,
    say_empty,
)
from pipeline.report.emr_figure import emr_surfaces_png
from pipeline.report.evaluation import metrics_png
from pipeline.report.inputs import RunInputs
from pipeline.report.markup import (
    DASH,
    Html,
    bullets,
    count_text,
    figure,
    heading,
    missing,
    note,
    number_text,
    paragraph,
    section,
    table,
)
from pipeline.storage.evaluation_tables import StoredEvaluation

PLANE = "theta_e,psf_fwhm"
SNR_TICKS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_CURVES = {
    "arc_snr": "arc_snr",
    "depth_5sig": "5\u03c3 depth [mag]",
    "source_mag": "source r, unlensed [mag]",
    "lensed_mag": "arc r, lensed [mag]",
    "host_mag": "host r [mag]",
    "theta_e_over_psf": "\u03b8_E / psfsize",
}
_TABLES = (
    ("selection_function", "the published selection function, every cell of the (theta_E, PSF, depth) grid"),
    ("completeness", "all surfaces with effective numbers, Wilson and Jeffreys intervals"),
    ("failures", "injections that failed, by reason, seeing and depth"),
    ("completeness_surfaces_injections", "unweighted surfaces with the columns of the EMR job"),
    ("completeness_surfaces_region_agg_injections", "the same over all regions"),
    ("fpr_surfaces_controls", "false-positive rates of the controls with the columns of the EMR job"),
)
_FIGURES = {
    "completeness-plane.png": "C and effective number over Einstein radius and seeing",
    "completeness-curves.png": "C along every axis",
    "evaluation-strata.png": "reliability curve, AUC and TPR by stratum",
    "emr-surfaces.png": "the EMR surfaces by resolution, depth and seeing",
}


def completeness_section(inputs: RunInputs) -> Html:
    """Section 9: completeness of the test split at its strictest measurable threshold."""
    title = "9. Completeness"
    stored = inputs.evaluation
    if stored is None:
        return section("completeness", title, missing(inputs.why_no_evaluation()))
    surfaces, meta = stored.tables["completeness"], stored.documents["selection_function_meta"]
    kind, score, shown = _shown(surfaces)
    threshold = f"{kind} (score at least {number_text(score, 4)})" if kind != "fixed" else f"score at least {score:g}"
    return section(
        "completeness",
        title,
        paragraph(
            f"Threshold shown: {threshold}. C = {meta['completeness']}; intervals: {meta['interval_method']}, 68 %."
        ),
        heading("The sample as a whole"),
        _whole_table(surfaces[surfaces["surface"] == ""]),
        figure(
            _plane_png(shown[shown["surface"] == PLANE], meta["min_effective_n"]),
            "completeness and effective number of injections by Einstein radius and seeing",
            "Left: C over Einstein radius and psfsize; hatched cells have an effective number below "
            f"{meta['min_effective_n']:g} and are not to be quoted. Right: the effective number itself.",
        ),
        figure(
            _curves_png(shown),
            "completeness against arc SNR, depth, magnitudes and resolution",
            "C with 68 % intervals, summed over everything else with the prior's weights. Open symbols: effective "
            f"number below {meta['min_effective_n']:g}. Grey: without weights, that is of the sampled distribution.",
        ),
        heading("Injections that failed"),
        _failure_table(meta),
        note(f"They have no score and do not enter C. Depth is {meta['depth_5sig']}; {meta['psf_fwhm']}."),
        heading("Tables and figures"),
        bullets(
            [f"evaluation/{name}.parquet and .csv: {meaning}" for name, meaning in _TABLES]
            + [f"report/{name}: {meaning}" for name, meaning in _FIGURES.items()]
        ),
    )


def evaluation_figures(stored: StoredEvaluation) -> dict[str, bytes]:
    """The figures of an evaluation as files: name -> PNG.

    Args:
        stored: a verified evaluation.
    """
    tables, documents = stored.tables, stored.documents
    shown = _shown(tables["completeness"])[2]
    pictures = (
        _plane_png(shown[shown["surface"] == PLANE], documents["selection_function_meta"]["min_effective_n"]),
        _curves_png(shown),
        metrics_png(documents["evaluation"]["calibration"], tables["strata"]),
        emr_surfaces_png(tables["completeness_surfaces_injections"], tables["fpr_surfaces_controls"]),
    )
    return dict(zip(_FIGURES, pictures, strict=True))


def shown_threshold(surfaces: pd.DataFrame) -> tuple[str, float]:
    """Type and score of the threshold that figures show: the lowest measurable FPR, else the middle fixed score.

    Args:
        surfaces: table `completeness` of an evaluation.
    """
    known = surfaces[surfaces["fpr_target"].notna() & surfaces["threshold"].notna()]
    if len(known):
        strictest = known.sort_values("fpr_target", kind="stable").iloc[0]
        return str(strictest["threshold_type"]), float(strictest["threshold"])
    fixed = np.sort(surfaces.loc[surfaces["threshold_type"] == "fixed", "threshold"].unique())
    return "fixed", float(fixed[len(fixed) // 2])


def _shown(surfaces: pd.DataFrame) -> tuple[str, float, pd.DataFrame]:
    """Type and score of the threshold that figures show, and the rows of the surfaces at it."""
    kind, score = shown_threshold(surfaces)
    return kind, score, surfaces[(surfaces["threshold_type"] == kind) & np.isclose(surfaces["threshold"], score)]


def _whole_table(rows: pd.DataFrame) -> Html:
    lines = []
    for row in rows.to_dict("records"):
        kind = row["threshold_type"] if row["threshold_type"] != "fixed" else f"score {row['threshold']:g}"
        lines.append(
            (
                str(kind),
                number_text(row["completeness"], 3),
                f"{number_text(row['jeffreys68_lo'], 3)} {DASH} {number_text(row['jeffreys68_hi'], 3)}",
                f"{number_text(row['wilson95_lo'], 3)} {DASH} {number_text(row['wilson95_hi'], 3)}",
                number_text(row["completeness_unweighted"], 3),
                count_text(row["n_injections"]),
                number_text(row["n_effective"], 4),
                count_text(row["n_failed"]),
                "yes" if row["sufficient"] else "no",
            )
        )
    head = (
        "Threshold",
        "C",
        "Jeffreys 68 %",
        "Wilson 95 %",
        "Unweighted",
        "Injections",
        "n_eff",
        "Failed",
        "Sufficient",
    )
    return table(head, lines, text_columns=(0, 8))


def _plane_png(rows: pd.DataFrame, min_effective_n: float) -> bytes:
    picture, [left, right] = new_figure(1, 2, 3.9)
    for axis, column, title in ((left, "completeness", "Completeness"), (right, "n_effective", "Effective injections")):
        label_axes(axis, title, "Einstein radius [arcsec]", "psfsize r [arcsec]")
        if rows.empty:
            say_empty(axis, "no injection inside the grid")
            continue
        x, y, grid = _grid(rows, column)
        highest = 1.0 if column == "completeness" else float(np.nanmax(grid))
        axis.grid(visible=False)
        mesh = axis.pcolormesh(x, y, grid, cmap="cividis", shading="flat", vmin=0.0, vmax=highest)
        picture.colorbar(mesh, ax=axis, shrink=0.9)
        if column == "completeness":
            few = np.argwhere(_grid(rows, "n_effective")[2] < min_effective_n)
            for row, column_index in few.tolist():
                _cover(axis, x[column_index : column_index + 2], y[row : row + 2])
    return as_png(picture)


def _cover(axis: Axes, x: Any, y: Any) -> None:
    """A pale hatched veil over one cell."""
    corner, size = (float(x[0]), float(y[0])), (float(x[1] - x[0]), float(y[1] - y[0]))
    axis.add_patch(Rectangle(corner, *size, facecolor="#ffffff", alpha=0.55, linewidth=0))
    axis.add_patch(Rectangle(corner, *size, fill=False, hatch="////", edgecolor="#5b6670", linewidth=0))


def _grid(rows: pd.DataFrame, column: str) -> tuple[Any, Any, Any]:
    """Edges of both axes and (psf_fwhm, theta_e) values, NaN in cells without injections."""
    edges = [
        np.unique(np.round(np.concatenate([rows[f"{name}_low"], rows[f"{name}_high"]]), 9))
        for name in ("theta_e", "psf_fwhm")
    ]
    grid = np.full((edges[1].size - 1, edges[0].size - 1), np.nan)
    index = [
        np.searchsorted(edges[k], rows[f"{n}_low"].to_numpy() - 1e-6) for k, n in ((1, "psf_fwhm"), (0, "theta_e"))
    ]
    grid[index[0], index[1]] = rows[column].to_numpy()
    return edges[0], edges[1], grid


def _curves_png(shown: pd.DataFrame) -> bytes:
    picture, axes = new_figure(2, 3, 5.4)
    for number, (axis, (name, title)) in enumerate(zip(axes, _CURVES.items(), strict=True)):
        label_axes(axis, "", title, "completeness" if number % 3 == 0 else "")
        rows = shown[(shown["surface"] == name) & (shown["n_injections"] > 0)]
        if rows.empty or rows["completeness"].isna().all():
            say_empty(axis, "no injection inside the bins")
            continue
        _curve(axis, name, rows)
        if name == "arc_snr":
            pin_log_ticks(axis, SNR_TICKS)
            add_legend(axis, "upper left")
        axis.set_ylim(-0.03, 1.03)
    return as_png(picture)


def _curve(axis: Axes, name: str, rows: pd.DataFrame) -> None:
    middle = ((rows[f"{name}_low"] + rows[f"{name}_high"]) / 2.0).to_numpy()
    value = rows["completeness"].to_numpy()
    bars = np.maximum([value - rows["jeffreys68_lo"], rows["jeffreys68_hi"] - value], 0.0)
    axis.plot(middle, rows["completeness_unweighted"], color="#9aa3ab", linewidth=1.2, label="without weights")
    axis.plot(middle, value, color=COLOUR_POSITIVE, linewidth=1.0)
    enough = rows["sufficient"].to_numpy(np.bool_)
    for chosen, fill, colour, label in (
        (enough, "full", COLOUR_POSITIVE, "prior-weighted"),
        (~enough, "none", COLOUR_CONTROL, "too few"),
    ):
        if chosen.any():
            axis.errorbar(
                middle[chosen], value[chosen], yerr=bars[:, chosen], color=colour, marker="o", ms=5, fillstyle=fill,
                linestyle="none", label=label,
            )  # fmt: skip


def _failure_table(meta: Any) -> Html:
    whole = meta["accounting"][0]
    rows = [(reason, count_text(number)) for reason, number in meta["failures_by_reason"].items()]
    rows.append(("all failed", count_text(whole["n_failed"])))
    rows.append(("scored", count_text(whole["n_scored"])))
    rows.append(("asked for", count_text(whole["n_asked"])))
    return table(("Outcome", "Injections of the test split"), rows, total_row=True)
