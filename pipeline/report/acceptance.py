"""How hard the arcs were to get: attempts, rows without an arc, and the spread of the importance weights."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.report.charts import COLOUR_POSITIVE, as_png, label_axes, new_figure, say_empty
from pipeline.report.inputs import RunInputs
from pipeline.report.markup import Html, count_text, figure, heading, joined, number_text, share_text, table
from pipeline.stages.sampling_diagnostics import effective_size


def acceptance_part(inputs: RunInputs, attempts: NDArray[np.float64], weight: NDArray[np.float64]) -> Html:
    """Histograms and table of the pairs' attempts and weights.

    Args:
        attempts: (pair,) draws until acceptance, at least one pair.
        weight: (pair,) weight_prior, finite, not negative.
    """
    return joined(
        heading("Acceptance and importance weights"),
        figure(
            _acceptance_png(attempts, weight),
            "histograms of attempts and of weights",
            "Left: draws until one was accepted. Right: weight_prior over its mean.",
        ),
        _acceptance_table(inputs, attempts, weight),
    )


def _acceptance_png(attempts: NDArray[np.float64], weight: NDArray[np.float64]) -> bytes:
    picture, [left, right] = new_figure(1, 2, 3.1)
    top = max(float(attempts.max()), 1.0)
    if top <= 40:
        edges = np.arange(0.5, top + 1.0)
        left.set_xlim(0.5, max(top, 5.0) + 0.5)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        edges = np.unique(np.round(np.geomspace(1, top + 1, 30))) - 0.5
        left.set_xscale("log")
    left.stairs(np.histogram(attempts, bins=edges)[0], edges, color=COLOUR_POSITIVE, fill=True, alpha=0.45)
    left.set_yscale("log")
    left.set_ylim(bottom=0.7)
    label_axes(left, "Draws per accepted arc", "attempts", "pairs")
    positive = weight[weight > 0]
    label_axes(right, "Importance weights", "log10 (weight_prior / mean)", "pairs")
    if positive.size:
        right.hist(np.log10(positive / weight.mean()), bins=40, color=COLOUR_POSITIVE, alpha=0.45)
    else:
        say_empty(right, "no pair has a positive weight")
    return as_png(picture)


def _acceptance_table(inputs: RunInputs, attempts: NDArray[np.float64], weight: NDArray[np.float64]) -> Html:
    reasons = np.bincount(
        np.empty(0, dtype=np.int64) if inputs.columns is None else inputs.columns["reject_reason"].to_numpy(),
        minlength=len(REJECT_REASONS),
    )
    exhausted, masked = (int(reasons[REJECT_REASONS.index(name)]) for name in ("sampler_exhausted", "arc_masked"))
    asked = attempts.size + exhausted + masked
    mean = float(weight.mean())
    rows = [
        ("Rows that asked for an arc", count_text(asked), ""),
        ("accepted", count_text(attempts.size), share_text(attempts.size, asked)),
        ("sampler exhausted", count_text(exhausted), share_text(exhausted, asked)),
        ("arc on bad pixels only", count_text(masked), share_text(masked, asked)),
        ("Attempts per accepted arc, mean", number_text(float(attempts.mean())), ""),
        ("Attempts per accepted arc, largest", count_text(float(attempts.max())), ""),
        ("Mean weight = share of the prior inside the target", number_text(mean), ""),
        ("Effective sample size", count_text(effective_size(weight)), share_text(effective_size(weight), weight.size)),
        ("Largest weight over mean", number_text(float(weight.max()) / mean if mean > 0 else None), ""),
        ("Pairs of weight 0", count_text(int((weight == 0).sum())), share_text(int((weight == 0).sum()), weight.size)),
    ]
    return table(("Quantity", "Value", "Share"), rows)
