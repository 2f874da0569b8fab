"""The same run on a real S3 API, and what a wrong secret or bucket looks like."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import ROLES
from pipeline.contracts.errors import BrickMissingError, ConfigError
from pipeline.contracts.feed_config import FeedSection
from pipeline.contracts.manifest_config import ManifestConfig
from pipeline.driver.driver_lock import read_driver
from pipeline.driver.inspection import verify_run
from pipeline.driver.local_runs import driver_lines
from pipeline.driver.manifest_builder import build_manifests
from pipeline.driver.plan import make_plan, read_rows
from pipeline.driver.run import run
from pipeline.storage.bricks import Brick, Windows
from pipeline.storage.cube import PublishedCube, open_cube
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt
from pipeline.training.feed import open_feed

Config = Callable[..., RunConfig]
Cut = Callable[[RunConfig], tuple[PublishedCube, dict[int, Receipt]]]


def on_s3(make_config: Config, server: Any, survey: Path, name: str) -> RunConfig:
    """The small run with survey, manifest and output in the bucket; s3a:// where old configurations had it."""
    bucket = Location(f"s3://{server.bucket}/{name}", "us-east-2", server.endpoint_url)
    if not bucket.join("parent.parquet").exists():
        bucket.filesystem.put(str(survey / "coadd"), f"{bucket.path}/coadd", recursive=True)
        bucket.join("parent.parquet").write_bytes((survey / "parent.parquet").read_bytes())
    return make_config(
        f"s3://{server.bucket}/{name}/runs",
        "run.region=us-east-2",
        f"run.endpoint_url={server.endpoint_url}",
        f"survey.bricks=s3a://{server.bucket}/{name}/coadd",
        f"manifest.url=s3a://{server.bucket}/{name}/parent.parquet",
        "cluster.workers=2",
    )


@pytest.fixture(scope="module")
def remote_run(make_config: Config, s3_server: Any, survey: Path) -> RunLayout:
    """A whole run with everything in the bucket."""
    return run(on_s3(make_config, s3_server, survey, "whole"))


def test_run_on_s3_equals_the_run_on_disk(
    remote_run: RunLayout, make_config: Config, cut_all: Cut, tmp_path: Path
) -> None:
    """Bricks, manifest, cubes, checkpoint and report in a bucket, worker in a process: the local cubes' values."""
    layout = remote_run
    assert verify_run(layout)["training"]["rows"] == 128
    assert layout.report.join("index.html").exists()
    driver = read_driver(layout)
    assert driver is not None and driver.ended_utc
    assert '"message": "planned"' in next(driver_lines(layout))
    local, remote = cut_all(make_config(tmp_path))[0], open_cube(layout.cube("cutouts"))
    names = ["image", "task_id", "bad_pixel_frac"]
    for shard in range(local.n_shards):
        assert remote.read_shard(shard, names).identical(local.read_shard(shard, names))
    _check_feed(open_cube(layout.cube("training")), tmp_path / "shards")


