"""The evaluation stage on a published cube: done once, done again for other scores, refused without scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import ROLES, SPLITS, TRAINING
from pipeline.contracts.errors import VerificationError
from pipeline.driver.cluster import Cluster
from pipeline.driver.cubes import RunContext
from pipeline.driver.evaluation_job import evaluate_anchors, run_evaluation
from pipeline.driver.plan import Plan
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.evaluation_tables import evaluation_folder, read_evaluation
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import RunRecord
from pipeline.storage.tables import table_bytes

N_ROWS, SIZE = 320, 16
SHAPE = CubeShape({"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}, N_ROWS, 16)


def _config(root: Path) -> RunConfig:
    names = ("theta_e_arcsec", "lens_q", "shear", "lens_jitter_arcsec", "beta_over_theta_e", "src_re_arcsec")
    names += ("src_n", "src_q", "src_gr", "src_rz")
    priors = {name: {"kind": "fixed", "value": 0.5} for name in names}
    return RunConfig.model_validate(
        {
            "run": {"name": "scored", "root": str(root), "region": None, "seed": 77},
            "survey": {"bands": ["g", "r", "z"], "stamp_size_px": SIZE, "bricks": "bricks", "layout": "cache"},
            "manifest": {"kind": "parent", "url": "parent.parquet"},
            "injection": {
                "mode": "sample",
                "extinction": True,
                "priors": {**priors, "src_mag_r": {"kind": "uniform", "low": 21.0, "high": 27.0}},
            },
            "sampling": {"method": "none", "metric": "arc_snr"},
            "training": {"epochs": 1, "preprocess": {"annulus_px": (4, 8)}},
            "evaluation": {"bootstrap_replicates": 100},
            "shards": {"samples": N_ROWS},
            "cluster": {"kind": "local"},
        }
    )


def _publish(layout: RunLayout) -> pd.DataFrame:
    """A training cube of pairs in val and test; every tenth row failed. Returns task_id, split and role."""
    generator = np.random.default_rng(0)
    sizes = {"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE}
    arrays = {}
    for variable in TRAINING.variables:
        dtype = object if variable.dtype == "str" else variable.dtype
        fill = "" if variable.dtype == "str" else 0
        arrays[variable.name] = np.full(tuple(sizes[dim] for dim in variable.dims), fill, dtype)
    row = np.arange(N_ROWS)
    arrays["task_id"] = np.array([f"t{number}" for number in row], dtype=object)
    arrays["host_id"] = row.astype(np.int64)
    arrays["split"] = np.where(row % 2, SPLITS.index("val"), SPLITS.index("test")).astype(np.uint8)
    arrays["role"] = np.where(row % 10 > 7, 0, ROLES.index("pair")).astype(np.uint8)
    arrays["reject_reason"] = np.where(row % 10 > 7, 10, 0).astype(np.uint8)
    arrays["weight_prior"] = generator.lognormal(size=N_ROWS)
    for name, low, high in (("theta_e_arcsec", 0.5, 3.0), ("arc_snr", 1.0, 30.0), ("mag_r", 18.0, 20.0)):
        arrays[name] = generator.uniform(low, high, N_ROWS).astype(np.float32)
    arrays["psfsize_arcsec"] = generator.uniform(1.0, 1.6, (N_ROWS, 3)).astype(np.float32)
    arrays["sky_sigma_nmgy"] = np.full((N_ROWS, 3), 0.01, np.float32)
    location = layout.cube("training")
    create_cube(location, TRAINING, SHAPE)
    dataset = xr.Dataset({v.name: (v.dims, arrays[v.name]) for v in TRAINING.variables})
    write_shard(location, TRAINING, SHAPE, 0, dataset)
    publish_cube(location, cube_attributes(TRAINING, SHAPE, {"bands": ["g", "r", "z"], "plan_sha256": "p" * 64}))
    return pd.DataFrame({name: arrays[name] for name in ("task_id", "split", "role")})


def _write_scores(folder: Location, rows: pd.DataFrame, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for split, name in (("test", "scores.parquet"), ("val", "scores_val.parquet")):
        task = rows.loc[(rows["split"] == SPLITS.index(split)) & (rows["role"] > 0), "task_id"].to_numpy()
        label = np.repeat([1, 0], task.size)
        scores = pd.DataFrame({"task_id": np.tile(task, 2), "label": label, "split": split})
        scores["logit"] = generator.normal(2.0 * label, 1.0)
        folder.join(name).write_bytes(table_bytes(scores))


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    """A run whose training is done."""
    config = _config(tmp_path)
    layout = RunLayout.of(config.run)
    _write_scores(layout.training, _publish(layout), 1)
    record = RunRecord(layout, {"stages": {}})
    plan = Plan(SHAPE, (), None, "p" * 64, "c" * 64)
    return RunContext(config, layout, plan, record, _no_cluster())


def _no_cluster() -> Cluster:
    """The stage asks the cluster for nothing."""
    return Cluster.__new__(Cluster)


def test_evaluation_is_stored_verified_and_not_repeated(context: RunContext) -> None:
    """All tables as parquet and CSV; the record holds the headline; a second call changes no file."""
    run_evaluation(context)
    folder = evaluation_folder(context.layout.root)
    stored = read_evaluation(folder)
    assert stored is not None
    assert stored.identity["seed"] == 77
    assert {f"{name}.{kind}" for name in stored.tables for kind in ("csv", "parquet")} <= set(folder.names())
    stage = context.record.stages["evaluate"]
    assert (stage["n_injections"], stage["n_failed"], stage["base_rate"]) == (128, 32, 1e-4)
    before = {path: path.stat().st_mtime_ns for path in Path(folder.path).iterdir()}
    run_evaluation(context)
    assert {path: path.stat().st_mtime_ns for path in Path(folder.path).iterdir()} == before


def test_other_scores_or_settings_are_evaluated_again(context: RunContext) -> None:
    """The identity follows the bytes of the scores and the settings."""
    run_evaluation(context)
    folder = evaluation_folder(context.layout.root)
    first = folder.join("evaluation.json").read_bytes()
    rows = pd.DataFrame({"task_id": [f"t{n}" for n in range(N_ROWS)], "split": np.where(np.arange(N_ROWS) % 2, 1, 2)})
    _write_scores(context.layout.training, rows.assign(role=np.where(np.arange(N_ROWS) % 10 > 7, 0, 1)), 2)
    run_evaluation(context)
    second = folder.join("evaluation.json").read_bytes()
    assert second != first
    settings = context.config.evaluation.model_copy(update={"base_rate": 1e-5})
    config = context.config.model_copy(update={"evaluation": settings})
    other = RunContext(config, context.layout, context.plan, context.record, context.cluster)
    run_evaluation(other)
    document = folder.join("evaluation.json").read_bytes()
    assert b'"base_rate": 1e-05' in document
    before = folder.join("_SUCCESS").read_bytes()
    run_evaluation(other)
    assert folder.join("_SUCCESS").read_bytes() == before


def test_missing_or_foreign_scores_are_refused(context: RunContext) -> None:
    """No validation scores, or those of another split in their place: an error and no marker."""
    folder = context.layout.training
    test, val = folder.join("scores.parquet"), folder.join("scores_val.parquet")
    kept = val.read_bytes()
    val.remove()
    with pytest.raises(VerificationError, match=r"scores_val\.parquet"):
        run_evaluation(context)
    val.write_bytes(test.read_bytes())
    with pytest.raises(VerificationError, match="scores of split val"):
        run_evaluation(context)
    val.write_bytes(kept)
    assert read_evaluation(evaluation_folder(context.layout.root)) is None


def test_anchors_need_an_evaluation_and_tiers_stay_apart(context: RunContext) -> None:
    """Recall per tier uses the stored thresholds."""
    anchors = pd.DataFrame({"logit": [4.0, -4.0], "visibility_tier": ["A", "B"]})
    with pytest.raises(VerificationError, match="no evaluation"):
        evaluate_anchors(context, anchors, ("visibility_tier",))
    run_evaluation(context)
    table = evaluate_anchors(context, anchors, ("visibility_tier",))
    assert table[table["threshold"] == "score>=0.5"].set_index("tier")["recall"].to_dict() == {"A": 1.0, "B": 0.0}


def test_nothing_is_evaluated_without_training(context: RunContext) -> None:
    """training.enabled: false leaves no folder and no stage."""
    training = context.config.training.model_copy(update={"enabled": False})
    config = context.config.model_copy(update={"training": training})
    without = RunContext(config, context.layout, context.plan, context.record, context.cluster)
    run_evaluation(without)
    assert not evaluation_folder(context.layout.root).exists()
    assert "evaluate" not in context.record.stages
