"""Driver, scheduler and workers as real processes around a test's API server; the driver is killed and comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from api_server import ApiServer
from operator_stand_in import OperatorStandIn

from pipeline.contracts.config_file import load_config
from pipeline.driver.synthetic_survey import write_survey
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.locations import Location

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


@pytest.fixture
def operator(api_server: ApiServer, tmp_path: Path) -> Iterator[OperatorStandIn]:
    """An operator that starts real schedulers and workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    stand_in = OperatorStandIn(api_server, port=port, folder=tmp_path)
    yield stand_in
    stand_in.stop()


@pytest.fixture
def config_file(tmp_path: Path, objects_folder: str) -> Path:
    """A run on a survey of two small bricks, on Kubernetes; only its cutouts are made here."""
    sky = SyntheticSky(seed=5, brick_size_px=300, hosts_per_brick=8)
    write_survey(Location(str(tmp_path / "survey")), sky, 2, "cache", processes=1)
    settings = [
        f"run.root={tmp_path / 'runs'}",
        "run.region=us-east-2",
        f"survey.bricks={tmp_path / 'survey' / 'coadd'}",
        f"manifest.url={tmp_path / 'survey' / 'parent.parquet'}",
        "shards.samples=8",
        "shards.inner_chunk=8",
        "training.enabled=false",
        "cluster={kind: kubernetes, workers: 1, memory_per_worker: 4GiB, no_workers_timeout_s: 240, vcpu_quota: 8}",
        f"cluster.objects={objects_folder}",
    ]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(load_config(DEMO, settings).model_dump(mode="json")))
    return path


def until(condition: Callable[[], object], seconds: float = 240.0) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_killed_driver_comes_back_and_cleans_up(
    api_server: ApiServer, operator: OperatorStandIn, config_file: Path, tmp_path: Path
) -> None:
    """SIGKILL leaves the cluster; the next driver adopts it, ends with 0 and leaves nothing, and the worker ends."""
    command = [sys.executable, "-m", "pipeline.entry", "run", str(config_file), "--only", "cutouts"]
    variables = {"AWS_REGION": "us-east-2", "AWS_DEFAULT_REGION": "us-east-2", "DHS_IMAGE": "dhs@sha256:0"}
    environment = {**os.environ, **variables}
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        until(lambda: operator.workers() or first.poll() is not None)
        first.send_signal(signal.SIGKILL)
        assert first.wait(timeout=30) == -signal.SIGKILL, (tmp_path / "first.log").read_text()
    assert api_server.listed("daskclusters")
    with (tmp_path / "second.log").open("wb") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=400, check=False).returncode
    said = (tmp_path / "second.log").read_text()
    assert code == 0, said
    assert "adopted the cluster of an earlier driver" in said
    assert api_server.asked("POST", "/daskclusters") == 1
    assert [pod["metadata"]["name"] for pod in api_server.listed("pods")] == ["run-1-driver-x"]
    worker = operator.processes["run-1-default-worker-0"]
    assert worker.wait(timeout=60) in (143, 75)
    assert (tmp_path / "runs" / "demo" / "cubes" / "cutouts" / "_SUCCESS").exists()
