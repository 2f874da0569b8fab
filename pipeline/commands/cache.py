"""`dhs cache`: copy coadds from a public server or a bucket to where runs read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.cache_config import CacheConfig
from pipeline.contracts.config_file import load_config_as
from pipeline.driver.coadd_cache import fill_cache
from pipeline.driver.inspection import as_json


def cache_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/cache-dr10.yaml")],
    limit_bricks: Annotated[
        int | None, typer.Option("--limit-bricks", min=1, help="only the first N bricks, with a record of their own")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as bricks_per_task=4")
    ] = None,
) -> None:
    """Copy the coadds of many bricks; run it again to resume.

    Reads the list of bricks and the source that CONFIG names. Writes the cache, <brick>/ with an empty _SUCCESS per
    complete brick, and the record: assets_manifest/ (a row for every brick), brick_blacklist.json (absent bricks),
    _stage_config.json. Exit code 75 if bricks failed: the same command tries them again.
    """
    typer.echo(as_json(fill_cache(load_config_as(CacheConfig, config, overrides or []), limit_bricks)))
