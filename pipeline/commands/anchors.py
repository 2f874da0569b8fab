"""`dhs anchors`: assemble real lenses, check lists of them, measure how visible they are, compare cutout sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.anchors import AnchorLimits, ParityLimits, VisibilityLimits
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ConfigError, VerificationError
from pipeline.driver.anchors import (
    check_list,
    compare_sources,
    demand_matches,
    known_bricks,
    measure_anchors,
    write_anchors,
)
from pipeline.driver.run import run
from pipeline.storage.anchor_stamps import ANCHOR_CUBE
from pipeline.storage.anchor_tables import write_anchor_table
from pipeline.storage.locations import Location
from pipeline.storage.runs import write_json

app = typer.Typer(no_args_is_help=True, help="Assemble, check and measure real lenses.")

_ANCHOR = AnchorLimits()
_VISIBILITY = VisibilityLimits()
_PARITY = ParityLimits()

Region = Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="folder of the tables")]
Catalogue = Annotated[
    str | None, typer.Option(help="CSV of known lenses; by default that of the installed package lenscat")
]
Radius = Annotated[float, typer.Option(min=0.01, help="distance within which two positions are one lens [arcsec]")]
KeepClusters = Annotated[
    bool, typer.Option("--keep-cluster-surveys", help="trust entries that only surveys of galaxy clusters list")
]
AllowUnmatched = Annotated[bool, typer.Option("--allow-unmatched", help="accept listed positions without a known lens")]
Bands = Annotated[str, typer.Option(help="such as g,r,z")]


@app.command("build")
def anchors_build_command(
    output: Output,
    lists: Annotated[list[str] | None, typer.Option("--list", metavar="CSV", help="list of lenses; repeat")] = None,
    catalogue: Catalogue = None,
    radius_arcsec: Radius = _ANCHOR.match_radius_arcsec,
    brick_table: Annotated[str | None, typer.Option(help="survey-bricks-dr10-south.fits.gz or the like")] = None,
    bricks: Annotated[str | None, typer.Option(help="folder with one folder per brick")] = None,
    bands: Bands = "g,r,z",
    dec_min: Annotated[float, typer.Option(help="used without bricks [deg]")] = _ANCHOR.dec_range_deg[0],
    dec_max: Annotated[float, typer.Option(help="used without bricks [deg]")] = _ANCHOR.dec_range_deg[1],
    types: Annotated[str | None, typer.Option(help="kept lens types, such as galaxy,group; by default all")] = None,
    keep_cluster_surveys: KeepClusters = False,
    allow_unmatched: AllowUnmatched = False,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Assemble anchors from the catalogue of known lenses and lists; exit code 3 if a listed position is no lens.

    Reads the catalogue, the lists, and the table or folder of bricks. Writes FOLDER/anchors and FOLDER/entries
    (parquet, CSV), manifest.parquet for cutting them out, and summary.json.
    """
    place = _places(region, endpoint_url)
    limits = AnchorLimits(
        match_radius_arcsec=radius_arcsec,
        dec_range_deg=(dec_min, dec_max),
        lens_types=tuple(part.strip() for part in types.split(",")) if types else (),
        keep_cluster_surveys=keep_cluster_surveys,
        allow_unmatched=allow_unmatched,
    )
    held = known_bricks(place(brick_table) if brick_table else None, place(bricks) if bricks else None, _split(bands))
    known = place(catalogue) if catalogue else None
    sources = [place(url) for url in lists or []]
    summary = write_anchors(place(output), sources, known, held, limits)
    typer.echo(json.dumps(summary, indent=1))
    typer.echo(place(output).join("anchors.parquet").url)
    for source in sources:
        demand_matches(check_list(source, known, limits), limits, source.url)


