"""`dhs migrate-config`: a run configuration from one of the EMR system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.errors import ConfigError
from pipeline.driver.config_migration import Answers, as_yaml, migrate_files


def migrate_config_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="OLD.json ...", help="--config JSON, _stage_config*.json, run_config*.json"),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NEW.yaml", help="else it is printed")
    ] = None,
    root: Annotated[str | None, typer.Option(help="run.root; must be given")] = None,
    region: Annotated[str | None, typer.Option(help="run.region; must be given with an s3:// URL")] = None,
    seed: Annotated[int | None, typer.Option(help="run.seed; must be given")] = None,
    name: Annotated[str | None, typer.Option(help="run.name; by default from the experiment")] = None,
    old: Annotated[
        list[str] | None, typer.Option("--old", metavar="KEY=VALUE", help="an EMR key that the files lack; repeat")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", metavar="KEY", help="go on without what this EMR key did; repeat")
    ] = None,
    bank_sha256: Annotated[
        str | None, typer.Option(help="digest of the bank of source_mode cosmos; dhs bank inspect prints it")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="tcp:// address; by default workers on this machine")] = None,
    workers: Annotated[int, typer.Option(min=1, help="number of workers")] = 2,
) -> None:
    """Turn the configuration of an EMR stage 4c into one for `dhs run`, and say what became of every key.

    Reads the files of one EMR run together: none of them holds everything. Writes NEW.yaml, whose head repeats the
    account of keys that goes to standard error. Exit code 2 names every key without a safe value.
    """
    pairs = [text.partition("=") for text in old or []]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise ConfigError(f"--old expects KEY=VALUE, got {', '.join(wrong)}")
    answers = Answers(
        root=root,
        region=region,
        seed=seed,
        name=name,
        old={key.replace("-", "_"): value for key, _, value in pairs},
        accepted=tuple(key.replace("-", "_") for key in accept or []),
        bank_sha256=bank_sha256,
        scheduler=scheduler,
        workers=workers,
    )
    migrated = migrate_files(files, answers)
    for line in migrated.report:
        typer.echo(line, err=True)
    text = as_yaml(migrated, [path.name for path in files])
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(str(output))
