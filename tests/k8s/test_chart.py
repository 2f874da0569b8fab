"""What a release may do, reach and use; meaning, not text."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from helm_python.errors import HelmError

from pipeline.contracts.cluster_config import parse_bytes
from pipeline.contracts.config import RunConfig

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
CI = ("minimal", "spot", "gpu", "no-operator", "locked-down")
COMPONENTS = {"driver", "scheduler", "worker", "program", "test"}
REPOSITORY = Path(__file__).parents[2]
CI_FILES = REPOSITORY / "helm" / "darkhaloscope" / "ci"
PILOT = REPOSITORY / "configs" / "pilot.yaml"


def load_script(path: Path) -> ModuleType:
    """A script that is no part of the package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def manifests() -> ModuleType:
    """helm/manifests.py."""
    return load_script(REPOSITORY / "helm" / "manifests.py")


@pytest.fixture(scope="session")
def chart_pages() -> ModuleType:
    """docs/chart_pages.py."""
    return load_script(REPOSITORY / "docs" / "chart_pages.py")


@pytest.fixture(scope="session")
def ci_values() -> Callable[[str], dict[str, Any]]:
    """Values of a file of ci/, with the pilot's configuration as a text."""

    def read(name: str) -> dict[str, Any]:
        values = yaml.safe_load((CI_FILES / f"{name}-values.yaml").read_text(encoding="utf-8"))
        return {**values, "config": PILOT.read_text(encoding="utf-8")}

    return read


@pytest.fixture(scope="session")
def release(manifests: ModuleType, ci_values: Callable[[str], dict[str, Any]]) -> Render:
    """Objects of a release `run-demo` in `lenses`, by name of a ci file; keywords replace top-level values."""
    plain: dict[str, list[Manifest]] = {}

    def render(name: str, **replaced: Any) -> list[Manifest]:
        if not replaced and name in plain:
            return copy.deepcopy(plain[name])
        rendered: list[Manifest] = manifests.render({**ci_values(name), **replaced})
        if not replaced:
            plain[name] = copy.deepcopy(rendered)
        return rendered

    return render


def one(found: list[Manifest], kind: str, name: str) -> Manifest:
    """The object of a kind and name."""
    (manifest,) = [m for m in found if m["kind"] == kind and m["metadata"]["name"] == name]
    return manifest


def kinds(found: list[Manifest]) -> list[str]:
    """Kind/name of every object, sorted."""
    return sorted(f"{m['kind']}/{m['metadata']['name'].removeprefix('run-demo-')}" for m in found)


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Literal environment variables of a container."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def peer_names(peers: list[dict[str, Any]]) -> Iterator[str]:
    """Components of the release, `namespace/pod label`, or address ranges."""
    for peer in peers:
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        if "ipBlock" in peer:
            yield peer["ipBlock"]["cidr"]
        elif space:
            yield f"{space}/{labels.get('app.kubernetes.io/name') or labels.get('k8s-app') or '*'}"
        else:
            assert labels["app.kubernetes.io/instance"] == "run-demo"
            yield labels["app.kubernetes.io/component"]


