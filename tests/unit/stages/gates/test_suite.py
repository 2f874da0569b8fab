"""The suite as a whole: order, failing closed, waivers, document."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.errors import ConfigError
from pipeline.stages.gates import suite
from pipeline.stages.gates.suite import (
    DATA_GATE_NAMES,
    GATE_NAMES,
    GATES,
    NETWORK_GATE_NAMES,
    check_waivers,
    failed_gates,
    gates_document,
    run_gates,
)

REASON = "accepted for this test of the waiver"


def test_every_gate_passes_a_good_cube(good_verdicts):
    """The reference cube passes every gate, in the order of their names."""
    results = good_verdicts
    assert tuple(result.name for result in results) == DATA_GATE_NAMES
    assert [result.name for result in results if not result.passed] == []
    assert failed_gates(results) == []


def test_gate_names_are_the_published_ones():
    """Waivers and dashboards refer to gates by these names."""
    assert GATE_NAMES == (
        "bandset_audit",
        "finite_pixels",
        "null_injection",
        "duplicate_audit",
        "split_proportions",
        "quality_distributions",
        "quality_by_split",
        "snr_target",
        "snr_correlation",
        "near_threshold_coverage",
        "parameter_grid_coverage",
        "normalisation_statistics",
        "core_brightness_ratio",
        "core_only_auc",
        "radial_profile_auc",
        "metadata_only_auc",
        "anchor_pattern",
        "control_scores",
        "snr_ablation",
        "arc_suppressed",
        "synthetic_ring",
        "centre_mask_curve",
        "realism",
    )
    assert DATA_GATE_NAMES + NETWORK_GATE_NAMES == GATE_NAMES


def test_gates_carry_the_numbers_of_the_lessons():
    """Every gate of the lessons is there by number, 1.3 on the data and on the network."""
    assert {gate.number for gate in GATES} - {""} == {f"1.{k}" for k in range(1, 9)}
    assert {gate.number for gate in GATES if gate.needs_scores} - {""} == {"1.3", "1.4", "1.7"}


@pytest.mark.parametrize("only", ["pair", "control"])
def test_single_class_sample_passes_no_core_gate_by_default(cube, only):
    """Controls alone fail every gate as one class; pairs alone hold both classes and are measured, not defaulted."""
    cube.keep(only)
    results = {result.name: result for result in cube.verdicts()}
    if only == "control":
        of_splits = results.pop("quality_by_split")
        assert "not applicable" in results.pop("anchor_pattern").message
        assert "too few samples" in of_splits.message
        assert not any(result.passed for result in results.values())
        assert all("one class only: 0 positives" in result.message for result in results.values())
        assert all(result.value is None for result in results.values())
    else:
        assert results["core_only_auc"].n_control == 400
        assert results["core_only_auc"].detail["hosts"] == 400


def test_sample_of_stamps_with_one_class_fails_the_stamp_gates(cube):
    """The first rows of an unshuffled cube may all be controls: no AUC of 0.5 comes of that."""
    cube.stamps = cube.stamps.isel(sample=slice(400, 520))
    results = {result.name: result for result in cube.verdicts()}
    for name in ("finite_pixels", "core_brightness_ratio", "core_only_auc"):
        assert (results[name].passed, results[name].value) == (False, None)
        assert "one class only: 0 positives" in results[name].message
    assert results["bandset_audit"].passed


def test_too_few_samples_fail_every_gate(make_cube):
    """Ninety-nine pairs where a hundred are needed fail every gate that applies, with the numbers."""
    results = [result for result in make_cube(99, 50, 20, 5).verdicts() if "not applicable" not in result.message]
    assert not any(result.passed for result in results)
    assert all("too few samples: " in result.message for result in results)
    assert sum("99 positives" in result.message for result in results) == len(results) - 1


@pytest.mark.parametrize(
    ("place", "variable", "gate"),
    [
        ("columns", "psfsize_arcsec", "bandset_audit"),
        ("stamps", "control", "finite_pixels"),
        ("columns", "reject_reason", "quality_distributions"),
        ("columns", "arc_snr_sum", "snr_target"),
        ("columns", "host_id", "split_proportions"),
        ("stamps", "arc_flux_nmgy", "null_injection"),
        ("columns", "ra_deg", "duplicate_audit"),
        ("columns", "split_healpix", "quality_by_split"),
        ("columns", "psfdepth_r_mag", "snr_correlation"),
        ("columns", "split", "near_threshold_coverage"),
        ("columns", "theta_e_arcsec", "parameter_grid_coverage"),
        ("stamps", "injected", "normalisation_statistics"),
        ("stamps", "injected", "radial_profile_auc"),
        ("columns", "ebv_mag", "metadata_only_auc"),
        ("stamps", "control", "core_brightness_ratio"),
        ("stamps", "host_id", "core_only_auc"),
    ],
)
def test_gate_that_raises_fails(cube, place, variable, gate):
    """A gate whose data is missing fails with the error."""
    setattr(cube, place, getattr(cube, place).drop_vars(variable))
    result = cube.gate(gate)
    assert (result.passed, result.value) == (False, None)
    assert "KeyError" in result.message
    assert variable in result.message


def test_gates_that_raise_anything_fail_alone(cube, good_verdicts, monkeypatch):
    """Whatever a gate raises is its failure; every other gate keeps its verdict."""
    faults = {
        "snr_correlation": RuntimeError("out of workers"),
        "finite_pixels": OSError("disk"),
        "core_only_auc": AttributeError("no such thing"),
    }

    def breaking(fault):
        def broken(sample):
            raise fault

        return broken

    gates = tuple(
        dataclasses.replace(gate, measure=breaking(faults[gate.name])) if gate.name in faults else gate
        for gate in suite.GATES
    )
    monkeypatch.setattr(suite, "GATES", gates)
    after = {result.name: result for result in cube.verdicts()}
    for name, fault in faults.items():
        assert type(fault).__name__ in after[name].message
    before = {result.name: result.passed for result in good_verdicts}
    assert {name: result.passed for name, result in after.items()} == {**before, **dict.fromkeys(faults, False)}


def test_gates_fail_without_roles(cube):
    """If classes cannot be counted, no gate passes."""
    cube.columns, cube.stamps = cube.columns.drop_vars("role"), cube.stamps.drop_vars("role")
    assert not any(result.passed for result in cube.verdicts())


def test_gates_fail_an_empty_cube(cube):
    """A cube without rows passes no gate that applies."""
    cube.columns, cube.stamps = cube.columns.isel(sample=[]), cube.stamps.isel(sample=[])
    verdicts = cube.verdicts()
    assert not any(result.passed for result in verdicts if result.applicable)
    assert {result.name for result in verdicts if not result.applicable} == {"anchor_pattern"}


def test_statistic_that_is_not_a_number_fails(cube):
    """Gates without a finite statistic fail and say so."""
    cube.columns["arc_snr_sum"][:] = np.nan
    result = cube.gate("snr_target")
    assert (result.passed, result.value) == (False, None)
    assert "not a number" in result.message
    assert "400 NaN" in result.message


def test_waived_gate_keeps_its_failing_value(cube):
    """A waiver excuses a failed gate without hiding that and how far it failed."""
    cube.configure("gates", core_ratio_range=(1.2, 1.3))
    failing = cube.gate("core_brightness_ratio")
    assert [result.name for result in failed_gates(cube.verdicts())] == ["core_brightness_ratio"]
    cube.configure("gates", waive={"core_brightness_ratio": REASON})
    results = cube.verdicts()
    waived = next(result for result in results if result.name == "core_brightness_ratio")
    assert waived == dataclasses.replace(failing, waived=REASON)
    assert not waived.passed
    assert failed_gates(results) == []


def test_waiver_of_a_gate_that_raises_is_kept(cube):
    """Also a gate that could not be measured carries its waiver."""
    cube.configure("gates", waive={"split_proportions": REASON, "quality_by_split": REASON})
    cube.columns = cube.columns.drop_vars("split_healpix")
    results = cube.verdicts()
    waived = next(result for result in results if result.name == "split_proportions")
    assert (waived.passed, waived.value, waived.waived) == (False, None, REASON)
    assert "split_healpix" in waived.message
    assert failed_gates(results) == []


def test_waiver_needs_the_name_of_a_gate(cube):
    """A misspelt waiver is a configuration error that lists the gates, before and at the run of the gates."""
    cube.configure("gates", waive={"core_auc": REASON, "snr_target": REASON})
    with pytest.raises(ConfigError, match=r"core_only_auc, .*; got core_auc$"):
        check_waivers(cube.config)
    with pytest.raises(ConfigError, match="core_auc"):
        cube.verdicts()


def test_gates_are_deterministic(cube, good_verdicts):
    """Two runs over one cube give equal verdicts, byte for byte as JSON."""
    first, second = (json.dumps(gates_document(found, cube.config)) for found in (good_verdicts, cube.verdicts()))
    assert first == second


def test_gates_document_is_json_with_the_overall_verdict(cube, good_verdicts):
    """The document is strict JSON and names what failed and what was waived."""
    document = gates_document(good_verdicts, cube.config)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["passed"], document["failed"], document["waived"]) == (True, [], {})
    assert [gate["name"] for gate in document["gates"]] == list(DATA_GATE_NAMES)
    cube.columns["arc_snr_sum"][:] = np.nan
    cube.bands_found = ("r",)
    cube.configure("gates", waive={"bandset_audit": REASON})
    document = gates_document(cube.verdicts(), cube.config)
    json.dumps(document, allow_nan=False)
    assert not document["passed"]
    assert "snr_target" in document["failed"]
    assert "bandset_audit" not in document["failed"]
    assert document["waived"] == {"bandset_audit": REASON}


def test_no_results_are_no_pass(cube):
    """A document of no gates does not pass."""
    assert not gates_document([], cube.config)["passed"]


def test_scores_without_their_columns_fail_the_gates_on_the_network_alone(cube):
    """With scores all gates run; those on the network fail closed where what they need is not there."""
    scores = xr.Dataset({"logit": ("example", np.zeros(3))})
    results = run_gates(cube.columns, cube.stamps, cube.config, cube.bands_found, cube.reinjection, scores)
    assert tuple(result.name for result in results) == GATE_NAMES
    assert {result.name for result in failed_gates(results)} == set(NETWORK_GATE_NAMES)


def test_gates_accept_read_only_arrays(cube):
    """Arrays that came over the wire are read-only."""
    for dataset in (cube.columns, cube.stamps):
        for name in dataset.variables:
            dataset[name].values.flags.writeable = False
    assert failed_gates(cube.verdicts()) == []
