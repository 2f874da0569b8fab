"""Everything that is measured of one scored run, as documents and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import EMR_KEYS, EvaluationSettings
from pipeline.stages.calibration import calibrate, survey_yield
from pipeline.stages.completeness import (
    completeness_surfaces,
    detection_thresholds,
    failure_table,
    selection_function,
    surface_accounting,
)
from pipeline.stages.emr_surfaces import control_surfaces, injection_surfaces, region_aggregate
from pipeline.stages.evaluation import auc_interval, operating_point, roc_curve
from pipeline.stages.gates.result import json_value
from pipeline.stages.host_bootstrap import BOOTSTRAP, bootstrap_ranking
from pipeline.stages.intervals import JEFFREYS, WILSON
from pipeline.stages.scored_rows import depth_definition, injection_rows, scored_examples
from pipeline.stages.split_gap import explain_gap
from pipeline.stages.strata import recall_by_tier, stratified_metrics

# Cells of the EMR surfaces for continuous draws, which no manifest put on a grid.
_GRID_STEPS = {"theta_e_arcsec": 0.25, "src_dmag": 0.5, "src_reff_arcsec": 0.05}


@dataclass(frozen=True)
class Evaluation:
    """Results of one run.

    Attributes:
        documents: "evaluation" and "selection_function_meta", JSON types.
        tables: selection_function, completeness, failures, strata, split_gap and the EMR surfaces.
        summary: headline values.
    """

    documents: dict[str, dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]


def evaluate_run(
    columns: xr.Dataset,
    scores: Mapping[str, pd.DataFrame],
    bands: tuple[str, ...],
    band: str,
    seed: int,
    settings: EvaluationSettings,
    manifest: pd.DataFrame | None = None,
) -> Evaluation:
    """Measure the scores of the test split, and its gap to the validation split.

    Args:
        columns: columns of the training cube, all rows.
        scores: "test" and "val" to task_id, label and logit per stamp.
        bands: bands of the cube in storage order.
        band: band of magnitudes, seeing and SNR.
        seed: run seed, which keys the bootstrap.
        settings: what to measure.
        manifest: one row per cube row with the keys of the EMR surfaces; None for a parent catalogue.

    Raises:
        VerificationError: scores that do not fit the cube, one class only, or weights that are not positive.
    """
    examples = scored_examples(columns, scores["test"], bands, band)
    validation = scored_examples(columns, scores["val"], bands, band)
    injections = injection_rows(columns, scores["test"], "test", bands, band)
    _fill_failed_theta(injections, manifest)
    label, logit, host = (examples[name].to_numpy() for name in ("label", "logit", "host_id"))
    curve = roc_curve(label, logit)
    points = [operating_point(curve, rate) for rate in settings.false_positive_rates]
    thresholds = detection_thresholds(points, settings)
    replicates = settings.bootstrap_replicates
    bootstrap = bootstrap_ranking(label, logit, host, settings.false_positive_rates, seed, replicates)
    auc = asdict(auc_interval(label, logit, host))
    gap = explain_gap(validation, examples, seed, replicates)
    rows = _emr_rows(columns, injections, manifest, bands, band)
    surfaces = injection_surfaces(rows)
    controls = examples[label == 0]
    document = {
        "split": "test",
        "n_positives": curve.n_positives,
        "n_negatives": curve.n_negatives,
        "auc": auc,
        "operating_points": [asdict(point) for point in points],
        "bootstrap": {
            "method": BOOTSTRAP.format(replicates=replicates),
            "seed": seed,
            "intervals": {name: asdict(interval) for name, interval in bootstrap.items()},
        },
        "base_rate": settings.base_rate,
        "survey_yield": [survey_yield(point, settings.base_rate) for point in points],
        "calibration": calibrate(label, logit, settings.calibration_bins),
        "split_gap": gap.to_dict("records"),
        "depth_definition": depth_definition(columns, band),
        "thresholds": [{**asdict(threshold), "score": threshold.score} for threshold in thresholds],
        "settings": settings.document(),
    }
    meta = {
        "completeness": "sum(w d) / sum(w), w = weight_prior",
        "effective_n": "sum(w)**2 / sum(w**2) (Kish 1965)",
        "interval_method": JEFFREYS,
        "interval_methods_of_completeness_table": {"wilson": WILSON, "jeffreys": JEFFREYS},
        "levels": [0.68, 0.95],
        "min_effective_n": settings.min_effective_n,
        "sufficient": "n_eff >= min_effective_n, and for FPR thresholds at least 10 / FPR negatives",
        "psf_fwhm": f"psfsize_{band}, centre of the bin [arcsec]",
        "depth_5sig": depth_definition(columns, band),
        "n_negatives": curve.n_negatives,
        "failures_by_reason": _by_reason(injections),
        "accounting": surface_accounting(injections, settings),
    }
    tables = {
        "selection_function": selection_function(injections, thresholds, settings),
        "completeness": completeness_surfaces(injections, thresholds, settings),
        "failures": failure_table(injections, settings),
        "strata": stratified_metrics(examples, settings),
        "split_gap": gap,
        "completeness_surfaces_injections": surfaces,
        "completeness_surfaces_region_agg_injections": region_aggregate(surfaces),
        "fpr_surfaces_controls": control_surfaces(_emr_rows(columns, controls, manifest, bands, band)),
    }
    summary = {
        "auc": json_value(auc),
        "base_rate": settings.base_rate,
        "n_injections": int((~injections["failed"]).sum()),
        "n_failed": int(injections["failed"].sum()),
    }
    documents = {"evaluation": json_value(document), "selection_function_meta": json_value(meta)}
    return Evaluation(documents, tables, summary)


def evaluate_tiers(anchors: pd.DataFrame, tier_columns: tuple[str, ...], document: Mapping[str, Any]) -> pd.DataFrame:
    """Recall of real lenses at the thresholds that the test split's evaluation set.

    Args:
        anchors: logit and the tier columns, one row per real lens.
        tier_columns: definitions of a tier.
        document: "evaluation" of `evaluate_run`.

    Returns:
        As `strata.recall_by_tier`.

    Raises:
        VerificationError: no thresholds in the document, or unusable anchors.
    """
    found = document.get("thresholds")
    if not found:
        raise VerificationError("expected an evaluation with thresholds")
    named = []
    for entry in found:
        logit = entry["logit"] if entry["logit"] is not None else np.inf if entry["sufficient"] else np.nan
        name = f"score>={entry['score']:g}" if entry["kind"] == "fixed" else entry["kind"]
        named.append((name, float(logit)))
    return recall_by_tier(anchors, tier_columns, tuple(named))


def _fill_failed_theta(injections: pd.DataFrame, manifest: pd.DataFrame | None) -> None:
    """Frozen manifests know theta_E of a failed row too."""
    if manifest is None or "theta_e_arcsec" not in manifest:
        return
    frozen = manifest["theta_e_arcsec"].to_numpy(np.float64)[injections["cube_row"].to_numpy()]
    theta = np.where(injections["failed"].to_numpy() & (frozen > 0.0), frozen, injections["theta_e"].to_numpy())
    injections["theta_e"] = theta
    injections["theta_e_over_psf"] = theta / injections["psf_fwhm"].to_numpy()


def _by_reason(injections: pd.DataFrame) -> dict[str, int]:
    counts = injections.loc[injections["failed"], "reject_reason"].value_counts()
    return {reason: int(counts[reason]) for reason in REJECT_REASONS if reason in counts}


def _emr_rows(
    columns: xr.Dataset, rows: pd.DataFrame, manifest: pd.DataFrame | None, bands: tuple[str, ...], band: str
) -> pd.DataFrame:
    """The rows under the EMR job's column names; keys of the manifest where there is one."""
    chosen = rows["cube_row"].to_numpy()
    used = columns.isel(sample=chosen)
    logit = rows["logit"].to_numpy(np.float64)
    source, host = rows["source_mag"].to_numpy(np.float64), rows["host_mag"].to_numpy(np.float64)
    is_arc = np.isfinite(rows["theta_e"].to_numpy(np.float64))
    keys: dict[str, Any] = {
        "region_id": used["split_healpix"].to_numpy(),
        "theta_e_arcsec": rows["theta_e"].to_numpy(np.float64),
        "src_dmag": source - host,
        "src_reff_arcsec": np.where(is_arc, used["src_re_arcsec"].to_numpy().astype(np.float64), np.nan),
    }
    if manifest is None:
        for name, step in _GRID_STEPS.items():
            keys[name] = np.round(np.round(keys[name] / step) * step, 9)
    else:
        known = [name for name in EMR_KEYS if name in manifest]
        keys |= {name: manifest[name].to_numpy()[chosen] for name in known if name not in _GRID_STEPS}
        for name in (name for name in known if name in _GRID_STEPS):
            frozen = manifest[name].to_numpy(np.float64)[chosen]
            keys[name] = np.where(is_arc, frozen, np.nan)
    keys |= {
        "region_split": used["region_split"].to_numpy().astype(object),
        "model_score": np.where(np.isfinite(logit), 1.0 / (1.0 + np.exp(-np.clip(logit, -700.0, None))), np.nan),
        "psf_fwhm_r": used["psfsize_arcsec"].to_numpy()[:, bands.index(band)].astype(np.float64),
        "psfdepth_r": rows["depth_5sig"].to_numpy(np.float64),
        "bad_pixel_frac": used["bad_pixel_frac"].to_numpy(),
        "wise_brightmask_frac": used["wise_brightmask_frac"].to_numpy(),
    }
    return pd.DataFrame(keys)
