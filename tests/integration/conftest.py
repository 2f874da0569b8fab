"""A small synthetic survey, configurations on it, and a real S3 server on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.anchors import AnchorLimits
from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS
from pipeline.driver.anchors import write_anchors
from pipeline.driver.cluster import open_cluster
from pipeline.driver.cubes import RunContext, shard_tasks
from pipeline.driver.plan import make_plan
from pipeline.driver.run import open_record
from pipeline.driver.synthetic_survey import write_survey
from pipeline.driver.tasks import make_cutouts_shard
from pipeline.stages.footprint import brick_names
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.cube import PublishedCube, create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, read_receipts

REPOSITORY = Path(__file__).parents[2]
SKY = SyntheticSky(seed=5, brick_size_px=300, hosts_per_brick=8)
N_BRICKS = 16
SMALL = (
    "shards.samples=32",
    "shards.inner_chunk=8",
    "sampling.pilot_draws=512",
    "sampling.weight_draws=1",
    "injection.accuracy=0.02",
    "splits.tolerance=1.0",
    "splits.train=0.4",
    "splits.val=0.3",
    "splits.test=0.3",
    "gates.min_per_class=10",
    "gates.folds=2",
    "training.epochs=1",
    "training.network.base_channels=4",
    "training.batch_size=16",
    "training.threads=1",
)
WAIVED = "small survey of the test suite with too few sky cells and pairs"


@dataclass(frozen=True)
class S3Server:
    """Endpoints of a running SeaweedFS with one bucket: the S3 API, and plain HTTP for reading."""

    endpoint_url: str
    http_url: str
    bucket: str = "darkhaloscope"


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a survey of sixteen 300-px bricks with eight hosts each."""
    folder = tmp_path_factory.mktemp("survey")
    write_survey(Location(str(folder)), SKY, N_BRICKS, "cache", processes=1)
    return folder


@pytest.fixture(scope="session")
def anchors(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table of anchors: galaxies of the survey in the place of lenses, and one position outside it."""
    folder = tmp_path_factory.mktemp("anchors")
    parents = pd.read_parquet(survey / "parent.parquet")
    on_grid = brick_names(parents["ra"].to_numpy(), parents["dec"].to_numpy()) == parents["brickname"].to_numpy()
    known = parents.loc[on_grid, ["ra", "dec"]].iloc[::2]
    known = pd.concat([known, pd.DataFrame({"ra": [200.0], "dec": [60.0]})], ignore_index=True)
    known = known.assign(name=[f"L{row}" for row in known.index], ref="Huang et al. (2020) - arXiv:1906.00970")
    known["grading"] = np.where(known.index % 2, "probable", "confident")
    known.to_csv(folder / "known.csv", index=False)
    limits = AnchorLimits(dec_range_deg=(-90.0, 90.0))
    write_anchors(Location(str(folder)), [], Location(str(folder / "known.csv")), None, limits)
    return folder / "anchors.parquet"


@pytest.fixture(scope="session")
def make_config(survey: Path) -> Callable[..., RunConfig]:
    """Builds the demo configuration on the small survey, with overrides."""

    def build(root: Path | str, *overrides: str) -> RunConfig:
        settings = [
            f"run.root={root}",
            f"survey.bricks={survey / 'coadd'}",
            f"manifest.url={survey / 'parent.parquet'}",
            f"gates.waive.split_proportions={WAIVED}",
            f"gates.waive.quality_distributions={WAIVED}",
            f"gates.waive.quality_by_split={WAIVED}",
            f"gates.waive.near_threshold_coverage={WAIVED}",
            f"gates.waive.parameter_grid_coverage={WAIVED}",
            f"gates.waive.metadata_only_auc={WAIVED}",
            f"gates.waive.snr_correlation={WAIVED}",
            f"gates.waive.snr_ablation={WAIVED}",
            f"gates.waive.centre_mask_curve={WAIVED}",
            *SMALL,
            *overrides,
        ]
        return load_config(REPOSITORY / "configs" / "demo.yaml", settings)

    return build


@pytest.fixture(scope="session")
def cut_all() -> Callable[[RunConfig], tuple[PublishedCube, dict[int, Receipt]]]:
    """Makes and publishes the cutouts cube of a configuration in this process, shard after shard."""

    def cut(config: RunConfig) -> tuple[PublishedCube, dict[int, Receipt]]:
        layout, plan = RunLayout.of(config.run), make_plan(config)
        with open_cluster(config.cluster) as cluster:
            tasks = shard_tasks(RunContext(config, layout, plan, open_record(layout, config, plan), cluster))
            assert not cluster.started
        create_cube(layout.cube("cutouts"), CUTOUTS, plan.shape)
        for task in tasks:
            make_cutouts_shard(task)
        bands = {"bands": list(config.survey.bands)}
        publish_cube(layout.cube("cutouts"), cube_attributes(CUTOUTS, plan.shape, bands))
        return open_cube(layout.cube("cutouts")), read_receipts(layout.receipts("cutouts"))

    return cut


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS with a key file, so that a wrong secret is refused; its keys are in the environment."""
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "keys.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: _free_port() for name in ("s3", "master", "volume", "filer")}
    options = [f"-{name}.port={port}" for name, port in ports.items() if name != "s3"]
    weed = Path(sys.executable).with_name("weed")
    command = [str(weed), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3"]
    command += [f"-s3.port={ports['s3']}", f"-s3.config={folder / 'keys.json'}", *options]
    command += ["-volume.max=30", "-master.volumeSizeLimitMB=64"]
    # Services that nothing here uses listen on fixed ports, so that a second server could not start.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    saved = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ.update(AWS_ACCESS_KEY_ID="testkey", AWS_SECRET_ACCESS_KEY="testsecret")
    server = S3Server(f"http://127.0.0.1:{ports['s3']}", f"http://127.0.0.1:{ports['filer']}/buckets")
    try:
        _make_bucket(server, folder / "weed.log")
        yield server
    finally:
        process.kill()
        process.wait(timeout=30)
        log.close()
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts small memory file systems; skipped where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(name: str, *options: str) -> Path:
        target = tmp_path / name
        target.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("mode=0777", *options)), "tmpfs", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.strip()}")
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run(["umount", str(target)], check=True)


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every shard object below a run's `cubes` folder, by relative path."""

    def compute(cubes: Path) -> dict[str, str]:
        return {
            str(path.relative_to(cubes)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(cubes.rglob("*"))
            if path.is_file() and "c" in path.relative_to(cubes).parts
        }

    return compute


@pytest.fixture
def own_survey(survey: Path, tmp_path: Path) -> Path:
    """A copy of the survey that a test may damage."""
    return Path(shutil.copytree(survey, tmp_path / "survey"))


def _free_port() -> int:
    # SeaweedFS opens its gRPC port 10000 above the HTTP port.
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1]) % 20000 + 15000
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


def _make_bucket(server: S3Server, log: Path) -> None:
    options = {"client_kwargs": {"endpoint_url": server.endpoint_url, "region_name": "us-east-2"}}
    deadline = time.monotonic() + 60
    while True:
        try:
            fsspec.filesystem("s3", skip_instance_cache=True, **options).mkdir(server.bucket)
        except OSError:
            if time.monotonic() > deadline:
                pytest.fail(f"the S3 server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.5)
        else:
            return
