"""What is saved when a run on Kubernetes fails, and what is called its cause."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_server import ApiServer

from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ClusterError
from pipeline.driver.diagnostics import failures_recorded
from pipeline.driver.kube_diagnostics import save_release_diagnostics
from pipeline.driver.kube_pods import event_problems, failed_exit_code, is_ready, pod_problems, release_problems
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import RunRecord, read_json

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
LABELS = {"app.kubernetes.io/instance": "run-1"}
KILLED = {
    "metadata": {"name": "run-1-default-worker-0", "labels": LABELS},
    "spec": {"containers": [{"name": "worker"}]},
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "worker",
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }
        ],
    },
}


@pytest.fixture
def context(tmp_path: Path, objects_folder: str) -> Iterator[Any]:
    """What `failures_recorded` needs of a run whose cluster never started."""
    settings = [f"run.root={tmp_path / 'runs'}", "cluster.kind=kubernetes", f"cluster.objects={objects_folder}"]
    config = load_config(DEMO, settings)
    layout = RunLayout(Location(str(tmp_path / "runs" / "demo")))
    content = {"run": "demo", "config": config.model_dump(mode="json"), "stages": {}, "state": "running", "code": {}}
    return SimpleNamespace(
        config=config, layout=layout, record=RunRecord(layout, content), cluster=SimpleNamespace(started=False)
    )


def test_failure_saves_pods_logs_events_and_the_cause(
    api_server: ApiServer, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Descriptions, logs of this and the previous container, events; the killed container is the root cause."""
    api_server.put("pods", **{"name": "run-1-default-worker-0", **KILLED})
    api_server.logs["run-1-default-worker-0", "worker", "previous"] = "MemoryError\n"
    api_server.put("events", "e", type="Warning", reason="BackOff", involvedObject={"kind": "Pod", "name": "run-1-x"})
    api_server.put("events", "f", type="Warning", reason="BackOff", involvedObject={"kind": "Pod", "name": "other"})
    with pytest.raises(ClusterError, match="lost"), failures_recorded(context):
        raise ClusterError("lost")
    folder = Path(context.layout.diagnostics.path)
    pods = json.loads((folder / "pods.json").read_text())
    assert [pod["metadata"]["name"] for pod in pods] == ["run-1-default-worker-0", "run-1-driver-x"]
    assert len(json.loads((folder / "events.json").read_text())) == 1
    assert [job["metadata"]["name"] for job in json.loads((folder / "jobs.json").read_text())] == ["run-1-driver"]
    log = folder / "logs" / "run-1-default-worker-0-worker.previous.log"
    assert log.read_text() == "MemoryError\n"
    assert not list(folder.rglob("run-1-driver-x*"))
    problem = "container run-1-default-worker-0/worker: OOMKilled (exit code 137)"
    (record,) = [record for record in caplog.records if record.message == "first root cause"]
    assert vars(record)["fields"]["cause"] == problem
    stored = read_json(context.layout.record)
    assert (stored["state"], stored["kubernetes_problems"][0]) == ("failed", problem)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_api_server_that_is_gone_does_not_hide_the_failure(
    api_server: ApiServer, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason of the run's end is recorded even if Kubernetes says nothing any more."""
    monkeypatch.setattr("pipeline.driver.kube_diagnostics._PATIENCE_S", 0.1)
    api_server.outages += 50 * [503]
    with pytest.raises(ClusterError, match="lost"), failures_recorded(context):
        raise ClusterError("lost")
    assert read_json(context.layout.record)["error"]["message"] == "lost"
    with pytest.raises(ClusterError, match="503"):
        save_release_diagnostics(context.config.cluster, context.layout.diagnostics)
    assert context.layout.diagnostics.join("traceback.txt").exists()
    # kr8s leaves a session open that it could not begin.
    gc.collect()


def test_states_of_pods_in_words(api_server: ApiServer) -> None:
    """Evicted, unschedulable, waiting and killed pods each have a line; a starting one has none."""
    assert pod_problems(KILLED) == [
        "container run-1-default-worker-0/worker: OOMKilled (exit code 137)",
        "container run-1-default-worker-0/worker: CrashLoopBackOff: back-off 20s restarting",
    ]
    evicted = {"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}}
    assert pod_problems(evicted) == ["pod p: Evicted: low on disk"]
    starting = [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    assert pod_problems({"metadata": {"name": "p"}, "status": {"containerStatuses": starting}}) == []
    assert failed_exit_code(KILLED, "worker") == 137
    assert failed_exit_code(KILLED, "other") is None
    assert not is_ready(KILLED)
    old = {"type": "Warning", "reason": "A", "involvedObject": {"kind": "Pod", "name": "p"}, "metadata": {}}
    events = [{**old, "lastTimestamp": "1"}, {**old, "reason": "B", "lastTimestamp": "2"}, {**old, "type": "Normal"}]
    assert event_problems(events) == ["pod p: B", "pod p: A"]
    assert release_problems.__module__ == "pipeline.driver.kube_pods"
