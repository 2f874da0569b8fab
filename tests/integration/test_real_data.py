"""Real survey pixels and a real EMR manifest: the run completes, and what must agree with EMR agrees.

The manifest's unpaired controls, the synthetic-mask brick and the 256-px field say nothing about completeness.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from pipeline.commands.anchors import app
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.survey import BAD_PIXEL_MASK
from pipeline.driver.inspection import verify_run
from pipeline.driver.run import run
from pipeline.kernels.arc_snr import arc_snr_columns
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import RunLayout

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY.parent / "shared" / "data" / "emr_golden"

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"real imaging is not here: {GOLDEN}")


def settings_of(root: Path) -> list[str]:
    """Overrides of configs/demo-real.yaml."""
    return [
        f"run.root={root}",
        f"survey.bricks={GOLDEN / 'inputs/coadds'}",
        f"manifest.url={GOLDEN / 'manifests/golden_all'}",
    ]


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """The demo-real run on the EMR golden manifest."""
    settings = settings_of(tmp_path_factory.mktemp("real"))
    return run(load_config(REPOSITORY / "configs" / "demo-real.yaml", settings))


@pytest.fixture(scope="module")
def cutouts(real_run: RunLayout) -> xr.Dataset:
    """Every variable of the cutouts cube, indexed by task_id."""
    cube = open_cube(real_run.cube("cutouts"))
    names = [*cube.column_names(), "image", "invvar", "maskbits"]
    whole = xr.concat([cube.read_shard(k, names) for k in range(cube.n_shards)], dim="sample")
    return whole.assign_coords(sample=whole["task_id"].to_numpy()).drop_vars("task_id")


def golden_rows(name: str) -> pd.DataFrame:
    """What the EMR code wrote for a run, by task_id."""
    return pd.read_parquet(GOLDEN / "stage4c" / name / "rows.parquet").set_index("task_id")


def golden_stamps(name: str) -> dict[str, np.ndarray]:
    """Stamps that the EMR code made, by task_id."""
    stored = np.load(GOLDEN / "stage4c" / name / "stamps.npz", allow_pickle=False)
    return dict(zip(stored["task_id"].tolist(), stored["image"], strict=True))


def test_run_on_real_pixels_is_verified(real_run: RunLayout) -> None:
    """All 88 rows are accounted for and every object matches its receipt."""
    assert verify_run(real_run)["training"]["rows"] == 88


def test_cutout_ok_is_that_of_emr(cutouts: xr.Dataset) -> None:
    """cutout_ok agrees with the EMR code for every row, missing brick and outside window included."""
    golden = golden_rows("sersic_moffat")
    ours = dict(zip(cutouts["sample"].to_numpy().tolist(), cutouts["cutout_ok"].to_numpy().tolist(), strict=True))
    assert ours == golden["cutout_ok"].to_dict()
    assert set(ours.values()) == {0, 1}


def test_mask_fractions_are_those_of_emr(cutouts: xr.Dataset) -> None:
    """bad_pixel_frac and wise_brightmask_frac agree bit for bit as float32 where the EMR code had a mask."""
    golden = golden_rows("sersic_moffat")
    for name in ("bad_pixel_frac", "wise_brightmask_frac"):
        known = golden[name].dropna()
        assert len(known) == 43
        ours = cutouts[name].sel(sample=known.index.to_list()).to_numpy()
        np.testing.assert_array_equal(ours, known.to_numpy().astype(np.float32))


def test_control_pixels_are_those_of_emr(cutouts: xr.Dataset) -> None:
    """Control stamps equal the EMR stamps bit for bit, NaN included."""
    golden = golden_rows("sersic_moffat")
    stamps = golden_stamps("sersic_moffat")
    controls = [task for task in stamps if golden.loc[task, "is_control"] == 1]
    assert len(controls) > 25
    for task in controls:
        np.testing.assert_array_equal(cutouts["image"].sel(sample=task).to_numpy(), stamps[task])


def test_emr_arcs_on_our_cutouts_are_the_emr_stamps(cutouts: xr.Dataset) -> None:
    """Our cutout plus the EMR arc is the EMR stamp: same window, same pixels."""
    arcs, stamps = golden_stamps("arc_sersic_moffat"), golden_stamps("sersic_moffat")
    both = sorted(set(arcs) & set(stamps))
    assert len(both) > 20
    for task in both:
        summed = cutouts["image"].sel(sample=task).to_numpy() + arcs[task]
        np.testing.assert_allclose(summed, stamps[task], rtol=2e-6, atol=1e-7, equal_nan=True)


def test_arc_snr_of_emr_arcs_is_that_of_emr(cutouts: xr.Dataset) -> None:
    """Given the same arc, arc_snr and arc_snr_sum agree to 1e-6."""
    golden = golden_rows("sersic_moffat")
    checked = 0
    for task, arc in golden_stamps("arc_sersic_moffat").items():
        if not np.isfinite(golden.loc[task, "arc_snr"]):
            continue
        host = cutouts.sel(sample=task)
        invvar = host["invvar"].to_numpy()[1]
        peak, total, _, _ = arc_snr_columns(arc[1], invvar, host["maskbits"].to_numpy(), BAD_PIXEL_MASK, 32.0, 32.0)
        assert peak == pytest.approx(golden.loc[task, "arc_snr"], rel=1e-6)
        assert total == pytest.approx(golden.loc[task, "arc_snr_sum"], rel=1e-6)
        checked += 1
    assert checked == 18


def test_frozen_rows_are_rendered_as_they_stand(real_run: RunLayout) -> None:
    """Every usable positive row carries its manifest's numbers; controls carry none; the rest has a reason."""
    manifest = pd.read_parquet(next((GOLDEN / "manifests/golden_all").glob("*.parquet"))).set_index("task_id")
    cube = open_cube(real_run.cube("training"))
    pairs = cube.columns(cube.column_names())
    tasks = pairs["task_id"].to_numpy()
    role = pairs["role"].to_numpy()
    assert (role == 1).sum() > 15
    assert (role == 2).sum() > 10
    for index in np.flatnonzero(role == 1):
        row = manifest.loc[tasks[index]]
        assert float(pairs["theta_e_arcsec"][index]) == pytest.approx(row["theta_e_arcsec"])
        assert float(pairs["src_re_arcsec"][index]) == pytest.approx(row["src_reff_arcsec"])
        assert float(pairs["src_mag"][index, 1]) == pytest.approx(row["rmag"] + row["src_dmag"], abs=1e-5)
        assert row["is_control"] == 0
    assert (manifest.loc[tasks[role == 2], "is_control"] == 1).all()
    reasons = {REJECT_REASONS[code] for code in pairs["reject_reason"].to_numpy()[role == 0]}
    assert {"brick_missing", "out_of_bounds"} <= reasons
    assert "none" not in reasons


