"""Gates on a network: tables of scores with a known fault fail exactly the gates on that fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.network_gate_config import NetworkGateSection, mask_name
from pipeline.stages.gates.result import GateResult
from pipeline.stages.gates.suite import GATE_NAMES, NETWORK_GATE_NAMES, run_network_gates

N_PAIRS, N_ROWS = 150, 120
RADII = NetworkGateSection().mask_radii_px
Scores = xr.Dataset
Edit = Callable[[Scores], None]


def embedded(scores: Scores) -> Scores:
    """The scores with an embedding that holds no real lens."""
    return scores.assign(embedded_kind=("stamp", np.array(["injected"] * N_PAIRS, dtype=object)))


@pytest.fixture
def judge(gate_config: RunConfig, good_scores: Callable[[], Scores]) -> Callable[..., dict[str, GateResult]]:
    """Verdicts by name, after an edit of the good scores."""

    def run(edit: Edit | None = None, config: RunConfig = gate_config) -> dict[str, GateResult]:
        scores = embedded(good_scores())
        if edit is not None:
            edit(scores)
        return {result.name: result for result in run_network_gates(scores, config)}

    return run


def failing(results: dict[str, GateResult]) -> set[str]:
    """Names of the gates that fail."""
    return {name for name, result in results.items() if not result.passed}


def test_good_network_passes_every_gate(judge) -> None:
    """All pass, with counts and intervals about the value; realism has nothing to compare and says so."""
    results = judge()
    assert tuple(results) == NETWORK_GATE_NAMES == GATE_NAMES[-6:]
    assert failing(results) == set()
    assert results.pop("realism").message.startswith("not applicable")
    for result in results.values():
        assert (result.n_positive, result.n_control) == (N_PAIRS, N_PAIRS + N_ROWS)
        assert result.interval_95 is not None
        assert result.value is not None
        assert result.interval_95[0] - 1e-12 <= result.value <= result.interval_95[1]
        assert result.null
        assert result.null_p is not None
        assert result.null_draws > 0
    assert results["control_scores"].null_p == pytest.approx(0.001)


def test_controls_that_are_all_lenses_fail_the_null_alone(judge) -> None:
    """Every control above 0.5, though ranked below every arc, fails gate 1.3 and no other."""

    def spoil(scores: Scores) -> None:
        for name in ("logit", "logit_snr_image", *(f"logit_{mask_name(radius)}" for radius in RADII)):
            scores[name][:] = scores[name] + 5.0

    results = judge(spoil)
    assert failing(results) == {"control_scores"}
    assert results["control_scores"].number == "1.3"
    assert results["control_scores"].detail["called_lens_share"] > 0.95


def test_few_controls_with_high_scores_fail_by_their_share(judge) -> None:
    """A mean score below the bound is not enough if more than a tenth of the controls is called a lens."""

    def spoil(scores: Scores) -> None:
        rows = np.flatnonzero(scores["label"] == 0)[::8]
        scores["logit"][rows] = 0.3

    result = judge(spoil)["control_scores"]
    assert not result.passed
    assert result.value is not None
    assert result.value < 0.2


def test_network_that_looks_at_the_core_alone_fails_arc_and_mask(judge) -> None:
    """With the core hidden it knows nothing, without the arc it says the same: both gates fail, no other does."""

    def spoil(scores: Scores) -> None:
        rng = np.random.default_rng(6)
        for radius in RADII:
            scores[f"logit_{mask_name(radius)}"][:] = rng.normal(-3.0, 0.8, scores.sizes["example"])
        scores["logit_arc_suppressed"][:N_PAIRS] = scores["logit"][:N_PAIRS]

    results = judge(spoil)
    assert failing(results) == {"arc_suppressed", "centre_mask_curve"}
    curve = results["centre_mask_curve"]
    assert curve.value == pytest.approx(1.0, abs=0.15)
    assert curve.detail["steepest_step"]["to_px"] == 3.0
    assert curve.detail["half_lost_px"] < 3.0
    assert results["arc_suppressed"].null_p == pytest.approx(0.001)


def test_curve_of_a_good_network_is_in_the_detail(judge) -> None:
    """AUC falls with the radius as the arcs' light is hidden; each point has an interval."""
    detail = judge()["centre_mask_curve"].detail
    assert [point["radius_px"] for point in detail["curve"]] == [0.0, *RADII]
    assert all(point["low"] <= point["auc"] <= point["high"] for point in detail["curve"])
    assert detail["curve"][-1]["auc"] == pytest.approx(0.5, abs=0.08)
    assert 10.0 < detail["half_lost_px"] < 15.0
    assert detail["arc_power_inside"]["15"] == pytest.approx(1.0)


