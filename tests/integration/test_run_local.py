"""The whole run on one machine: complete, verified, resumable, read by plain xarray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ContractError, GateError, PlanChangedError, VerificationError
from pipeline.contracts.schema import CubeSchema
from pipeline.driver.driver_lock import read_driver
from pipeline.driver.gating import read_stamps
from pipeline.driver.inspection import inspect_cube, layout_of, run_status, verify_run
from pipeline.driver.local_runs import driver_lines, resume_run
from pipeline.driver.run import run
from pipeline.driver.training_job import OUTPUTS
from pipeline.stages.gates.suite import NETWORK_GATE_NAMES
from pipeline.storage.anchor_stamps import read_anchor_stamps
from pipeline.storage.cube import open_cube
from pipeline.storage.evaluation_tables import read_evaluation
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_json, read_record

Config = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def finished(
    make_config: Config, anchors: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, RunLayout]:
    """A complete run on two worker processes, tested on galaxies in the place of real lenses."""
    reason = "galaxies without arcs stand for lenses in this test"
    waived = [f"gates.waive.{name}={reason}" for name in ("anchor_pattern", "realism")]
    config = make_config(tmp_path_factory.mktemp("runs"), f"anchors.url={anchors}", *waived)
    return config, run(config)


def test_run_is_complete_and_verified(finished: tuple[RunConfig, RunLayout]) -> None:
    """A finished run has its marker, its record says complete, and every object matches its receipt."""
    config, layout = finished
    record = read_record(layout)
    assert record["state"] == "complete"
    assert layout.success.read_bytes() == config.sha256().encode()
    verified = verify_run(layout)
    assert verified["training"]["rows"] == verified["cutouts"]["rows"] == record["stages"]["manifest"]["rows"] == 128
    assert run_status(layout)["shards"]["training"] == {"done": 4, "of": 4, "published": True}
    assert open_cube(layout.cube("training")).attrs["core_suppression"] is None
    assert "core_suppression" not in open_cube(layout.cube("cutouts")).attrs


def test_no_row_is_lost(finished: tuple[RunConfig, RunLayout]) -> None:
    """Every manifest row is used or has a reason, and the receipts count them all."""
    _, layout = finished
    pairs = open_cube(layout.cube("training")).columns(["role", "reject_reason"])
    unused = pairs["role"].to_numpy() == 0
    assert ((pairs["reject_reason"].to_numpy() > 0) == unused).all()
    counts = read_record(layout)["stages"]["training"]["counts"]
    assert sum(counts.values()) == 128
    assert counts["none"] == int((~unused).sum())


def test_sampling_record_agrees_with_the_cube(finished: tuple[RunConfig, RunLayout]) -> None:
    """sampling.json counts the cube's pairs, the record's renders, and hits the target within its floor."""
    _, layout = finished
    found, stage = read_json(layout.sampling), read_record(layout)["stages"]["training"]
    columns = open_cube(layout.cube("training")).columns(["role", "attempts"])
    is_pair = columns["role"].to_numpy() == 1
    assert found["rows"]["accepted"] == int(is_pair.sum())
    assert found["rows"]["sampler_exhausted"] == stage["counts"].get("sampler_exhausted", 0)
    assert found["cost"]["renders"] == stage["work"]["renders"]
    assert found["acceptance"]["attempts"] == int(columns["attempts"].to_numpy().sum())
    assert sum(bin_["accepted"] for bin_ in found["acceptance"]["bins"]) == int(is_pair.sum())
    achieved = found["achieved"]
    assert achieved["tv"] < achieved["tv_mean_ideal"] + 4 * achieved["tv_std_ideal"]
    assert found["pilot"]["draws"] == 512
    assert "What the sampler did" in layout.report.join("index.html").read_bytes().decode()


@pytest.mark.parametrize("schema", [CUTOUTS, TRAINING], ids=lambda schema: schema.name)
def test_cube_opens_with_plain_xarray(finished: tuple[RunConfig, RunLayout], schema: CubeSchema) -> None:
    """xarray.open_zarr reads the cube, and every variable carries units and a description."""
    _, layout = finished
    with xr.open_zarr(f"{layout.cube(schema.name).path}/cube.zarr") as dataset:
        assert set(dataset.data_vars) == {variable.name for variable in schema.variables}
        for name in dataset.data_vars:
            assert dataset[name].attrs["units"]
            assert dataset[name].attrs["description"]


def test_pair_differs_by_its_arc_alone(finished: tuple[RunConfig, RunLayout]) -> None:
    """injected - control is an arc whose flux is the stored one; control equals the cutout."""
    _, layout = finished
    pairs = open_cube(layout.cube("training")).read_shard(0, ["injected", "control", "role", "arc_flux_nmgy"])
    image = open_cube(layout.cube("cutouts")).read_shard(0, ["image"])["image"].to_numpy()
    used = pairs["role"].to_numpy() == 1
    assert used.any()
    arc = (pairs["injected"] - pairs["control"]).to_numpy()[used]
    np.testing.assert_array_equal(pairs["control"].to_numpy()[used], image[used])
    stored = pairs["arc_flux_nmgy"].to_numpy()[used]
    np.testing.assert_allclose(arc.sum(axis=(2, 3), dtype=np.float64), stored, rtol=1e-3, atol=1e-3)


def test_snr_recomputes_from_the_cubes(finished: tuple[RunConfig, RunLayout]) -> None:
    """arc_snr_matched follows from the stored arc and invvar, and the target metric from the assigned SNR."""
    _, layout = finished
    names = ["injected", "control", "role", "arc_snr", "snr_target", "arc_snr_matched"]
    pairs = open_cube(layout.cube("training")).read_shard(1, names)
    hosts = open_cube(layout.cube("cutouts")).read_shard(1, ["invvar", "maskbits"])
    bad = (hosts["maskbits"].to_numpy() & 0b110001001011) != 0
    used = np.flatnonzero(pairs["role"].to_numpy() == 1)
    for row in used:
        arc = (pairs["injected"] - pairs["control"]).to_numpy()[row, 1].astype(np.float64)
        weight = np.where(bad[row], 0.0, hosts["invvar"].to_numpy()[row, 1])
        matched = np.sqrt((arc**2 * weight).sum())
        assert matched == pytest.approx(float(pairs["arc_snr_matched"][row]), rel=2e-3)
    np.testing.assert_allclose(pairs["arc_snr"][used], pairs["snr_target"][used], rtol=1e-5)


def test_complete_run_does_no_work(finished: tuple[RunConfig, RunLayout]) -> None:
    """Running a complete run again changes no file."""
    config, layout = finished
    folder = Path(layout.root.path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    run(config)
    assert resume_run(layout) == layout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    driver = read_driver(layout)
    assert driver is not None and driver.ended_utc and not driver.is_alive_here
    assert "planned" in {json.loads(line)["message"] for line in driver_lines(layout)}


def test_lost_shard_is_made_again_alone(
    finished: tuple[RunConfig, RunLayout], digests: Callable[[Path], dict[str, str]]
) -> None:
    """A run whose shard vanished makes that shard again, with the same bytes, and no other."""
    config, layout = finished
    cubes = Path(layout.root.path) / "cubes"
    before = digests(cubes)
    (cubes / "training/cube.zarr/injected/c/2/0/0/0").unlink()
    layout.success.remove()
    alone = config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": 1})})
    others = cubes / "training/cube.zarr/injected/c/1/0/0/0"
    untouched = others.stat().st_mtime_ns
    run(alone)
    assert digests(cubes) == before
    assert others.stat().st_mtime_ns == untouched


def test_corrupt_object_fails_verification(finished: tuple[RunConfig, RunLayout]) -> None:
    """One flipped byte makes `verify` fail with the object's name, and reading it an error."""
    _, layout = finished
    path = Path(layout.root.path) / "cubes/training/cube.zarr/control/c/3/0/0/0"
    good = path.read_bytes()
    path.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    try:
        with pytest.raises(VerificationError, match=r"shard 3.*control/c/3"):
            verify_run(layout)
    finally:
        path.write_bytes(good)


