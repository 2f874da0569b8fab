"""`dhs submit`: a configuration becomes a release of the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.driver.helm_release import (
    ReleaseName,
    Submission,
    chart_kind,
    default_chart,
    install,
    rendered,
    submitted_config,
)
from pipeline.driver.kube_api import KubeApi
from pipeline.driver.local_runs import write_lines
from pipeline.driver.release_watch import wait_for_end


def submit_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/pilot.yaml")],
    release: Annotated[
        str | None, typer.Option(metavar="NAME", help="of the release; by default run-<run.name>")
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="where the release goes")] = "default",
    values: Annotated[
        list[Path] | None, typer.Option("--values", "-f", metavar="FILE", help="values of the chart; later files win")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--chart-set", metavar="KEY=VALUE", help="one value of the chart; repeat")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as shards.samples=256")
    ] = None,
    limit_shards: Annotated[
        int | None, typer.Option("--limit-shards", min=1, help="only the first N shards, as a run of its own")
    ] = None,
    chart: Annotated[
        str | None, typer.Option(metavar="CHART", help="folder, archive or oci:// address; by default this checkout's")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="show the driver's log and end with its exit code")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1.0, help="with --wait: longest wait [s]")] = 172_800.0,
    stuck_s: Annotated[
        float, typer.Option("--stuck", min=0.0, help="with --wait: longest wait for an image or a node [s]")
    ] = 600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the objects; nothing is sent")] = False,
) -> None:
    """Run CONFIG on Kubernetes, as a release of the chart. Reads CONFIG and values; writes the release.

    The configuration is checked here first, exactly as the driver will; helm and the rights to use the namespace are
    needed. Prints k8s://NAMESPACE/RELEASE, which dhs status, logs, cancel and resume take.
    """
    files, given = tuple(values or ()), tuple(settings or ())
    resolved = submitted_config(config, overrides or [], chart_kind(files, given))
    name = ReleaseName(namespace, release) if release else ReleaseName.of_run(namespace, resolved.run.name)
    submission = Submission(resolved, name, chart or default_chart(), files, given, limit_shards)
    if dry_run:
        typer.echo(rendered(submission))
        return
    notes = install(submission)
    if not wait:
        typer.echo(notes, err=True)
        typer.echo(name.handle)
        return
    typer.echo(name.handle, err=True)
    with KubeApi(namespace) as api:
        write_lines(wait_for_end(api, name, timeout_s, stuck_s))
    typer.echo(name.handle)
