"""Preflight checks of a release: rights and definitions, memory, spill, image, GPUs, quota."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline.contracts.cluster_config import ClusterSection, parse_bytes
from pipeline.contracts.config import RunConfig
from pipeline.driver.instance_types import InstanceType, instance_type
from pipeline.driver.kube_api import KubeApi, Object
from pipeline.driver.kube_cluster import OPERATOR_INSTALL
from pipeline.driver.kube_release import Release
from pipeline.driver.preflight_checks import Check, aws_client, passed, unknown
from pipeline.driver.provenance import IMAGE_VARIABLE, UNKNOWN, build_record, code_version, git_sha
from pipeline.driver.worker_process import memory_limit_bytes

OLDEST_KUBERNETES = (1, 28)
TYPE_LABEL, REGION_LABEL = "node.kubernetes.io/instance-type", "topology.kubernetes.io/region"
GPU = "nvidia.com/gpu"
_GIB = 2**30
# A node tells the API server some time after a container's start which image it runs.
_STATUS_PATIENCE_S, _STATUS_POLL_S = 60.0, 1.0
_QUOTAS = {"on-demand": "L-1216C47A", "spot": "L-34B43A08"}
_RIGHTS = (
    ("jobs", "get"), ("jobs", "create"), ("jobs", "delete"), ("pods", "list"), ("pods/log", "get"), ("events", "list"),
)  # fmt: skip
_KIND_RIGHTS = {
    "kubernetes": (
        *(("daskclusters", verb) for verb in ("get", "list", "create", "delete")),
        ("daskworkergroups", "list"),
        ("daskworkergroups", "patch"),
        ("services", "list"),
        ("deployments", "list"),
    ),
    "deployment": (("deployments/scale", "patch"),),
}


def check_release(config: RunConfig, release: Release, api: KubeApi) -> Iterator[Check]:
    """Everything about Kubernetes that can be known before anything is made."""
    section = config.cluster
    yield _check_version(api)
    yield from _check_rights(section, release, api)
    nodes = api.listed("nodes") if api.allowed("list", "nodes") else None
    yield _check_node_regions(config, nodes)
    driver = _driver_pod(api, release)
    yield from check_build(driver)
    yield _check_fit("driver memory", _memory(_container(driver)), section.node_types.driver, nodes, section)
    vcpus = _cpus(_container(driver))
    if section.kind == "kubernetes":
        spec = release.template("daskcluster")["spec"]
        worker = _container(spec["worker"])
        yield from check_worker_container(section, worker)
        yield _check_fit("worker memory", _memory(worker), section.node_types.worker, nodes, section)
        vcpus += _cpus(_container(spec["scheduler"])) + section.most_workers * _cpus(worker)
    else:
        memory = parse_bytes(section.memory_per_worker)
        yield _check_fit("worker memory", memory, section.node_types.worker, nodes, section)
        vcpus += section.most_workers
    if config.training.enabled:
        yield from _check_program(_container(release.template("program-job")["spec"]["template"]), section, nodes)
    yield _check_quota(config, vcpus)


def check_build(driver_pod: Object) -> Iterator[Check]:
    """It is known which image and which commit this is, and the image holds what its build says."""
    image, digest = os.environ.get(IMAGE_VARIABLE, ""), _digest(driver_pod)
    yield passed("image", digest is not None, str(digest), f"no digest is known of image {image or UNKNOWN}")
    yield passed("git commit", git_sha() != UNKNOWN, git_sha(), "unknown; the image carries no build file")
    built = build_record().get("code_version")
    if built is not None:
        yield passed(
            "code", built == code_version(), built, f"the image was built of {built}, it holds {code_version()}"
        )


def _driver_pod(api: KubeApi, release: Release) -> Object:
    """This very pod, once its node has said which image it runs, or after `_STATUS_PATIENCE_S` without that."""
    until = time.monotonic() + _STATUS_PATIENCE_S
    while True:
        pod = api.find("pods", release.pod) or {}
        if _digest(pod) is not None or time.monotonic() > until:
            return pod
        time.sleep(_STATUS_POLL_S)


def _digest(pod: Object) -> str | None:
    """The image by digest, as this process was told or as the pod's status says."""
    running = [str(status.get("imageID", "")) for status in pod.get("status", {}).get("containerStatuses", [])]
    return next((name for name in (os.environ.get(IMAGE_VARIABLE, ""), *running) if "sha256:" in name), None)


