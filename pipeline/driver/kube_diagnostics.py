"""What a release's pods were, said and suffered, saved before the driver exits: afterwards they are gone."""

from __future__ import annotations

import json

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.driver.kube_api import KubeApi, Object
from pipeline.driver.kube_pods import release_problems
from pipeline.driver.kube_release import Release
from pipeline.storage.locations import Location

_PATIENCE_S = 20.0


def save_release_diagnostics(section: ClusterSection, folder: Location) -> list[str]:
    """Save descriptions and logs of all pods of the release, its Jobs, its cluster and its events.

    Args:
        section: of a kind on Kubernetes; this process is the release's driver.
        folder: gets pods.json, jobs.json, events.json, clusters.json and logs/<pod>-<container>.log, with `.previous`
            for the container before its last restart.

    Returns:
        What Kubernetes says went wrong, the states of pods before events; the first is the likeliest root cause.

    Raises:
        ConfigError, ClusterError: the API server refuses or stays away.
        StorageError: the folder cannot be written.
    """
    release = Release.of(section)
    with KubeApi(release.namespace, _PATIENCE_S) as api:
        pods = api.listed("pods", release.selector)
        problems = release_problems(api, release.selector, release.fullname)
        _write(folder, "pods", pods)
        _write(folder, "jobs", [job for job in api.listed("jobs") if _is_ours(job, release)])
        events = [event for event in api.listed("events") if _concerns(event, release)]
        _write(folder, "events", events)
        if section.kind == "kubernetes" and api.serves("daskclusters"):
            _write(folder, "clusters", [found for found in api.listed("daskclusters") if _is_ours(found, release)])
        for pod in pods:
            _save_logs(api, pod, release.pod, folder.join("logs"))
    return problems


def _save_logs(api: KubeApi, pod: Object, driver: str, folder: Location) -> None:
    name = pod["metadata"]["name"]
    if name == driver:
        return
    for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
        for suffix in ("", ".previous"):
            text = api.log(name, container["name"], previous=bool(suffix))
            if text:
                folder.join(f"{name}-{container['name']}{suffix}.log").write_bytes(text.encode())


def _write(folder: Location, name: str, content: list[Object]) -> None:
    folder.join(f"{name}.json").write_bytes((json.dumps(content, indent=1) + "\n").encode())


def _is_ours(content: Object, release: Release) -> bool:
    return str(content["metadata"]["name"]).startswith(release.fullname)


def _concerns(event: Object, release: Release) -> bool:
    return str(event.get("involvedObject", {}).get("name", "")).startswith(release.fullname)
