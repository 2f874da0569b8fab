"""Programs as Jobs over HTTP: created, streamed, adopted, replaced; and what every way of failing becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, Object

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ClusterError, ConfigError, PipelineError, VerificationError
from pipeline.driver import kube_job
from pipeline.driver.programs import run_program

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
NAME = "run-1-train"
TORCHRUN = """Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 17)
"""


class Kubelet:
    """Runs new Jobs on paper: one pod that writes a log and ends, as told."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.code, self.log, self.pod_state = 0, "loss 0.5\nloss 0.4", "ends"
        server.hooks.append(self.react)

    def react(self, change: str, resource: str, content: Object) -> None:
        """Answer a new program Job."""
        if resource == "jobs" and change == "ADDED" and "activeDeadlineSeconds" in content["spec"]:
            self.run(content)

    def run(self, job: Object) -> None:
        """Make its pod and its end."""
        name = job["metadata"]["name"]
        owner = [{"uid": job["metadata"]["uid"], "kind": "Job", "name": name}]
        metadata = {"labels": {"job-name": name}, "ownerReferences": owner}
        status: dict[str, Any] = {"phase": "Pending", "containerStatuses": []}
        if self.pod_state == "no image":
            waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
            status["containerStatuses"] = [{"name": "program", "state": {"waiting": waiting}}]
        elif self.pod_state == "ends":
            ended = {"exitCode": self.code, "reason": "OOMKilled" if self.code == 137 else "Error"}
            status = {"phase": "Failed", "containerStatuses": [{"name": "program", "state": {"terminated": ended}}]}
            lines = enumerate(self.log.splitlines())
            self.server.logs[f"{name}-pod", "program"] = "".join(
                f"2026-01-01T00:00:{k:02d}.000000000Z {line}\n" for k, line in lines
            )
        self.server.put("pods", f"{name}-pod", metadata=metadata, status=status)
        if self.pod_state == "ends":
            self.end(job, "Failed" if self.code else "Complete")

    @staticmethod
    def end(job: Object, kind: str, reason: str = "BackoffLimitExceeded") -> None:
        """Give a Job its final condition."""
        job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "ended"}]}