def test_emr_tables_go_from_bucket_to_bucket(remote_run: RunLayout, s3_server: Any) -> None:
    """By command line, on worker processes: exported, counted, compacted and imported again into a run that verifies.

    Every used stamp and its role come back bit for bit; exporting again finds everything done.
    """
    bucket = Location(f"s3://{s3_server.bucket}", "us-east-2", s3_server.endpoint_url)
    reach = ("--region", "us-east-2", "--endpoint-url", s3_server.endpoint_url)
    to = ("--output", bucket.join("whole/phase4_pipeline").url, "--variant", "v6_s3")
    export = ("export", remote_run.root.url, *to, "--what", "stamps,metrics,paired", *reach)
    made = dhs(*export)
    assert dhs(*export) == made
    assert made["rows"] == made["rows_stamps"] == made["rows_metrics"] == 128
    experiment = made["tables"]["stamps"].rsplit("/", 1)[-1]
    counted = dhs("completeness", made["tables"]["metrics"], *to, *reach)
    assert counted["rows"] == 128 == counted["n"] + counted["n_controls"] + counted["n_failed"]
    assert counted["cell_widths"]["theta_e_arcsec"] == 0.25
    assert counted["cells"] < 128
    small = dhs("compact", made["tables"]["stamps"], *to, "--partitions", "5", *reach)
    assert (small["rows"], small["files"], small["files_kept"]) == (128, 5, 0)
    assert dhs("compact", made["tables"]["stamps"], *to, "--partitions", "5", *reach)["files_kept"] == 5
    target = bucket.join("whole/imported/old")
    tables = (made["tables"]["paired"], small["table"])
    settings = ("--set", "shards.samples=64", "--set", "shards.inner_chunk=8", "--set", "cluster.workers=1")
    counts = dhs("import", *tables, "--output", target.url, *settings, *reach)
    for folder in (*made["tables"].values(), counted["table"], small["table"]):
        assert Location(folder, "us-east-2", s3_server.endpoint_url).join("_SUCCESS").exists()
    assert bucket.join("whole/phase4_pipeline/phase4c/v6_s3", f"_stage_config_{experiment}.json").exists()
    assert counts["duplicate_row"] == made["rows_paired"]
    old = RunLayout(target)
    assert verify_run(old)["training"]["rows"] == 128 + made["rows_paired"]
    names = ["task_id", "role", "injected", "control"]
    first, second = (whole(open_cube(layout.cube("training")), names) for layout in (remote_run, old))
    tasks = second["task_id"].to_numpy().tolist()
    # A pair lies in both tables; the first of them, which is used, holds both of its stamps.
    row_of = {task: row for row, task in reversed(list(enumerate(tasks)))}
    used = np.flatnonzero(first["role"].to_numpy())
    again = second.isel(sample=[row_of[task] for task in first["task_id"].to_numpy()[used].tolist()])
    assert int((first["role"] == ROLES.index("pair")).sum()) == made["rows_paired"] > 30
    for name in names:
        np.testing.assert_array_equal(again[name].to_numpy(), first[name].to_numpy()[used])


