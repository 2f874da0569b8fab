"""`dhs status|logs|cancel|resume`: a run by its folder, or a release by k8s://NAMESPACE/RELEASE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.contracts.errors import ConfigError
from pipeline.driver.helm_release import HANDLE_SCHEME, ReleaseName
from pipeline.driver.inspection import as_json, layout_of, run_status
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.local_runs import cancel_run, driver_lines, resume_run, write_lines
from pipeline.driver.release_end import cancel_release, resume_release
from pipeline.driver.release_watch import component_lines, follow_driver, release_status
from pipeline.storage.locations import Location, RunLayout

Run = Annotated[str, typer.Argument(metavar="RUN", help="folder of a run, local or s3://; or k8s://NAMESPACE/RELEASE")]
Region = Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")]
Component = Literal["driver", "scheduler", "worker", "program"]


def status_command(run_url: Run, region: Region = None, endpoint_url: Endpoint = None) -> None:
    """Show how far a run is. Reads its record and receipts, of a release its Job and pods too; writes nothing."""
    if run_url.startswith(HANDLE_SCHEME):
        release = ReleaseName.parse(run_url)
        with KubeApi(release.namespace) as api:
            typer.echo(as_json(release_status(api, release)))
        return
    typer.echo(as_json(run_status(layout_of(run_url, region, endpoint_url))))


def logs_command(
    run_url: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the driver has ended")] = False,
    component: Annotated[Component, typer.Option(help="of a release: whose logs")] = "driver",
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Print what a run's driver said, or a component of a release. Reads driver.log or pods; writes nothing."""
    if not run_url.startswith(HANDLE_SCHEME):
        if component != "driver":
            raise ConfigError(f"--component {component} is for releases; a folder holds the driver's log")
        write_lines(driver_lines(_layout(run_url, region, endpoint_url), follow))
        return
    if follow and component != "driver":
        raise ConfigError(f"--follow shows the driver, not the {component}")
    release = ReleaseName.parse(run_url)
    with KubeApi(release.namespace) as api:
        write_lines(follow_driver(api, release) if follow else component_lines(api, release, component))


def cancel_command(
    run_url: Run,
    logs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="for a release's logs; by default <release>-logs"),
    ] = None,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """End a run; finished shards stay. Reads driver.json, sends SIGTERM; of a release writes its logs, removes it."""
    if not run_url.startswith(HANDLE_SCHEME):
        driver = cancel_run(_layout(run_url, region, endpoint_url))
        typer.echo(f"asked process {driver.pid} to end; dhs resume {run_url} goes on from there")
        return
    release = ReleaseName.parse(run_url)
    with KubeApi(release.namespace) as api:
        saved = cancel_release(api, release, logs or Path(f"{release.name}-logs"))
    for path in saved:
        typer.echo(path)


def resume_command(
    run_url: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override, such as cluster.workers=4"),
    ] = None,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Run again what is not done. Reads the run's config.yaml; of a release, makes its Job anew. Writes as dhs run."""
    if not run_url.startswith(HANDLE_SCHEME):
        layout = resume_run(_layout(run_url, region, endpoint_url), overrides or [])
        typer.echo(f"run    {layout.root.url}")
        return
    if overrides:
        raise ConfigError("--set is for folders; a release runs what it was installed with: submit another one")
    release = ReleaseName.parse(run_url)
    with KubeApi(release.namespace) as api:
        resume_release(api, release)
    typer.echo(release.handle)


def _layout(run_url: str, region: str | None, endpoint_url: str | None) -> RunLayout:
    """The run in a folder, also one that has no record yet."""
    return RunLayout(Location(run_url, region, endpoint_url))