def check_worker_container(section: ClusterSection, worker: Object) -> Iterator[Check]:
    """The worker's limits agree with the configuration, with what Dask is told, and with where it spills."""
    limit, wanted = _memory(worker), parse_bytes(section.memory_per_worker)
    variables = {entry["name"]: entry.get("value", "") for entry in worker.get("env", [])}
    told = variables.get("DHS_WORKER_MEMORY_LIMIT")
    yield passed(
        "memory limit",
        told is not None and limit == wanted == parse_bytes(told),
        f"{_gib(wanted)} per pod, of which Dask takes {_gib(int(memory_limit_bytes(str(wanted))))}",
        f"cluster.memory_per_worker is {_gib(wanted)}, the pod's limit {_gib(limit)}, Dask is told {told}",
    )
    space, disk = variables.get("DHS_WORKER_SPACE"), _resource(worker, "ephemeral-storage")
    if space is None or disk is None:
        yield Check("spill", "failed", f"unbounded: DHS_WORKER_SPACE {space}, ephemeral-storage {disk}")
        return
    fits = parse_bytes(space) <= parse_bytes(disk)
    yield passed("spill", fits, f"{space} of {disk}", f"{space} is more than the pod's ephemeral-storage of {disk}")


def _check_version(api: KubeApi) -> Check:
    version = api.version()
    numbers = tuple(int(part) for part in version.lstrip("v").split("+")[0].split("-")[0].split(".")[:2])
    return passed("Kubernetes", numbers >= OLDEST_KUBERNETES, version, f"{version} is older than 1.28")


def _check_rights(section: ClusterSection, release: Release, api: KubeApi) -> Iterator[Check]:
    if section.kind == "kubernetes":
        installed = all(api.serves(name) for name in ("daskclusters", "daskworkergroups"))
        yield passed("Dask operator", installed, "installed", f"no kind DaskCluster; run: {OPERATOR_INSTALL}")
    missing = []
    for target, verb in (*_RIGHTS, *_KIND_RIGHTS[section.kind]):
        resource, _, subresource = target.partition("/")
        names = [f"{release.fullname}-{part}" for part in ("scheduler", "worker")] if subresource == "scale" else [""]
        if not all(api.allowed(verb, resource, subresource, name) for name in names):
            missing.append(f"{verb} {target}")
    yield passed("rights", not missing, "as the chart's Role", f"missing in {api.namespace}: {', '.join(missing)}")


def _check_node_regions(config: RunConfig, nodes: Sequence[Object] | None) -> Check:
    if nodes is None:
        return unknown("node regions", "nodes may not be listed")
    found = sorted({node["metadata"].get("labels", {}).get(REGION_LABEL, "") for node in nodes} - {""})
    if not found:
        return unknown("node regions", f"no node has the label {REGION_LABEL}")
    return passed(
        "node regions", found == [config.run.region], found[0], f"nodes in {found}, run.region {config.run.region}"
    )


