"""`dhs export`: a finished run as the tables of the EMR system."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.driver.emr_export import export_run, plan_export
from pipeline.driver.emr_shards import TABLES
from pipeline.driver.inspection import as_json, layout_of
from pipeline.storage.emr_layout import DEFAULT_VARIANT_PREFIX, EmrLayout
from pipeline.storage.locations import Location

RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="folder of a run, local or s3://")]
Region = Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")]
Output = Annotated[
    str | None, typer.Option(help="folder that holds phase4c/, such as s3://darkhaloscope/phase4_pipeline")
]
Variant = Annotated[str | None, typer.Option(help="name of the data set; v3 to v5 are refused")]


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
    place = Location(output, region, endpoint_url) if output else run.root.join("emr")
    name = variant or DEFAULT_VARIANT_PREFIX + run.root.url.rsplit("/", 1)[-1]
    tables = [part.strip() for part in what.split(",") if part.strip()]
    planned = plan_export(run, EmrLayout(place, name), tables, experiment_id, metrics_only=metrics_only)
    typer.echo(as_json(export_run(planned)))
