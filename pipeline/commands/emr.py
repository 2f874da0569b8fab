"""`dhs export`, `import`, `completeness`, `compact`: the tables of the EMR system, from runs and to runs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.driver.emr_compact import RELABELS, compact_stamps
from pipeline.driver.emr_export import export_run, plan_export
from pipeline.driver.emr_import import import_stamps
from pipeline.driver.emr_recovery import write_completeness
from pipeline.driver.emr_shards import TABLES
from pipeline.driver.inspection import as_json, layout_of
from pipeline.storage.emr_layout import DEFAULT_VARIANT_PREFIX, EmrLayout
from pipeline.storage.locations import Location
from pipeline.storage.runs import read_record

RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="folder of a run, local or s3://")]
Region = Annotated[str | None, typer.Option(help="AWS region of an s3:// URL; export: by default that of the run")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")]
Output = Annotated[
    str | None, typer.Option(help="folder that holds phase4c/, such as s3://darkhaloscope/phase4_pipeline")
]
Variant = Annotated[str | None, typer.Option(help="name of the data set; v3 to v5 are refused")]
NewOutput = Annotated[str, typer.Option(help="folder that holds phase4c/, phase4d/, phase4p5/")]
NewVariant = Annotated[str, typer.Option(help="name of the data set that is written; v3 to v5 are refused")]
ExperimentId = Annotated[str | None, typer.Option(help="by default the last part of the input's URL")]


def export_command(
    run_url: RunUrl,
    output: Output = None,
    variant: Variant = None,
    what: Annotated[str, typer.Option(help=f"some of {','.join(TABLES)}")] = "stamps,metrics",
    experiment_id: Annotated[str | None, typer.Option(help="by default that of the manifest's rows")] = None,
    metrics_only: Annotated[bool, typer.Option("--metrics-only", help="stamps rows without pixels")] = False,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Write the EMR stamps, metrics and paired tables of a run; run it again to resume.

    Reads the record, the cubes and the manifest of RUN. Writes <output>/phase4c/<variant>/ and, for paired,
    <output>/phase4c/<variant>_paired/. By default <output> is RUN/emr and <variant> v6_<name of the run>.
    """
    run = layout_of(run_url, region, endpoint_url)
    settings = read_record(run)["config"]["run"]
    reached = (region or settings["region"], endpoint_url or settings["endpoint_url"])
    place = Location(output, *reached) if output else run.root.join("emr")
    name = variant or DEFAULT_VARIANT_PREFIX + run.root.url.rsplit("/", 1)[-1]
    tables = [part.strip() for part in what.split(",") if part.strip()]
    planned = plan_export(run, EmrLayout(place, name), tables, experiment_id, metrics_only=metrics_only)
    typer.echo(as_json(export_run(planned)))


def completeness_command(
    metrics_url: Annotated[str, typer.Argument(metavar="METRICS", help="folder of a metrics table, new or old")],
    output: NewOutput,
    variant: NewVariant,
    experiment_id: ExperimentId = None,
    recovery_snr_thresh: Annotated[float, typer.Option(min=0.0, help="least arc_snr")] = 5.0,
    recovery_theta_over_psf: Annotated[float, typer.Option(min=0.0, help="least theta_E over seeing")] = 0.8,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Write the completeness table of EMR phase 4d: recovered by arc_snr alone, no finder involved.

    Reads METRICS. Writes <output>/phase4d/<variant>/completeness/<experiment>/ with the EMR accounting beside ours.
    """
    metrics = Location(metrics_url, region, endpoint_url)
    layout = EmrLayout(Location(output, region, endpoint_url), variant)
    name = experiment_id or metrics.url.rsplit("/", 1)[-1]
    found = write_completeness(metrics, layout, name, recovery_snr_thresh, recovery_theta_over_psf)
    typer.echo(as_json(found))


def compact_command(
    stamps_url: Annotated[str, typer.Argument(metavar="STAMPS", help="folder of a stamps table, new or old")],
    output: NewOutput,
    variant: NewVariant,
    experiment_id: ExperimentId = None,
    partitions: Annotated[int, typer.Option(min=1, help="number of files")] = 200,
    relabel: Annotated[str, typer.Option(help=f"one of {', '.join(RELABELS)}")] = "none",
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Write a stamps table as a given number of balanced files (EMR phase 4p5); run it again to resume.

    Reads STAMPS. Writes <output>/phase4p5/<variant>/stamps/<experiment>/. val75 moves three quarters of val to train
    by task_id, as the EMR system did, and puts copies of one galaxy on both sides.
    """
    stamps = Location(stamps_url, region, endpoint_url)
    layout = EmrLayout(Location(output, region, endpoint_url), variant)
    name = experiment_id or stamps.url.rsplit("/", 1)[-1]
    typer.echo(as_json(compact_stamps(stamps, layout, name, partitions, relabel)))


def import_command(
    tables: Annotated[list[str], typer.Argument(metavar="PARQUET...", help="stamp tables: files or folders, any age")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="RUN", help="folder of the run that is made")],
    seed: Annotated[int, typer.Option(min=0, help="decides the sky split")] = 1,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as manifest.split_from=table")
    ] = None,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Turn finished stamps into the training cube of a run; run it again to resume.

    Reads the tables; of two rows with one task_id the first counts, so name tables with controls first. Writes
    RUN/cubes/training, its record and RUN/config.yaml, with which `dhs run` goes on to gates, training and report.
    """
    layout, counts = import_stamps(tables, output, seed, region, endpoint_url, overrides or [])
    typer.echo(as_json(counts))
    typer.echo(f"cube   {layout.cube('training').url}")
    typer.echo(f"config {layout.config.url}")
