"""`dhs preflight`: what would fail later, found now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.config_file import load_config
from pipeline.driver.preflight import as_table, preflight, raise_failed


def preflight_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/demo.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as cluster.workers=4")
    ] = None,
) -> None:
    """Check buckets, regions, compiled kernels and, in a release, rights, memory, GPUs and quota.

    Prints a table; exit code 2 if a check failed. Writes one probe object below run.root and removes it again.
    """
    checks = preflight(load_config(config, overrides or []))
    typer.echo(as_table(checks))
    raise_failed(checks)
