"""`dhs gates`: judge a published training cube before GPU time is spent on it, and the network that came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.config_file import load_config
from pipeline.driver.gating import demand_passed, gate_cube
from pipeline.driver.inspection import cube_location
from pipeline.report.verdicts import verdict_table
from pipeline.stages.gates.suite import gates_document
from pipeline.storage.locations import Location
from pipeline.storage.runs import write_json

app = typer.Typer(add_completion=False, help="Judge training cubes.")


@app.command("gates")
def gates_command(
    cube: Annotated[
        str, typer.Argument(metavar="CUBE", help="training cube of a run, such as runs/demo/cubes/training")
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="CKPT", help="checkpoint of a network: judge it too"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="take bounds and waivers from this file, not from the run")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="results; RUN/diagnostics/gates.json if not given"),
    ] = None,
    region: Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")] = None,
    endpoint_url: Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")] = None,
) -> None:
    """Run every gate on a training cube, and end with exit code 3 if one fails that is not waived.

    Reads CUBE, the record and the cutouts of its run. With --model, scores the network on changed stamps of the test
    split, unless its probes/ hold that already; this needs torch. Writes the results as JSON; the run's own gates.json
    and record stay as they are. Prints the verdicts.
    """
    bounds = None if config is None else load_config(config).gates
    checkpoint = None if model is None else Location(model, region, endpoint_url)
    found = gate_cube(cube_location(cube, region, endpoint_url), bounds, checkpoint)
    target = found.layout.diagnostics.join("gates.json") if output is None else Location(output, region, endpoint_url)
    write_json(target, gates_document(found.results, found.config))
    typer.echo(verdict_table(found.results))
    typer.echo(target.url)
    demand_passed(found.results)
