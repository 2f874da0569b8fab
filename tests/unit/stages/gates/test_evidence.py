"""Every gate of the suite gives counts per class, an interval, and a null or the reason why there is none."""

from __future__ import annotations

import math

import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.stages.gates.suite import GATE_NAMES, failed_gates, run_gates

AUDITS = {"bandset_audit", "finite_pixels", "null_injection", "duplicate_audit"}


def test_every_gate_gives_counts_an_interval_and_a_null_or_a_reason(cube, make_cube, good_scores, embeddings):
    """All 23 gates on a clean cube with anchors and a good network pass and carry their evidence."""
    content = cube.config.model_dump()
    content["anchors"] = {"url": "anchors.parquet"}
    config = RunConfig.model_validate(content)
    other = make_cube(120, 20, 5, 5)
    images = other.stamps["injected"].to_numpy()[:120]
    anchors = xr.Dataset({"image": (("sample", "band", "y", "x"), images)})
    scores = xr.merge([good_scores(), embeddings()], combine_attrs="no_conflicts")
    results = run_gates(cube.columns, cube.stamps, config, cube.bands_found, cube.reinjection, scores, anchors)
    assert tuple(result.name for result in results) == GATE_NAMES
    assert failed_gates(results) == []
    for result in results:
        assert result.applicable, result.name
        assert min(result.n_positive, result.n_control) >= 60, result.name
        assert result.value is not None, result.name
        assert result.interval_95 is not None, result.name
        low, high = result.interval_95
        assert math.isfinite(low), result.name
        assert math.isfinite(high), result.name
        assert low <= high, result.name
        if result.interval_of == "value":
            assert low - 1e-9 <= result.value <= high + 1e-9 or result.name == "normalisation_statistics", result.name
        assert result.null, result.name
        assert (result.name in AUDITS) == result.null.startswith("none: "), result.name
        if result.name not in AUDITS:
            assert result.null_p is not None, result.name
            assert 0.0 < result.null_p <= 1.0, result.name
            assert result.null_draws > 0 or "binomial" in result.null, result.name
