"""The EMR surfaces as one figure: completeness and false-positive rate by resolution, seeing and depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    add_legend,
    as_png,
    label_axes,
    new_figure,
    say_empty,
)
from pipeline.stages.emr_surfaces import RESOLUTION_LABELS
from pipeline.stages.intervals import wilson_score_interval

_KINDS = {"all": "full", "clean": "none"}


def emr_surfaces_png(injections: pd.DataFrame, controls: pd.DataFrame) -> bytes:
    """Cells summed over everything but one bin; bars are Wilson's 95 %.

    Args:
        injections: table completeness_surfaces_injections of an evaluation.
        controls: table fpr_surfaces_controls.
    """
    picture, axes = new_figure(1, 3, 3.6)
    _draw(axes[0], injections, "resolution_bin", "n_recovered", COLOUR_POSITIVE)
    label_axes(axes[0], "Completeness", "\u03b8_E / psfsize", "recovered / valid")
    _draw(axes[1], injections, "depth_bin", "n_recovered", COLOUR_POSITIVE)
    label_axes(axes[1], "Completeness", "depth_bin [mag]", "")
    _draw(axes[2], controls, "psf_bin", "n_flagged", COLOUR_CONTROL)
    label_axes(axes[2], "False-positive rate", "psf_bin [arcsec]", "flagged / valid")
    return as_png(picture)


def summed_share(table: pd.DataFrame, bin_name: str, successes: str, kind: str) -> pd.DataFrame:
    """Share of valid attempts that succeeded by bin, with its interval; bins without a valid attempt are left out.

    Args:
        table: a surface of `stages.emr_surfaces`.
        bin_name: key that stays.
        successes: "n_recovered" or "n_flagged".
        kind: "all" or "clean".

    Returns:
        Indexed by bin: n_valid, share, low, high.
    """
    sums = table.groupby(bin_name, sort=True)[[f"{successes}_{kind}", f"n_valid_{kind}"]].sum()
    sums.columns = pd.Index(["n_success", "n_valid"])
    sums = sums[sums["n_valid"] > 0]
    low, high = wilson_score_interval(sums["n_success"].to_numpy(), sums["n_valid"].to_numpy())
    return pd.DataFrame(
        {"n_valid": sums["n_valid"], "share": sums["n_success"] / sums["n_valid"], "low": low, "high": high}
    )


def _draw(axis: Axes, table: pd.DataFrame, bin_name: str, successes: str, colour: str) -> None:
    for kind, fill in _KINDS.items():
        found = summed_share(table, bin_name, successes, kind)
        if bin_name == "resolution_bin":
            found = found.reindex([label for label in RESOLUTION_LABELS if label in found.index])
        if found.empty:
            say_empty(axis, "no valid attempt")
            return
        share = found["share"].to_numpy()
        bars = np.maximum([share - found["low"], found["high"] - share], 0.0)
        axis.errorbar(
            found.index.to_numpy(), share, yerr=bars, color=colour, marker="o", ms=5, fillstyle=fill, linewidth=1.0,
            label=kind,
        )  # fmt: skip
    axis.set_ylim(-0.03, 1.03)
    add_legend(axis)
