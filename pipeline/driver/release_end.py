"""Ending and restarting a release, with its logs kept."""

from __future__ import annotations

import json
import time
from pathlib import Path

from pipeline.contracts.errors import ClusterError, ConfigError
from pipeline.driver.helm_release import ReleaseName, reinstate, release_revision, uninstall
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.kube_pods import release_problems
from pipeline.driver.kube_release import COMPONENT_LABEL, INSTANCE_LABEL
from pipeline.driver.release_watch import driver_job, outcome_of, release_status

_POLL_S = 2.0
_GONE_S = 120.0


def save_release(api: KubeApi, release: ReleaseName, folder: Path) -> list[Path]:
    """Write every container's log, the pods' descriptions, warnings and state into a folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    selector = f"{INSTANCE_LABEL}={release.name}"
    pods = api.listed("pods", selector)
    texts = {
        "status.json": json.dumps(release_status(api, release), indent=1),
        "pods.json": json.dumps(pods, indent=1),
        "problems.txt": "\n".join(release_problems(api, selector, release.name)),
    }
    for pod in pods:
        for container in pod["spec"]["containers"]:
            name = f"{pod['metadata']['name']}-{container['name']}"
            texts[f"{name}.log"] = api.log(pod["metadata"]["name"], container["name"])
            if before := api.log(pod["metadata"]["name"], container["name"], previous=True):
                texts[f"{name}-previous.log"] = before
    for name, text in texts.items():
        (folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return [folder / name for name in texts]


def cancel_release(api: KubeApi, release: ReleaseName, folder: Path) -> list[Path]:
    """Save what the release said, then remove it. What the run wrote stays; the same configuration resumes.

    Raises:
        ConfigError: there is no such release.
    """
    _demand_release(release)
    saved = save_release(api, release, folder) if _has_job(api, release) else []
    uninstall(release)
    return saved


def resume_release(api: KubeApi, release: ReleaseName, gone_s: float = _GONE_S, poll_s: float = _POLL_S) -> None:
    """Start the run of a release again with the same objects: its Job is deleted if it has ended, and created anew.

    Raises:
        ConfigError: there is no such release, or its run is complete or at work.
        ClusterError: the old Job does not go away.
    """
    _demand_release(release)
    if _has_job(api, release):
        job = driver_job(api, release)
        outcome = outcome_of(job)
        if outcome is None:
            raise ConfigError(f"{release.handle} is at work; dhs logs {release.handle} --follow")
        if outcome == "Complete":
            raise ConfigError(f"{release.handle} is complete; there is nothing to resume")
        name = job["metadata"]["name"]
        api.delete("jobs", name)
        until = time.monotonic() + gone_s
        while api.find("jobs", name) is not None:
            if time.monotonic() > until:
                raise ClusterError(f"{release.handle}: Job {name} is still there after {gone_s:g} s")
            time.sleep(poll_s)
    reinstate(release)


def _has_job(api: KubeApi, release: ReleaseName) -> bool:
    return bool(api.listed("jobs", f"{INSTANCE_LABEL}={release.name},{COMPONENT_LABEL}=driver"))


def _demand_release(release: ReleaseName) -> None:
    if release_revision(release) is None:
        raise ConfigError(f"{release.handle}: no release of that name in namespace {release.namespace}")