def test_emr_splits_are_columns_of_the_cube(real_run: RunLayout) -> None:
    """region_split is the manifest's, its relabel moves val rows alone, and a host is never in two sky splits."""
    manifest = pd.read_parquet(next((GOLDEN / "manifests/golden_all").glob("*.parquet"))).set_index("task_id")
    cube = open_cube(real_run.cube("training"))
    columns = cube.columns(["task_id", "host_id", "split", "region_split", "region_split_relabel"]).to_dataframe()
    assert columns["region_split"].to_list() == manifest.loc[columns["task_id"], "region_split"].to_list()
    moves = columns.groupby(["region_split", "region_split_relabel"]).size()
    assert set(moves.index) == {("train", "train"), ("test", "test"), ("val", "train"), ("val", "val")}
    assert columns.groupby("host_id")["split"].nunique().max() == 1


def test_sqrt_q_defect_is_not_reproduced(real_run: RunLayout) -> None:
    """Our arcs differ from the EMR arcs of elliptical lenses; the EMR deflection lacks the factor sqrt(q)."""
    cube = open_cube(real_run.cube("training"))
    ours = xr.concat(
        [cube.read_shard(k, ["task_id", "injected", "control", "role", "lens_q"]) for k in range(cube.n_shards)],
        dim="sample",
    )
    emr = golden_stamps("arc_sersic_moffat")
    ratios = []
    for index in np.flatnonzero(ours["role"].to_numpy() == 1):
        task = str(ours["task_id"].to_numpy()[index])
        if task in emr and float(ours["lens_q"][index]) < 0.6:
            arc = (ours["injected"] - ours["control"]).to_numpy()[index, 1]
            ratios.append(float(emr[task][1].sum() / arc.sum()))
    assert len(ratios) >= 3
    assert max(abs(np.log(ratio)) for ratio in ratios) > 0.1


