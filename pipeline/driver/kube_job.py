"""A program of the training package as a Kubernetes Job on the GPU pool, made from the chart's template."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ClusterError, ConfigError, PipelineError
from pipeline.driver.kube_api import KubeApi, Object
from pipeline.driver.kube_pods import event_problems, failed_exit_code, pod_problems
from pipeline.driver.kube_release import Release, is_owned_by

logger = logging.getLogger("pipeline.driver")

PROGRAM_CONTAINER = "program"
PROGRAM_ANNOTATION = "darkhaloscope/program-sha256"
# The resolved configuration travels in an annotation of the pod, which is mounted as a file.
_CONFIG_ANNOTATION = "darkhaloscope/run-config"
_CONFIG_FOLDER = "/etc/darkhaloscope/resolved"
_CONFIG_FILE = "config.yaml"
_LARGEST_CONFIG_BYTES = 200_000
_POLL_S = 2.0
# A node with a GPU may have to be made first.
_START_TIMEOUT_S = 900.0
_DELETE_TIMEOUT_S = 120.0
_DEADLINE = "DeadlineExceeded"
# A pod of an indexed Job is called by the Job's name and its index, in at most 63 characters.
_LONGEST_NAME = 60
# torchrun ends with 1 whatever its child ended with, and writes the child's code.
_TORCHRUN_CODE = re.compile(r"Root Cause \(first observed failure\):.*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


def program_job_name(fullname: str, module: str) -> str:
    """Name of the Job of a module: run-1-train for pipeline.training, run-1-probes for pipeline.training.probes."""
    program = module.rsplit(".", 1)[-1].replace("_", "-")
    return f"{fullname}-{'train' if program == 'training' else program}"[:_LONGEST_NAME].rstrip("-")


def run_program_job(config: RunConfig, module: str, options: Sequence[str]) -> int:
    """Run a program as a Job and wait for it; one that an earlier driver left running is waited for instead.

    Args:
        config: handed over as `--config`; bounds the time.
        module: what `python -m` runs.
        options: its other options.

    Returns:
        Its exit code, 0 if the Job is complete.

    Raises:
        ConfigError: this process is no driver of a release, or a right is missing.
        ClusterError: no pod of it started in time, or it was lost; quotes Kubernetes.
        PipelineError: it ran longer than `training.timeout_s`.
    """
    release = Release.of(config.cluster)
    with KubeApi(release.namespace) as api:
        job = _ProgramJob(api, _manifest(release, api, config, module, options))
        job.ensure()
        return job.wait()


def _manifest(release: Release, api: KubeApi, config: RunConfig, module: str, options: Sequence[str]) -> Object:
    content = release.owned(api, release.template("program-job"))
    content["metadata"]["name"] = program_job_name(release.fullname, module)
    spec, template = content["spec"], content["spec"]["template"]
    containers = [found for found in template["spec"]["containers"] if found["name"] == PROGRAM_CONTAINER]
    if len(containers) != 1:
        raise ConfigError(f"object template program-job.yaml: expected one container named {PROGRAM_CONTAINER}")
    text = yaml.safe_dump(config.model_dump(mode="json"))
    if len(text.encode()) > _LARGEST_CONFIG_BYTES:
        raise ConfigError(f"the configuration has more than {_LARGEST_CONFIG_BYTES} bytes, an annotation holds no more")
    containers[0]["args"] = ["-m", module, "--config", f"{_CONFIG_FOLDER}/{_CONFIG_FILE}", *options]
    mount = {"name": "run-config", "mountPath": _CONFIG_FOLDER, "readOnly": True}
    containers[0].setdefault("volumeMounts", []).append(mount)
    source = {"path": _CONFIG_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{_CONFIG_ANNOTATION}']"}}
    template["spec"].setdefault("volumes", []).append({"name": "run-config", "downwardAPI": {"items": [source]}})
    template.setdefault("metadata", {}).setdefault("annotations", {})[_CONFIG_ANNOTATION] = text
    spec["activeDeadlineSeconds"] = max(int(config.training.timeout_s), 1)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    content["metadata"].setdefault("annotations", {})[PROGRAM_ANNOTATION] = digest
    return content


class _ProgramJob:
    """The one Job of a program in a release."""

    def __init__(self, api: KubeApi, wanted: Object) -> None:
        self._api, self._wanted = api, wanted
        self._name = str(wanted["metadata"]["name"])
        self._shown: dict[str, str] = {}
        self._problems: list[str] = []

    def ensure(self) -> None:
        """Create the Job, unless the very same one is running; whatever else has its name is deleted."""
        found = self._api.find("jobs", self._name)
        if found is not None:
            if _is_running(found) and is_owned_by(found, self._wanted) and self._is_the_same(found):
                logger.info("waiting for the Job of an earlier driver", extra={"fields": {"job": self._name}})
                return
            self._delete()
        self._api.create("jobs", self._wanted)
        logger.info("created a Job", extra={"fields": {"job": self._name}})

    def wait(self) -> int:
        """Show the log until the Job has ended; returns the program's exit code."""
        until = time.monotonic() + _START_TIMEOUT_S
        while True:
            job = self._api.find("jobs", self._name)
            if job is None:
                raise ClusterError(f"Job {self._name} was deleted while it was waited for")
            pods = self._pods()
            self._show(pods)
            ended = _condition(job, "Complete") or _condition(job, "Failed")
            if ended is not None:
                return 0 if ended["type"] == "Complete" else self._failure(ended, pods)
            if any(_has_started(pod) for pod in pods):
                until = time.monotonic() + _START_TIMEOUT_S
            elif time.monotonic() > until:
                raise ClusterError(self._explained(f"Job {self._name}: no pod started within {_START_TIMEOUT_S:g} s"))
            self._warn(pods)
            time.sleep(_POLL_S)

    def _failure(self, condition: dict[str, Any], pods: list[Object]) -> int:
        reason = f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}"
        if condition.get("reason") == _DEADLINE:
            limit = self._wanted["spec"]["activeDeadlineSeconds"]
            raise PipelineError(self._explained(f"Job {self._name} did not finish within {limit} s"))
        codes = [code for pod in pods if (code := self._exit_code(pod)) is not None]
        if not codes:
            raise ClusterError(self._explained(f"Job {self._name} failed ({reason}) and no container says why"))
        logger.error("the Job failed", extra={"fields": {"job": self._name, "reasons": self._reasons()}})
        return codes[-1]

    def _exit_code(self, pod: Object) -> int | None:
        code = failed_exit_code(pod, PROGRAM_CONTAINER)
        if code != 1:
            return code
        found = _TORCHRUN_CODE.findall(self._api.log(pod["metadata"]["name"], PROGRAM_CONTAINER))
        return int(found[-1]) if found else code

    def _explained(self, message: str) -> str:
        reasons = self._reasons()
        return f"{message}: {'; '.join(reasons)}" if reasons else message

    def _reasons(self) -> list[str]:
        events = [
            event
            for event in self._api.listed("events")
            if str(event.get("involvedObject", {}).get("name", "")).startswith(self._name)
        ]
        lines = [line for pod in self._pods() for line in pod_problems(pod)]
        return list(dict.fromkeys([*lines, *event_problems(events)]))

    def _warn(self, pods: list[Object]) -> None:
        problems = [line for pod in pods for line in pod_problems(pod)]
        if problems and problems != self._problems:
            logger.warning("the Job waits", extra={"fields": {"job": self._name, "reasons": problems}})
        self._problems = problems

    def _pods(self) -> list[Object]:
        pods = self._api.listed("pods", f"job-name={self._name}")
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def _show(self, pods: list[Object]) -> None:
        """Write what the pods wrote since the last time to standard error, where a local program writes."""
        for pod in pods:
            name = pod["metadata"]["name"]
            last = self._shown.get(name, "")
            for line in self._api.log(name, PROGRAM_CONTAINER, since_time=last or None, timestamps=True).splitlines():
                stamp, _, text = line.partition(" ")
                if stamp > last:
                    sys.stderr.write(f"{text}\n")
                    self._shown[name] = stamp

    def _is_the_same(self, found: Object) -> bool:
        annotations = found["metadata"].get("annotations", {})
        return bool(annotations.get(PROGRAM_ANNOTATION) == self._wanted["metadata"]["annotations"][PROGRAM_ANNOTATION])

    def _delete(self) -> None:
        logger.info("deleting a Job that was left behind", extra={"fields": {"job": self._name}})
        self._api.delete("jobs", self._name)
        until = time.monotonic() + _DELETE_TIMEOUT_S
        while self._api.find("jobs", self._name) is not None or self._pods():
            if time.monotonic() > until:
                raise ClusterError(f"Job {self._name} or its pods are not gone {_DELETE_TIMEOUT_S:g} s after deletion")
            time.sleep(_POLL_S)


def _condition(job: Object, kind: str) -> dict[str, Any] | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            return dict(condition)
    return None


def _is_running(job: Object) -> bool:
    ended = _condition(job, "Complete") or _condition(job, "Failed")
    return ended is None and "deletionTimestamp" not in job["metadata"]


def _has_started(pod: Object) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any("running" in status.get("state", {}) or "terminated" in status.get("state", {}) for status in statuses)
