"""A release from outside: its state, its logs, and its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pipeline.contracts.errors import ClusterError, ContractError, PipelineError
from pipeline.driver.helm_release import ReleaseName
from pipeline.driver.inspection import layout_of, run_status
from pipeline.driver.kube_api import KubeApi, Object
from pipeline.driver.kube_pods import release_problems
from pipeline.driver.kube_release import COMPONENT_LABEL, INSTANCE_LABEL

RUN_ANNOTATION, REGION_ANNOTATION, ENDPOINT_ANNOTATION = (
    f"darkhaloscope/{name}" for name in ("run", "region", "endpoint-url")
)
COMPONENTS = ("driver", "scheduler", "worker", "program")
# Reasons for which a pod waits that time does not mend.
_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "Unschedulable")
_POLL_S = 3.0
_DEADLINE = "DeadlineExceeded"


def driver_job(api: KubeApi, release: ReleaseName) -> Object:
    """The Job that is the run; ContractError if the release has none."""
    jobs = api.listed("jobs", f"{INSTANCE_LABEL}={release.name},{COMPONENT_LABEL}=driver")
    if not jobs:
        raise ContractError(f"{release.handle}: no driver Job there; a finished one is removed after its time to live")
    return jobs[0]


def outcome_of(job: Object) -> str | None:
    """`Complete`, `Failed`, or None while the Job is at work: its conditions are the only truth."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def release_status(api: KubeApi, release: ReleaseName) -> dict[str, Any]:
    """Conditions of the Job, state of every pod, what is wrong with them, and the run's record where it can be read."""
    job = driver_job(api, release)
    selector = f"{INSTANCE_LABEL}={release.name}"
    status = job.get("status", {})
    return {
        "release": release.handle,
        "outcome": outcome_of(job) or "at work",
        "job": {
            "name": job["metadata"]["name"],
            "conditions": [
                {key: condition.get(key) for key in ("type", "status", "reason", "message")}
                for condition in status.get("conditions", [])
            ],
            **{key: status.get(key, 0) for key in ("active", "succeeded", "failed")},
        },
        "pods": [_pod_line(pod) for pod in api.listed("pods", selector)],
        "problems": release_problems(api, selector, release.name),
        "run": _run_record(job),
    }


def follow_driver(api: KubeApi, release: ReleaseName, poll_s: float = _POLL_S) -> Iterator[str]:
    """Lines of the driver's pods as they come, one try after the other, until the Job has ended."""
    tails: dict[str, LogTail] = {}
    while True:
        job = driver_job(api, release)
        for pod in component_pods(api, release, "driver"):
            name = pod["metadata"]["name"]
            yield from tails.setdefault(name, LogTail(name, "driver")).read(api)
        if outcome_of(job):
            return
        time.sleep(poll_s)