def _check_fit(
    name: str, memory: int | None, types: Sequence[str], nodes: Sequence[Object] | None, section: ClusterSection
) -> Check:
    """At least one declared type, or a live node of the cluster, can hold the pod."""
    if memory is None:
        return Check(name, "failed", "the container has no memory limit")
    places = {found.name: found.allocatable_bytes for found in map(instance_type, types) if found is not None}
    if nodes is not None and not types:
        places = {node["metadata"]["name"]: parse_bytes(node["status"]["allocatable"]["memory"]) for node in nodes}
    if not places:
        reason = f"no known size among {list(types)}" if types else "no node types declared and nodes may not be listed"
        return unknown(name, f"{_gib(memory)}; {reason} (cluster.node_types, kind {section.kind})")
    fits = {place: size for place, size in places.items() if size >= memory}
    small = [f"{place} {_gib(size)}" for place, size in places.items() if size < memory]
    too_small = f"; too small: {', '.join(small)}" if small else ""
    good = ", ".join(f"{place} holds {size // memory}" for place, size in fits.items())
    return passed(name, bool(fits), f"{_gib(memory)}: {good}{too_small}", f"{_gib(memory)} fits nowhere{too_small}")


def _check_program(program: Object, section: ClusterSection, nodes: Sequence[Object] | None) -> Iterator[Check]:
    gpus = int(_resource(program, GPU) or 0)
    types = section.node_types.program
    if not gpus:
        yield Check("GPU", "ok", "the program's template asks for none, training runs on CPUs")
    elif types:
        known: list[InstanceType] = [found for found in map(instance_type, types) if found is not None]
        enough = [found.name for found in known if found.gpus >= gpus]
        bad = f"{gpus} GPUs per pod, none of {list(types)} has them"
        yield passed("GPU", bool(enough), f"{gpus} per pod on {', '.join(enough)}", bad)
    else:
        ready = [node for node in nodes or [] if int(node["status"]["allocatable"].get(GPU, 0)) >= gpus]
        bad = "no live node has GPUs; name the pool that makes them in cluster.node_types.program"
        yield passed("GPU", bool(ready), f"{len(ready)} live nodes", bad)
    memory = _memory(program)
    if memory is not None and types:
        yield _check_fit("program memory", memory, types, nodes, section)


def _check_quota(config: RunConfig, vcpus: float) -> Check:
    name, declared = "vCPU quota", config.cluster.vcpu_quota
    if declared is not None:
        return passed(name, vcpus <= declared, f"{vcpus:g} of {declared}", f"{vcpus:g} needed, {declared} allowed")
    if config.run.endpoint_url is not None:
        return unknown(name, f"{vcpus:g} needed; run.endpoint_url is not AWS (cluster.vcpu_quota declares one)")
    try:
        client = aws_client("service-quotas", config.run.region)
        quotas = {
            kind: float(client.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
            for kind, code in _QUOTAS.items()
        }
    except (ClientError, BotoCoreError) as error:
        return unknown(name, f"{vcpus:g} needed; {error} (cluster.vcpu_quota declares one)")
    text = ", ".join(f"{kind} {value:g}" for kind, value in quotas.items())
    return passed(name, vcpus <= max(quotas.values()), f"{vcpus:g} of {text}", f"{vcpus:g} needed, allowed: {text}")


def _container(holder: Object) -> Object:
    """The first container of something with a pod specification; empty if there is none."""
    containers: list[Object] = holder.get("spec", {}).get("containers", [])
    return containers[0] if containers else {}


def _resource(container: Object, name: str) -> str | None:
    resources: dict[str, Any] = container.get("resources", {})
    found = resources.get("limits", {}).get(name, resources.get("requests", {}).get(name))
    return None if found is None else str(found)


def _memory(container: Object) -> int | None:
    found = _resource(container, "memory")
    return None if found is None else parse_bytes(found)


def _cpus(container: Object) -> float:
    resources: dict[str, Any] = container.get("resources", {})
    found = str(resources.get("requests", {}).get("cpu", resources.get("limits", {}).get("cpu", 0)))
    return float(found[:-1]) / 1000 if found.endswith("m") else float(found)


def _gib(size: int | None) -> str:
    return "nothing" if size is None else f"{size / _GIB:.3g} GiB"
