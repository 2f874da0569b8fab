"""The realism gate: equal samples pass, shifted ones fail, hosts that look otherwise are matched away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.stages.gates.result import GateResult
from pipeline.stages.gates.suite import run_network_gates

N_INJECTED = 300


@pytest.fixture
def realism(gate_config: RunConfig) -> Callable[[xr.Dataset], GateResult]:
    """The verdict of the gate with anchors configured."""
    content = gate_config.model_dump()
    content["anchors"] = {"url": "anchors.parquet"}
    config = RunConfig.model_validate(content)
    return lambda scores: run_network_gates(scores, config)[-1]


def test_samples_of_one_distribution_pass(realism, embeddings) -> None:
    """Noise against itself: AUC about 0.5 and a distance within its null."""
    result = realism(embeddings())
    assert result.passed, result.message
    assert result.value == pytest.approx(0.5, abs=0.15)
    assert result.detail["frechet"]["layer_2"]["p_permutation"] > 0.01
    assert (result.n_positive, result.n_control) == (N_INJECTED, 60)
    assert result.detail["anchors"] == {"used": 60}
    assert result.detail["matched_in"] == ["ln sky sigma", "asinh flux over sky", "seeing"]


def test_shifted_anchors_fail_in_the_layer_that_is_shifted(realism, embeddings) -> None:
    """A shift of three sigma in one feature is found by probe and distance; the other layer stays at its null."""
    result = realism(embeddings(shift=3.0))
    assert not result.passed
    assert result.value is not None
    assert result.value > 0.95
    assert result.null_p == pytest.approx(1 / 21)
    distances = result.detail["frechet"]
    assert distances["layer_2"]["distance"] == pytest.approx(3.0, abs=0.7)
    assert distances["layer_0"]["p_permutation"] > 0.01


def test_wider_anchors_fail_by_their_distance(realism, embeddings) -> None:
    """A difference of scatter that no linear probe sees fails by the Frechet distance."""
    scores = embeddings()
    anchor = (scores["embedded_kind"] == "anchor").to_numpy()
    scores["layer_2"][anchor, 1:] = 4.0 * scores["layer_2"][anchor, 1:]
    result = realism(scores)
    assert not result.passed
    assert result.value is not None
    assert result.value < 0.8
    assert result.detail["frechet"]["layer_2"]["distance"] > 1.2


def test_hosts_that_look_otherwise_are_matched_away(realism, embeddings) -> None:
    """Brighter hosts alone make anchors differ from all injections, not from those on hosts that look alike."""
    result = realism(embeddings(host_shift=1.0))
    assert result.detail["auc_against"]["all_injections"] > 0.7
    assert result.value == pytest.approx(0.5, abs=0.15)
    assert result.passed


def test_network_that_sees_no_arcs_cannot_call_them_realistic(realism, embeddings) -> None:
    """Where injections and their controls look the same to the network, equal anchors are no proof."""
    scores = embeddings()
    scores["layer_2"][(scores["embedded_kind"] == "control").to_numpy(), 2] -= 4.0
    result = realism(scores)
    assert not result.passed
    assert "too weak" in result.message


def test_too_few_anchors_fail(realism, embeddings) -> None:
    """Anchors that were configured but are too few, or none, fail closed with the number needed."""
    for n in (0, 29):
        result = realism(embeddings(n_anchors=n))
        assert not result.passed
        assert f"{n} controls, at least 30" in result.message


def test_seeing_and_embeddings_must_be_finite(realism, embeddings) -> None:
    """A stamp without seeing, an embedding that is not finite, or none at all fails, with the reason."""
    scores = embeddings()
    anchor = (scores["embedded_kind"] == "anchor").to_numpy()
    scores["embedded_psfsize_arcsec"][anchor] = np.nan
    assert "flux or seeing of a stamp is not finite" in realism(scores).message
    scores = embeddings()
    scores["layer_0"][0, 0] = np.nan
    assert "layer_0: 1 embeddings are not finite" in realism(scores).message
    assert "no embedding" in realism(scores.drop_vars(["layer_0", "layer_2"])).message


def test_fewer_injections_than_anchors_fail(realism, embeddings) -> None:
    """An anchor without an injection to compare is no verdict."""
    scores = embeddings(n_anchors=60)
    rows = np.concatenate([np.arange(40), np.arange(N_INJECTED, scores.sizes["stamp"])])
    assert "need as many injections" in realism(scores.isel(stamp=rows)).message


def test_without_anchors_the_gate_says_why_it_does_not_apply(gate_config: RunConfig, embeddings) -> None:
    """No anchors configured: passed without a value, with the reason."""
    result = run_network_gates(embeddings(n_anchors=0), gate_config)[-1]
    assert (result.passed, result.value) == (True, None)
    assert "names no real lenses: section anchors" in result.message