@app.command("check")
def anchors_check_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV list with name, ra, dec")],
    catalogue: Catalogue = None,
    radius_arcsec: Radius = _ANCHOR.match_radius_arcsec,
    keep_cluster_surveys: KeepClusters = False,
    allow_unmatched: AllowUnmatched = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="CSV", help="write the comparison here")
    ] = None,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Say for every position of a list which known lens is nearest; exit code 3 if one has none.

    Reads FILE and the catalogue. Writes the comparison to standard output, or to CSV.
    """
    place = _places(region, endpoint_url)
    limits = AnchorLimits(
        match_radius_arcsec=radius_arcsec, keep_cluster_surveys=keep_cluster_surveys, allow_unmatched=allow_unmatched
    )
    compared = check_list(place(file), place(catalogue) if catalogue else None, limits)
    text = compared.to_csv(index=False, float_format="%.5f", lineterminator="\n")
    if output is None:
        typer.echo(text, nl=False)
    else:
        place(output).write_bytes(text.encode())
    typer.echo(f"{int(compared['matched'].sum())} of {len(compared)} positions match a known lens", err=True)
    demand_matches(compared, limits, file)


@app.command("measure")
def anchors_measure_command(
    anchors: Annotated[str, typer.Argument(metavar="ANCHORS", help="anchors.parquet of `dhs anchors build`")],
    output: Output,
    cutouts: Annotated[str | None, typer.Option(help="cutouts cube that shows the anchors")] = None,
    config: Annotated[
        Path | None, typer.Option(help="instead: a run configuration, whose bricks the anchors are cut out of")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override of the configuration")
    ] = None,
    band: Annotated[str, typer.Option(help="band to measure")] = "r",
    threshold: Annotated[
        float, typer.Option(help="arc_visibility_snr above which tier A begins")
    ] = _VISIBILITY.threshold,
    centre_snr_min: Annotated[
        float, typer.Option(help="significance of the central aperture that a galaxy must have")
    ] = _VISIBILITY.centre_snr_min,
    match_arcsec: Annotated[float, typer.Option(help="distance of an anchor from its cutout [arcsec]")] = 0.5,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Measure the arcs of the anchors and sort them into tier A and tier B, each a table of its own.

    Reads ANCHORS and the cutouts cube; with --config also the bricks, and makes the cube `anchors` of the run.
    Writes FOLDER/measured, tier_a, tier_b, rejected (parquet, CSV) and tiers.json.
    """
    place = _places(region, endpoint_url)
    if (cutouts is None) == (config is None):
        raise ConfigError("expected either --cutouts or --config")
    table = place(anchors)
    cube = place(cutouts) if cutouts else _cut_out(config, overrides or [], table)
    limits = VisibilityLimits(threshold=threshold, centre_snr_min=centre_snr_min)
    typer.echo(json.dumps(measure_anchors(place(output), table, cube, band, limits, match_arcsec), indent=1))
    typer.echo(place(output).join("tiers.json").url)


@app.command("parity")
def anchors_parity_command(
    first: Annotated[str, typer.Argument(metavar="A", help="cutouts cube, the reference")],
    second: Annotated[str, typer.Argument(metavar="B", help="cutouts or imported training cube, or folder of stamps")],
    bands: Bands = "g,r,z",
    ratio_tolerance: Annotated[float, typer.Option(help="largest |median flux ratio - 1|")] = _PARITY.ratio_tolerance,
    offset_sigma_max: Annotated[float, typer.Option(help="largest background difference")] = _PARITY.offset_sigma_max,
    rms_sigma_max: Annotated[float, typer.Option(help="largest rms difference of pixels")] = _PARITY.rms_sigma_max,
    match_arcsec: Annotated[float, typer.Option(help="[arcsec]")] = _PARITY.match_radius_arcsec,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FOLDER", help="folder of the result")] = None,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Compare two cutout sources pixel by pixel; exit code 3 unless they agree.

    Reads A and B. Writes the verdict to standard output and, with --output, FOLDER/parity.json and FOLDER/pairs.
    """
    place = _places(region, endpoint_url)
    limits = ParityLimits(
        ratio_tolerance=ratio_tolerance,
        offset_sigma_max=offset_sigma_max,
        rms_sigma_max=rms_sigma_max,
        match_radius_arcsec=match_arcsec,
    )
    verdict, pairs = compare_sources(place(first), place(second), _split(bands), limits)
    typer.echo(json.dumps(verdict, indent=1))
    if output is not None:
        write_json(place(output).join("parity.json"), verdict)
        write_anchor_table(place(output), "pairs", pairs)
    if verdict["verdict"] not in ("identical", "agree"):
        raise VerificationError(f"{first} and {second}: {verdict['verdict']}: " + "; ".join(verdict["problems"]))


def _cut_out(config: Path | None, overrides: list[str], anchors: Location) -> Location:
    """Cut the anchors out of a configuration's bricks with the run's own stage `anchors`."""
    if config is None:
        raise ConfigError("expected a run configuration")
    settings = [*overrides, f"anchors.url={anchors.url}"]
    return run(load_config(config, settings), only=ANCHOR_CUBE).cube(ANCHOR_CUBE)


def _places(region: str | None, endpoint_url: str | None) -> Callable[[str], Location]:
    return partial(Location, region=region, endpoint_url=endpoint_url)


def _split(bands: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in bands.split(",") if part.strip())
