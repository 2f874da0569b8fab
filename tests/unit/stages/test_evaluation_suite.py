"""The whole evaluation of a small scored cube: what it states, what adds up, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.datasets import REJECT_REASONS, ROLES, SPLITS, TRAINING
from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import SELECTION_FUNCTION_COLUMNS, EvaluationSettings
from pipeline.stages.evaluation_suite import evaluate_run, evaluate_tiers

BANDS = ("g", "r", "z")
SETTINGS = EvaluationSettings(bootstrap_replicates=100)


def _columns(n: int = 1600) -> xr.Dataset:
    """Columns of a training cube: every 8th row a control, every 20th exhausted, splits in turn."""
    generator = np.random.default_rng(4)
    data = {}
    for variable in TRAINING.variables:
        if not variable.is_pixels:
            shape = tuple({"sample": n, "band": 3}[dim] for dim in variable.dims)
            dtype = object if variable.dtype == "str" else variable.dtype
            data[variable.name] = (variable.dims, np.full(shape, variable.fill_value, dtype))
    columns = xr.Dataset(data)
    row = np.arange(n)
    columns["task_id"][:] = [f"t{number}" for number in row]
    columns["host_id"][:] = row
    columns["split"][:] = np.where(row % 2 == 0, SPLITS.index("test"), SPLITS.index("val"))
    control, failed = row % 16 < 2, row % 40 > 37
    pair = ~control & ~failed
    columns["is_control"][:] = control
    columns["role"][:] = np.select([pair, control & ~failed], [ROLES.index("pair"), ROLES.index("control")], 0)
    columns["reject_reason"][:] = np.where(failed, REJECT_REASONS.index("sampler_exhausted"), 0)
    columns["split_healpix"][:] = row % 7
    columns["psfsize_arcsec"][:] = generator.uniform(1.0, 1.7, (n, 3))
    columns["sky_sigma_nmgy"][:] = 0.01
    columns["mag_r"][:] = 19.5
    columns["bad_pixel_frac"][:] = 0.0
    columns["theta_e_arcsec"][:] = np.where(pair, generator.uniform(0.5, 3.0, n), np.nan)
    columns["src_re_arcsec"][:] = np.where(pair, 0.2, np.nan)
    columns["src_mag"][:] = np.where(pair, generator.uniform(23.0, 26.0, n), np.nan)[:, None]
    columns["arc_flux_nmgy"][:] = np.where(pair, 5.0, np.nan)[:, None]
    columns["arc_snr"][:] = np.where(pair, generator.uniform(1.0, 30.0, n), np.nan)
    columns["weight_prior"][:] = np.where(pair, generator.lognormal(size=n), np.nan)
    return columns


def _scores(columns: xr.Dataset, split: str, seed: int = 1) -> pd.DataFrame:
    inside = columns["split"].to_numpy() == SPLITS.index(split)
    role = columns["role"].to_numpy()
    pairs, controls = (np.flatnonzero(inside & (role == ROLES.index(name))) for name in ("pair", "control"))
    rows = np.concatenate([pairs, pairs, controls])
    label = np.repeat([1, 0], [pairs.size, pairs.size + controls.size])
    logit = np.random.default_rng(seed).normal(2.0 * label, 1.0)
    return pd.DataFrame({"task_id": columns["task_id"].to_numpy()[rows], "label": label, "logit": logit})


def _both(columns: xr.Dataset) -> dict[str, pd.DataFrame]:
    return {split: _scores(columns, split, seed) for seed, split in enumerate(("test", "val"))}


def test_document_states_methods_base_rate_and_insufficient_rates() -> None:
    """Strict JSON; intervals carry names, the base rate its value, rates without negatives no number."""
    columns = _columns()
    found = evaluate_run(columns, _both(columns), BANDS, "r", 9, SETTINGS)
    document = json.loads(json.dumps(found.documents["evaluation"], allow_nan=False))
    assert document["base_rate"] == 1e-4
    assert {entry["base_rate"] for entry in document["survey_yield"]} == {1e-4}
    assert [point["sufficient"] for point in document["operating_points"]] == [False] * 3
    assert {point["tpr"] for point in document["operating_points"]} == {None}
    assert "bootstrap over hosts" in document["bootstrap"]["method"]
    interval = document["bootstrap"]["intervals"]["auc"]
    assert interval["low"] < document["auc"]["value"] < interval["high"]
    meta = found.documents["selection_function_meta"]
    assert "Jeffreys" in meta["interval_method"]
    assert meta["failures_by_reason"] == {"sampler_exhausted": found.summary["n_failed"]}
    assert tuple(found.tables["selection_function"].columns) == SELECTION_FUNCTION_COLUMNS


def test_every_injection_of_the_split_is_accounted_for() -> None:
    """Scored and failed of the tables are those of the cube; controls are in none of the injection tables."""
    columns = _columns()
    found = evaluate_run(columns, _both(columns), BANDS, "r", 9, SETTINGS)
    in_test = columns["split"].to_numpy() == SPLITS.index("test")
    asked = in_test & (columns["is_control"].to_numpy() == 0)
    scored = in_test & (columns["role"].to_numpy() == ROLES.index("pair"))
    assert (found.summary["n_injections"], found.summary["n_failed"]) == (scored.sum(), asked.sum() - scored.sum())
    surfaces = found.tables["completeness_surfaces_injections"]
    assert surfaces["n_attempt"].sum() == asked.sum()
    assert surfaces["n_valid_all"].sum() == scored.sum()
    controls = found.tables["fpr_surfaces_controls"]
    assert controls["n_attempt"].sum() == len(_scores(columns, "test")) - scored.sum()
    assert set(controls["resolution_bin"]) == {"NULL"}
    assert found.tables["failures"]["n_failed"].sum() == found.summary["n_failed"]


def test_results_are_the_same_again_and_the_seed_keys_the_bootstrap() -> None:
    """Two evaluations are equal; another seed moves bootstrap intervals and nothing else of the document."""
    columns = _columns(600)
    first, again, other = (evaluate_run(columns, _both(columns), BANDS, "r", seed, SETTINGS) for seed in (9, 9, 10))
    assert first.documents == again.documents
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name])
    changed = {
        key for key, value in first.documents["evaluation"].items() if value != other.documents["evaluation"][key]
    }
    assert changed == {"bootstrap", "split_gap"}


def test_manifest_keys_are_used_and_place_failed_rows() -> None:
    """With an EMR manifest the grid values are the manifest's, and a failure has its frozen theta_E."""
    columns = _columns(600)
    manifest = pd.DataFrame({"region_id": np.full(600, 42), "selection_set_id": "s", "ranking_mode": "n_lrg"})
    manifest["theta_e_arcsec"], manifest["src_dmag"], manifest["src_reff_arcsec"] = 1.0, 2.0, 0.15
    found = evaluate_run(columns, _both(columns), BANDS, "r", 9, SETTINGS, manifest)
    surfaces = found.tables["completeness_surfaces_injections"]
    for name, value in (("region_id", 42), ("selection_set_id", "s"), ("theta_e_arcsec", 1.0), ("src_dmag", 2.0)):
        assert set(surfaces[name]) == {value}
    failed = found.tables["selection_function"].query("source_mag_bin == 'all' and threshold == 0.5 and theta_e == 1.0")
    assert failed["n_failed"].sum() == found.summary["n_failed"] > 0


def test_tiers_are_measured_at_the_thresholds_of_the_test_split() -> None:
    """Fixed thresholds give recalls; rates without negatives give NaN; tiers stay apart."""
    columns = _columns(600)
    document = evaluate_run(columns, _both(columns), BANDS, "r", 9, SETTINGS).documents["evaluation"]
    anchors = pd.DataFrame({"logit": [3.0, -3.0, 3.0], "visibility_tier": ["A", "A", "B"]})
    table = evaluate_tiers(anchors, ("visibility_tier",), document)
    half = table[table["threshold"] == "score>=0.5"].set_index("tier")["recall"]
    assert half.to_dict() == {"A": 0.5, "B": 1.0}
    assert table.loc[table["threshold"] == "FPR=1.0e-04", "recall"].isna().all()
    with pytest.raises(VerificationError, match="thresholds"):
        evaluate_tiers(anchors, ("visibility_tier",), {})


def test_one_class_is_an_error() -> None:
    """A split whose scores are all of one label gives no evaluation."""
    columns = _columns(600)
    scores = _both(columns)
    with pytest.raises(VerificationError, match="both classes"):
        evaluate_run(columns, {**scores, "test": scores["test"].query("label == 1")}, BANDS, "r", 9, SETTINGS)
