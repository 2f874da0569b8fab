"""What can go wrong ends in a recorded reason or a clear error, never in a hang or a silent loss."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from distributed import LocalCluster

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.errors import ClusterError, ContractError, StorageError
from pipeline.driver.cluster import open_cluster
from pipeline.driver.cubes import RunContext
from pipeline.driver.diagnostics import failures_recorded
from pipeline.driver.plan import make_plan
from pipeline.driver.run import open_record, run
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import RunLayout
from pipeline.storage.receipts import Receipt
from pipeline.storage.runs import read_record

Config = Callable[..., RunConfig]
Cut = Callable[[RunConfig], tuple[PublishedCube, dict[int, Receipt]]]


def reasons_of(cube: PublishedCube, brickname: str) -> set[str]:
    """Names of the reject reasons of a brick's rows."""
    columns = cube.columns(["brickname", "reject_reason"])
    codes = columns["reject_reason"].to_numpy()[columns["brickname"].to_numpy() == brickname]
    assert codes.size
    return {REJECT_REASONS[code] for code in codes}


def config_on(make_config: Config, root: Path, survey: Path) -> RunConfig:
    """The small configuration on a damaged copy of the survey."""
    return make_config(root, f"survey.bricks={survey / 'coadd'}", f"manifest.url={survey / 'parent.parquet'}")


def bricks_of(survey: Path) -> list[str]:
    """Names of the survey's bricks."""
    return sorted(set(pd.read_parquet(survey / "parent.parquet")["brickname"]))


def test_damaged_bricks_are_recorded_reasons(
    make_config: Config, cut_all: Cut, tmp_path: Path, own_survey: Path
) -> None:
    """A missing file, a truncated file and a garbled file cost the rows of their bricks, each with its reason."""
    missing, truncated, garbled, healthy = bricks_of(own_survey)[:4]
    (own_survey / "coadd" / missing / f"legacysurvey-{missing}-invvar-r.fits.fz").unlink()
    cut = own_survey / "coadd" / truncated / f"legacysurvey-{truncated}-image-g.fits.fz"
    cut.write_bytes(cut.read_bytes()[:30_000])
    noise = own_survey / "coadd" / garbled / f"legacysurvey-{garbled}-image-z.fits.fz"
    noise.write_bytes(np.random.default_rng(1).bytes(50_000))
    cube, receipts = cut_all(config_on(make_config, tmp_path / "runs", own_survey))
    assert reasons_of(cube, missing) == {"brick_missing"}
    assert reasons_of(cube, truncated) == {"brick_corrupt"}
    assert reasons_of(cube, garbled) == {"brick_corrupt"}
    assert "none" in reasons_of(cube, healthy)
    notes = " ".join(note for receipt in receipts.values() for note in receipt.notes)
    assert missing in notes
    assert "image-z" in notes


def test_missing_mask_keeps_the_cutout_and_rejects_the_row(
    make_config: Config, cut_all: Cut, tmp_path: Path, own_survey: Path
) -> None:
    """Without maskbits the cutout is ok in the EMR meaning, its mask fractions are NaN, and it is not usable."""
    brick = bricks_of(own_survey)[0]
    (own_survey / "coadd" / brick / f"legacysurvey-{brick}-maskbits.fits.fz").unlink()
    cube, _ = cut_all(config_on(make_config, tmp_path / "runs", own_survey))
    columns = cube.columns(["brickname", "cutout_ok", "usable", "bad_pixel_frac", "in_bounds"])
    rows = columns.isel(sample=np.flatnonzero(columns["brickname"].to_numpy() == brick))
    assert reasons_of(cube, brick) <= {"mask_unreadable", "out_of_bounds"}
    assert "mask_unreadable" in reasons_of(cube, brick)
    np.testing.assert_array_equal(rows["cutout_ok"], rows["in_bounds"])
    assert np.isnan(rows["bad_pixel_frac"]).all()
    assert not rows["usable"].any()


def test_defects_of_the_sky_are_recorded_reasons(make_config: Config, cut_all: Cut, tmp_path: Path) -> None:
    """NaN pixels, exposure gaps, masks and stamps beyond the edge are rejected rows, not NaN in usable ones."""
    cube, _ = cut_all(make_config(tmp_path))
    columns = cube.columns(["reject_reason", "usable", "finite_frac", "in_bounds"])
    found = {REJECT_REASONS[code] for code in columns["reject_reason"].to_numpy()}
    assert {"none", "out_of_bounds", "nonfinite_pixels", "invvar_zero"} <= found
    usable = columns["usable"].to_numpy() == 1
    assert (columns["finite_frac"].to_numpy()[usable] == 1).all()
    image = np.concatenate([cube.read_shard(k, ["image"])["image"].to_numpy() for k in range(cube.n_shards)])
    assert np.isfinite(image[usable]).all()