@pytest.fixture
def kubelet(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Kubelet:
    """What runs the Jobs of the test's API server."""
    monkeypatch.setattr(kube_job, "_POLL_S", 0.02)
    monkeypatch.setattr(kube_job, "_START_TIMEOUT_S", 0.3)
    monkeypatch.setattr(kube_job, "_DELETE_TIMEOUT_S", 0.3)
    return Kubelet(api_server)


@pytest.fixture
def config(objects_folder: str) -> RunConfig:
    """The demo's configuration on Kubernetes."""
    return load_config(DEMO, ["cluster.kind=kubernetes", f"cluster.objects={objects_folder}", "training.timeout_s=99"])


def created(server: ApiServer) -> list[Object]:
    """Bodies of the Jobs that were made."""
    return [body for method, path, body in server.requests if method == "POST" and path.endswith("/jobs")]


def test_job_is_owned_bounded_and_given_the_resolved_configuration(
    api_server: ApiServer, kubelet: Kubelet, config: RunConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    """The template keeps its command and resources; the driver sets name, owner, arguments, deadline, configuration."""
    run_program(config, "pipeline.training", "--out", "s3://b/run")
    (job,) = created(api_server)
    assert job["metadata"]["name"] == NAME
    assert job["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    assert job["spec"]["activeDeadlineSeconds"] == 99
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["torchrun", "--standalone"]
    mounted = "/etc/darkhaloscope/resolved/config.yaml"
    assert container["args"] == ["-m", "pipeline.training", "--config", mounted, "--out", "s3://b/run"]
    (text,) = job["spec"]["template"]["metadata"]["annotations"].values()
    assert RunConfig.model_validate(yaml.safe_load(text)) == config
    assert capfd.readouterr().err.count("loss 0.4") == 1


@pytest.mark.parametrize(
    ("code", "log", "kind"),
    [
        (2, "", ConfigError),
        (3, "", VerificationError),
        (75, "", PipelineError),
        (137, "", PipelineError),
        (1, TORCHRUN.format(code=2), ConfigError),
        (1, TORCHRUN.format(code=-9), PipelineError),
        (1, "", VerificationError),
    ],
)
def test_exit_code_of_a_job_becomes_its_error(
    kubelet: Kubelet, config: RunConfig, code: int, log: str, kind: type[PipelineError]
) -> None:
    """Codes mean what they mean for a local program; torchrun's own 1 is replaced by its child's code."""
    kubelet.code, kubelet.log = code, log
    with pytest.raises(kind, match="pipeline.training failed with exit code") as caught:
        run_program(config, "pipeline.training")
    assert type(caught.value) is kind


def test_running_job_is_adopted_and_a_stale_one_replaced(
    api_server: ApiServer, kubelet: Kubelet, config: RunConfig
) -> None:
    """A driver that starts again waits for the same Job; a failed Job, or one of other settings, is made anew."""
    kubelet.code = 75
    with pytest.raises(PipelineError):
        run_program(config, "pipeline.training")
    kubelet.code = 0
    run_program(config, "pipeline.training")
    assert len(created(api_server)) == 2
    job = api_server.objects["jobs", NAME]
    job["status"] = {}
    polls: list[str] = []

    def end_later(change: str, resource: str, content: Object) -> None:
        polls.append(change)

    api_server.hooks.append(end_later)
    find = kube_job.KubeApi.find

    def find_then_end(self: kube_job.KubeApi, resource: str, name: str) -> Object | None:
        found = find(self, resource, name)
        if name == NAME:
            kubelet.end(job, "Complete")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kube_job.KubeApi, "find", find_then_end)
        run_program(config, "pipeline.training")
    assert len(created(api_server)) == 2
    job["status"] = {}
    run_program(config, "pipeline.training", "--other", "option")
    assert len(created(api_server)) == 3
    assert polls


def test_job_that_never_starts_quotes_its_pod(kubelet: Kubelet, config: RunConfig) -> None:
    """An image that cannot be pulled ends the wait long before the program's own time limit."""
    kubelet.pod_state = "no image"
    with pytest.raises(ClusterError, match=r"no pod started within 0.3 s: .*ImagePullBackOff: manifest unknown"):
        run_program(config, "pipeline.training.probes")


def test_deadline_and_loss_of_a_job_are_retriable(api_server: ApiServer, kubelet: Kubelet, config: RunConfig) -> None:
    """Beyond its time a Job is a PipelineError; deleted by hand, a ClusterError."""
    kubelet.pod_state = "pending"

    def deadline(change: str, resource: str, content: Object) -> None:
        if resource == "pods" and change == "ADDED":
            kubelet.end(api_server.objects["jobs", NAME], "Failed", "DeadlineExceeded")

    api_server.hooks.append(deadline)
    with pytest.raises(PipelineError, match="did not finish within 99 s"):
        run_program(config, "pipeline.training")
    api_server.hooks.remove(deadline)

    def vanish(change: str, resource: str, content: Object) -> None:
        if resource == "pods" and change == "ADDED":
            api_server.remove("jobs", NAME)

    api_server.hooks.append(vanish)
    with pytest.raises(ClusterError, match="was deleted while it was waited for"):
        run_program(config, "pipeline.training")


def test_names_leave_room_for_the_index_of_a_pod() -> None:
    """Kubernetes refuses an indexed Job whose pods would have names of more than 63 characters."""
    assert kube_job.program_job_name("run-1", "pipeline.training") == NAME
    assert kube_job.program_job_name("run-1", "pipeline.training.score_cutouts") == "run-1-score-cutouts"
    assert len(kube_job.program_job_name(50 * "r", "pipeline.training.score_cutouts") + "-63") == 63