def reach(found: list[Manifest], side: str, peers: str) -> dict[str, set[tuple[str, int | str]]]:
    """Component -> {(peer, port)} over all policies; port "*" is every port, peer "*" every address."""
    table: dict[str, set[tuple[str, int | str]]] = {}
    for policy in (m for m in found if m["kind"] == "NetworkPolicy"):
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        allowed = table.setdefault(spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"], set())
        for rule in spec[side]:
            ports = [port["port"] for port in rule.get("ports", [])] or ["*"]
            names = list(peer_names(rule[peers])) if peers in rule else ["*"]
            allowed |= {(name, port) for name in names for port in ports}
    return table


@pytest.mark.parametrize("name", CI)
def test_an_api_server_would_take_every_object(name: str, release: Render, manifests: ModuleType) -> None:
    """Oldest and newest Kubernetes, and the CRD of the operator, know every field; none is pruned silently."""
    found = release(name)
    everything = [*found, *manifests.embedded(found).values()]
    assert [problem for m in everything for problem in manifests.problems_of(m, ("1.28", "1.37"))] == []
    found[0]["spec"] = {"hostNetwork": True}
    assert len(manifests.problems_of(found[0], ("1.28", "1.37"))) >= 2


def test_unknown_fields_of_a_dask_cluster_are_refused(release: Render, manifests: ModuleType) -> None:
    """What Kubernetes added after the CRD was made would be pruned; the check sees it."""
    cluster = manifests.embedded(release("minimal"))["daskcluster.yaml"]
    assert manifests.problems_of(cluster) == []
    cluster["spec"]["worker"]["spec"]["hostUsers"] = False
    cluster["spec"]["scheduler"]["spec"]["containers"][0]["resizePolicy"] = []
    assert len(manifests.problems_of(cluster)) == 2


def test_kinds_of_a_release_with_the_operator(release: Render, manifests: ModuleType) -> None:
    """The driver makes scheduler and workers; the release brings neither, and nothing cluster-wide."""
    found = release("minimal")
    policies = [f"NetworkPolicy/{name}" for name in sorted(COMPONENTS)]
    accounts = [f"ServiceAccount/{name}" for name in ("driver", "program", "worker")]
    assert kinds(found) == sorted(
        ["ConfigMap/config", "ConfigMap/objects", "Job/driver", "Pod/verify", "PodDisruptionBudget/driver",
         "Role/driver", "RoleBinding/driver", *policies, *accounts]
    )  # fmt: skip
    assert set(manifests.embedded(found)) == {"daskcluster.yaml", "program-job.yaml"}


def test_kinds_without_operator(release: Render, manifests: ModuleType) -> None:
    """Plain workloads instead of a custom resource; no workers before the driver asks for them."""
    found = release("no-operator")
    assert {"Deployment/scheduler", "Service/scheduler", "Deployment/worker"} <= set(kinds(found))
    assert one(found, "Deployment", "run-demo-scheduler")["spec"]["replicas"] == 1
    assert one(found, "Deployment", "run-demo-worker")["spec"]["replicas"] == 0
    assert set(manifests.embedded(found)) == {"program-job.yaml"}
    worker = one(found, "Deployment", "run-demo-worker")["spec"]["template"]["spec"]["containers"][0]
    assert environment(worker)["DASK_SCHEDULER_ADDRESS"] == "tcp://run-demo-scheduler:8786"


def test_nothing_is_trained_where_training_is_off(release: Render, manifests: ModuleType, ci_values: Any) -> None:
    """Without training there is no program, and no image for it is asked for."""
    values = ci_values("minimal")
    config = yaml.safe_load(values["config"])
    config["training"] = {"enabled": False, **config["training"]}
    found = release("minimal", config=yaml.safe_dump(config), image={"worker": values["image"]["worker"]})
    assert set(manifests.embedded(found)) == {"daskcluster.yaml"}


def test_rights_of_the_driver(release: Render) -> None:
    """Exactly these; only in its namespace; nobody else has any."""
    common = {
        ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
        **{("", kind): {"get", "list", "watch"} for kind in ("pods", "pods/log", "events", "services")},
        ("apps", "deployments"): {"get", "list"},
    }
    dask = {
        **{("kubernetes.dask.org", kind): {"create", "get", "list", "watch", "patch", "delete"}
           for kind in ("daskclusters", "daskworkergroups")},
    }  # fmt: skip
    scale = {("apps", "deployments/scale"): {"get", "patch"}}
    for name, expected in (("minimal", common | dask), ("no-operator", common | scale)):
        found = release(name)
        rules = one(found, "Role", "run-demo-driver")["rules"]
        rights = {(g, r): set(rule["verbs"]) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]}
        assert rights == expected
        binding = one(found, "RoleBinding", "run-demo-driver")
        assert [(s["kind"], s["name"]) for s in binding["subjects"]] == [("ServiceAccount", "run-demo-driver")]
        assert not [m for m in found if m["kind"].startswith("Cluster")]
    scaling = [rule for rule in rules if "deployments/scale" in rule["resources"]]
    assert scaling[0]["resourceNames"] == ["run-demo-scheduler", "run-demo-worker"]


def test_who_may_reach_whom(release: Render) -> None:
    """The scheduler's ports are open to the driver, the workers and the operator's pod; nothing else comes in."""
    found = release("minimal")
    incoming = reach(found, "ingress", "from")
    assert incoming["scheduler"] == {
        *((peer, port) for peer in ("driver", "worker") for port in (8786, 8787)),
        ("dask-operator/dask-kubernetes-operator", 8787),
    }
    assert incoming["worker"] == {("scheduler", "*"), ("worker", "*")}
    assert [incoming[name] for name in ("driver", "program", "test")] == [set(), set(), set()]
    closed = reach(release("no-operator"), "ingress", "from")
    assert {peer for peer, _ in closed["scheduler"]} == {"driver", "worker"}
    assert reach(release("gpu"), "ingress", "from")["program"] == {("program", "*")}


