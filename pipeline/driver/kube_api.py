"""The Kubernetes API as the driver uses it: plain objects over kr8s's authenticated session."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import httpx
import kr8s
import kr8s.asyncio
from anyio.from_thread import start_blocking_portal

from pipeline.contracts.errors import ClusterError, ConfigError

logger = logging.getLogger("pipeline.driver")

# Plural name -> API version; only what Kubernetes 1.28 has.
RESOURCES = {
    "pods": "v1",
    "events": "v1",
    "services": "v1",
    "nodes": "v1",
    "deployments": "apps/v1",
    "jobs": "batch/v1",
    "selfsubjectaccessreviews": "authorization.k8s.io/v1",
    "daskclusters": "kubernetes.dask.org/v1",
    "daskworkergroups": "kubernetes.dask.org/v1",
}
_CLUSTER_WIDE = ("nodes", "selfsubjectaccessreviews")
_REQUEST_TIMEOUT_S = 30.0
_PATIENCE_S = 120.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_BUSY = (429, 500, 502, 503, 504)
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}

Object = dict[str, Any]


class KubeApi:
    """Requests to one namespace. Reading and patching outlast two minutes of an API server that does not answer.

    Raises:
        ConfigError: no credentials, or a right is missing (403); retrying is useless.
        ClusterError: every other refusal, and an API server that stays away.
    """

    def __init__(self, namespace: str, patience_s: float = _PATIENCE_S) -> None:
        self.namespace = namespace
        self._patience_s = patience_s
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        try:
            self._api = self._opened()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session, and stop the thread that it lives in."""
        self._portal.call(self._hang_up)
        self._stack.close()

    def version(self) -> str:
        """The server's version, such as v1.33.1."""
        return str(self._json("GET", "", base="/version")["gitVersion"])

    def find(self, resource: str, name: str) -> Object | None:
        """An object, or None where there is none."""
        found: Object | None = self._json("GET", resource, name, absent=True)
        return found

    def listed(self, resource: str, selector: str = "") -> list[Object]:
        """The objects of a kind, those with matching labels only if a selector is given."""
        params = {"labelSelector": selector} if selector else None
        return list(self._json("GET", resource, params=params).get("items", []))

    def create(self, resource: str, content: Mapping[str, Any]) -> Object:
        """Create an object; returns it as stored."""
        stored: Object = self._json("POST", resource, content=json.dumps(content), patient=False)
        return stored

    def patch(self, resource: str, name: str, content: Mapping[str, Any], subresource: str = "") -> Object:
        """Merge fields into an object; returns it as stored."""
        path = f"{name}/{subresource}" if subresource else name
        stored: Object = self._json("PATCH", resource, path, content=json.dumps(content), headers=_MERGE_PATCH)
        return stored

    def delete(self, resource: str, name: str) -> None:
        """Delete an object and, in the background, what it owns; nothing happens if it is not there."""
        policy = json.dumps({"propagationPolicy": "Background"})
        self._json("DELETE", resource, name, content=policy, absent=True)

    def log(
        self,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        since_time: str | None = None,
        timestamps: bool = False,
    ) -> str:
        """What a container wrote; empty if it never started. `previous`: the container before the last restart."""
        flags = {"previous": previous, "timestamps": timestamps}
        params = {"container": container, **{name: "true" for name, value in flags.items() if value}}
        if since_time is not None:
            params["sinceTime"] = since_time
        return self._request("GET", "pods", f"{pod}/log", params=params, accepted=(200, 400, 404)) or ""

    def allowed(self, verb: str, resource: str, subresource: str = "", name: str = "") -> bool:
        """True if this identity may do that in the namespace (SelfSubjectAccessReview)."""
        group, _, _ = RESOURCES[resource].rpartition("/")
        attributes = {"verb": verb, "group": group, "resource": resource}
        if resource not in _CLUSTER_WIDE:
            attributes["namespace"] = self.namespace
        if subresource:
            attributes["subresource"] = subresource
        if name:
            attributes["name"] = name
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return bool(self.create("selfsubjectaccessreviews", review)["status"]["allowed"])

    def serves(self, resource: str) -> bool:
        """True if the server knows the kind; for custom resources, if their definition is installed."""
        version = RESOURCES[resource]
        found = self._json("GET", "", version, base="/api" if version == "v1" else "/apis", absent=True)
        return found is not None and any(entry["name"] == resource for entry in found["resources"])

    def _opened(self) -> Any:
        wait, until = _FIRST_WAIT_S, time.monotonic() + self._patience_s
        while True:
            try:
                return self._portal.call(self._open)
            except ClusterError as error:
                if time.monotonic() + wait > until:
                    raise
                logger.warning("the API server did not answer", extra={"fields": {"reason": str(error)[:200]}})
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    async def _hang_up(self) -> None:
        # kr8s has no way of closing its session.
        if self._api._session is not None:
            await self._api._session.aclose()

    async def _open(self) -> Any:
        with _explained("find the API server"):
            try:
                return await kr8s.asyncio.api(namespace=self.namespace)
            except (ValueError, FileNotFoundError) as error:
                raise ConfigError(f"no Kubernetes credentials: {error}") from error

    def _json(self, method: str, resource: str, path: str = "", *, absent: bool = False, **options: Any) -> Any:
        accepted = (200, 201, 202, 404) if absent else (200, 201, 202)
        text = self._request(method, resource, path, accepted=accepted, **options)
        return None if text is None else json.loads(text)

    def _request(
        self,
        method: str,
        resource: str,
        path: str = "",
        *,
        accepted: tuple[int, ...],
        patient: bool = True,
        **options: Any,
    ) -> str | None:
        """The body, or None for 400 and 404 where these are accepted; tried again while the server is away."""
        action = f"{method} {resource} {path}".strip()
        wait, until = _FIRST_WAIT_S, time.monotonic() + self._patience_s
        while True:
            with _explained(action):
                try:
                    status, text = self._portal.call(self._send, method, resource, path, options)
                except (httpx.TransportError, kr8s.APITimeoutError) as error:
                    status, text = 503, f"{type(error).__name__}: {error}"
            if status in accepted:
                return text if status < 400 else None
            if not (patient and status in _BUSY and time.monotonic() + wait < until):
                raise _refusal(action, self.namespace, status, text)
            logger.warning("the API server did not answer", extra={"fields": {"action": action, "reason": text[:200]}})
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    async def _send(self, method: str, resource: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
        version = RESOURCES.get(resource, "")
        namespace = None if resource in ("", *_CLUSTER_WIDE) else self.namespace
        url = "/".join(filter(None, (resource, path)))
        arguments = {"timeout": _REQUEST_TIMEOUT_S, "raise_for_status": True, **options}
        try:
            async with self._api.call_api(method, version=version, url=url, namespace=namespace, **arguments) as answer:
                return answer.status_code, answer.text
        except kr8s.ServerError as error:
            if error.response is None:
                raise
            return error.response.status_code, error.response.text


@contextmanager
def _explained(action: str) -> Iterator[None]:
    try:
        yield
    except (kr8s.ServerError, kr8s.APITimeoutError, httpx.HTTPError, OSError) as error:
        raise ClusterError(f"Kubernetes API: cannot {action}: {type(error).__name__}: {error}") from error


def _refusal(action: str, namespace: str, status: int, text: str) -> ClusterError | ConfigError:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text[:300]
    kind = ConfigError if status in (401, 403) else ClusterError
    return kind(f"Kubernetes API: {action} in namespace {namespace}: {status} {message}")
