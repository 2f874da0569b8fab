"""What the trainer divides by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.contracts.training_config import PreprocessSection
from pipeline.stages.gates.apertures import annulus_statistics
from pipeline.training.preprocess import normalise


def test_statistics_are_those_of_the_trainer():
    """(x - median) / MAD with these statistics, clipped, is what the trainer's own normalisation gives."""
    stamps = np.random.default_rng(1).normal(0.3, 0.02, (5, 3, 64, 64)).astype(np.float32)
    spec = PreprocessSection()
    found = annulus_statistics(stamps, spec.annulus_px, spec.clip).astype(np.float32)
    ours = np.clip((stamps - found[:, :, 0, None, None]) / found[:, :, 1, None, None], -spec.clip, spec.clip)
    np.testing.assert_allclose(ours, normalise(torch.from_numpy(stamps), spec).numpy(), atol=1e-4)


def test_arcs_inside_the_annulus_leave_it_alone(cube):
    """Light at smaller radii changes nothing, and the attribution has three numbers."""
    result = cube.gate("normalisation_statistics")
    assert result.passed
    assert abs(result.detail["columns"]["mad[r]"]["d_pair_members"]) < 0.02
    assert set(result.detail["attribution"]) >= {"total", "host_selection", "arc_overlap"}


def test_light_in_the_annulus_counts_in_full(cube):
    """Arcs that reach the annulus shift its median for the injected member alone, and the detail says so."""
    cube.stamps["injected"][:400] += 0.004
    result = cube.gate("normalisation_statistics")
    assert not result.passed
    assert result.detail["worst"].startswith("median")
    assert result.detail["arc_in_annulus"]["mean_median_shift_mad"][0] == pytest.approx(
        0.004 / (0.6745 * 0.02), rel=0.1
    )
    assert result.interval_95[0] > 0.1


def test_noisier_control_rows_are_found(cube):
    """Control rows of other noise differ in MAD from the injected stamps: host selection."""
    for name in ("injected", "control"):
        cube.stamps[name][400:] *= 1.5
    result = cube.gate("normalisation_statistics")
    assert not result.passed
    assert result.detail["worst"].startswith("mad")
    assert abs(result.detail["attribution"]["host_selection"]) > 1.0
    assert abs(result.detail["attribution"]["arc_overlap"]) < 0.1


def test_a_flat_annulus_fails(cube):
    """Without sky noise there is no MAD to divide by."""
    cube.stamps["control"][3, 1] = 0.25
    assert "MAD of an annulus is 0" in cube.gate("normalisation_statistics").message
