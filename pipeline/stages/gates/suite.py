"""The suite: runs every gate, fails closed, applies waivers."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError, PipelineError
from pipeline.stages.gates.anchor_pattern import compare_anchor_pattern, count_anchors, no_anchors
from pipeline.stages.gates.audits import audit_bandset, audit_pixels, audit_splits
from pipeline.stages.gates.coverage import cover_grid, cover_threshold
from pipeline.stages.gates.distributions import compare_snr_target, correlate_snr, no_snr_target
from pipeline.stages.gates.duplicates import audit_duplicates
from pipeline.stages.gates.network import (
    ablate_depth,
    add_rings,
    count_scored,
    mask_centres,
    no_inverse_variance,
    score_controls,
    suppress_arcs,
)
from pipeline.stages.gates.normalisation import compare_normalisation
from pipeline.stages.gates.null_injection import audit_null_injection, no_injection
from pipeline.stages.gates.quality import (
    compare_quality,
    compare_splits,
    count_hosts,
    count_split_rows,
    no_held_out_split,
)
from pipeline.stages.gates.realism import compare_embeddings, count_embedded, fewest_anchors, no_embedded_anchors
from pipeline.stages.gates.result import (
    Gate,
    GateInput,
    GateResult,
    Measurement,
    Reinjection,
    count_pairs,
    count_rows,
    count_stamps,
    has_role,
    json_value,
)
from pipeline.stages.gates.shortcuts import (
    classify_core,
    classify_metadata,
    classify_radial_profile,
    compare_core_brightness,
    count_metadata,
    no_control_rows,
)

GATES = (
    Gate("bandset_audit", count_rows, audit_bandset, number="1.2"),
    Gate("finite_pixels", count_stamps, audit_pixels),
    Gate("null_injection", count_pairs, audit_null_injection, no_injection, number="1.3"),
    Gate("duplicate_audit", count_stamps, audit_duplicates),
    Gate("split_proportions", count_rows, audit_splits),
    Gate("quality_distributions", count_hosts, compare_quality, number="1.1"),
    Gate("quality_by_split", count_split_rows, compare_splits, no_held_out_split, number="1.1"),
    Gate("snr_target", count_rows, compare_snr_target, no_snr_target),
    Gate("snr_correlation", count_rows, correlate_snr),
    Gate("near_threshold_coverage", count_rows, cover_threshold),
    Gate("parameter_grid_coverage", count_rows, cover_grid),
    Gate("normalisation_statistics", count_stamps, compare_normalisation, number="1.5"),
    Gate("core_brightness_ratio", count_pairs, compare_core_brightness, number="1.8"),
    Gate("core_only_auc", count_stamps, classify_core, number="1.6"),
    Gate("radial_profile_auc", count_stamps, classify_radial_profile),
    Gate("metadata_only_auc", count_metadata, classify_metadata, nothing_to_judge=no_control_rows),
    Gate("anchor_pattern", count_anchors, compare_anchor_pattern, no_anchors),
    Gate("control_scores", count_scored, score_controls, number="1.3", needs_scores=True),
    Gate("snr_ablation", count_scored, ablate_depth, no_inverse_variance, number="1.4", needs_scores=True),
    Gate("arc_suppressed", count_scored, suppress_arcs, number="1.7", needs_scores=True),
    Gate("synthetic_ring", count_scored, add_rings, needs_scores=True),
    Gate("centre_mask_curve", count_scored, mask_centres, needs_scores=True),
    Gate("realism", count_embedded, compare_embeddings, no_embedded_anchors, needs_scores=True, fewest=fewest_anchors),
)
GATE_NAMES = tuple(gate.name for gate in GATES)
DATA_GATE_NAMES = tuple(gate.name for gate in GATES if not gate.needs_scores)
NETWORK_GATE_NAMES = tuple(gate.name for gate in GATES if gate.needs_scores)

# Whatever code that measures can raise; an error is a failed gate, not a failed suite.
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError, PipelineError,
)  # fmt: skip

logger = logging.getLogger("pipeline.stages")


def check_waivers(config: RunConfig) -> None:
    """Refuse a waiver of a gate that does not exist.

    Raises:
        ConfigError: a key of `gates.waive` is not in GATE_NAMES.
    """
    unknown = sorted(set(config.gates.waive) - set(GATE_NAMES))
    if unknown:
        raise ConfigError(f"gates.waive: expected names among {', '.join(GATE_NAMES)}; got {', '.join(unknown)}")


def run_gates(
    columns: xr.Dataset,
    stamps: xr.Dataset,
    config: RunConfig,
    bands_found: Sequence[str],
    reinjection: Reinjection | None = None,
    scores: xr.Dataset | None = None,
    anchors: xr.Dataset | None = None,
) -> list[GateResult]:
    """Verdict of every gate, in the order of GATE_NAMES; gates of a network only where there are scores.

    A gate fails closed: data it cannot work with, one class, fewer than `gates.min_per_class` samples
    of a class and a statistic that is not a number all fail it, with a message that says which. A
    waived gate is computed and keeps its verdict and value.

    Args:
        columns: the (sample,) and (sample, band) variables of the training cube, all rows.
        stamps: those variables plus `injected` and `control`, (sample, band, y, x) in nmgy, of a subset
            of the rows whose role is pair or control.
        config: thresholds, waivers, target, splits and seed.
        bands_found: the bands the cube says it holds, in storage order.
        reinjection: some pairs that are injected again; without them null_injection fails.
        scores: what a network said of the probes; None before training.
        anchors: `image` of usable real lenses; None if the configuration names none.

    Raises:
        ConfigError: a waiver names no gate.
    """
    check_waivers(config)
    sample = GateInput(columns, stamps, config, tuple(bands_found), reinjection, scores, anchors)
    return [run_gate(gate, sample) for gate in GATES if scores is not None or not gate.needs_scores]


def run_network_gates(scores: xr.Dataset, config: RunConfig) -> list[GateResult]:
    """Verdict of the gates on a network alone, as `run_gates` gives it.

    Args:
        scores: what the network said of the probes.
        config: thresholds, waivers and seed.

    Raises:
        ConfigError: a waiver names no gate.
    """
    check_waivers(config)
    sample = GateInput(xr.Dataset(), xr.Dataset(), config, (), None, scores)
    return [run_gate(gate, sample) for gate in GATES if gate.needs_scores]


def run_gate(gate: Gate, sample: GateInput) -> GateResult:
    """Verdict of one gate, failing closed as `run_gates` says: whatever it raises fails it, and no other gate."""
    reason = gate.not_applicable(sample.config) if gate.not_applicable is not None else ""
    try:
        n_positive, n_control = gate.count(sample)
        if not reason and gate.nothing_to_judge is not None:
            reason = gate.nothing_to_judge(sample)
    except _FAULTS as error:
        _log_error(gate, error)
        return _verdict(gate, sample, 0, 0, message=f"classes could not be counted: {_named(error)}")
    if reason:
        result = _verdict(gate, sample, n_positive, n_control, passed=True, message=reason)
        return dataclasses.replace(result, applicable=False)
    minimum = sample.config.gates.min_per_class if gate.fewest is None else gate.fewest(sample.config)
    if min(n_positive, n_control) < minimum:
        what = "one class only" if min(n_positive, n_control) == 0 else "too few samples"
        message = f"{what}: {n_positive} positives and {n_control} controls, at least {minimum} of each are needed"
        message += _unpaired(sample)
        return _verdict(gate, sample, n_positive, n_control, message=message)
    try:
        found = gate.measure(sample)
        detail = json_value(found.detail)
    except _FAULTS as error:
        _log_error(gate, error)
        message = f"could not be measured: {_named(error)}{_unpaired(sample)}"
        return _verdict(gate, sample, n_positive, n_control, message=message)
    if found.value is None or not math.isfinite(found.value):
        message = f"the statistic is not a number ({found.value}): {found.message}"
        return _verdict(gate, sample, n_positive, n_control, bound=found.bound, detail=detail, message=message)
    return _measured(gate, sample, n_positive, n_control, found, detail)


def _unpaired(sample: GateInput) -> str:
    """Why an import has no pairs, and what helps; empty where there are some, and for stamps of our own."""
    rows = sample.columns
    if sample.config.manifest.kind != "stamps" or "role" not in rows or has_role(rows, "pair").any():
        return ""
    n_arcs = int(has_role(sample.columns, "injected").sum())
    return f"; {n_arcs} imported arcs have no control: name the table of pairs first in dhs import" if n_arcs else ""


def _log_error(gate: Gate, error: Exception) -> None:
    logger.warning("gate raised", exc_info=error, extra={"fields": {"gate": gate.name}})


def failed_gates(results: Iterable[GateResult]) -> list[GateResult]:
    """The gates that failed and are not waived; training may start only if there are none."""
    return [result for result in results if not result.passed and result.waived is None]


def gates_document(results: Sequence[GateResult], config: RunConfig) -> dict[str, Any]:
    """The JSON document of a gate run: overall verdict, bounds, and every result."""
    return {
        "passed": len(results) > 0 and not failed_gates(results),
        "failed": [result.name for result in failed_gates(results)],
        "waived": {result.name: result.waived for result in results if result.waived is not None},
        "config_sha256": config.sha256(),
        "bounds": config.gates.model_dump(mode="json"),
        "gates": [json_value(dataclasses.asdict(result)) for result in results],
    }


def _measured(
    gate: Gate, sample: GateInput, n_positive: int, n_control: int, found: Measurement, detail: dict[str, Any]
) -> GateResult:
    """The result of a gate that could be measured."""
    if found.attribution is not None:
        detail = {**detail, "attribution": json_value(dataclasses.asdict(found.attribution))}
    return GateResult(
        name=gate.name,
        passed=found.passed,
        waived=sample.config.gates.waive.get(gate.name),
        value=found.value,
        bound=found.bound,
        n_positive=n_positive,
        n_control=n_control,
        detail=detail,
        message=found.message,
        number=gate.number,
        interval_95=found.interval_95,
        attribution=found.attribution.sentence() if found.attribution is not None else "",
        interval_of=found.interval_of,
        null=found.null.how,
        null_draws=found.null.draws,
        null_p=found.null.p,
    )


def _verdict(
    gate: Gate,
    sample: GateInput,
    n_positive: int,
    n_control: int,
    *,
    message: str,
    passed: bool = False,
    bound: str = "",
    detail: dict[str, Any] | None = None,
) -> GateResult:
    """A result without a value."""
    waived = sample.config.gates.waive.get(gate.name)
    return GateResult(gate.name, passed, waived, None, bound, n_positive, n_control, detail or {}, message, gate.number)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
