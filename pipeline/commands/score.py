"""`dhs score`: score positions or a cube with a trained network, and rank them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.config_file import load_config_as
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.search_config import SearchConfig
from pipeline.driver.cube_scores import score_cube
from pipeline.driver.inspection import as_json
from pipeline.driver.scoring import find_network
from pipeline.driver.search import search_positions
from pipeline.storage.cube import HIERARCHY, open_cube
from pipeline.storage.locations import Location


def score_command(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="network.onnx, the checkpoint beside it, or their folder")
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="a cube's folder; or positions: a manifest, a catalogue, a CSV or parquet list"
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="folder of the results")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file such as configs/search-demo.yaml; a cube needs none")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as candidates.top=500")
    ] = None,
    splits: Annotated[str, typer.Option(help="of a training cube")] = "test",
    region: Annotated[str | None, typer.Option(help="AWS region of s3:// URLs; by default that of the file")] = None,
    endpoint_url: Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")] = None,
) -> None:
    """Score stamps with a trained network; run it again to resume.

    Reads the network and TARGET: positions (ra_deg, dec_deg or ra, dec; optional id and brickname) are cut out of the
    bricks that the configuration names. Writes FOLDER/scores.parquet, candidates.csv and .parquet, cubes/candidates-<N>
    (pixels of the best), index.html and summary.json; for a training cube the scores alone. docs/scoring.md
    """
    settings = _settings(config, overrides or [], region, endpoint_url)
    places = [Location(url, settings.region, settings.endpoint_url) for url in (checkpoint, target, output)]
    network, out = find_network(places[0]), places[2]
    if places[1].join(HIERARCHY).exists():
        wanted = [name.strip() for name in splits.split(",") if name.strip()]
        summary = score_cube(settings, network, open_cube(places[1]), out, wanted)
    else:
        summary = search_positions(settings, network, places[1], out)
    typer.echo(as_json({name: summary[name] for name in ("rows", "rows_by_reason", "candidates", "seconds")}))
    typer.echo(out.join("scores.parquet" if summary["candidates"] is None else "index.html").url)


def _settings(config: Path | None, overrides: list[str], region: str | None, endpoint_url: str | None) -> SearchConfig:
    if config is None:
        if overrides:
            raise ConfigError("--set overrides keys of a configuration; give one with --config")
        return SearchConfig.model_validate({"region": region, "endpoint_url": endpoint_url})
    given = {"region": region, "endpoint_url": endpoint_url}
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    return load_config_as(SearchConfig, config, [*options, *overrides])