def test_what_pods_may_reach(release: Render) -> None:
    """Names, HTTPS and the role agent for all that touch the store; the API server for the driver alone."""
    outgoing = reach(release("minimal"), "egress", "to")
    names = {(peer, 53) for peer in ("kube-system/kube-dns", "169.254.20.10/32")}
    store = {("0.0.0.0/0", 443), ("169.254.170.23/32", 80)}
    scheduler = {("scheduler", 8786), ("scheduler", 8787)}
    assert outgoing["driver"] == names | store | scheduler | {("0.0.0.0/0", 6443)}
    assert outgoing["worker"] == names | store | scheduler | {("worker", "*")}
    assert outgoing["scheduler"] == names | {("worker", "*")}
    assert outgoing["program"] == outgoing["test"] == names | store
    narrow = reach(release("locked-down", fullnameOverride=""), "egress", "to")
    assert ("0.0.0.0/0", 443) not in set.union(*narrow.values())
    assert ("10.100.0.1/32", 443) in narrow["driver"]


def test_the_port_of_another_store_is_open(release: Render, ci_values: Any) -> None:
    """An endpoint in the cluster listens on a port of its own."""
    config = yaml.safe_load(ci_values("minimal")["config"])
    config["run"]["endpoint_url"] = "http://store.lenses.svc:8333"
    found = release("minimal", config=yaml.safe_dump(config))
    assert all(("*", 8333) in reach(found, "egress", "to")[name] for name in ("driver", "worker", "program", "test"))
    verify = one(found, "Pod", "run-demo-verify")["spec"]["containers"][0]["args"]
    assert verify[-2:] == ["--endpoint-url", "http://store.lenses.svc:8333"]


