"""Values of the chart's components: what each pod may use, where it may run, what it may reach."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
OptionalName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?)?$")]
Cidr = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
Labels = dict[str, str]
Objects = list[dict[str, Any]]


class ChartSection(BaseModel):
    """Base of the chart's values: camelCase keys, no unknown ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class ImageReference(ChartSection):
    """Where an image is; the digest beats the tag."""

    repository: str = Field(default="", description="registry and name, without tag")
    tag: str = Field(default="", description="tag, read only where there is no digest; `latest` is refused")
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = Field(
        default="", description="sha256:..., the digest"
    )


class Images(ChartSection):
    """The two images: one for driver, scheduler and workers, one with torch for the programs."""

    worker: ImageReference = Field(default=ImageReference(), description="image of driver, scheduler and workers")
    trainer: ImageReference = Field(default=ImageReference(), description="image of the programs of the network")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="when the image is pulled"
    )
    pull_secrets: list[Name] = Field(default=[], description="names of Secrets for a private registry")


class ClusterValues(ChartSection):
    """How the driver obtains its scheduler."""

    kind: Literal["kubernetes", "deployment"] = Field(
        default="kubernetes",
        description="kubernetes: the driver makes a DaskCluster (needs the operator); deployment: scheduler and "
        "workers are plain workloads of this release, no operator and no custom resources",
    )


class AwsValues(ChartSection):
    """Checks against a wrong region."""

    region: Annotated[str, Field(pattern=r"^([a-z]{2}(-[a-z]+)+-[0-9])?$")] = Field(
        default="", description="region of the nodes; where given, a configuration with another run.region is refused"
    )
    credentials_secret: OptionalName = Field(
        default="",
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for every pod that reads or writes the "
        "store; empty where the pods' roles (Pod Identity, IRSA) give access",
    )


class Account(ChartSection):
    """A service account."""

    create: bool = Field(default=True, description="make it; otherwise `name` must exist")
    name: OptionalName = Field(default="", description="its name; by default made from the release's")
    annotations: Labels = Field(
        default={},
        description="such as eks.amazonaws.com/role-arn for IRSA; Pod Identity needs none",
    )


class Accounts(ChartSection):
    """One account per role, so that each can have a bucket policy of its own."""

    driver: Account = Field(
        default=Account(),
        description="account of the driver, the only one with rights on the API server",
    )
    worker: Account = Field(default=Account(), description="account of workers, of the scheduler and of `helm test`")
    program: Account = Field(default=Account(), description="account of the programs of the network")


class Rbac(ChartSection):
    """Rights of the driver."""

    create: bool = Field(default=True, description="make the driver's Role and RoleBinding; never a ClusterRole")


class NetworkPolicies(ChartSection):
    """Who may talk to whom. Inert unless the cluster's network enforces NetworkPolicy."""

    enabled: bool = Field(default=True, description="make the policies")
    operator_namespace: OptionalName = Field(
        default="dask-operator",
        description="namespace of the operator, whose pod alone may reach port 8787 from outside the release: it asks "
        "the scheduler there which workers to retire. Empty: closed, and scaling down does not work",
    )
    https_cidr: Cidr = Field(default="0.0.0.0/0", description="where HTTPS may go: S3, STS, bricks")
    api_server_cidr: Cidr = Field(
        default="0.0.0.0/0",
        description="where the API server is; only the driver may reach it",
    )
    api_server_ports: list[Port] = Field(
        default=[443, 6443],
        description="ports of the API server behind its Service",
    )
    prometheus_namespace: OptionalName = Field(
        default="", description="namespace whose pods may read metrics on port 8787; empty: none"
    )
    extra_egress: Objects = Field(default=[], description="further egress rules for driver, workers and programs")


class Spot(ChartSection):
    """Interruptible nodes for workers, nodes that stay for driver and scheduler."""

    enabled: bool = Field(default=False, description="select nodes by how they are bought")
    label_key: str = Field(
        default="eks.amazonaws.com/capacityType", description="node label; with Karpenter karpenter.sh/capacity-type"
    )
    spot_value: str = Field(default="SPOT", description="its value on interruptible nodes; with Karpenter spot")
    on_demand_value: str = Field(default="ON_DEMAND", description="its value on the others; with Karpenter on-demand")
    tolerations: Objects = Field(
        default=[{"key": "darkhaloscope/spot", "operator": "Exists", "effect": "NoSchedule"}],
        description="taints of interruptible nodes that workers accept",
    )