def test_changed_plan_is_refused(finished: tuple[RunConfig, RunLayout]) -> None:
    """Another seed under the same run name is an error that names both plans."""
    config, _ = finished
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 99})})
    with pytest.raises(PlanChangedError, match="Give the run another name"):
        run(other)


def test_failed_gate_stops_before_training(make_config: Config, finished: tuple[RunConfig, RunLayout]) -> None:
    """Without its waiver a failing gate ends the run with exit code 3, and the record keeps the reason."""
    config, layout = finished
    waive = {name: reason for name, reason in config.gates.waive.items() if name != "split_proportions"}
    gates = config.gates.model_copy(update={"waive": waive, "min_per_class": 100000})
    strict = config.model_copy(update={"gates": gates})
    with pytest.raises(GateError, match="split_proportions") as caught:
        run(strict)
    assert caught.value.exit_code == 3
    record = read_record(layout)
    assert record["state"] == "failed"
    assert "split_proportions" in record["error"]["message"]
    assert not layout.success.exists()
    assert "GateError" in layout.diagnostics.join("traceback.txt").read_bytes().decode()
    run(config)
    assert read_record(layout)["state"] == "complete"


def test_training_demands_passed_gates(finished: tuple[RunConfig, RunLayout], tmp_path: Path) -> None:
    """`--only train` with other bounds than those that passed is refused; a lost output fails verification."""
    config, layout = finished
    shutil.copytree(layout.root.path, tmp_path / config.run.name)
    gates = config.gates.model_copy(update={"snr_target_tv_sigmas": 4.0})
    training = config.training.model_copy(update={"learning_rate": 0.01})
    copied = config.run.model_copy(update={"root": str(tmp_path)})
    with pytest.raises(GateError, match="has not passed its gates"):
        run(config.model_copy(update={"run": copied, "gates": gates, "training": training}), only="train")
    copy = RunLayout.of(copied)
    copy.training.join("scores.parquet").remove()
    with pytest.raises(VerificationError, match=r"scores\.parquet"):
        verify_run(copy)