def test_any_ring_fails_the_ring_gate_alone(judge) -> None:
    """Rings that score like arcs fail; the AUC of arcs against rings says that the network sees no difference."""

    def spoil(scores: Scores) -> None:
        control = np.flatnonzero(scores["kind"] == "control")
        scores["logit_ring"][control] = np.random.default_rng(3).normal(3.0, 0.8, control.size)
        scores["logit_fixed_ring"][control] = 9.0

    results = judge(spoil)
    assert failing(results) == {"synthetic_ring"}
    detail = results["synthetic_ring"].detail
    assert detail["auc_arcs_against_rings"] == pytest.approx(0.5, abs=0.1)
    assert detail["called_lens_share_of"]["fixed_ring"] == 1.0
    assert results["synthetic_ring"].null_p == pytest.approx(0.001)


def test_depth_as_a_cue_fails_the_ablation_alone(judge) -> None:
    """Scores that are lost in units of noise fail gate 1.4; the null of swapped ranks says that it is no chance."""

    def spoil(scores: Scores) -> None:
        scores["logit_snr_image"][:] = np.random.default_rng(8).normal(0.0, 1.0, scores.sizes["example"])
        sigma = scores["sky_sigma_nmgy"].to_numpy()
        scores["logit"][:] = scores["logit"] + 2.0 * (np.log(sigma) + 5.0)

    results = judge(spoil)
    assert failing(results) == {"snr_ablation"}
    found = results["snr_ablation"]
    assert found.null_p == pytest.approx(0.005)
    assert found.detail["spearman_of_control_scores"]["sky_sigma_nmgy"]["p"] < 0.01
    assert judge()["snr_ablation"].null_p > 0.01


def test_network_without_knowledge_passes_no_curve(judge) -> None:
    """AUC that is not above chance has nothing to lose: the gate fails, it does not pass with 0 lost."""

    def spoil(scores: Scores) -> None:
        scores["logit"][:] = np.random.default_rng(9).normal(-3.0, 0.8, scores.sizes["example"])

    result = judge(spoil)["centre_mask_curve"]
    assert not result.passed
    assert "not above chance" in result.message


@pytest.mark.parametrize(
    ("column", "gate"),
    [
        ("logit", "control_scores"),
        ("logit_snr_image", "snr_ablation"),
        ("logit_arc_suppressed", "arc_suppressed"),
        ("logit_ring", "synthetic_ring"),
        ("logit_fixed_ring", "synthetic_ring"),
        ("logit_mask_7px", "centre_mask_curve"),
        ("arc_power_mask_5px", "centre_mask_curve"),
    ],
)
@pytest.mark.parametrize("fault", ["nan", "gone"])
def test_scores_that_are_not_finite_or_missing_fail_closed(judge, column: str, gate: str, fault: str) -> None:
    """One NaN among the scores that a gate reads fails it, and so does a column that is not there."""

    def spoil(scores: Scores) -> None:
        if fault == "gone":
            del scores[column]
        else:
            row = np.flatnonzero(np.isfinite(scores[column].to_numpy()))[:1]
            if column == "logit":
                row = np.flatnonzero(scores["kind"] == "control")[:1]
            scores[column][row] = np.nan

    result = judge(spoil)[gate]
    assert (result.passed, result.value) == (False, None)
    assert column in result.message


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_and_no_rows_fail_every_gate(gate_config: RunConfig, label: int, good_scores) -> None:
    """Scores of one class, and none at all, pass nothing; realism has no anchors to judge."""
    scores = embedded(good_scores())
    for rows in (np.flatnonzero(scores["label"] == label), []):
        results = {r.name: r for r in run_network_gates(scores.isel(example=rows), gate_config)}
        assert failing(results) == set(NETWORK_GATE_NAMES) - {"realism"}
        assert all("one class only" in results[name].message for name in failing(results))


