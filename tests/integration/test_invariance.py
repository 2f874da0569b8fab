"""The bytes of a cube do not depend on workers, order, retries, or on who was killed when."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.driver.cluster import open_cluster
from pipeline.driver.cubes import RunContext, build_cutouts, build_training, shard_tasks
from pipeline.driver.plan import make_plan
from pipeline.driver.run import open_record
from pipeline.driver.tasks import make_cutouts_shard, make_training_shard
from pipeline.storage.cube import create_cube, cube_attributes, publish_cube
from pipeline.storage.locations import RunLayout

Config = Callable[..., RunConfig]
Digests = Callable[[Path], dict[str, str]]


def cubes_on_cluster(config: RunConfig, kill_one: bool) -> Path:
    """Build both cubes on a local cluster, perhaps killing a worker on the way; returns the cubes' folder."""
    layout, plan = RunLayout.of(config.run), make_plan(config)
    with open_cluster(config.cluster) as cluster:
        context = RunContext(config, layout, plan, open_record(layout, config, plan), cluster)
        build_cutouts(context)
        if kill_one:
            victim = next(iter(cluster.client.run(os.getpid).values()))
            threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
        build_training(context)
    return Path(layout.root.path) / "cubes"


@pytest.fixture(scope="module")
def reference(make_config: Config, tmp_path_factory: pytest.TempPathFactory, digests: Digests) -> dict[str, str]:
    """Digests of both cubes as made in this process, shard by shard in random order, without a cluster."""
    config = make_config(tmp_path_factory.mktemp("reference"))
    layout, plan = RunLayout.of(config.run), make_plan(config)
    record = open_record(layout, config, plan)
    with open_cluster(config.cluster) as cluster:
        tasks = shard_tasks(RunContext(config, layout, plan, record, cluster))
        assert not cluster.started
    random.Random(3).shuffle(tasks)
    create_cube(layout.cube("cutouts"), CUTOUTS, plan.shape)
    for task in tasks:
        make_cutouts_shard(task)
    publish_cube(layout.cube("cutouts"), cube_attributes(CUTOUTS, plan.shape, {"bands": ["g", "r", "z"]}))
    create_cube(layout.cube("training"), TRAINING, plan.shape)
    for task in reversed(tasks):
        make_training_shard(task, None)
    found = digests(Path(layout.root.path) / "cubes")
    assert len(found) == 4 * (len(CUTOUTS.variables) + len(TRAINING.variables))
    return found


def test_one_worker_makes_the_same_bytes(
    make_config: Config, tmp_path: Path, digests: Digests, reference: dict[str, str]
) -> None:
    """One worker process, tasks in order: the reference's bytes."""
    config = make_config(tmp_path, "cluster.workers=1")
    assert digests(cubes_on_cluster(config, kill_one=False)) == reference


def test_three_workers_with_one_killed_make_the_same_bytes(
    make_config: Config, tmp_path: Path, digests: Digests, reference: dict[str, str]
) -> None:
    """Three worker processes of which one is killed while it works: the reference's bytes."""
    config = make_config(tmp_path, "cluster.workers=3", "cluster.memory_per_worker=1GiB")
    assert digests(cubes_on_cluster(config, kill_one=True)) == reference


def test_terminated_driver_records_why_and_leaves_no_worker(make_config: Config, tmp_path: Path) -> None:
    """SIGTERM ends `dhs run` with exit code 75, a recorded reason and no process left behind."""
    config = make_config(tmp_path, "training.enabled=false", "cluster.workers=1")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "pipeline.entry", "run", str(path)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    receipts = tmp_path / "demo" / "receipts" / "cutouts"
    deadline = time.monotonic() + 120
    while not list(receipts.glob("*.json")) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.terminate()
    _, message = driver.communicate(timeout=60)
    assert driver.returncode == 75, message[-2000:]
    assert "SIGTERM" in json.loads((tmp_path / "demo" / "run.json").read_text())["error"]["message"]
    deadline = time.monotonic() + 30
    while _group_is_alive(driver.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _group_is_alive(driver.pid)


def _group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_driver_resumes_to_the_same_bytes(
    make_config: Config, tmp_path: Path, digests: Digests, reference: dict[str, str]
) -> None:
    """SIGKILL for the driver after some shards, then the same command again: the reference's bytes."""
    config = make_config(tmp_path, "training.enabled=false", "cluster.workers=1")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "pipeline.entry", "run", str(path)]
    receipts = tmp_path / "demo" / "receipts" / "cutouts"
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(receipts.glob("*.json"))) < 2 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.kill()
    driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    assert not (tmp_path / "demo" / "_SUCCESS").exists()
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    assert digests(tmp_path / "demo" / "cubes") == reference
