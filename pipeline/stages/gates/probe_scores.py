"""What the gates on a network read: columns of the probes, scores, pairs, and the scores of visible arcs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.gates.result import GateInput

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def column(sample: GateInput, name: str) -> NDArray[Any]:
    """(example,) a column of the probes; ValueError without probes."""
    if sample.scores is None:
        raise ValueError("no scores of a network were given")
    return sample.scores[name].to_numpy()


def finite_column(sample: GateInput, name: str, rows: Rows | slice = slice(None)) -> Floats:
    """(row,) values of a column, of which there must be some; ValueError if one is not finite."""
    values = column(sample, name)[rows].astype(np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(values))} of {values.size} values are not finite")
    return values


def scores(sample: GateInput, name: str, rows: Rows | slice = slice(None)) -> Floats:
    """Scores in [0, 1] of a column of logits, all finite."""
    return np.asarray(
        1.0 / (1.0 + np.exp(-np.clip(finite_column(sample, name, rows), -700.0, 700.0))), dtype=np.float64
    )


def injected_rows(sample: GateInput) -> Rows:
    """(row,) indices of the injected stamps."""
    return np.flatnonzero(column(sample, "label") == 1)


def paired_rows(sample: GateInput) -> tuple[Rows, Rows]:
    """Rows of injected stamps and of their controls, in the same order."""
    injected, control = (np.flatnonzero(column(sample, "kind") == kind) for kind in ("injected", "control"))
    pair_id = column(sample, "pair_id")
    injected, control = (rows[np.argsort(pair_id[rows], kind="stable")] for rows in (injected, control))
    if not np.array_equal(pair_id[injected], pair_id[control]):
        raise ValueError(f"{injected.size} injected stamps and {control.size} controls are not the same pairs")
    return injected, control


def hidden_odds(sample: GateInput) -> float:
    """Scored injected stamps whose arc cannot be seen, per scored control; 0 without `visible_arc_snr`."""
    limit = sample.config.gates.network.visible_arc_snr
    if limit is None:
        return 0.0
    hidden = int((finite_column(sample, "arc_snr", injected_rows(sample)) < limit).sum())
    return hidden / int((column(sample, "label") == 0).sum())


def judged_scores(sample: GateInput, name: str, rows: Rows | slice = slice(None)) -> Floats:
    """Scores, or with `visible_arc_snr` those of a visible arc: p - h (1 - p), at least 0.

    An arc that cannot be seen looks as its control does, so h such arcs per control in the training set give every
    stamp without visible arc the odds h. Counted among the controls, they leave a stamp that has the score p the
    probability p - h (1 - p) of a visible arc, 0 where its odds are h.
    """
    score, odds = scores(sample, name, rows), hidden_odds(sample)
    return np.maximum(score - odds * (1.0 - score), 0.0)


def visible_pairs(sample: GateInput) -> tuple[Rows, Rows]:
    """`paired_rows` whose arc can be seen; all of them without `visible_arc_snr`."""
    injected, control = paired_rows(sample)
    limit = sample.config.gates.network.visible_arc_snr
    if limit is None:
        return injected, control
    visible = finite_column(sample, "arc_snr", injected) >= limit
    if int(visible.sum()) < sample.config.gates.min_per_class:
        raise ValueError(
            f"{int(visible.sum())} of {visible.size} pairs have arc_snr >= {limit}, at least "
            f"{sample.config.gates.min_per_class} are needed"
        )
    return injected[visible], control[visible]
