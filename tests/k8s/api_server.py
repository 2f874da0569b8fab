"""An API server of Kubernetes for tests: real HTTP, objects in memory, the refusals of the real one.

Knows the kinds that the driver uses, owners and finalizers, label and field selectors, merge patches, the subresources
scale and log, access reviews, watches, 403 for denied rights, 404 for absent kinds, 409 for objects that exist.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
Hook = Callable[[str, str, Object], None]

KINDS = {
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "services": ("v1", "Service"),
    "configmaps": ("v1", "ConfigMap"),
    "nodes": ("v1", "Node"),
    "deployments": ("apps/v1", "Deployment"),
    "jobs": ("batch/v1", "Job"),
    "selfsubjectaccessreviews": ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
    "daskclusters": ("kubernetes.dask.org/v1", "DaskCluster"),
    "daskworkergroups": ("kubernetes.dask.org/v1", "DaskWorkerGroup"),
    "daskautoscalers": ("kubernetes.dask.org/v1", "DaskAutoscaler"),
}
_PATH = re.compile(
    r"/(?:api|apis)/(?P<version>v1|[^/]+/v\d\w*)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<subresource>[a-z]+))?)?"
)
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


class ApiServer(ThreadingHTTPServer):
    """The server; tests read and change its attributes while it runs.

    Attributes:
        objects: (resource, name) -> object. One namespace is enough for a release.
        requests: (method, path, body) of everything that was asked.
        denied: (verb, resource) that this identity may not do.
        absent: API versions that are not installed.
        logs: (pod, container) -> text; (pod, container, "previous") for the container before a restart.
        outages: statuses with which the next requests are answered.
        hooks: called after a change as hook(verb, resource, object).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[tuple[str, str], Object] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.denied: set[tuple[str, str]] = set()
        self.absent: set[str] = set()
        self.logs: dict[tuple[str, ...], str] = {}
        self.outages: list[int] = []
        self.hooks: list[Hook] = []
        self.changed = threading.Condition(threading.RLock())
        self.history: list[tuple[str, str, Object]] = []
        self._revisions = itertools.count(1)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def write_kubeconfig(self, path: Path, namespace: str = "science") -> Path:
        """A kubeconfig that leads here."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": "test"}}],
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def put(self, resource: str, name: str, **content: Any) -> Object:
        """Store an object as the cluster itself would, and return it."""
        version, kind = KINDS[resource]
        metadata = {"name": name, **content.pop("metadata", {})}
        return self.store("ADDED", resource, {"apiVersion": version, "kind": kind, "metadata": metadata, **content})

    def store(self, change: str, resource: str, content: Object) -> Object:
        """Store an object, give it identity and revision, and tell those who watch."""
        with self.changed:
            metadata = content["metadata"]
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            metadata["resourceVersion"] = str(next(self._revisions))
            self.objects[resource, metadata["name"]] = content
            self._tell(change, resource, content)
        return content

    def remove(self, resource: str, name: str) -> None:
        """Delete an object and what it owns; one with finalizers is only marked."""
        with self.changed:
            content = self.objects[resource, name]
            if content["metadata"].get("finalizers"):
                content["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self._tell("MODIFIED", resource, content)
                return
            del self.objects[resource, name]
            self._tell("DELETED", resource, content)
            uid = content["metadata"]["uid"]
            for (kind, child), found in list(self.objects.items()):
                owners = found["metadata"].get("ownerReferences", [])
                if any(owner["uid"] == uid for owner in owners) and (kind, child) in self.objects:
                    self.remove(kind, child)

    def listed(self, resource: str, labels: str = "", fields: str = "") -> list[Object]:
        """Objects of a kind that match selectors of the form a=b,c=d."""
        with self.changed:
            found = [content for (kind, _), content in sorted(self.objects.items()) if kind == resource]
        for key, value in _pairs(labels):
            found = [content for content in found if content["metadata"].get("labels", {}).get(key) == value]
        for key, value in _pairs(fields):
            found = [content for content in found if _field(content, key) == value]
        return found

    def asked(self, method: str, part: str) -> int:
        """How many requests of a method had a path with that part."""
        return sum(made == method and part in path for made, path, _ in self.requests)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is expected here."""

    def _tell(self, change: str, resource: str, content: Object) -> None:
        self.history.append((change, resource, json.loads(json.dumps(content))))
        self.changed.notify_all()
        for hook in self.hooks:
            hook(change, resource, content)