def test_changed_metadata_fails_verification(finished: tuple[RunConfig, RunLayout]) -> None:
    """A unit changed by hand in an array's metadata is found."""
    _, layout = finished
    path = Path(layout.root.path) / "cubes/training/cube.zarr/injected/zarr.json"
    good = path.read_text()
    path.write_text(good.replace('"nmgy"', '"Jy"'))
    with pytest.raises(VerificationError, match="injected/zarr.json"):
        verify_run(layout)
    path.write_text(good)


def test_injecting_again_reads_no_survey_pixel(
    make_config: Config, finished: tuple[RunConfig, RunLayout], survey: Path, tmp_path: Path
) -> None:
    """A run on another run's cutouts, with other priors and seed, works where the bricks are gone."""
    _, layout = finished
    hidden = survey / "coadd-hidden"
    settings = [f"run.cutouts_from={layout.root.path}", "run.seed=7", "run.name=again", "training.enabled=false"]
    (survey / "coadd").rename(hidden)
    (survey / "coadd").mkdir()
    try:
        again = run(make_config(tmp_path, *settings, "cluster.workers=1"))
        with pytest.raises(ContractError, match=r"run\.cutouts_from"):
            run(make_config(tmp_path, *settings, "run.name=other", "quality.bad_pixel_frac_max=0.5"))
    finally:
        (survey / "coadd").rmdir()
        hidden.rename(survey / "coadd")
    assert verify_run(layout_of(again.root.path, None, None))["training"]["rows"] == 128
    assert not (Path(again.root.path) / "cubes" / "cutouts").exists()
    assert "Throughput" in again.report.join("index.html").read_bytes().decode()


def test_limited_run_is_a_run_of_its_own(make_config: Config, tmp_path: Path) -> None:
    """--limit-shards 1 makes one shard under another name; `only` stops after a stage."""
    layout = run(make_config(tmp_path, "cluster.workers=1"), limit_shards=1, only="cutouts")
    assert layout.root.url.endswith("demo-limit1")
    assert open_cube(layout.cube("cutouts")).n_samples == 32
    assert not layout.cube("training").exists()
    assert not layout.success.exists()


def test_stage_without_its_input_is_refused(make_config: Config, tmp_path: Path) -> None:
    """`--only inject` without a published cutouts cube is a contract error."""
    with pytest.raises(ContractError, match="not a published cube"):
        run(make_config(tmp_path), only="inject")