def test_position_far_outside_its_brick_is_out_of_bounds(
    make_config: Config, cut_all: Cut, tmp_path: Path, own_survey: Path
) -> None:
    """Rows whose position lies degrees away from the brick they name, or behind it, are out of bounds."""
    path = own_survey / "parent.parquet"
    parent = pd.read_parquet(path)
    parent.loc[0, "dec"] -= 3.0
    parent.loc[1, "ra"] = (parent.loc[1, "ra"] + 180.0) % 360.0
    parent.to_parquet(path)
    cube, _ = cut_all(config_on(make_config, tmp_path / "runs", own_survey))
    reason = cube.columns(["reject_reason"])["reject_reason"].to_numpy()
    assert [REJECT_REASONS[code] for code in reason[:2]] == ["out_of_bounds"] * 2


def test_broken_manifest_is_one_error_with_counts(make_config: Config, tmp_path: Path, own_survey: Path) -> None:
    """NaN positions, duplicates and bad names are counted in one error before any work; `dhs` exits with 2."""
    path = own_survey / "parent.parquet"
    parent = pd.read_parquet(path)
    parent.loc[[0, 5], "ra"] = np.nan
    parent.loc[7] = parent.loc[8]
    parent.loc[9, "brickname"] = "brick9"
    parent.to_parquet(path)
    config = config_on(make_config, tmp_path / "runs", own_survey)
    with pytest.raises(ContractError) as caught:
        run(config)
    assert caught.value.exit_code == 2
    for part in ("2 rows with NaN position", "1 rows with duplicate host", "1 rows with brickname"):
        assert part in str(caught.value)
    assert not RunLayout.of(config.run).cube("cutouts").exists()


def test_changed_manifest_is_another_plan(make_config: Config, tmp_path: Path, own_survey: Path) -> None:
    """A catalogue whose values changed, at the same size and path, does not continue the run."""
    config = config_on(make_config, tmp_path / "runs", own_survey)
    before = make_plan(config).sha256
    path = own_survey / "parent.parquet"
    parent = pd.read_parquet(path)
    parent["ebv"] += 0.5
    parent.to_parquet(path)
    assert make_plan(config).sha256 != before


def test_mistyped_layout_stops_at_once(make_config: Config, tmp_path: Path) -> None:
    """A layout under which no brick lies is an error that names it, not a cube of missing bricks."""
    config = make_config(tmp_path, "survey.layout=public", "cluster.workers=1")
    with pytest.raises(ContractError, match=r"no brick of the first 64 rows.*'public'"):
        run(config, only="cutouts")
    assert not RunLayout.of(config.run).cube("cutouts").join("_SUCCESS").exists()


def test_lost_workers_end_the_run(make_config: Config, tmp_path: Path) -> None:
    """When every worker is gone for longer than allowed, waiting ends with ClusterError."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as scheduler:
        settings = ["cluster.kind=address", f"cluster.address={scheduler.scheduler_address}", "cluster.workers=1"]
        config = make_config(tmp_path, *settings, "cluster.no_workers_timeout_s=3")
        with open_cluster(config.cluster) as cluster:
            future = cluster.client.submit(time.sleep, 60)
            scheduler.scale(0)
            with pytest.raises(ClusterError, match="no worker for 3 s"):
                cluster.wait_for_any([future])


def test_read_only_output_is_an_error_that_names_the_folder(make_config: Config, tmpfs: Callable[..., Path]) -> None:
    """A folder that cannot be written ends the run at once with StorageError."""
    root = tmpfs("readonly", "ro")
    with pytest.raises(StorageError, match="readonly"):
        run(make_config(root))


def test_failure_is_recorded_with_its_reason(make_config: Config, tmp_path: Path) -> None:
    """What ends a run is in its record, with a traceback and a report, and is raised again."""
    config = make_config(tmp_path)
    layout, plan = RunLayout.of(config.run), make_plan(config)
    with open_cluster(config.cluster) as cluster:
        context = RunContext(config, layout, plan, open_record(layout, config, plan), cluster)
        with pytest.raises(StorageError, match="bucket is gone"), failures_recorded(context):
            raise StorageError("the bucket is gone")
    record = read_record(layout)
    assert (record["state"], record["error"]["type"], record["error"]["exit_code"]) == ("failed", "StorageError", 75)
    assert "the bucket is gone" in layout.diagnostics.join("traceback.txt").read_bytes().decode()
    assert "the bucket is gone" in layout.report.join("index.html").read_bytes().decode()


def test_full_disk_is_an_error_and_leaves_nothing_published(
    make_config: Config, tmp_path: Path, tmpfs: Callable[..., Path]
) -> None:
    """A disk that fills up ends `dhs run` with exit code 75 and says "No space left"; nothing counts as done."""
    root = tmpfs("small", "size=6m")
    config = make_config(root, "shards.retries=0", "cluster.workers=1")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "pipeline.entry", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 75, done.stderr[-2000:]
    assert "No space left" in done.stderr
    layout = RunLayout.of(config.run)
    assert not layout.success.exists()
    assert not layout.cube("cutouts").join("_SUCCESS").exists()
