"""Turn the Deployments of a rendered release into Pods that `podman kube play --network host` can run.

Reads the manifests from standard input, writes Pods to standard output. Everything the pods are made of stays: image,
arguments, environment, security contexts, resources, volumes. What podman lacks is replaced: there are no Services, so
the scheduler's is 127.0.0.1; a host network takes no ports; volumes are named per host, so each pod gets its own; no
driver scales the Deployments up, so workers get `--workers` pods and the scheduler one; nothing is spread over zones.
"""

import argparse
import sys
from typing import Any

import yaml

_COMPONENT = "app.kubernetes.io/component"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", required=True, type=int, help="pods of the workers' Deployment")
    arguments = parser.parse_args()
    objects = [found for found in yaml.safe_load_all(sys.stdin) if found]
    pods = pods_of(objects, arguments.workers)
    if not pods:
        sys.exit("expected Deployments on standard input (cluster.kind=deployment), got none")
    yaml.safe_dump_all(pods, sys.stdout, sort_keys=False)


def pods_of(objects: list[dict[str, Any]], workers: int) -> list[dict[str, Any]]:
    """Pods of all Deployments, in their order.

    Args:
        objects: what `helm template` rendered.
        workers: pods of the Deployment whose component is worker.
    """
    services = [found["metadata"]["name"] for found in objects if found["kind"] == "Service"]
    return [
        _pod(found, number, services)
        for found in objects
        if found["kind"] == "Deployment"
        for number in range(workers if found["metadata"]["labels"][_COMPONENT] == "worker" else 1)
    ]


def _pod(deployment: dict[str, Any], number: int, services: list[str]) -> dict[str, Any]:
    template = deployment["spec"]["template"]
    name = f"{deployment['metadata']['name']}-{number}"
    spec = {key: value for key, value in template["spec"].items() if key != "topologySpreadConstraints"}
    spec["volumes"] = [{**volume, "name": f"{name}-{volume['name']}"} for volume in spec["volumes"]]
    spec["containers"] = [_container(container, name, services) for container in spec["containers"]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": template["metadata"]["labels"]},
        "spec": {**spec, "hostNetwork": True, "restartPolicy": "Never"},
    }


def _container(container: dict[str, Any], pod: str, services: list[str]) -> dict[str, Any]:
    local = {f"tcp://{service}:": "tcp://127.0.0.1:" for service in services}
    env = []
    for variable in container["env"]:
        value = variable.get("value")
        for remote, here in local.items():
            value = value.replace(remote, here) if value else value
        env.append({**variable, "value": value} if value is not None else variable)
    kept = {key: value for key, value in container.items() if key not in {"ports", "readinessProbe", "livenessProbe"}}
    mounts = [{**mount, "name": f"{pod}-{mount['name']}"} for mount in container["volumeMounts"]]
    return {**kept, "env": env, "volumeMounts": mounts}


if __name__ == "__main__":
    main()