def test_anchors_are_cut_measured_scored_and_reported_by_tier(finished: tuple[RunConfig, RunLayout]) -> None:
    """Every anchor has a row of the cube; those with a tier a score; each tier its own table and its own row."""
    _, layout = finished
    verified = verify_run(layout)
    measured = pd.read_parquet(layout.anchors.join("measured.parquet").path)
    assert verified["anchors"]["rows"] == len(measured) > 3
    outside = measured[measured["dec_deg"] > 59.0]
    assert outside["cutout_reject_reason"].tolist() == ["brick_missing"]
    stored = read_evaluation(layout.anchors.join("recall"))
    assert stored is not None
    scored = stored.tables["scored_anchors"]
    assert len(scored) == int((measured["reject_reason"] == "none").sum()) > 0
    assert np.isfinite(scored["logit"]).all()
    assert set(stored.tables) >= {"scored_anchors", "grade_confident", "grade_probable", "annulus_tier_b"}
    for name, table in stored.tables.items():
        if name != "scored_anchors":
            assert table[["tier_definition", "tier"]].drop_duplicates().shape[0] == 1
    stamps = read_anchor_stamps(layout, ["image", "ra_deg"])
    assert stamps["ra_deg"].to_numpy().tolist() == scored.sort_values("cube_row")["ra_deg"].tolist()
    page = layout.report.join("index.html").read_bytes().decode()
    assert "Real lenses" in page
    assert "Graded confident" in page


def test_report_shows_the_run(finished: tuple[RunConfig, RunLayout]) -> None:
    """The page is self-contained and names the run."""
    _, layout = finished
    page = layout.report.join("index.html").read_bytes().decode()
    assert "demo" in page
    assert 'src="http' not in page
    assert layout.report.join("dask-cutouts.html").exists()


def test_inspect_describes_every_column(finished: tuple[RunConfig, RunLayout]) -> None:
    """`inspect` gives unit, meaning and range of every column and the counts of every flag."""
    _, layout = finished
    described = inspect_cube(layout.cube("training"))
    assert described["attributes"]["bands"] == ["g", "r", "z"]
    assert sum(described["columns"]["role"]["counts"].values()) == 128
    assert described["columns"]["arc_snr"]["max"] > 0.8
    assert json.dumps(described)


def test_gates_see_used_rows_only(finished: tuple[RunConfig, RunLayout]) -> None:
    """The sample of stamps holds used rows of whole shards, at most as many as asked for."""
    _, layout = finished
    cube = open_cube(layout.cube("training"))
    stamps = read_stamps(cube, max_samples=40)
    assert 0 < stamps.sizes["sample"] <= 32
    assert (stamps["role"].to_numpy() != 0).all()
    assert np.isfinite(stamps["injected"].to_numpy()).all()


def test_trainer_output_is_complete(finished: tuple[RunConfig, RunLayout]) -> None:
    """Scores exist for both stamps of every test pair, and the checkpoint knows its plan."""
    _, layout = finished
    names = layout.training.names()
    assert set(OUTPUTS) <= set(names)
    assert len(json.loads(Location(layout.training.url + "/history.json").read_bytes())) == 1
    metrics = read_json(layout.training.join("metrics.json"))
    assert 0.0 <= metrics["auc"]["value"] <= 1.0
    assert read_record(layout)["stages"]["train"]["metrics"]["n_positives"] == metrics["n_positives"]


def test_network_is_judged_after_training(finished: tuple[RunConfig, RunLayout]) -> None:
    """Every gate on the network has its verdict, in folder, record and report; `verify` finds changed probes."""
    _, layout = finished
    results = read_json(layout.network_gates)["gates"]
    assert [result["name"] for result in results] == list(NETWORK_GATE_NAMES)
    assert read_record(layout)["stages"]["network_gates"]["state"] == "complete"
    assert {result["name"]: result["n_control"] for result in results}["realism"] > 0
    (examples,) = Path(layout.training.path).glob("probes/*/examples.csv")
    stored = examples.read_bytes()
    assert verify_run(layout)["probes"]["scored"] == stored.count(b"\n") - 1
    examples.write_bytes(stored + b"1\n")
    try:
        with pytest.raises(VerificationError, match=r"differ from what was verified: \['examples\.csv'\]"):
            verify_run(layout)
    finally:
        examples.write_bytes(stored)
    assert "centre_mask_curve" in layout.report.join("index.html").read_bytes().decode()
