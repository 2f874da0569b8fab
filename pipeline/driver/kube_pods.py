"""Why pods do not do what they should, in the words of Kubernetes: conditions, container states, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.driver.kube_api import KubeApi, Object

# Waiting reasons that are part of a normal start.
_STARTING = ("ContainerCreating", "PodInitializing")
_LONGEST_MESSAGE = 300
_MOST_REASONS = 12


def pod_problems(pod: Object) -> list[str]:
    """What is wrong with a pod, worst first; empty if nothing is."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    found = []
    if status.get("reason") or status.get("phase") == "Failed":
        found.append(_line("pod", name, status.get("reason", "Failed"), status.get("message", "")))
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        found += _container_problems(name, container)
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            found.append(_line("pod", name, condition.get("reason", "Unscheduled"), condition.get("message", "")))
    return found


def event_problems(events: Sequence[Object]) -> list[str]:
    """Warnings among events, the newest first, each once."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    warnings.sort(key=_time_of, reverse=True)
    lines = []
    for event in warnings:
        target = event.get("involvedObject", {})
        kind, name = str(target.get("kind", "object")).lower(), str(target.get("name", ""))
        lines.append(_line(kind, name, str(event.get("reason", "")), str(event.get("message", ""))))
    return list(dict.fromkeys(lines))


def release_problems(api: KubeApi, selector: str, prefix: str) -> list[str]:
    """What is wrong with the pods of a release, and the warnings about objects whose names begin with `prefix`.

    Args:
        api: of the release's namespace.
        selector: labels of its pods.
        prefix: what the names of its objects begin with.

    Returns:
        Lines such as `pod run-1-worker-x: Unschedulable: 0/3 nodes ...`, the states of pods before events.
    """
    pods = api.listed("pods", selector)
    lines = [line for pod in pods for line in pod_problems(pod)]
    events = [event for event in api.listed("events") if _concerns(event, prefix)]
    return list(dict.fromkeys([*lines, *event_problems(events)]))[:_MOST_REASONS]


def failed_exit_code(pod: Object, container: str) -> int | None:
    """Exit code with which a container last failed, None if it did not."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == container:
            for state in (status.get("state", {}), status.get("lastState", {})):
                code = state.get("terminated", {}).get("exitCode")
                if code:
                    return int(code)
    return None


def is_ready(pod: Object) -> bool:
    """True if the pod's readiness condition holds."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _concerns(event: Object, prefix: str) -> bool:
    return str(event.get("involvedObject", {}).get("name", "")).startswith(prefix)


def _container_problems(pod: str, status: dict[str, Any]) -> list[str]:
    found, name = [], f"{pod}/{status['name']}"
    waiting = status.get("state", {}).get("waiting", {})
    for state in (status.get("state", {}), status.get("lastState", {})):
        ended = state.get("terminated")
        if ended and ended.get("exitCode", 0) != 0:
            reason = f"{ended.get('reason', 'Error')} (exit code {ended['exitCode']})"
            found.append(_line("container", name, reason, ended.get("message", "")))
    if waiting and waiting.get("reason") not in _STARTING:
        found.append(_line("container", name, waiting.get("reason", "waiting"), waiting.get("message", "")))
    return found


def _line(kind: str, name: str, reason: str, message: str) -> str:
    text = " ".join(message.split())[:_LONGEST_MESSAGE]
    return f"{kind} {name}: {reason}" + (f": {text}" if text else "")


def _time_of(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
