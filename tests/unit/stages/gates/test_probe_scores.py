"""What gates read of the probes: finite scores, pairs in one order, and the scores of visible arcs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.stages.gates.probe_scores import (
    column,
    finite_column,
    hidden_odds,
    injected_rows,
    judged_scores,
    paired_rows,
    scores,
    visible_pairs,
)
from pipeline.stages.gates.result import GateInput


def sample_of(table: xr.Dataset | None, config: RunConfig, visible_arc_snr: float | None = None) -> GateInput:
    """What the gates are given."""
    content = config.model_dump()
    content["gates"] |= {"min_per_class": 10}
    content["gates"]["network"]["visible_arc_snr"] = visible_arc_snr
    return GateInput(xr.Dataset(), xr.Dataset(), RunConfig.model_validate(content), (), None, table)


def test_columns_are_there_and_finite(good_scores, gate_config: RunConfig) -> None:
    """Without probes, and with a NaN, there is no value; logits become scores."""
    sample = sample_of(good_scores(), gate_config)
    assert injected_rows(sample).tolist() == list(range(150))
    assert scores(sample, "logit") == pytest.approx(1 / (1 + np.exp(-column(sample, "logit"))))
    with pytest.raises(ValueError, match="270 of 420 values are not finite"):
        finite_column(sample, "arc_snr")
    with pytest.raises(ValueError, match="no scores"):
        column(sample_of(None, gate_config), "logit")


def test_pairs_are_in_one_order(good_scores, gate_config: RunConfig) -> None:
    """Rows of injected stamps beside those of their controls; all of them without a threshold."""
    sample = sample_of(good_scores(), gate_config)
    injected, control = paired_rows(sample)
    pair_id = column(sample, "pair_id")
    assert pair_id[injected].tolist() == pair_id[control].tolist() == list(range(150))
    assert visible_pairs(sample)[0].tolist() == injected.tolist()


def test_scores_of_visible_arcs(good_scores, gate_config: RunConfig) -> None:
    """p - h (1 - p) with h of the arcs below the threshold, raw without one; pairs are those above it."""
    table = good_scores()
    table["arc_snr"][:54] = 1.0
    raw, seen = sample_of(table, gate_config), sample_of(table, gate_config, 2.0)
    assert (hidden_odds(raw), hidden_odds(seen)) == (0.0, 54 / 270)
    p = scores(raw, "logit")
    assert judged_scores(raw, "logit").tolist() == p.tolist()
    assert judged_scores(seen, "logit") == pytest.approx(np.maximum(p - 0.2 * (1 - p), 0.0))
    assert visible_pairs(seen)[0].tolist() == list(range(54, 150))
    with pytest.raises(ValueError, match="at least 10 are needed"):
        visible_pairs(sample_of(table, gate_config, 19.9))