class Resources(ChartSection):
    """What a pod gets: memory limit and request are equal, CPU is requested and not limited."""

    cpu: Quantity | Annotated[str, Field(pattern=r"^[0-9]+m$")] = Field(default="1", description="CPU requested")
    memory: Quantity = Field(default="4Gi", description="memory, request and limit")
    ephemeral_storage: Quantity = Field(
        default="8Gi", description="local disk for logs and all scratch volumes, request and limit"
    )


class PodPlacement(ChartSection):
    """Where the pods of a component run, and what is added to them."""

    node_selector: Labels = Field(default={}, description="node labels that are asked for")
    tolerations: Objects = Field(default=[], description="taints that are accepted")
    affinity: dict[str, Any] = Field(default={}, description="affinity of the pods")
    pod_annotations: Labels = Field(default={}, description="annotations of the pods")
    extra_env: Objects = Field(default=[], description="further environment variables of the container")
    priority_class_name: str = Field(default="", description="name of a PriorityClass that exists")


class Driver(PodPlacement):
    """The Job that is the run."""

    resources: Resources = Field(default=Resources(), description="its share of a node")
    limit_shards: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="only the first N shards, as a run of its own: a smoke test"
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3,
        description="how often a driver that failed for reasons outside data and configuration is started again",
    )
    active_deadline_seconds: Annotated[int, Field(ge=60)] = Field(
        default=172_800,
        description="the run ends after this [s]",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] = Field(
        default=86_400, description="the finished Job and its logs are kept for this [s]"
    )
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=600)] = Field(
        default=100, description="between SIGTERM and SIGKILL [s]; a spot notice is 120 s"
    )


class Scheduler(PodPlacement):
    """The Dask scheduler."""

    resources: Resources = Field(default=Resources(), description="its share of a node")


class Worker(PodPlacement):
    """A Dask worker; its memory is `cluster.memory_per_worker` of the configuration."""

    cpu: Quantity | Annotated[str, Field(pattern=r"^[0-9]+m$")] = Field(default="1", description="CPU requested")
    ephemeral_storage: Quantity = Field(
        default="16Gi", description="local disk for logs and all scratch volumes, request and limit"
    )
    spill_space: Quantity = Field(default="10Gi", description="disk on which Dask may spill; below ephemeralStorage")
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=600)] = Field(
        default=100, description="between SIGTERM and SIGKILL [s]; the worker retires itself meanwhile"
    )
    spread_zones: bool = Field(default=True, description="spread workers over zones where that is possible")


class Program(PodPlacement):
    """The programs of the network: Jobs that the driver makes from a template of this chart."""

    resources: Resources = Field(
        default=Resources(cpu="4", memory="16Gi", ephemeral_storage="40Gi"), description="share of a node, per pod"
    )
    gpus: Annotated[int, Field(ge=0, le=16)] = Field(default=1, description="GPUs per pod; 0: train on the CPU")
    gpu_resource: str = Field(default="nvidia.com/gpu", description="name of the GPU resource")
    nodes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="pods of one training; several need GPUs",
    )
    shared_memory: Quantity = Field(default="2Gi", description="size of /dev/shm; counts against the memory")
    scratch_space: Quantity = Field(default="20Gi", description="disk for temporary files and local copies of shards")
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=2,
        description="how often a failed program starts again",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] = Field(
        default=86_400, description="a finished program's Job and logs are kept for this [s]"
    )
    tolerations: Objects = Field(
        default=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        description="taints that are accepted",
    )


class Scratch(ChartSection):
    """Sizes of the writable volumes of every pod; the root file system is read-only."""

    tmp: Quantity = Field(default="2Gi", description="size of the folder for temporary files")
    home: Quantity = Field(default="256Mi", description="size of the home folder, where libraries keep settings")
    numba_cache: Quantity = Field(default="512Mi", description="size of the folder of compiled kernels")


class Toggle(ChartSection):
    """Something that can be left out."""

    enabled: bool = Field(default=True, description="make it")


class Prometheus(ChartSection):
    """Metrics of the scheduler."""

    enabled: bool = Field(default=False, description="annotate the scheduler's pod")


class DashboardIngress(ChartSection):
    """A way to the dashboard from outside. The dashboard itself asks nobody for a password."""

    enabled: bool = Field(default=False, description="make an Ingress; a port-forward needs none")
    class_name: str = Field(default="", description="name of the IngressClass")
    host: str = Field(default="", description="host name; needed")
    tls_secret: str = Field(default="", description="Secret with the certificate; needed")
    annotations: Labels = Field(
        default={},
        description="must hold one that demands authentication, such as .../auth-url",
    )
    controller_namespace: OptionalName = Field(
        default="ingress-nginx",
        description="namespace of the ingress controller",
    )
