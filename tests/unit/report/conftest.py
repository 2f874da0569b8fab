"""A small finished run on disk, made with the writers of the real one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS, ROLES, SNR_METRICS, TRAINING
from pipeline.contracts.evaluation import EvaluationSettings
from pipeline.contracts.priors import Prior
from pipeline.contracts.schema import CubeSchema
from pipeline.report.inputs import RunInputs, read_inputs
from pipeline.stages.evaluation import evaluate_scores
from pipeline.stages.evaluation_suite import evaluate_run
from pipeline.stages.gates.suite import gates_document, run_gates
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.sampling import PilotDraws, SnrTarget, estimate_pilot
from pipeline.stages.sampling_diagnostics import sampling_document
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, open_cube, publish_cube, write_shard
from pipeline.storage.evaluation_tables import evaluation_folder, write_evaluation
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, write_receipt
from pipeline.storage.runs import write_json
from pipeline.storage.tables import table_bytes

BANDS = ("g", "r", "z")
N_ROWS, SHARD, SIZE = 480, 64, 32
PLAN = "a" * 64
PAIR, CONTROL = ROLES.index("pair"), ROLES.index("control")


@dataclass
class Run:
    """A run folder that tests change before they read it."""

    layout: RunLayout
    config: RunConfig
    record: dict[str, Any]

    def update(self, **fields: object) -> None:
        """Set fields of the run record."""
        self.record.update(fields)
        write_json(self.layout.record, self.record)

    def remove(self, *locations: Location) -> None:
        """Delete files or folders."""
        for location in locations:
            location.filesystem.rm(location.path, recursive=True)

    def inputs(self) -> RunInputs:
        """What the report reads now."""
        return read_inputs(self.layout)


def configuration(root: str) -> RunConfig:
    """A bins target on arc_snr; three bands; small stamps."""
    names = ("theta_e_arcsec", "lens_q", "shear", "lens_jitter_arcsec", "beta_over_theta_e", "src_re_arcsec")
    names += ("src_n", "src_q", "src_gr", "src_rz")
    return RunConfig.model_validate(
        {
            "run": {"name": "small", "root": root, "region": None, "seed": 20260901},
            "survey": {"bands": list(BANDS), "stamp_size_px": SIZE, "bricks": "bricks", "layout": "cache"},
            "manifest": {"kind": "parent", "url": "parent.parquet"},
            "injection": {
                "mode": "sample",
                "extinction": True,
                "priors": {
                    **{key: {"kind": "fixed", "value": 0.5} for key in names},
                    "src_mag_r": {"kind": "uniform", "low": 21.0, "high": 27.0},
                },
            },
            "sampling": {
                "method": "snr_first",
                "metric": "arc_snr",
                "target": {"kind": "bins", "edges": (0.8, 2, 8, 20, 100), "shares": (0.4, 0.4, 0.15, 0.05)},
            },
            "gates": {"waive": {"core_only_auc": "the arcs of this test lie on the core, which is intended"}},
            "training": {"epochs": 2, "preprocess": {"annulus_px": (10, 16)}},
            "shards": {"samples": SHARD},
            "cluster": {"kind": "local"},
        }
    )


def blank(schema: CubeSchema) -> dict[str, np.ndarray]:
    """Every variable of a cube for all rows, zeros and empty strings."""
    sizes = {"sample": N_ROWS, "band": len(BANDS), "y": SIZE, "x": SIZE}
    arrays = {}
    for variable in schema.variables:
        shape = tuple(sizes[dim] for dim in variable.dims)
        dtype = object if variable.dtype == "str" else variable.dtype
        arrays[variable.name] = np.full(shape, "" if variable.dtype == "str" else 0, dtype=dtype)
    return arrays


def store(layout: RunLayout, schema: CubeSchema, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write, receipt and publish a cube; the stage entry of the record."""
    shape = CubeShape({"sample": N_ROWS, "band": len(BANDS), "y": SIZE, "x": SIZE}, SHARD, 16)
    location = layout.cube(schema.name)
    create_cube(location, schema, shape)
    for shard in range(shape.n_shards):
        rows = shape.rows(shard)
        piece = xr.Dataset({v.name: (v.dims, arrays[v.name][rows]) for v in schema.variables})
        objects = write_shard(location, schema, shape, shard, piece)
        counts = {reason: int((piece["reject_reason"] == code).sum()) for code, reason in enumerate(REJECT_REASONS)}
        write_receipt(
            layout.receipts(schema.name),
            Receipt(schema.name, shard, PLAN, "0.1.0+test", rows.stop - rows.start, objects, counts, {}, (), 1.0, "w"),
        )
    publish_cube(location, cube_attributes(schema, shape, {"bands": list(BANDS), "plan_sha256": PLAN}))
    codes = np.bincount(arrays["reject_reason"], minlength=len(REJECT_REASONS)).tolist()
    return {
        "state": "complete",
        "shards": shape.n_shards,
        "shards_resumed": 1,
        "rows": N_ROWS,
        "counts": {reason: count for reason, count in zip(REJECT_REASONS, codes, strict=True) if count},
        "work": {"renders": 4321.0, "bytes_fetched": 9.6e6, "requests": 960.0},
        "bytes_stored": 1_234_567,
        "seconds": 12.5,
        "task_seconds": 24.0,
        "rows_per_s": 38.4,
        "notes": ["brick 0001p000 is missing"],
    }