def test_control_stamps_of_emr_have_the_pixels_of_the_cutouts(real_run: RunLayout, tmp_path: Path) -> None:
    """Old stamps and the brick path are one source of pixels: the verdict of the parity check."""
    rows, stamps = golden_rows("sersic_moffat"), golden_stamps("sersic_moffat")
    controls = rows[(rows["is_control"] == 1) & (rows["cutout_ok"] == 1) & rows.index.isin(list(stamps))]
    for number, (task_id, row) in enumerate(controls.iterrows()):
        np.savez(tmp_path / f"{number}.npz", image=stamps[str(task_id)], ra_deg=row["ra"], dec_deg=row["dec"])
    cube = real_run.cube("cutouts").url
    result = CliRunner().invoke(app, ["parity", cube, str(tmp_path)], catch_exceptions=False)
    assert len(controls) == 16
    assert '"verdict": "identical"' in result.output


def test_anchors_are_measured_beside_rows_that_are_frozen(real_run: RunLayout, tmp_path: Path) -> None:
    """Field galaxies as anchors: cut out by the run that renders a manifest, none of them with a visible arc."""
    rows = golden_rows("sersic_moffat")
    whole = rows[(rows["cutout_ok"] == 1) & (rows["brickname"] == "0591m305")].drop_duplicates(["ra", "dec"])
    listed = pd.DataFrame({"name": "field", "ra": whole["ra"], "dec": whole["dec"]})
    listed.to_csv(tmp_path / "field.csv", index=False)
    known = pd.DataFrame({"name": ["L"], "ra": [10.0], "dec": [5.0], "ref": ["arXiv:1906.00970"]})
    known.to_csv(tmp_path / "known.csv", index=False)
    build = ["build", "-o", str(tmp_path / "a"), "--list", str(tmp_path / "field.csv"), "--allow-unmatched"]
    source = ["--catalogue", str(tmp_path / "known.csv"), "--bricks", str(GOLDEN / "inputs/coadds")]
    assert CliRunner().invoke(app, [*build, *source], catch_exceptions=False).exit_code == 0
    table, config = str(tmp_path / "a" / "anchors.parquet"), str(REPOSITORY / "configs" / "demo-real.yaml")
    settings = [part for value in settings_of(Path(real_run.root.path).parent) for part in ("--set", value)]
    measure = ["measure", table, "-o", str(tmp_path / "t"), "--config", config, "--set", "cluster.workers=1"]
    assert CliRunner().invoke(app, [*measure, *settings], catch_exceptions=False).exit_code == 0
    measured = pd.read_parquet(tmp_path / "t" / "measured.parquet").query("names == 'field'")
    galaxies = measured[measured["reject_reason"] == "none"]
    assert 5 <= len(galaxies) <= len(whole)
    assert set(galaxies["visibility_tier"]) == {"B"}
    assert set(measured["reject_reason"]) <= {"none", "no_central_galaxy", "annulus_unmeasurable"}
