"""`dhs manifest`: make phase-4a manifests from the tables of phase 3, and check stored ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.config_file import load_config_as
from pipeline.contracts.emr_manifest import DEFAULT_SPLIT_SEED
from pipeline.contracts.manifest_config import ManifestConfig
from pipeline.driver.manifest_builder import build_manifests
from pipeline.driver.manifest_check import check_stored_manifest
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location

app = typer.Typer(no_args_is_help=True, help="Make and check manifests of injections, as phase 4a of EMR did.")


@app.command("build")
def manifest_build_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/manifest.yaml")],
    force: Annotated[bool, typer.Option("--force", help="make and replace manifests that are complete")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as replicates=1")
    ] = None,
) -> None:
    """Make the manifests that CONFIG asks for; complete ones of the same build are kept.

    Reads the parent catalogue, the bricks and the region selections. Writes <output>/phase4a/<variant>/: manifests/,
    bricks_manifest/, _stage_config.json and _manifest_report.json.
    """
    settings = load_config_as(ManifestConfig, config, overrides or [])
    report = build_manifests(settings, force=force)
    layout = EmrLayout(Location(settings.output, settings.region, settings.endpoint_url), settings.variant)
    for name, counts in report["experiments"].items():
        typer.echo(f"{counts['rows']:>12} rows  {layout.manifest(name).url}")
    typer.echo(layout.manifest_report.url)


@app.command("check")
def manifest_check_command(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="folder of a manifest, or one parquet file")],
    split_seed: Annotated[int, typer.Option(help="seed the manifest was made with")] = DEFAULT_SPLIT_SEED,
    region: Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")] = None,
    endpoint_url: Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")] = None,
) -> None:
    """Compute identity, seeds and draws of every row again and compare. Writes nothing."""
    typer.echo(json.dumps(check_stored_manifest(Location(manifest, region, endpoint_url), split_seed), indent=1))