@pytest.mark.parametrize("name", CI)
def test_every_pod_is_restricted(name: str, release: Render, manifests: ModuleType) -> None:
    """The restricted profile, a read-only root, bounded scratch and equal memory; also for pods the driver makes."""
    pods = list(manifests.pod_specs(release(name)))
    assert {component for component, _, _ in pods} == COMPONENTS
    for component, pod, labels in pods:
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == context["fsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is (component == "driver")
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        (container,) = pod["containers"]
        inner = container["securityContext"]
        assert inner["allowPrivilegeEscalation"] is False and inner["readOnlyRootFilesystem"] is True
        assert inner["capabilities"] == {"drop": ["ALL"]}
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests["memory"] == limits["memory"] and "cpu" in requests and "cpu" not in limits
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        scratch = [v["emptyDir"] for v in volumes.values() if "emptyDir" in v and "medium" not in v["emptyDir"]]
        assert sum(parse_bytes(v["sizeLimit"]) for v in scratch) < parse_bytes(limits["ephemeral-storage"])
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        variables = environment(container)
        for folder in ("HOME", "TMPDIR", "NUMBA_CACHE_DIR"):
            assert "emptyDir" in mounts[variables[folder]]
        assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-2"
        assert variables["DHS_IMAGE"] == container["image"] and re.search(r"@sha256:|:[^/]+$", container["image"])
        assert labels["app.kubernetes.io/name"] == "darkhaloscope"
        assert labels["app.kubernetes.io/instance"] == "run-demo"


def test_memory_of_a_worker(release: Render, manifests: ModuleType) -> None:
    """The pod's limit is memory_per_worker of the configuration; Dask is told of it and of its disk."""
    cluster = manifests.embedded(release("spot"))["daskcluster.yaml"]["spec"]
    (worker,) = cluster["worker"]["spec"]["containers"]
    assert worker["resources"]["limits"]["memory"] == "4Gi" == environment(worker)["DHS_WORKER_MEMORY_LIMIT"]
    space = [v["emptyDir"]["sizeLimit"] for v in cluster["worker"]["spec"]["volumes"] if v["name"] == "dask-space"]
    assert space == [environment(worker)["DHS_WORKER_SPACE"]] == ["10Gi"]
    assert cluster["worker"]["replicas"] == 0
    assert worker["args"] == ["dhs", "worker"]
    variables = environment(cluster["scheduler"]["spec"]["containers"][0])
    assert "distributed.http.scheduler.api" in yaml.safe_load(variables["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"])
    assert variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "10"
    assert variables["DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT"] == "300s"


def test_default_memory_is_that_of_the_configuration(release: Render, manifests: ModuleType, ci_values: Any) -> None:
    """A configuration that is silent about workers means the same in the chart and in the driver."""
    config = yaml.safe_load(ci_values("minimal")["config"])
    config["cluster"] = {"kind": "local"}
    resolved = RunConfig.model_validate(config).cluster
    found = manifests.embedded(release("minimal", config=yaml.safe_dump(config)))
    (worker,) = found["daskcluster.yaml"]["spec"]["worker"]["spec"]["containers"]
    assert parse_bytes(worker["resources"]["limits"]["memory"]) == parse_bytes(resolved.memory_per_worker)
    timeout = environment(worker)["DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT"]
    assert timeout == f"{resolved.no_workers_timeout_s:.0f}s"


def test_jobs_end_by_exit_code(release: Render, manifests: ModuleType) -> None:
    """2 and 3 fail at once, an evicted pod does not count, everything else is tried again."""
    found = release("gpu")
    program = manifests.embedded(found)["program-job.yaml"]
    for job, container in ((one(found, "Job", "run-demo-driver"), "driver"), (program, "program")):
        spec = job["spec"]
        fail, ignore = spec["podFailurePolicy"]["rules"]
        assert (fail["action"], fail["onExitCodes"]) == (
            "FailJob",
            {"containerName": container, "operator": "In", "values": [2, 3]},
        )
        assert (ignore["action"], ignore["onPodConditions"]) == (
            "Ignore",
            [{"type": "DisruptionTarget", "status": "True"}],
        )
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["backoffLimit"] > 0 and spec["ttlSecondsAfterFinished"] > 0
        assert spec["podReplacementPolicy"] == "Failed"
    assert one(found, "Job", "run-demo-driver")["spec"]["activeDeadlineSeconds"] == 172_800


def test_driver_runs_the_given_configuration(release: Render, ci_values: Any) -> None:
    """The very text that was given, with the way to the cluster set beside it."""
    for name, more in (
        ("minimal", ["--set", "cluster.address=null"]),
        ("no-operator", ["--set", "cluster.address=tcp://run-demo-scheduler:8786", "--limit-shards", "1"]),
    ):
        found = release(name)
        kind = "deployment" if name == "no-operator" else "kubernetes"
        (driver,) = one(found, "Job", "run-demo-driver")["spec"]["template"]["spec"]["containers"]
        assert driver["args"] == [
            *("dhs", "run", "/etc/darkhaloscope/config/config.yaml", "--set", f"cluster.kind={kind}"),
            *("--set", "cluster.objects=/etc/darkhaloscope/objects", *more),
        ]
        text = one(found, "ConfigMap", "run-demo-config")["data"]["config.yaml"]
        assert text.strip() == ci_values(name)["config"].strip()
        assert environment(driver)["DHS_JOB_NAME"] == "run-demo-driver"
    assert one(found, "Pod", "run-demo-verify")["spec"]["containers"][0]["args"][2].endswith("pilot-grid-sota-limit1")


def test_where_pods_run(release: Render, manifests: ModuleType) -> None:
    """Workers on interruptible nodes; driver and scheduler on those that stay; programs where the GPUs are."""
    pods = {component: pod for component, pod, _ in manifests.pod_specs(release("spot"))}
    key = "eks.amazonaws.com/capacityType"
    assert {
        name: pod["nodeSelector"][key] for name, pod in pods.items() if name in ("driver", "scheduler", "worker")
    } == {
        "driver": "ON_DEMAND",
        "scheduler": "ON_DEMAND",
        "worker": "SPOT",
    }
    assert [t["key"] for t in pods["worker"]["tolerations"]] == ["darkhaloscope/spot"]
    assert "tolerations" not in pods["driver"]
    assert [t["key"] for t in pods["program"]["tolerations"]] == ["nvidia.com/gpu"]
    assert pods["driver"]["priorityClassName"] == "run-driver"
    budget = one(release("spot"), "PodDisruptionBudget", "run-demo-driver")["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"]["matchLabels"]["app.kubernetes.io/component"] == "driver"


def test_programs_on_gpus(release: Render, manifests: ModuleType) -> None:
    """One pod, several pods, or the CPU; GPUs and shared memory with them."""
    several = manifests.embedded(release("gpu"))["program-job.yaml"]["spec"]
    pod = several["template"]["spec"]
    assert (several["completions"], several["parallelism"], several["completionMode"]) == (2, 2, "Indexed")
    assert pod["subdomain"] == "run-demo-trainer"
    command = pod["containers"][0]["command"]
    assert command[:3] == ["torchrun", "--nnodes=2", "--nproc-per-node=4"]
    assert "--rdzv-endpoint=$(DHS_JOB_NAME)-0.run-demo-trainer:29400" in command
    assert one(release("gpu"), "Service", "run-demo-trainer")["spec"]["clusterIP"] == "None"
    alone = manifests.embedded(release("minimal"))["program-job.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert alone["command"] == ["torchrun", "--standalone", "--nproc-per-node=1"]
    assert alone["resources"]["limits"]["nvidia.com/gpu"] == "1" == alone["resources"]["requests"]["nvidia.com/gpu"]
    shared = [v["emptyDir"] for v in pod["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory"]
    assert [v["sizeLimit"] for v in shared] == ["32Gi"]
    plain = manifests.embedded(release("no-operator"))["program-job.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert plain["command"] == ["python"] and "nvidia.com/gpu" not in plain["resources"]["limits"]


def test_accounts(release: Render, manifests: ModuleType) -> None:
    """One per role, with the annotations given; or those that somebody else made."""
    found = release("spot")
    worker = one(found, "ServiceAccount", "run-demo-worker")
    assert worker["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("darkhaloscope-worker")
    assert {c: pod["serviceAccountName"] for c, pod, _ in manifests.pod_specs(found)} == {
        **{name: f"run-demo-{name}" for name in ("driver", "worker", "program")},
        **dict.fromkeys(("scheduler", "test"), "run-demo-worker"),
    }
    given = release("locked-down")
    assert not [m for m in given if m["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    assert {pod["serviceAccountName"] for _, pod, _ in manifests.pod_specs(given)} == {
        f"runs-{name}" for name in ("driver", "worker", "program")
    }


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"config": None}, "config is empty"),
        ({"config": "- a\n- b"}, "not a YAML mapping"),
        ({"nope": 1}, "nope"),
        ({"worker": {"memory": "4Gi"}}, "memory"),
        ({"cluster": {"kind": "local"}}, "deployment"),
        ({"aws": {"region": "ohio"}}, "does not match pattern"),
        ({"aws": {"region": "us-east-1"}}, 'run.region is "us-east-2", aws.region of the values is "us-east-1"'),
        ({"image": {"worker": {"repository": "a/b"}}}, "expected a repository and a digest or tag"),
        ({"image": {"worker": {"repository": "a/b", "tag": "latest"}}}, "latest"),
        ({"image": {"worker": {"repository": "a/b", "digest": "sha256:12"}}}, "digest"),
        ({"worker": {"spillSpace": "20Gi"}}, "fill its ephemeral storage"),
        ({"program": {"sharedMemory": "64Gi"}}, "counts against"),
        ({"program": {"nodes": 2, "gpus": 0}}, "needs GPUs"),
        ({"ingress": {"enabled": True, "host": "h", "tlsSecret": "t"}}, "demands authentication"),
        ({"fullnameOverride": "a" * 51}, "does not match pattern"),
    ],
)  # fmt: skip
def test_values_that_cannot_mean_what_they_say_are_refused(
    replaced: dict[str, Any], message: str, release: Render
) -> None:
    """The message names the value and what was expected."""
    with pytest.raises(HelmError, match=re.escape(message)):
        release("minimal", **replaced)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("run", "region"), None, "must name the AWS region"),
        (("run", "root"), "runs", "expected s3://"),
        (("cluster", "memory_per_worker"), "lots", "expected a quantity"),
    ],
)
def test_configurations_that_cannot_run_on_a_cluster_are_refused(
    key: tuple[str, str], value: object, message: str, release: Render, ci_values: Any
) -> None:
    """Where the text itself cannot run in pods, before anything is created."""
    config = yaml.safe_load(ci_values("minimal")["config"])
    config[key[0]][key[1]] = value
    with pytest.raises(HelmError, match=re.escape(message)):
        release("minimal", config=yaml.safe_dump(config))


def test_a_configuration_may_be_a_mapping(release: Render, ci_values: Any) -> None:
    """Then the schema of the run configuration checks it, and the driver reads the same numbers."""
    config = yaml.safe_load(ci_values("minimal")["config"])
    text = one(release("minimal", config=config), "ConfigMap", "run-demo-config")["data"]["config.yaml"]
    assert RunConfig.model_validate(yaml.safe_load(text)) == RunConfig.model_validate(config)
    with pytest.raises(HelmError, match="additional properties 'sunvey' not allowed"):
        release("minimal", config={**config, "sunvey": {}})


def test_generated_files_are_in_step(chart_pages: ModuleType) -> None:
    """values.yaml, its schema and the README are what the model says; python docs/chart_pages.py writes them."""
    assert chart_pages.stale_files() == []
