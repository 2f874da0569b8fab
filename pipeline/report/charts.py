"""Figures in one style, made with matplotlib's object interface and no global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe & Ito (2008), distinct for every common kind of colour vision.
COLOUR_POSITIVE = "#d55e00"
COLOUR_CONTROL = "#0072b2"
COLOUR_TARGET = "#1c2228"
COLOUR_BY_SPLIT = {"train": "#56b4e9", "val": "#009e73", "test": "#d55e00", "guard": "#9aa3ab"}

_WIDTH_INCH = 11.0
_DOTS_PER_INCH = 200
_INK = "#1c2228"
_GRID = "#e3e7ea"


def blank_figure(height_inch: float) -> Figure:
    """A figure of the page's width without panels."""
    return Figure(figsize=(_WIDTH_INCH, height_inch), dpi=_DOTS_PER_INCH, layout="constrained")


def new_figure(rows: int, columns: int, height_inch: float) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width and its panels, row by row."""
    figure = blank_figure(height_inch)
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        _dress(axis)
    return figure, axes


def as_png(figure: Figure) -> bytes:
    """The figure at twice the resolution that the page shows."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def label_axes(axis: Axes, title: str, x_label: str, y_label: str) -> None:
    """Title to the left and axis labels; units belong into the labels."""
    axis.set_title(title, loc="left", fontsize=11, color=_INK, fontweight="bold")
    axis.set_xlabel(x_label, fontsize=10, color=_INK)
    axis.set_ylabel(y_label, fontsize=10, color=_INK)


def add_legend(axis: Axes, location: Literal["best", "upper left"] = "best") -> None:
    """A legend without frame."""
    axis.legend(loc=location, frameon=False, fontsize=9, labelcolor=_INK)


def say_empty(axis: Axes, reason: str) -> None:
    """A panel that says why it is empty."""
    axis.text(0.5, 0.5, reason, transform=axis.transAxes, ha="center", va="center", fontsize=10, color="#5b6670")
    axis.set_xticks([])
    axis.set_yticks([])


def common_edges(values: Sequence[NDArray[np.floating]], bins: int, log: bool = False) -> NDArray[np.float64]:
    """Bin edges that hold every finite value of all samples; positive ones only where `log`.

    Returns:
        (bins + 1,) increasing edges, equal steps in value or in ln value; [0, 1] if nothing is finite.
    """
    joined = np.concatenate([np.asarray(sample, dtype=np.float64).ravel() for sample in values])
    finite = joined[np.isfinite(joined) & ((joined > 0) | (not log))]
    if not finite.size:
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        step = abs(low) * 0.05 or 1.0
        low, high = (low - step, high + step)
    return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


def draw_steps(
    axis: Axes, values: NDArray[np.floating], edges: NDArray[np.float64], colour: str, label: str, filled: bool = False
) -> None:
    """Step histogram as share of the sample per bin; values that are not finite are left out."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    counts = np.histogram(np.clip(finite, edges[0], edges[-1]), bins=edges)[0]
    shares = counts / max(finite.size, 1)
    axis.stairs(shares, edges, color=colour, label=label, linewidth=1.6, fill=filled, alpha=0.28 if filled else 1.0)


def pin_log_ticks(axis: Axes, ticks: Sequence[float]) -> None:
    """Plain numbers as the only ticks of a logarithmic x axis."""
    axis.set_xscale("log")
    axis.set_xticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def _dress(axis: Axes) -> None:
    axis.grid(visible=True, color=_GRID, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9, colors=_INK, length=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#8a949c")
