"""What the chart renders: as objects, and whether an API server would take them as they are."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

CHART = Path(__file__).parent / "darkhaloscope"
# Kubernetes minor versions whose API the objects must satisfy.
VERSIONS = tuple(f"1.{minor}" for minor in range(28, 38))
_SCHEMAS = "kubernetes-json-schema"
_CRDS = "operator/deployment/helm/dask-kubernetes-operator/crds"

Manifest = dict[str, Any]


def render(values: dict[str, Any], name: str = "run-demo", namespace: str = "lenses") -> list[Manifest]:
    """Every object of a release, helm hooks too; HelmError with the chart's message where it refuses the values."""
    with Chart.load(CHART) as chart:
        files = chart.render(values=values, name=name, namespace=namespace)
    texts = [text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def embedded(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The objects that the driver creates, by the name of their file in the ConfigMap."""
    (objects,) = [m for m in manifests if m["kind"] == "ConfigMap" and m["metadata"]["name"].endswith("-objects")]
    return {name: yaml.safe_load(text) for name, text in (objects.get("data") or {}).items()}


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every pod that a release can make: component, pod spec, labels."""
    for manifest in (*manifests, *embedded(manifests).values()):
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Pod":
            pods = [(manifest["metadata"], spec)]
        elif manifest["kind"] in ("Job", "Deployment"):
            pods = [(spec["template"]["metadata"], spec["template"]["spec"])]
        elif manifest["kind"] == "DaskCluster":
            pods = [(spec[part]["metadata"], spec[part]["spec"]) for part in ("scheduler", "worker")]
        else:
            pods = []
        for metadata, pod in pods:
            yield metadata["labels"]["app.kubernetes.io/component"], pod, metadata["labels"]


def problems_of(manifest: Manifest, versions: tuple[str, ...] = VERSIONS) -> list[str]:
    """What API servers of these versions would refuse or silently drop; custom resources by their CRD."""
    name, api = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest["apiVersion"]
    if api.startswith("kubernetes.dask.org/"):
        return [f"{name}: {line}" for line in _errors(dask_schema(manifest["kind"]), manifest)]
    validators = {version: api_schema(version, api, manifest["kind"]) for version in versions}
    return [f"{name} on {version}: {line}" for version, it in validators.items() for line in _errors(it, manifest)]


def _errors(validator: Draft202012Validator, manifest: Manifest) -> list[str]:
    found = validator.iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@cache
def api_schema(version: str, api: str, kind: str) -> Draft202012Validator:
    """Strict schema of a built-in kind in a minor version of Kubernetes; FileNotFoundError for an unknown kind."""
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = schema_contents(f"{_SCHEMAS}/v{version}.0-local-strict/{kind.lower()}-{name}.json", version)
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


@cache
def _definitions(version: str) -> Registry:
    content = schema_contents(f"{_SCHEMAS}/v{version}.0-local-strict/_definitions.json", version)
    return Resource.from_contents(content) @ Registry()


@cache
def dask_schema(kind: str) -> Draft202012Validator:
    """Schema of a custom resource of the Dask operator; it refuses unknown fields, which an API server prunes."""
    path = importlib.resources.files("dask_kubernetes") / _CRDS / f"{kind.lower()}.yaml"
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    _close(schema)
    return Draft202012Validator(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    elif isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        for item in schema.values():
            _close(item)
