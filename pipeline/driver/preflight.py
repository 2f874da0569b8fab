"""Everything that would cost a day later is looked at first, before anything is made."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.kube_release import Release
from pipeline.driver.preflight_checks import (
    Check,
    check_kernel_folder,
    check_region_variables,
    check_storage,
    unknown,
)
from pipeline.driver.preflight_release import check_release

logger = logging.getLogger("pipeline.driver")


def preflight(config: RunConfig) -> list[Check]:
    """The checks that apply to a configuration here: on one machine storage and numba, in a release all of them.

    Outside a release, where its pods and templates cannot be seen, one line says so.
    """
    checks = [*check_storage(config), check_kernel_folder()]
    if not config.cluster.on_kubernetes:
        return checks
    try:
        release = Release.of(config.cluster)
    except ConfigError as error:
        return [*checks, unknown("release", str(error))]
    checks += check_region_variables(config)
    with KubeApi(release.namespace) as api:
        return [*checks, *check_release(config, release, api)]


def demand_preflight(config: RunConfig) -> None:
    """Log every check of a run on Kubernetes; other runs are not looked at.

    Raises:
        ConfigError: a check failed; names all that did.
    """
    if not config.cluster.on_kubernetes:
        return
    checks = preflight(config)
    for check in checks:
        level = logging.INFO if check.state == "ok" else logging.WARNING
        logger.log(
            level, "preflight", extra={"fields": {"check": check.name, "state": check.state, "is": check.detail}}
        )
    raise_failed(checks)


def raise_failed(checks: Sequence[Check]) -> None:
    """ConfigError that names every failed check; nothing if none failed."""
    failed = [f"{check.name}: {check.detail}" for check in checks if check.state == "failed"]
    if failed:
        raise ConfigError(f"{len(failed)} preflight checks failed: {'; '.join(failed)}")


def as_table(checks: Sequence[Check]) -> str:
    """One line per check: state, name, detail."""
    width = max((len(check.name) for check in checks), default=0)
    return "\n".join(f"{check.state:8}{check.name:{width}}  {check.detail}" for check in checks)