def host_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns that both cubes share."""
    rows = np.arange(N_ROWS)
    return {
        "task_id": np.array([f"task-{row}" for row in rows], dtype=object),
        "host_id": rows.astype(np.int64),
        "ra_deg": rng.uniform(10.0, 20.0, N_ROWS),
        "dec_deg": rng.uniform(-5.0, 5.0, N_ROWS),
        "is_control": (rows % 8 == 7).astype(np.uint8),
        "mag_g": rng.normal(20.6, 0.6, N_ROWS).astype(np.float32),
        "mag_r": rng.normal(19.6, 0.6, N_ROWS).astype(np.float32),
        "mag_z": rng.normal(18.9, 0.6, N_ROWS).astype(np.float32),
        "ebv_mag": rng.uniform(0.01, 0.1, N_ROWS).astype(np.float32),
        "psfdepth_r_mag": np.full(N_ROWS, np.nan, np.float32),
        "psfsize_arcsec": rng.normal(1.3, 0.1, (N_ROWS, 3)).astype(np.float32),
        "sky_sigma_nmgy": rng.normal(0.01, 0.001, (N_ROWS, 3)).astype(np.float32),
        "bad_pixel_frac": rng.uniform(0.0, 0.1, N_ROWS).astype(np.float32),
    }


def make_run(folder: Path) -> Run:
    """Write a whole run: 480 rows, 8 of them masked, 3 exhausted."""
    rng = np.random.default_rng(1)
    config = configuration(str(folder))
    layout = RunLayout.of(config.run)
    hosts = host_arrays(rng)
    cutouts = {**blank(CUTOUTS), **hosts}
    cutouts["reject_reason"][:8] = REJECT_REASONS.index("masked")
    cutouts["usable"] = (cutouts["reject_reason"] == 0).astype(np.uint8)
    stages = {"manifest": {"state": "complete", "rows": N_ROWS, "controls": 60, "hosts": N_ROWS, "bricks": 17}}
    stages["cutouts"] = store(layout, CUTOUTS, cutouts)

    training = {**blank(TRAINING), **hosts, "reject_reason": cutouts["reject_reason"].copy()}
    training["reject_reason"][8:11] = REJECT_REASONS.index("sampler_exhausted")
    kept = training["reject_reason"] == 0
    training["role"] = np.where(kept, np.where(hosts["is_control"] == 1, CONTROL, PAIR), 0).astype(np.uint8)
    training["split"] = rng.choice(4, N_ROWS, p=[0.65, 0.15, 0.15, 0.05]).astype(np.uint8)
    target = SnrTarget.of(config.sampling.target)
    snr = np.array([target.quantile(u) for u in rng.uniform(0.001, 0.999, N_ROWS)], np.float32)
    for factor, name in zip((1.0, 4.0, 7.0, 3.0, 2.8), SNR_METRICS, strict=True):
        training[name] = (snr * factor).astype(np.float32)
    training["weight_prior"] = rng.lognormal(-1.0, 0.5, N_ROWS)
    training["attempts"] = rng.geometric(0.4, N_ROWS).astype(np.int32)
    radius = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE // 2))
    noise = rng.normal(0.0, 0.01, (N_ROWS, 3, SIZE, SIZE)).astype(np.float32)
    training["control"] = noise + np.exp(-radius / 2.0).astype(np.float32)
    arc = np.exp(-0.5 * ((radius - 5.0) / 1.2) ** 2)[None, None] * (0.01 * snr)[:, None, None, None]
    is_pair = training["role"] == PAIR
    training["injected"] = (training["control"] + arc * is_pair[:, None, None, None]).astype(np.float32)
    training["theta_e_arcsec"][is_pair] = 1.25
    training["lens_q"][is_pair], training["lens_slope"][is_pair] = 0.8, 2.0
    stages["training"] = store(layout, TRAINING, training)

    kappa = rng.lognormal(2.0, 1.5, 1024)
    draws = PilotDraws(kappa, rng.uniform(21.0, 27.0, kappa.size), np.arange(kappa.size))
    magnitudes = MagnitudePrior(Prior(kind="uniform", low=21.0, high=27.0))
    pilot = estimate_pilot(draws, target, config.sampling, magnitudes)
    write_json(layout.pilot, {"plan_sha256": PLAN, **vars(pilot)})
    cube = open_cube(layout.cube("training"))
    columns = cube.columns(cube.column_names())
    work = {"renders": 4321.0, "attempts": 900.0, "target_bin_00_attempts": 300.0, "target_bin_00_accepted": 160.0}
    write_json(layout.sampling, {"plan_sha256": PLAN, **sampling_document(columns, work, config, pilot)})
    used = xr.concat([cube.read_shard(k, [v.name for v in TRAINING.variables]) for k in range(3)], dim="sample")
    used = used.isel(sample=np.flatnonzero(used["role"].to_numpy() > 0))
    write_json(layout.gates, gates_document(run_gates(columns, used, config, BANDS), config))
    stages["train"] = {"state": "complete", "seconds": 33.0}
    write_training(layout, training, rng)
    layout.plan.write_bytes(b"")
    write_json(layout.plan, {"sha256": PLAN, "n_rows": N_ROWS, "n_shards": -(-N_ROWS // SHARD)})
    run = Run(layout, config, {})
    run.update(
        run="small",
        state="complete",
        created_utc="2026-09-01T00:00:00Z",
        updated_utc="2026-09-01T01:00:00Z",
        plan_sha256=PLAN,
        config_sha256=config.sha256(),
        config=config.model_dump(mode="json"),
        code={"code_version": "0.1.0+test", "git_sha": "f00dfeed", "python": "3.11"},
        stages=stages,
        error=None,
    )
    return run


def scored(training: dict[str, np.ndarray], split: int, rng: np.random.Generator) -> pd.DataFrame:
    """One score per stamp of a split: normal, 2 higher with an arc."""
    inside = training["split"] == split
    pairs = np.flatnonzero(inside & (training["role"] == PAIR))
    controls = np.flatnonzero(inside & (training["role"] == CONTROL))
    rows = np.concatenate([pairs, pairs, controls])
    label = np.concatenate([np.ones(pairs.size), np.zeros(pairs.size + controls.size)]).astype(np.uint8)
    logit = (rng.normal(0.0, 1.0, rows.size) + 2.0 * label).astype(np.float32)
    columns = {"task_id": training["task_id"][rows], "label": label, "logit": logit, "row": rows}
    return pd.DataFrame({**columns, "arc_snr": training["arc_snr"][rows]})


def write_training(layout: RunLayout, training: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Outputs of the trainer for the test split, and their evaluation."""
    folder = layout.training
    scores = scored(training, 2, rng)
    rows = scores.pop("row").to_numpy()
    label, logit = (scores[name].to_numpy() for name in ("label", "logit"))
    metrics = evaluate_scores(label, logit, training["host_id"][rows])
    write_json(folder.join("metrics.json"), {"split": "test", "plan_sha256": PLAN, "kept_epoch": 1, **metrics})
    history = [
        {"epoch": k, "train_loss": 0.6 / (k + 1), "val_loss": 0.5, "val_auc": 0.8 + 0.01 * k, "seconds": 9.0}
        | {"learning_rate": 1e-3}
        for k in range(2)
    ]
    folder.join("history.json").write_bytes(str(history).replace("'", '"').encode())
    scores["score"] = (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    folder.join("scores.parquet").write_bytes(table_bytes(scores))
    stamps = np.stack([training["control"][rows[0]], training["injected"][rows[1]]])
    snr = scores["arc_snr"].to_numpy()
    worst = {"label": np.array([0, 1]), "logit": logit[:2], "arc_snr": snr[:2], "theta_e_arcsec": np.array([1.2, 1.5])}
    sink = io.BytesIO()
    np.savez_compressed(sink, stamps=stamps, task_id=np.array(["worst-control", "worst-injected"]), **worst)
    folder.join("confusion.npz").write_bytes(sink.getvalue())
    folder.join("_SUCCESS").write_bytes(b"")
    cube = open_cube(layout.cube("training"))
    split_scores = {"test": scores, "val": scored(training, 1, rng)}
    settings = EvaluationSettings(bootstrap_replicates=100)
    found = evaluate_run(cube.columns(cube.column_names()), split_scores, BANDS, "r", 20260901, settings)
    write_evaluation(evaluation_folder(layout.root), {"plan_sha256": PLAN}, found.documents, found.tables)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that nobody changes."""
    return make_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run_copy(finished_run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run that a test may spoil."""
    copy = Location(str(tmp_path)).join("small")
    source = finished_run.layout.root
    source.filesystem.copy(source.path, copy.path, recursive=True)
    return Run(
        RunLayout(copy), finished_run.config, {**finished_run.record, "stages": {**finished_run.record["stages"]}}
    )


@pytest.fixture(scope="session")
def inputs(finished_run: Run) -> RunInputs:
    """What the report reads of the finished run."""
    return finished_run.inputs()