def test_arcs_that_cannot_be_seen_are_no_fault_of_the_network(judge, gate_config: RunConfig) -> None:
    """The ideal score of controls beside invisible arcs fails the gates on raw scores and passes those on visible ones.

    With 40 invisible arcs and 270 controls an ideal network gives both odds of 0.15; here they are 0.5.
    """
    odds = 0.5

    def spoil(scores: Scores) -> None:
        hidden = np.arange(40)
        scores["arc_snr"][hidden] = 1.0
        flat = np.log(odds) + np.random.default_rng(4).normal(0.0, 0.05, scores.sizes["example"])
        faint = (scores["label"] == 0).to_numpy()
        faint[hidden] = True
        scores["logit"][faint] = flat[faint]
        scores["logit_arc_suppressed"][:N_PAIRS] = flat[:N_PAIRS]

    def visible(**bounds: object) -> RunConfig:
        content = gate_config.model_dump()
        content["gates"]["network"] |= {"visible_arc_snr": 2.0, **bounds}
        return RunConfig.model_validate(content)

    raw = judge(spoil)
    assert raw["control_scores"].value == pytest.approx(1 / 3, abs=0.01)
    assert {"control_scores", "arc_suppressed"} <= failing(raw)
    found = judge(spoil, config=visible())
    h = 40 / 270
    assert found["control_scores"].value == pytest.approx(1 / 3 - h * 2 / 3, abs=0.01)
    assert found["control_scores"].detail["arcs_not_visible_per_control"] == pytest.approx(h)
    assert found["arc_suppressed"].passed
    assert found["arc_suppressed"].detail["pairs"] == found["synthetic_ring"].detail["pairs"] == 110
    few = judge(spoil, config=visible(visible_arc_snr=18.0))
    assert "at least 100 are needed" in few["arc_suppressed"].message


def test_ideal_scores_beside_invisible_arcs_are_zero_for_a_visible_one(judge, gate_config: RunConfig) -> None:
    """Controls with just the odds of the invisible arcs score 0."""

    def spoil(scores: Scores) -> None:
        scores["arc_snr"][:60] = 1.0
        scores["logit"][N_PAIRS:] = np.log(60 / 270)

    content = gate_config.model_dump()
    content["gates"]["network"]["visible_arc_snr"] = 2.0
    found = judge(spoil, config=RunConfig.model_validate(content))["control_scores"]
    assert found.value == pytest.approx(0.0, abs=1e-12)


def test_labels_and_pairs_that_do_not_fit_fail_closed(judge) -> None:
    """A label other than 0 and 1, or a control without its pair, is an error and no verdict on the rest."""

    def relabel(scores: Scores) -> None:
        scores["label"][0] = 2

    def unpair(scores: Scores) -> None:
        scores["pair_id"][0] = 999

    assert failing(judge(relabel)) == set(NETWORK_GATE_NAMES) - {"realism"}
    assert failing(judge(unpair)) == {"arc_suppressed", "synthetic_ring"}


def test_waived_gate_keeps_its_verdict(judge, gate_config: RunConfig) -> None:
    """A gate on the network is waived by name like any other."""

    def spoil(scores: Scores) -> None:
        scores["logit_ring"][:] = 4.0

    content = gate_config.model_dump()
    content["gates"]["waive"] = {"synthetic_ring": "rings were left out of this training on purpose"}
    result = judge(spoil, config=RunConfig.model_validate(content))["synthetic_ring"]
    assert not result.passed
    assert result.waived is not None
    assert result.value is not None
