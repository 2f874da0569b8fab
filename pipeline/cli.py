"""dhs: parse, call one function, print where the result is."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import yaml

from pipeline.commands.anchors import app as anchors_app
from pipeline.commands.bank import app as bank_app
from pipeline.commands.cache import cache_command
from pipeline.commands.emr import compact_command, completeness_command, export_command, import_command
from pipeline.commands.gates import gates_command
from pipeline.commands.manifest import app as manifest_app
from pipeline.commands.migrate_config import migrate_config_command
from pipeline.commands.models import models_command
from pipeline.commands.plan import plan_command
from pipeline.commands.preflight import preflight_command
from pipeline.commands.render import render_command
from pipeline.commands.runs import cancel_command, logs_command, resume_command, status_command
from pipeline.commands.sample import app as sample_app
from pipeline.commands.score import score_command
from pipeline.commands.submit import submit_command
from pipeline.commands.worker import worker_command
from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ClusterError, ConfigError, PipelineError
from pipeline.driver.inspection import (
    as_json,
    cube_location,
    inspect_cube,
    layout_of,
    verify_run,
)
from pipeline.driver.run import STAGES, run
from pipeline.driver.synthetic_survey import write_survey
from pipeline.logs import configure_logging
from pipeline.report.page import write_report
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.locations import Location

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Strong-lens injection for the DESI Legacy Surveys: bricks to cubes to a trained finder.\n\n"
    "Exit codes: 0 done and verified, 2 configuration or data contract, 3 verification or gate failed, "
    "75 storage or cluster failed and may be tried again.",
)
config_app = typer.Typer(no_args_is_help=True, help="Show configurations and their schema.")
app.add_typer(config_app, name="config")
app.add_typer(bank_app, name="bank")
app.add_typer(anchors_app, name="anchors")
app.add_typer(manifest_app, name="manifest")
app.add_typer(sample_app, name="sample")
app.command("cache")(cache_command)
app.command("migrate-config")(migrate_config_command)
app.command("plan")(plan_command)
app.command("render")(render_command)
app.command("gates")(gates_command)
app.command("models")(models_command)
app.command("score")(score_command)
app.command("export")(export_command)
app.command("import")(import_command)
app.command("completeness")(completeness_command)
app.command("compact")(compact_command)
app.command("preflight")(preflight_command)
app.command("worker")(worker_command)
app.command("submit")(submit_command)
app.command("status")(status_command)
app.command("logs")(logs_command)
app.command("cancel")(cancel_command)
app.command("resume")(resume_command)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/demo.yaml")]
RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="folder of a run, local or s3://")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as shards.samples=256")
]
Limit = Annotated[
    int | None, typer.Option("--limit-shards", min=1, help="only the first N shards, as a run of its own")
]
Region = Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")]


@app.command("run")
def run_command(
    config: ConfigFile,
    limit_shards: Limit = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help=f"one of {', '.join(STAGES)}")] = None,
    overrides: Overrides = None,
) -> None:
    """Run the pipeline; run it again to resume.

    Reads the manifest and the bricks that CONFIG names. Writes <root>/<name>/: plan, receipts, the
    cutouts and training cubes, gates.json, training/ (checkpoint, scores) and report/index.html.
    """
    if only is not None and only not in STAGES:
        raise ConfigError(f"--only {only!r}: expected one of {', '.join(STAGES)}")
    layout = run(load_config(config, overrides or []), limit_shards, only)
    typer.echo(f"run    {layout.root.url}")
    typer.echo(f"report {layout.report.join('index.html').url}")


@app.command("verify")
def verify_command(run_url: RunUrl, region: Region = None, endpoint_url: Endpoint = None) -> None:
    """Read every object of a run's cubes and compare it with its receipt. Writes nothing."""
    typer.echo(as_json(verify_run(layout_of(run_url, region, endpoint_url))))


@app.command("report")
def report_command(run_url: RunUrl, region: Region = None, endpoint_url: Endpoint = None) -> None:
    """Write report/index.html of a run anew. Reads its record, cubes, gates and training output."""
    typer.echo(write_report(layout_of(run_url, region, endpoint_url)).url)


@app.command("inspect")
def inspect_command(
    cube: Annotated[str, typer.Argument(metavar="CUBE", help="folder of a cube, such as runs/demo/cubes/training")],
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Describe a published cube. Reads its attributes and columns: unit, meaning, range. Writes nothing."""
    typer.echo(as_json(inspect_cube(cube_location(cube, region, endpoint_url))))


@app.command("synth")
def synth_command(
    root: Annotated[str, typer.Argument(metavar="FOLDER", help="folder of the survey, local or s3://")],
    seed: Annotated[int, typer.Option(help="everything random follows from it")],
    bricks: Annotated[int, typer.Option(min=1, help="number of bricks")] = 8,
    brick_size_px: Annotated[int, typer.Option(help="3600 in DR10; a multiple of 100")] = 3600,
    hosts_per_brick: Annotated[int, typer.Option(min=1, help="galaxies per brick in the catalogue")] = 40,
    layout: Annotated[str, typer.Option(help="cache or public")] = "cache",
    processes: Annotated[int, typer.Option(min=1, help="bricks made at the same time")] = 2,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Make a synthetic survey. Writes FOLDER/coadd/ in the DR10 format and FOLDER/parent.parquet."""
    if layout not in ("cache", "public"):
        raise ConfigError(f"--layout {layout!r}: expected cache or public")
    sky = SyntheticSky(seed=seed, brick_size_px=brick_size_px, hosts_per_brick=hosts_per_brick)
    parent = write_survey(Location(root, region, endpoint_url), sky, bricks, layout, processes)
    typer.echo(parent.url)


@config_app.command("schema")
def config_schema_command() -> None:
    """Print the JSON schema of a configuration file."""
    typer.echo(json.dumps(RunConfig.model_json_schema(), indent=1))


@config_app.command("show")
def config_show_command(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print a configuration with every default and override resolved."""
    resolved = load_config(config, overrides or [])
    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False))
    typer.echo(f"# sha256 {resolved.sha256()}")


def main() -> None:
    """Entry point of `dhs`: run a command; a PipelineError becomes one line and its exit code.

    SIGTERM or SIGINT ends the command as a retriable failure: workers are stopped and the reason is recorded.
    """
    configure_logging()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _terminate)
    try:
        app()
    except PipelineError as error:
        logging.getLogger("pipeline").error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - the message is the report
        sys.exit(error.exit_code)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise ClusterError(f"ended by signal {signal.Signals(number).name}; the same command resumes")


if __name__ == "__main__":
    main()
