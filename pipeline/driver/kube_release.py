"""The Helm release that this driver belongs to: names from its environment, templates from its ConfigMap."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.contracts.cluster_config import OBJECTS_FOLDER, ClusterSection
from pipeline.contracts.errors import ClusterError, ConfigError
from pipeline.driver.kube_api import KubeApi

INSTANCE_LABEL = "app.kubernetes.io/instance"
COMPONENT_LABEL = "app.kubernetes.io/component"
_VARIABLES = ("DHS_NAMESPACE", "DHS_RELEASE", "DHS_FULLNAME", "DHS_JOB_NAME", "DHS_POD_NAME")


@dataclass(frozen=True)
class Release:
    """One installed chart, which is one run.

    Attributes:
        namespace: where all of it lies.
        name: of the release; every pod carries it as label app.kubernetes.io/instance.
        fullname: what names of its objects begin with.
        job: name of the driver's Job, which owns what the driver creates.
        pod: name of the driver's pod.
        objects: folder of the chart's object templates.
    """

    namespace: str
    name: str
    fullname: str
    job: str
    pod: str
    objects: Path

    @classmethod
    def of(cls, section: ClusterSection) -> Release:
        """The release that the chart's environment variables name.

        Raises:
            ConfigError: this process is no driver of a release, or its objects are not mounted.
        """
        values = {name: os.environ.get(name, "") for name in _VARIABLES}
        missing = [name for name, value in values.items() if not value]
        if missing:
            raise ConfigError(
                f"cluster.kind: {section.kind} is for the driver of a release, where {', '.join(missing)} would "
                "be set; from elsewhere use dhs submit"
            )
        objects = Path(section.objects or OBJECTS_FOLDER)
        if section.kind == "kubernetes" and not objects.is_dir():
            raise ConfigError(f"cluster.objects: {objects} is no folder; the chart mounts its object templates there")
        namespace, name, fullname, job, pod = (values[variable] for variable in _VARIABLES)
        return cls(namespace, name, fullname, job, pod, objects)

    @property
    def selector(self) -> str:
        """Label selector of all pods of the release."""
        return f"{INSTANCE_LABEL}={self.name}"

    @property
    def scheduler_service(self) -> str:
        """Name of the scheduler's Service."""
        return f"{self.fullname}-scheduler"

    def template(self, name: str) -> dict[str, Any]:
        """An object template of the chart.

        Raises:
            ConfigError: it is not there, or is no Kubernetes object.
        """
        path = self.objects / f"{name}.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"object template {path}: {error}") from error
        if not isinstance(content, dict) or not {"apiVersion", "kind", "metadata", "spec"} <= set(content):
            raise ConfigError(f"object template {path}: expected apiVersion, kind, metadata and spec")
        return content

    def owned(self, api: KubeApi, template: dict[str, Any]) -> dict[str, Any]:
        """A copy of a template that vanishes with the driver's Job.

        Raises:
            ClusterError: the Job is not there, so that nothing would clean up.
        """
        job = api.find("jobs", self.job)
        if job is None:
            raise ClusterError(f"the driver's Job {self.job} is not in namespace {self.namespace}")
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self.job, "uid": job["metadata"]["uid"]}
        content = copy.deepcopy(template)
        content["metadata"] |= {"namespace": self.namespace, "ownerReferences": [owner]}
        return content


def is_owned_by(content: dict[str, Any], owner: dict[str, Any]) -> bool:
    """True if an object has the very owner that another one has."""
    wanted = {reference["uid"] for reference in owner["metadata"]["ownerReferences"]}
    return any(reference["uid"] in wanted for reference in content["metadata"].get("ownerReferences", []))