def component_lines(api: KubeApi, release: ReleaseName, component: str) -> Iterator[str]:
    """What the pods of a component have said so far, the last instance and, where it restarted, the one before."""
    pods = component_pods(api, release, component)
    if not pods:
        raise ContractError(f"{release.handle} has no {component} pods at present")
    for pod in pods:
        name = pod["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            statuses = pod.get("status", {}).get("containerStatuses", [])
            restarted = any(s["name"] == container["name"] and s.get("restartCount") for s in statuses)
            if len(pods) > 1:
                yield f"== {name}"
            if restarted:
                yield from api.log(name, container["name"], previous=True).splitlines()
                yield "-- restarted"
            yield from api.log(name, container["name"]).splitlines()


def component_pods(api: KubeApi, release: ReleaseName, component: str) -> list[Object]:
    """Pods of a component, the oldest first."""
    pods = api.listed("pods", f"{INSTANCE_LABEL}={release.name},{COMPONENT_LABEL}={component}")
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def wait_for_end(
    api: KubeApi, release: ReleaseName, timeout_s: float, stuck_s: float, poll_s: float = _POLL_S
) -> Iterator[str]:
    """Lines of the driver until its Job has ended; ends quietly only if it succeeded.

    Args:
        api: of the release's namespace.
        release: which one.
        timeout_s: how long to wait for the end; the release goes on afterwards.
        stuck_s: how long a driver's pod may wait for its image or a node.
        poll_s: how often to look.

    Raises:
        PipelineError: the driver failed; carries its exit code.
        ClusterError: its pod never started, with the events that say why, or the time is over.
    """
    tails: dict[str, LogTail] = {}
    began, stuck_since = time.monotonic(), None
    while True:
        job = driver_job(api, release)
        pods = component_pods(api, release, "driver")
        for pod in pods:
            name = pod["metadata"]["name"]
            yield from tails.setdefault(name, LogTail(name, "driver")).read(api)
        outcome = outcome_of(job)
        if outcome == "Complete":
            return
        if outcome == "Failed":
            raise _failure(job, pods, release)
        stuck_since = (stuck_since or time.monotonic()) if any(is_stuck(pod) for pod in pods) else None
        if stuck_since is not None and time.monotonic() - stuck_since >= stuck_s:
            problems = release_problems(api, f"{INSTANCE_LABEL}={release.name}", release.name)
            raise ClusterError(
                f"{release.handle}: the driver's pod has not started for {stuck_s:g} s: " + "; ".join(problems)
            )
        if time.monotonic() - began >= timeout_s:
            raise ClusterError(f"{release.handle} is at work after {timeout_s:g} s; dhs logs {release.handle} --follow")
        time.sleep(poll_s)


def is_stuck(pod: Object) -> bool:
    """True if a pod waits for something that does not come by itself."""
    status = pod.get("status", {})
    reasons = [c.get("state", {}).get("waiting", {}).get("reason") for c in status.get("containerStatuses", [])]
    reasons += [c.get("reason") for c in status.get("conditions", []) if c["type"] == "PodScheduled"]
    return any(reason in _HOPELESS for reason in reasons)


class LogTail:
    """The lines of a container that were not shown yet, by the time stamps that Kubernetes gives them."""

    def __init__(self, pod: str, container: str) -> None:
        self._pod, self._container = pod, container
        self._last = ""

    def read(self, api: KubeApi) -> list[str]:
        """New lines, without one that is not complete yet."""
        text = api.log(self._pod, self._container, since_time=self._last or None, timestamps=True)
        stamped = [line.partition(" ") for line in text[: text.rfind("\n") + 1].splitlines()]
        new = [(stamp, line) for stamp, _, line in stamped if stamp > self._last]
        self._last = max([self._last, *(stamp for stamp, _ in new)])
        return [line for _, line in new]


def _failure(job: Object, pods: list[Object], release: ReleaseName) -> PipelineError:
    """The error that carries the exit code with which the last driver ended."""
    conditions = [c for c in job["status"]["conditions"] if c["type"] == "Failed"]
    reason = f"{conditions[0].get('reason', '')}: {conditions[0].get('message', '')}".strip(": ")
    codes = [
        status["state"]["terminated"]["exitCode"]
        for pod in pods
        for status in pod.get("status", {}).get("containerStatuses", [])
        if status["name"] == "driver" and "terminated" in status.get("state", {})
    ]
    error = PipelineError(f"{release.handle} failed: {reason}; the driver's log is above, and in the run's folder")
    if codes and conditions[0].get("reason") != _DEADLINE:
        error.exit_code = int(codes[-1]) or PipelineError.exit_code
    return error


def _component(content: Object) -> str:
    return str(content["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))


def _pod_line(pod: Object) -> dict[str, Any]:
    status = pod.get("status", {})
    return {
        "name": pod["metadata"]["name"],
        "component": _component(pod),
        "phase": status.get("phase", "Unknown"),
        "node": pod.get("spec", {}).get("nodeName"),
        "restarts": sum(container.get("restartCount", 0) for container in status.get("containerStatuses", [])),
    }


def _run_record(job: Object) -> dict[str, Any]:
    """The run's own status; what keeps it from being read is part of the answer."""
    notes = job["metadata"].get("annotations", {})
    url = notes.get(RUN_ANNOTATION)
    if not url:
        return {"unreadable": f"the Job carries no annotation {RUN_ANNOTATION}"}
    try:
        layout = layout_of(url, notes.get(REGION_ANNOTATION), notes.get(ENDPOINT_ANNOTATION))
        return {"url": url, **run_status(layout)}
    except PipelineError as error:
        return {"url": url, "unreadable": str(error)}
