"""Kind `kubernetes`: a DaskCluster that the operator makes from the chart's template, owned by the driver's Job."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from contextlib import ExitStack

import httpx
import kr8s
from dask_kubernetes.constants import MAX_CLUSTER_NAME_LEN, VALID_CLUSTER_NAME
from dask_kubernetes.operator import KubeCluster
from distributed.utils import LoopRunner, sync

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.errors import ClusterError, ConfigError, PipelineError
from pipeline.driver.kube_api import KubeApi, Object
from pipeline.driver.kube_pods import is_ready, release_problems
from pipeline.driver.kube_release import Release, is_owned_by

logger = logging.getLogger("pipeline.driver")

OPERATOR_INSTALL = (
    "helm install dask-operator dask-kubernetes-operator --repo https://helm.dask.org --version 2026.3.0 "
    "--namespace dask-operator --create-namespace"
)
SPEC_ANNOTATION = "darkhaloscope/spec-sha256"
_POLL_S = 1.0
_DELETE_TIMEOUT_S = 60.0


class OperatorCluster:
    """The DaskCluster of a release: made, adopted from a driver that died, scaled, deleted."""

    def __init__(self, section: ClusterSection) -> None:
        self._section = section
        self._release = Release.of(section)
        self._stack = ExitStack()
        self._api = self._stack.enter_context(KubeApi(self._release.namespace))
        self._template = self._release.template("daskcluster")
        self._name = str(self._template["metadata"]["name"])
        if not VALID_CLUSTER_NAME.match(self._name):
            self._stack.close()
            raise ConfigError(
                f"DaskCluster {self._name!r}: the operator takes names of at most {MAX_CLUSTER_NAME_LEN} characters of "
                "a-z, 0-9 and -; give the release another name"
            )

    def connect(self) -> str:
        """Make or adopt the cluster and wait for its scheduler; returns the scheduler's address.

        Never looks at status.phase, which may say Pending for ever while everything runs.

        Raises:
            ConfigError: the operator's definitions or the rights are missing.
            ClusterError: the scheduler was not ready within no_workers_timeout_s; says why.
        """
        until = time.monotonic() + self._section.no_workers_timeout_s
        self._make_or_adopt(until)
        while not any(is_ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in self._scheduler_pods()):
            if time.monotonic() > until:
                raise ClusterError(self._not_ready())
            time.sleep(_POLL_S)
        return self._address(max(until - time.monotonic(), _POLL_S))

    def scale(self, workers: int) -> None:
        """Ask the operator for that many workers; it retires those that are too many."""
        group = f"{self._name}-default"
        self._api.patch("daskworkergroups", group, {"spec": {"worker": {"replicas": workers}}})

    def problems(self) -> list[str]:
        """Why workers may be missing, in the words of Kubernetes."""
        return release_problems(self._api, self._release.selector, self._release.fullname)

    def close(self) -> None:
        """Delete the cluster; one that waits for an absent operator is left to it, and this is said."""
        try:
            self._delete()
        except PipelineError as error:
            logger.warning("the DaskCluster stays behind", extra={"fields": {"reason": str(error)}})
        finally:
            self._stack.close()

    def _make_or_adopt(self, until: float) -> None:
        if not self._api.serves("daskclusters"):
            raise ConfigError(
                f"no DaskCluster can be made, the Dask operator is not installed; run: {OPERATOR_INSTALL}"
            )
        wanted = self._release.owned(self._api, self._template)
        annotations = wanted["metadata"].setdefault("annotations", {})
        annotations[SPEC_ANNOTATION] = hashlib.sha256(json.dumps(wanted["spec"], sort_keys=True).encode()).hexdigest()
        found = self._api.find("daskclusters", self._name)
        if found is not None and _is_the_same(found, wanted):
            logger.info("adopted the cluster of an earlier driver", extra={"fields": {"cluster": self._name}})
            return
        if found is not None:
            logger.warning("replacing a cluster that was left behind", extra={"fields": {"cluster": self._name}})
            self._delete()
        self._await_leftovers(until)
        self._api.create("daskclusters", wanted)
        logger.info("created a cluster", extra={"fields": {"cluster": self._name}})

    def _await_leftovers(self, until: float) -> None:
        """Wait until nothing of a deleted cluster is left: the operator would take it for the new one's."""
        while left := self._leftovers():
            if time.monotonic() > until:
                raise ClusterError(f"an earlier cluster {self._name} is deleted, and still there are {', '.join(left)}")
            time.sleep(_POLL_S)

    def _leftovers(self) -> list[str]:
        whole = f"dask.org/cluster-name={self._name}"
        found = {kind: self._api.listed(kind, whole) for kind in ("deployments", "services", "daskworkergroups")}
        found["pods"] = self._scheduler_pods()
        return [f"{kind}/{content['metadata']['name']}" for kind, contents in found.items() for content in contents]

    def _scheduler_pods(self) -> list[Object]:
        return self._api.listed("pods", f"dask.org/cluster-name={self._name},dask.org/component=scheduler")

    def _not_ready(self) -> str:
        message = f"the scheduler of {self._name} was not ready within {self._section.no_workers_timeout_s:g} s"
        reasons = self.problems()
        if not reasons and not self._scheduler_pods():
            reasons = [f"the operator made no scheduler pod; is it running? Installed by: {OPERATOR_INSTALL}"]
        return f"{message}: {'; '.join(reasons) or 'no pod says why'}"

    def _address(self, timeout_s: float) -> str:
        """Through KubeCluster, which also finds a way from outside the cluster's network."""
        runner = LoopRunner()
        runner.start()

        async def attach() -> str:
            cluster = await KubeCluster.from_name(
                self._name, namespace=self._release.namespace, asynchronous=True, loop=runner.loop, quiet=True
            )
            address = str(cluster.scheduler_address)
            await cluster.close()
            return address

        try:
            return str(sync(runner.loop, attach, callback_timeout=timeout_s))
        except (
            TimeoutError,
            OSError,
            ValueError,
            KeyError,
            httpx.HTTPError,
            kr8s.ServerError,
            kr8s.NotFoundError,
        ) as error:
            raise ClusterError(f"the scheduler of {self._name} is ready and does not answer: {error!r}") from error
        finally:
            runner.stop()

    def _delete(self) -> None:
        self._api.delete("daskclusters", self._name)
        until = time.monotonic() + _DELETE_TIMEOUT_S
        while (found := self._api.find("daskclusters", self._name)) is not None:
            if time.monotonic() > until:
                raise ClusterError(_undeletable(found, self._release.namespace))
            time.sleep(_POLL_S)


def _is_the_same(found: Object, wanted: Object) -> bool:
    """True if an existing cluster is ours, of the same template, and not being deleted."""
    metadata = found["metadata"]
    return (
        "deletionTimestamp" not in metadata
        and is_owned_by(found, wanted)
        and metadata.get("annotations", {}).get(SPEC_ANNOTATION) == wanted["metadata"]["annotations"][SPEC_ANNOTATION]
    )


def _undeletable(found: Object, namespace: str) -> str:
    name, finalizers = found["metadata"]["name"], found["metadata"].get("finalizers", [])
    return (
        f"DaskCluster {name} is not gone {_DELETE_TIMEOUT_S:g} s after its deletion and waits for {finalizers}: the "
        "operator seems to be down. It goes when the operator is back, or with: "
        f'kubectl -n {namespace} patch daskcluster {name} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\''
    )
