"""`dhs sample`: what sampling would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.config_file import load_config
from pipeline.driver.inspection import as_json
from pipeline.driver.sample_plan import plan_sampling
from pipeline.report.sample_plan_text import plan_lines

app = typer.Typer(no_args_is_help=True, help="Control of the SNR distribution.")


@app.callback()
def _sample() -> None:
    """Control of the SNR distribution."""


@app.command("plan")
def sample_plan_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/demo.yaml")],
    json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    draws: Annotated[
        int | None, typer.Option("--draws", metavar="N", min=256, help="pilot draws; sampling.pilot_draws if not given")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as sampling.hosts=pooled")
    ] = None,
) -> None:
    """Predict acceptance, reach and cost of every sampling method from a pilot on some rows of the manifest.

    Reads rows, and the bricks around them unless the run's cutouts are published; writes nothing. Ends with code 2
    if the target asks for an SNR that the priors never reach.
    """
    document = plan_sampling(load_config(config, overrides or []), draws)
    typer.echo(as_json(document) if json_output else plan_lines(document))
