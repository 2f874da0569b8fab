"""Section `cluster`: where tasks run and how large that may become."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.priors import Positive, Section

CLUSTER_KINDS_ON_KUBERNETES = ("kubernetes", "deployment")
OBJECTS_FOLDER = "/etc/darkhaloscope/objects"
_BYTES = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?|)B?")

InstanceTypes = tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")], ...]


class AdaptiveWorkers(Section):
    """Bounds between which the number of workers follows the work."""

    minimum: Annotated[int, Field(ge=1, le=10_000)]
    maximum: Annotated[int, Field(ge=1, le=10_000)]

    @model_validator(mode="after")
    def _is_a_range(self) -> AdaptiveWorkers:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class NodeTypes(Section):
    """EC2 instance types on which the pods of a release may land; empty where it is not known."""

    driver: InstanceTypes = ()
    worker: InstanceTypes = ()
    program: InstanceTypes = Field(default=(), description="GPU types; a declared pool may have no node yet")


class ClusterSection(Section):
    """Where tasks run.

    local: worker processes of this machine. address: a scheduler that already runs. kubernetes: a DaskCluster made by
    the operator. deployment: scheduler and workers that the Helm chart brought. The last two are for drivers inside a
    release of the chart, which fills in `objects` and `address`.
    """

    kind: Literal["local", "address", "kubernetes", "deployment"]
    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    adaptive: AdaptiveWorkers | None = Field(
        default=None, description="kubernetes and deployment only; replaces the fixed number of workers"
    )
    memory_per_worker: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MiB|GiB|MB|GB)$")] = Field(
        default="2GiB", description="the pod's memory limit on Kubernetes, Dask's limit on one machine"
    )
    address: str | None = Field(default=None, description="of the scheduler, such as tcp://10.0.0.7:8786")
    objects: str | None = Field(
        default=None, description=f"folder with the chart's object templates; null means {OBJECTS_FOLDER}"
    )
    dashboard_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    no_workers_timeout_s: Positive = 300.0
    node_types: NodeTypes = NodeTypes()
    vcpu_quota: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="vCPUs the account may run; null asks Service Quotas"
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClusterSection:
        on_kubernetes = self.kind in CLUSTER_KINDS_ON_KUBERNETES
        if self.kind == "address" and self.address is None:
            raise ValueError("cluster.address is needed by kind: address")
        if self.address is not None and self.kind not in ("address", "deployment"):
            raise ValueError(f"cluster.address belongs to kind: address or deployment, not to {self.kind}")
        if self.objects is not None and not on_kubernetes:
            raise ValueError(f"cluster.objects belongs to kind: kubernetes or deployment, not to {self.kind}")
        if self.adaptive is not None and not on_kubernetes:
            raise ValueError(f"cluster.adaptive needs kind: kubernetes or deployment, not {self.kind}")
        return self

    @property
    def on_kubernetes(self) -> bool:
        """True if pods of a release do the work."""
        return self.kind in CLUSTER_KINDS_ON_KUBERNETES

    @property
    def first_workers(self) -> int:
        """Workers that are waited for before the first task."""
        return self.adaptive.minimum if self.adaptive else self.workers

    @property
    def most_workers(self) -> int:
        """Workers that may run at the same time."""
        return self.adaptive.maximum if self.adaptive else self.workers


def parse_bytes(text: str) -> int:
    """Bytes of a size as Dask (2GiB, 1.5GB) or Kubernetes (2Gi, 512M, 1073741824) writes it; ValueError otherwise."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected a size such as 2GiB or 512Mi, got {text!r}")
    return int(float(found[1]) * _BYTES[found[2]])
