"""Where a scheduler comes from and how workers are asked for: the only difference between kinds of cluster."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Protocol

import dask
from distributed import LocalCluster

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError
from pipeline.driver.kube_cluster import OperatorCluster
from pipeline.driver.kube_deployment import DeploymentCluster
from pipeline.kernels.warm_up import warm_up

logger = logging.getLogger("pipeline.driver")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_CLOSE_SECONDS = 30.0


class ClusterSite(Protocol):
    """What `driver.cluster.Cluster` asks of a place where tasks can run."""

    def connect(self) -> str:
        """Address of a scheduler that is there or about to be."""

    def scale(self, workers: int) -> None:
        """Ask for that many workers."""

    def problems(self) -> list[str]:
        """Why workers may be missing."""

    def close(self) -> None:
        """Give back what this object took."""


class LocalProcesses:
    """Kind `local`: scheduler and workers are processes of this machine."""

    def __init__(self, section: ClusterSection) -> None:
        self._section = section
        self._cluster: LocalCluster | None = None

    def connect(self) -> str:
        """Start them; ClusterError if they do not start."""
        section = self._section
        # Once here, so that the workers find compiled code instead of each compiling its own.
        logger.info("kernels are ready", extra={"fields": {"worker": "driver", "seconds": round(warm_up(), 2)}})
        dask.config.set({"distributed.nanny.environ": dict.fromkeys(_THREAD_VARIABLES, "1")})
        try:
            self._cluster = LocalCluster(
                n_workers=section.workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=section.memory_per_worker,
                dashboard_address=f"127.0.0.1:{section.dashboard_port}",
                local_directory=str(Path(tempfile.gettempdir()) / f"dhs-dask-{os.getuid()}"),
            )
        except (RuntimeError, OSError) as error:
            raise ClusterError(f"the local cluster did not start: {error}") from error
        return str(self._cluster.scheduler_address)

    def scale(self, workers: int) -> None:
        """The number is fixed."""

    def problems(self) -> list[str]:
        """A local process says why on standard error."""
        return []

    def close(self) -> None:
        """Stop them."""
        if self._cluster is not None:
            self._cluster.close(timeout=_CLOSE_SECONDS)


class GivenScheduler:
    """Kind `address`: a scheduler whose workers are somebody else's."""

    def __init__(self, section: ClusterSection) -> None:
        self._address = str(section.address)

    def connect(self) -> str:
        """The address of the configuration."""
        return self._address

    def scale(self, workers: int) -> None:
        """The workers are not ours."""

    def problems(self) -> list[str]:
        """Nothing is known of them."""
        return []

    def close(self) -> None:
        """Nothing is ours."""


def site_of(section: ClusterSection) -> ClusterSite:
    """The site that a configuration's `cluster.kind` means; ConfigError if this process cannot use it."""
    match section.kind:
        case "local":
            return LocalProcesses(section)
        case "address":
            return GivenScheduler(section)
        case "kubernetes":
            return OperatorCluster(section)
        case "deployment":
            return DeploymentCluster(section)
