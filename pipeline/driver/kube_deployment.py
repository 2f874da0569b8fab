"""Kind `deployment`: scheduler and workers that the chart brought as plain Deployments; no custom resource at all."""

from __future__ import annotations

import logging

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import PipelineError
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.kube_pods import release_problems
from pipeline.driver.kube_release import Release

logger = logging.getLogger("pipeline.driver")

_SCHEDULER_PORT = 8786


class DeploymentCluster:
    """The release's Deployments of scheduler and workers; neither has replicas but while a driver uses them."""

    def __init__(self, section: ClusterSection) -> None:
        self._section = section
        self._release = Release.of(section)
        self._api = KubeApi(self._release.namespace)

    def connect(self) -> str:
        """Start the scheduler, unless it runs; returns its address, where it may not listen yet."""
        self._set_replicas("scheduler", 1)
        host = f"{self._release.scheduler_service}.{self._release.namespace}"
        return self._section.address or f"tcp://{host}:{_SCHEDULER_PORT}"

    def scale(self, workers: int) -> None:
        """Set the replicas of the workers' Deployment; a worker too many retires itself when it is told to end."""
        self._set_replicas("worker", workers)

    def problems(self) -> list[str]:
        """Why workers may be missing, in the words of Kubernetes."""
        return release_problems(self._api, self._release.selector, self._release.fullname)

    def close(self) -> None:
        """Send workers and scheduler home."""
        try:
            self._set_replicas("worker", 0)
            self._set_replicas("scheduler", 0)
        except PipelineError as error:
            logger.warning("workers stay behind", extra={"fields": {"reason": str(error)}})
        finally:
            self._api.close()

    def _set_replicas(self, component: str, replicas: int) -> None:
        name = f"{self._release.fullname}-{component}"
        self._api.patch("deployments", name, {"spec": {"replicas": replicas}}, subresource="scale")
