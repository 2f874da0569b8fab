"""What the Dask operator and the kubelet do, as far as the driver sees it, on a test's API server.

Scheduler and workers are real processes if a folder is given, otherwise pods that exist on paper only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from api_server import ApiServer, Object

READY = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
    "containerStatuses": [{"name": "main", "ready": True, "state": {"running": {}}}],
}
UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory.",
        }
    ],
}


class OperatorStandIn:
    """Answers new DaskClusters with a scheduler and a worker group, and follows the group's replicas.

    Args:
        server: where it works.
        status: of the pods it makes.
        port: of the scheduler that the Service leads to.
        folder: for logs of real processes; none are started without it.
    """

    def __init__(
        self, server: ApiServer, status: Object | None = None, port: int = 8786, folder: Path | None = None
    ) -> None:
        self.server, self.status, self.port, self.folder = server, status or READY, port, folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        server.hooks.append(self._react)

    def stop(self) -> None:
        """End every process that is left."""
        self.server.hooks.remove(self._react)
        for process in self.processes.values():
            process.kill()
            process.wait(timeout=30)

    def workers(self) -> list[str]:
        """Names of the worker pods."""
        return [pod["metadata"]["name"] for pod in self.server.listed("pods", "dask.org/component=worker")]

    def _react(self, change: str, resource: str, content: Object) -> None:
        with self._lock:
            if resource == "daskclusters" and change == "ADDED":
                self._make(content)
            elif resource == "daskworkergroups" and change == "MODIFIED":
                self._scale(content)
            elif resource == "pods" and change == "DELETED":
                self._end(content["metadata"]["name"])

    def _make(self, cluster: Object) -> None:
        name = cluster["metadata"]["name"]
        if self.folder is not None:
            args = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1"]
            args += ["--port", str(self.port), "--no-dashboard", "--no-show"]
            self._start(f"{name}-scheduler", args, {})
        self._pod(cluster, f"{name}-scheduler", "scheduler")
        ports = [{"name": "tcp-comm", "port": self.port}, {"name": "http-dashboard", "port": self.port}]
        self.server.put(
            "services",
            f"{name}-scheduler",
            metadata={"namespace": "science", "ownerReferences": _owner(cluster)},
            spec={"type": "LoadBalancer", "ports": ports, "selector": {"dask.org/component": "scheduler"}},
            status={"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}},
        )
        self.server.put(
            "daskworkergroups",
            f"{name}-default",
            metadata={"ownerReferences": _owner(cluster)},
            spec={"cluster": name, "worker": {"replicas": 0}},
        )

    def _scale(self, group: Object) -> None:
        cluster = self.server.objects["daskclusters", group["spec"]["cluster"]]
        wanted, present = group["spec"]["worker"]["replicas"], self.workers()
        for number in range(len(present), wanted):
            name = f"{group['metadata']['name']}-worker-{number}"
            if self.folder is not None:
                address = f"tcp://127.0.0.1:{self.port}"
                space = str(self.folder / "space")
                variables = {
                    "DASK_SCHEDULER_ADDRESS": address,
                    "DASK_WORKER_NAME": name,
                    "DASK_TEMPORARY_DIRECTORY": space,
                }
                self._start(name, [sys.executable, "-m", "pipeline.entry", "worker"], variables)
            self._pod(cluster, name, "worker")
        for name in present[wanted:]:
            self.server.remove("pods", name)

    def _pod(self, cluster: Object, name: str, component: str) -> None:
        labels = {
            "app.kubernetes.io/instance": cluster["metadata"]["name"],
            "dask.org/cluster-name": cluster["metadata"]["name"],
            "dask.org/component": component,
        }
        containers = [{"name": "main"}]
        self.server.put(
            "pods",
            name,
            metadata={"labels": labels, "ownerReferences": _owner(cluster)},
            spec={"containers": containers},
            status=self.status,
        )
        self.server.logs[name, "main"] = f"log of {name}\n"

    def _start(self, name: str, args: list[str], variables: dict[str, str]) -> None:
        assert self.folder is not None
        with (self.folder / f"{name}.log").open("wb") as log:
            environment: Any = {**os.environ, **variables}
            self.processes[name] = subprocess.Popen(args, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _end(self, name: str) -> None:
        process = self.processes.get(name)
        if process is not None:
            process.send_signal(signal.SIGTERM)


def _owner(cluster: Object) -> list[Object]:
    metadata = cluster["metadata"]
    return [{"kind": "DaskCluster", "name": metadata["name"], "uid": metadata["uid"]}]