@contextmanager
def running_api_server() -> Iterator[ApiServer]:
    """A server on the loopback interface while the block runs."""
    server = ApiServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text) if text else None
        split = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        self.server.requests.append((self.command, self.path, body))
        if self.server.outages:
            self._refuse(self.server.outages.pop(0), "the server is currently unable to handle the request")
            return
        discovered = self._discover(split.path.rstrip("/"))
        if discovered is not None:
            self._send(200, discovered)
            return
        found = _PATH.fullmatch(split.path)
        if found is None or found["resource"] not in KINDS or found["version"] in self.server.absent:
            self._refuse(404, "the server could not find the requested resource")
            return
        resource, verb = found["resource"], _VERBS[self.command]
        if verb == "get" and found["name"] is None:
            verb = "watch" if query.get("watch") == "true" else "list"
        target = f"{resource}/{found['subresource']}" if found["subresource"] else resource
        if (verb, target) in self.server.denied:
            self._refuse(403, f'{resource} is forbidden: User "driver" cannot {verb} resource "{target}"')
            return
        self._serve(verb, resource, found["name"], found["subresource"], query, body)

    def _serve(
        self, verb: str, resource: str, name: str | None, subresource: str | None, query: dict[str, str], body: Any
    ) -> None:
        if verb == "create":
            self._create(resource, body)
        elif verb == "watch":
            self._watch(resource, query)
        elif name is None:
            listed = self.server.listed(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
            self._send(200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": listed})
        elif (resource, name) not in self.server.objects:
            self._refuse(404, f'{resource} "{name}" not found')
        elif subresource == "log":
            self._log(name, query)
        elif verb == "get":
            self._send(200, self.server.objects[resource, name])
        elif verb == "patch":
            self._patch(resource, name, subresource, body)
        else:
            content = self.server.objects[resource, name]
            self.server.remove(resource, name)
            self._send(200, content)

    def _create(self, resource: str, body: Object) -> None:
        if resource == "selfsubjectaccessreviews":
            wanted = body["spec"]["resourceAttributes"]
            target = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
            allowed = (wanted["verb"], target) not in self.server.denied
            self._send(201, {**body, "status": {"allowed": allowed}})
            return
        name = body["metadata"]["name"]
        if (resource, name) in self.server.objects:
            self._refuse(409, f'{resource} "{name}" already exists')
            return
        self._send(201, self.server.store("ADDED", resource, body))

    def _patch(self, resource: str, name: str, subresource: str | None, body: Object) -> None:
        with self.server.changed:
            content = self.server.objects[resource, name]
            _merge(content, body)
            if not content["metadata"].get("finalizers") and "deletionTimestamp" in content["metadata"]:
                self.server.remove(resource, name)
            else:
                self.server.store("MODIFIED", resource, content)
        if subresource == "scale":
            content = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": name}, **body}
        self._send(200, content)

    def _log(self, name: str, query: dict[str, str]) -> None:
        key: tuple[str, ...] = (name, query.get("container", ""))
        if query.get("previous") == "true":
            key = (*key, "previous")
        if key not in self.server.logs:
            self._refuse(400, f'container "{key[1]}" in pod "{name}" is waiting to start')
            return
        self._send_text(200, self.server.logs[key], "text/plain")

    def _watch(self, resource: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        until = time.monotonic() + float(query.get("timeoutSeconds", "30"))
        position = 0
        while time.monotonic() < until:
            with self.server.changed:
                if position == len(self.server.history):
                    self.server.changed.wait(0.2)
                news, position = self.server.history[position:], len(self.server.history)
            for change, kind, content in news:
                if kind == resource and all(
                    content["metadata"].get("labels", {}).get(key) == value
                    for key, value in _pairs(query.get("labelSelector", ""))
                ):
                    self.wfile.write(json.dumps({"type": change, "object": content}).encode() + b"\n")
                    self.wfile.flush()

    def _discover(self, path: str) -> Object | None:
        versions = sorted({version for version, _ in KINDS.values()} - self.server.absent)
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.1"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [
                {"name": version.split("/")[0], "versions": [{"groupVersion": version}]}
                for version in versions
                if "/" in version
            ]
            return {"kind": "APIGroupList", "groups": groups}
        for version in versions:
            if path in (f"/api/{version}", f"/apis/{version}"):
                resources = [
                    {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": name != "nodes"}
                    for name, (of, kind) in KINDS.items()
                    if of == version
                ]
                return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        return None

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"kind": "Status", "status": "Failure", "message": message, "code": status})

    def _send(self, status: int, content: Object) -> None:
        self._send_text(status, json.dumps(content), "application/json")

    def _send_text(self, status: int, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _pairs(selector: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in selector.split(",") if part)
    return [(key, value.lstrip("=")) for key, _, value in parts]


def _field(content: Object, key: str) -> Any:
    found: Any = content
    for part in key.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found


def _merge(content: Object, patch: Object) -> None:
    for key, value in patch.items():
        if value is None:
            content.pop(key, None)
        elif isinstance(value, dict) and isinstance(content.get(key), dict):
            _merge(content[key], value)
        else:
            content[key] = value