def dhs(*arguments: object) -> dict[str, Any]:
    """A command in this process, and the JSON that it prints."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])[0]
    return result


def whole(cube: PublishedCube, names: list[str]) -> xr.Dataset:
    """Some variables of every row."""
    return xr.concat([cube.read_shard(shard, names) for shard in range(cube.n_shards)], dim="sample")


def test_manifest_on_s3_equals_the_manifest_on_disk(
    golden_manifests: list[Path], s3_server: Any, tmp_path: Path
) -> None:
    """Built from tables in a bucket into the bucket, the same bytes as on disk; built once more, it is kept."""
    inputs = golden_manifests[0].parents[2] / "inputs"
    bucket = Location(f"s3://{s3_server.bucket}/manifests", "us-east-2", s3_server.endpoint_url)
    names = ("parent", "bricks_with_region", "region_selections")
    for name in names:
        for file in (inputs / name).glob("*.parquet"):
            bucket.join("inputs", name, file.name).write_bytes(file.read_bytes())
    asked = {"variant": "v6_test", "tiers": {"train": {"grid": "grid_sota", "n_total_per_split": 1600}}}
    remote = asked | {
        "output": bucket.url,
        "region": "us-east-2",
        "endpoint_url": s3_server.endpoint_url,
        "inputs": {name: bucket.join("inputs", name).url.replace("s3://", "s3a://") for name in names},
    }
    local = asked | {"output": str(tmp_path), "region": None, "inputs": {name: str(inputs / name) for name in names}}
    reports = [build_manifests(ManifestConfig.model_validate(config)) for config in (remote, local, remote)]
    (experiment,) = reports[0]["experiments"]
    assert reports[0] == reports[1]
    assert reports[2]["experiments"][experiment]["kept_from_an_earlier_build"]
    folder = f"phase4a/v6_test/manifests/{experiment}"
    assert bucket.join(folder).names() == ["_SUCCESS", "part-00000.snappy.parquet"]
    stored = bucket.join(folder, "part-00000.snappy.parquet").read_bytes()
    assert stored == (tmp_path / folder / "part-00000.snappy.parquet").read_bytes()


def test_bricks_over_http_equal_bricks_on_disk(
    make_config: Config, s3_server: Any, survey: Path, tmp_path: Path
) -> None:
    """Ranged reads over plain HTTP give the pixels of the local files; a brick that is not there is recorded."""
    on_s3(make_config, s3_server, survey, "whole")
    keys = [("image", "g"), ("invvar", "z"), ("maskbits", ""), ("psfsize", "r")]
    windows = Windows(np.array([10, 150]), np.array([220, 60]), 64)
    web = Location(f"{s3_server.http_url}/{s3_server.bucket}/whole/coadd")
    name = min(path.name for path in (survey / "coadd").iterdir())
    read = {}
    for location in (web, Location(str(survey / "coadd"))):
        brick = Brick.open(location.filesystem, location.path, "cache", name, keys)
        read[location.scheme] = brick.read(dict.fromkeys(keys, windows))
        assert brick.problems == {}
    for key in keys:
        np.testing.assert_array_equal(read["http"][key], read["file"][key])
    absent = Brick.open(web.filesystem, web.path, "cache", "0000p000", keys)
    assert {type(problem) for problem in absent.problems.values()} == {BrickMissingError}


def test_limited_plan_reads_one_shard_of_the_manifest(make_config: Config, s3_server: Any, survey: Path) -> None:
    """Planning and reading one shard moves a small part of a manifest of many row groups."""
    config = on_s3(make_config, s3_server, survey, "pruned")
    url = f"s3://{s3_server.bucket}/pruned/wide.parquet"
    size = _write_wide_manifest(Location(url, "us-east-2", s3_server.endpoint_url), survey)
    config = config.model_copy(update={"manifest": config.manifest.model_copy(update={"url": url})})
    counter = _CountBytes()
    with counter:
        plan = make_plan(config, limit_shards=1)
        rows = read_rows(config, plan.pieces(0))
    assert rows.sizes["sample"] == 32
    assert 0 < counter.bytes < size / 5


def test_wrong_secret_is_an_error_that_says_so(
    make_config: Config, s3_server: Any, survey: Path, tmp_path: Path
) -> None:
    """A refused key ends `dhs run` with exit code 75 and names the URL; nothing hangs."""
    config = on_s3(make_config, s3_server, survey, "whole")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    command = [sys.executable, "-m", "pipeline.entry", "plan", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 75
    assert "StorageError" in done.stderr
    assert s3_server.bucket in done.stderr


def test_wrong_bucket_is_an_error_that_says_so(make_config: Config, s3_server: Any, survey: Path) -> None:
    """A bricks URL that does not exist ends the run before any work, not as rows with missing bricks."""
    config = on_s3(make_config, s3_server, survey, "whole")
    survey_section = config.survey.model_copy(update={"bricks": "s3://no-such-bucket/coadd"})
    renamed = config.run.model_copy(update={"name": "nobucket"})
    layout = RunLayout.of(renamed)
    with pytest.raises(ConfigError, match="no-such-bucket"):
        run(config.model_copy(update={"survey": survey_section, "run": renamed}))
    assert not layout.cube("cutouts").exists()


def _check_feed(cube: PublishedCube, folder: Path) -> None:
    """Stamps that are streamed, fetched to disk, and found there are those that zarr reads."""
    pixels = [cube.read_shard(shard, ["control", "injected"]) for shard in range(cube.n_shards)]
    stored = np.stack([np.concatenate([part[kind] for part in pixels]) for kind in ("control", "injected")])
    n_shards = 0
    for settings in ({"cache": "never", "order": "shards"}, {}, {"order": "global"}):
        split = open_feed(cube, FeedSection.model_validate(settings), folder)["train"]
        n_seen = 0
        for batch in split.shuffled(16, 1, 0):
            n_seen += len(batch)
            np.testing.assert_array_equal(batch.stamps, stored[batch.label.numpy().astype(int), batch.row])
        assert n_seen == len(split)
        n_shards = np.unique(split.row // cube.shard_samples).size
    assert len(list(folder.glob("*/control-*[0-9]"))) == n_shards > 1


class _CountBytes:
    """Counts the bytes that ranged reads bring in, at the S3 client's own file class."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> Self:
        file_class = fsspec.get_filesystem_class("s3")._open.__globals__["S3File"]
        self._class, self._fetch = file_class, file_class._fetch_range
        counter = self

        def fetch(file: Any, start: int, end: int) -> bytes:
            data = counter._fetch(file, start, end)
            counter.bytes += len(data)
            return data

        file_class._fetch_range = fetch
        return self

    def __exit__(self, *_: object) -> None:
        self._class._fetch_range = self._fetch


def _write_wide_manifest(location: Location, survey: Path) -> int:
    parent = pd.read_parquet(survey / "parent.parquet")
    frame = pd.concat([parent.assign(dec=parent["dec"] + 1e-5 * k) for k in range(1600)], ignore_index=True)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame), sink, row_group_size=2048, compression="none")
    location.write_bytes(sink.getvalue())
    return len(sink.getvalue())
