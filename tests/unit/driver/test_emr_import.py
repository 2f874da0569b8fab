"""Import of stamps: what the EMR code wrote, what we exported, and the variants in between."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import build_config
from pipeline.contracts.datasets import REJECT_REASONS, ROLES, SPLITS, TRAINING
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.feed_config import FeedSection
from pipeline.driver import emr_import
from pipeline.driver.emr_export import finish_export, plan_export
from pipeline.driver.emr_import import import_stamps
from pipeline.driver.emr_shards import export_shard
from pipeline.driver.gating import gate_cube
from pipeline.driver.imported_shards import duplicate_rows, import_shard
from pipeline.driver.plan import make_plan
from pipeline.driver.provenance import code_version
from pipeline.driver.run import open_record
from pipeline.driver.tasks import ShardTask
from pipeline.storage.cube import PublishedCube, create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.stamp_blobs import encode_stamp
from pipeline.training.feed import open_feed

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"
EXPERIMENT = "train_stamp64_bandsgrz_gridgrid_sota"
RAW = GOLDEN / "stage4c/raw_spark_output_unp1_sersic_moffat/stamps" / EXPERIMENT
BANDS = ("g", "r", "z")
SIZE = 16


def run_here(config: RunConfig) -> RunLayout:
    """Import every shard without a cluster; stands in for `run`."""
    layout, plan = RunLayout.of(config.run), make_plan(config)
    open_record(layout, config, plan)
    create_cube(layout.cube("training"), TRAINING, plan.shape)
    duplicates = duplicate_rows(plan)
    for shard in range(plan.shape.n_shards):
        pieces = tuple(plan.pieces(shard))
        import_shard(ShardTask(config, layout, plan.shape, shard, pieces, plan.sha256, code_version()), duplicates)
    provenance = {"bands": list(config.survey.bands), "plan_sha256": plan.sha256}
    publish_cube(layout.cube("training"), cube_attributes(TRAINING, plan.shape, provenance))
    return layout


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., PublishedCube]:
    """Imports tables into a run of this test; keyword `settings` are overrides."""

    def make(*tables: Path | str, settings: tuple[str, ...] = ()) -> PublishedCube:
        layouts: list[RunLayout] = []
        monkeypatch.setattr(emr_import, "run", lambda config, **_: layouts.append(run_here(config)) or layouts[0])
        monkeypatch.setattr(emr_import, "read_record", lambda _: {"stages": {"training": {"counts": {}}}})
        import_stamps([str(table) for table in tables], str(tmp_path / "runs" / "old"), 1, overrides=settings)
        return open_cube(layouts[0].cube("training"))

    return make


def whole(cube: PublishedCube) -> xr.Dataset:
    """Every variable of a cube by task_id."""
    names = [*cube.column_names(), "injected", "control"]
    parts = [cube.read_shard(shard, names) for shard in range(cube.n_shards)]
    joined = xr.concat(parts, dim="sample")
    return joined.assign_coords(sample=joined["task_id"].to_numpy())


def reasons_of(dataset: xr.Dataset) -> list[str]:
    """Reject reasons as words."""
    return [REJECT_REASONS[code] for code in dataset["reject_reason"].to_numpy()]


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the EMR system's own tables are not here: {GOLDEN}")
def test_sparks_own_files_become_a_training_cube(imported: Callable[..., PublishedCube]) -> None:
    """Every row is there; its pixels are those of the table, its split that of the folder, its reasons its own."""
    settings = ("manifest.split_from=table", "shards.samples=32")
    cube = imported(RAW, settings=settings)
    assert (cube.n_samples, cube.n_shards) == (54, 2)
    ours = whole(cube)
    table = pd.concat(pd.read_parquet(path) for path in sorted(RAW.rglob("*.parquet"))).set_index("task_id")
    assert set(ours["sample"].to_numpy()) == set(table.index)
    golden = pd.read_parquet(GOLDEN / "stage4c/unp1_sersic_moffat/rows.parquet").set_index("task_id")
    errors = golden.index[golden["npz_keys"] == "image_r"]
    assert {REJECT_REASONS[code] for code in ours["reject_reason"].sel(sample=errors.tolist()).to_numpy()} <= {
        "brick_missing",
        "out_of_bounds",
    }
    role = ours["role"].to_numpy()
    used = np.flatnonzero(role)
    assert {ROLES[code] for code in role} == {"unused", "control", "injected"}
    assert set(reasons_of(ours)) - {"none"} <= {"brick_missing", "out_of_bounds", "nonfinite_pixels", "masked"}
    for row in used.tolist():
        task = str(ours["sample"].to_numpy()[row])
        with np.load(io.BytesIO(table.loc[task, "stamp_npz"])) as blob:
            stamp = np.stack([blob[f"image_{band}"] for band in BANDS])
        np.testing.assert_array_equal(ours["injected"].to_numpy()[row], stamp)
        assert (role[row] == ROLES.index("control")) == (table.loc[task, "is_control"] == 1)
        assert SPLITS[int(ours["split"][row])] == golden.loc[task, "region_split"]
    assert np.isnan(ours["injected"].to_numpy()[role == 0]).all()
    arc = np.flatnonzero(role == ROLES.index("injected"))
    assert np.isnan(ours["control"].to_numpy()[arc]).all()
    np.testing.assert_allclose(
        ours["arc_snr"].to_numpy()[arc], table.loc[ours["sample"].to_numpy()[arc], "arc_snr"].to_numpy(), rtol=1e-6
    )


def test_export_then_import_gives_the_cube_back(
    golden_run: Any, imported: Callable[..., PublishedCube], tmp_path: Path
) -> None:
    """Stamps, pairs, roles, reasons and parameters survive; the paired table, named first, brings the controls."""
    layout = EmrLayout(Location(str(tmp_path / "emr")), "v6_round_trip")
    planned = plan_export(golden_run.layout, layout, ("stamps", "paired"))
    receipts = {task.shard: export_shard(task, planned.export) for task in planned.tasks}
    finish_export(planned, receipts, layout.phase4)
    cube = imported(layout.paired().path, layout.stamps(EXPERIMENT).path)
    assert cube.n_samples == 88 + sum(int(receipt.work["rows_paired"]) for receipt in receipts.values())
    again = whole(cube)
    again = again.isel(sample=np.flatnonzero([reason != "duplicate_row" for reason in reasons_of(again)]))
    assert again.sizes["sample"] == 88
    before = whole(open_cube(golden_run.layout.cube("training")))
    again = again.sel(sample=before["sample"])
    same = np.array(reasons_of(before)) == np.array(reasons_of(again))
    # A stamp does not say which of its pixels had no inverse variance.
    assert {reason for reason, equal in zip(reasons_of(before), same, strict=True) if not equal} <= {"invvar_zero"}
    assert same.sum() > 80
    before, again = before.isel(sample=same), again.isel(sample=same)
    used = before["role"].to_numpy() > 0
    assert again["role"].to_numpy()[used].tolist() == before["role"].to_numpy()[used].tolist()
    for name in ("injected", "control"):
        np.testing.assert_array_equal(again[name].to_numpy()[used], before[name].to_numpy()[used])
    pair = before["role"].to_numpy() == ROLES.index("pair")
    exact = ("host_id", "brickname", "ra_deg", "dec_deg", "region_split", "is_control", "psfdepth_r_mag")
    for name in exact:
        assert again[name].to_numpy()[used].tolist() == before[name].to_numpy()[used].tolist()
    lens = ("theta_e_arcsec", "lens_q", "lens_phi_rad", "shear_gamma1", "shear_gamma2")
    source = ("src_x_arcsec", "src_y_arcsec", "src_re_arcsec", "src_q", "src_n", "src_phi_rad")
    for name in (*lens, *source, "arc_snr", "arc_snr_sum", "magnification", "arc_flux_nmgy"):
        np.testing.assert_allclose(again[name].to_numpy()[pair], before[name].to_numpy()[pair], rtol=2e-4, err_msg=name)


def stamp_table(path: Path, n_rows: int, **replaced: Any) -> Path:
    """A table of noisy stamps, every third a control; a replacement of None drops a column."""
    generator = np.random.default_rng(3)
    control = (np.arange(n_rows) % 3 == 0).astype(int)
    images = generator.normal(0.0, 0.01, (n_rows, 3, SIZE, SIZE)).astype(np.float32)
    columns: dict[str, Any] = {
        "task_id": [f"task-{row}" for row in range(n_rows)],
        "brickname": ["0591m305"] * n_rows,
        "ra": 59.0 + 0.01 * np.arange(n_rows),
        "dec": np.full(n_rows, -30.5),
        "is_control": control,
        "theta_e_arcsec": np.where(control, 0.0, 1.1),
        "cutout_ok": np.ones(n_rows, int),
        "psfsize_r": np.full(n_rows, 1.3),
        "arc_snr": np.where(control, np.nan, 6.0),
        "bad_pixel_frac": np.zeros(n_rows),
        "region_split": [("train", "val", "test")[row // 3 % 3] for row in range(n_rows)],
        "stamp_npz": [encode_stamp(image, BANDS) for image in images],
        **replaced,
    }
    pd.DataFrame({name: values for name, values in columns.items() if values is not None}).to_parquet(path)
    return path


SMALL = (f"survey.stamp_size_px={SIZE}", "training.preprocess={annulus_px: [5, 8]}", "shards.samples=64")


def test_every_unusable_row_has_its_reason(imported: Callable[..., PublishedCube], tmp_path: Path) -> None:
    """One row per fault, and one without."""
    good = np.random.default_rng(1).normal(0.0, 0.01, (3, SIZE, SIZE)).astype(np.float32)
    wild, flat, undefined = good.copy(), good.copy(), good.copy()
    wild[0, 0, 0], flat[2], undefined[1, 2, 2] = 2e6, 0.5, np.nan
    only_r = io.BytesIO()
    np.savez(only_r, image_r=good[1])
    n = 14
    blobs: list[bytes | None] = [encode_stamp(good, BANDS)] * n
    blobs[1], blobs[2], blobs[3] = None, b"no archive", only_r.getvalue()
    blobs[4] = encode_stamp(good[:, :10, :10], BANDS)
    blobs[5], blobs[6], blobs[7] = (encode_stamp(image, BANDS) for image in (undefined, wild, flat))
    column: dict[str, Any] = {
        "stamp_npz": blobs,
        "task_id": [*(f"t{row}" for row in range(13)), "t0"],
        "cutout_ok": [0 if row == 8 else 1 for row in range(n)],
        "bad_pixel_frac": [0.9 if row == 9 else np.nan if row == 10 else 0.0 for row in range(n)],
        "ra": [np.nan if row == 11 else 10.0 + row for row in range(n)],
        "physics_warnings": ["Processing error: arc_masked" if row == 12 else None for row in range(n)],
    }
    found = whole_by_row(imported(stamp_table(tmp_path / "a.parquet", n, **column), settings=SMALL))
    assert reasons_of(found) == [
        *("none", "stamp_unreadable", "stamp_unreadable", "band_missing", "stamp_shape", "nonfinite_pixels"),
        *("implausible_pixels", "implausible_pixels", "out_of_bounds", "masked", "mask_unreadable", "row_incomplete"),
        *("arc_masked", "duplicate_row"),
    ]
    assert found["role"].to_numpy()[1:].tolist() == [0] * (n - 1)


def whole_by_row(cube: PublishedCube) -> xr.Dataset:
    """Every variable of a cube in row order."""
    return cube.read_shard(0, [*cube.column_names(), "injected", "control"])


def test_historical_variants(imported: Callable[..., PublishedCube], tmp_path: Path) -> None:
    """gzip around the NPZ, the old name of the half-light radius, no arc_snr_sum, three tables as one cube."""
    generator = np.random.default_rng(5)
    images = generator.normal(0.0, 0.01, (9, 3, SIZE, SIZE)).astype(np.float32)
    old = stamp_table(
        tmp_path / "old.parquet",
        9,
        task_id=[f"old-{row}" for row in range(9)],
        cosmos_hlr_arcsec=np.full(9, 1.7),
        cosmos_index=[None, 4, 5] * 3,
        stamp_npz=[gzip.compress(encode_stamp(image, BANDS)) for image in images],
    )
    wide = generator.normal(0.0, 0.01, (4, 25, 25, 3)).astype(np.float32)
    (tmp_path / "cutouts").mkdir()
    for row, image in enumerate(wide):
        np.savez(tmp_path / "cutouts" / f"{row}.npz", cutout=image, meta_ra=10.0)
    pd.DataFrame(
        {
            "galaxy_id": [f"galaxy-{row}" for row in range(4)],
            "ra": 20.0 + np.arange(4),
            "dec": np.zeros(4),
            "label": [1, 0, 1, 0],
            "split": ["train", "val", "test", "train"],
            "psfsize_r": np.full(4, 1.2),
            "psfdepth_r": np.full(4, 1500.0),
            "cutout_path": [*(f"cutouts/{row}.npz" for row in range(3)), "cutouts/lost.npz"],
        }
    ).to_parquet(tmp_path / "successor.parquet")
    paired = stamp_table(
        tmp_path / "paired.parquet", 3, is_control=[0] * 3, theta_e_arcsec=[1.0] * 3, arc_snr=[3.0] * 3,
        ctrl_stamp_npz=[encode_stamp(image, BANDS) for image in images[:3]],
    )  # fmt: skip
    found = whole_by_row(imported(old, tmp_path / "successor.parquet", paired, settings=SMALL))
    roles = [ROLES[code] for code in found["role"].to_numpy()]
    assert (
        roles == ["control", "injected", "injected"] * 3 + ["injected", "control", "injected", "unused"] + ["pair"] * 3
    )
    np.testing.assert_array_equal(found["injected"].to_numpy()[:9], images)
    assert found["lensed_hlr_arcsec"].to_numpy()[1] == np.float32(1.7)
    assert found["src_template"].to_numpy()[:3].tolist() == [-1, 4, 5]
    assert np.isnan(found["arc_snr_sum"].to_numpy()).all()
    np.testing.assert_array_equal(found["injected"].to_numpy()[9], np.moveaxis(wide[0][4:20, 4:20], -1, 0))
    assert found["psfdepth_r_mag"].to_numpy()[9] == pytest.approx(22.5 - 2.5 * np.log10(5 / 1500**0.5), rel=1e-6)
    assert found["region_split"].to_numpy()[9:12].tolist() == ["train", "val", "test"]
    assert reasons_of(found)[12] == "stamp_unreadable"
    np.testing.assert_array_equal(found["control"].to_numpy()[13:], images[:3])


def test_gates_and_trainer_read_an_imported_cube(imported: Callable[..., PublishedCube], tmp_path: Path) -> None:
    """The feed gives every arc and every control once; every gate has a verdict."""
    table = stamp_table(tmp_path / "a.parquet", 180)
    cube = imported(table, settings=(*SMALL, "manifest.split_from=table", "gates.min_per_class=10"))
    examples = open_feed(cube, FeedSection())
    assert {name: (len(found), int(found.label.sum())) for name, found in examples.items()} == dict.fromkeys(
        ("train", "val", "test"), (60, 40)
    )
    arc = int(np.flatnonzero(examples["train"].label == 1)[0])
    assert examples["train"].row[arc] % 3 != 0
    assert all(bool(batch.stamps.isfinite().all()) for batch in examples["train"].in_order(32))
    judged = gate_cube(cube.location)
    assert judged.config.manifest.kind == "stamps"
    passed = {result.name for result in judged.results if result.passed}
    assert {"bandset_audit", "duplicate_audit"} <= passed
    messages = {result.name: result.message for result in judged.results}
    for name in ("core_brightness_ratio", "core_only_auc", "normalisation_statistics"):
        assert "120 imported arcs have no control: name the table of pairs first" in messages[name]
    assert "'arc_snr_sum_not_finite': 120" in messages["finite_pixels"]
    assert "SNRs that the imported tables do not hold" in messages["finite_pixels"]
    idle = {result.name: result.message for result in judged.results if not result.applicable}
    assert "injected elsewhere" in idle["null_injection"]


def test_refusals(tmp_path: Path) -> None:
    """No table, no stamps in it, and settings that an import cannot have."""
    with pytest.raises(ConfigError, match="at least one table"):
        import_stamps([], str(tmp_path / "old"), 1)
    with pytest.raises(ConfigError, match="does not exist"):
        import_stamps([str(tmp_path / "nothing.parquet")], str(tmp_path / "old"), 1)
    table = stamp_table(tmp_path / "a.parquet", 3)
    with pytest.raises(ConfigError, match="an import reads finished stamps"):
        import_stamps([str(table)], str(tmp_path / "old"), 1, overrides=["manifest.kind=emr"])
    pd.DataFrame({"task_id": ["a"]}).to_parquet(table)
    content = {
        "run": {"name": "old", "root": str(tmp_path), "region": None, "seed": 1},
        "survey": {"bands": "g,r,z", "stamp_size_px": SIZE, "bricks": str(table), "layout": "cache"},
        "manifest": {"kind": "stamps", "url": str(table)},
        "injection": {"mode": "frozen", "extinction": False},
        "sampling": {"method": "none", "metric": "arc_snr"},
        "training": {"epochs": 1, "preprocess": {"annulus_px": [5, 8]}},
        "shards": {"samples": 16},
        "cluster": {"kind": "local"},
    }
    with pytest.raises(ContractError, match="expected a column stamp_npz or cutout_path"):
        run_here(build_config(content, (), "test"))
