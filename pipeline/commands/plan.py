"""`dhs plan`: what a run would do, and what it would cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.prices import MeasuredRates
from pipeline.driver.cost import (
    GEN5_SHARD_SAMPLES,
    Site,
    Workload,
    as_document,
    cost_sources,
    cost_table,
    emr_gen5_cost,
    estimate_cost,
    gen5_workload,
    read_prices,
    read_rates,
)
from pipeline.driver.inspection import as_json, describe_plan


def plan_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/demo.yaml")],
    limit_shards: Annotated[
        int | None, typer.Option("--limit-shards", min=1, help="only the first N shards, as a run of its own")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override, such as shards.samples=256")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="instead: bytes, requests, core-hours, wall time, dollars; beside EMR's")
    ] = False,
    rates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="measured rates: result of benchmarks/emr.py; needed by --cost")
    ] = None,
    stamps_per_core_s: Annotated[
        float | None, typer.Option(min=1e-6, help="instead of the measured CPU rate of FILE [stamps/s per core]")
    ] = None,
    vcpu: Annotated[int | None, typer.Option(min=1, help="workers; by default cluster.workers")] = None,
    latency_ms: Annotated[float, typer.Option(min=0.0, help="to the first byte of an answer of S3 [ms]")] = 60.0,
    prices: Annotated[
        list[str] | None, typer.Option("--price", metavar="NAME=VALUE", help="such as node_spot_usd_per_h=0.14; repeat")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="the estimate as JSON")] = False,
) -> None:
    """Show what a run would do. Reads table footers and one shard's rows; writes nothing."""
    settings = load_config(config, overrides or [])
    described = describe_plan(settings, limit_shards)
    if not cost:
        typer.echo(as_json(described))
        return
    measured = _rates(rates, stamps_per_core_s)
    listed = read_prices(prices or [])
    site = Site(vcpu or settings.cluster.workers, latency_ms / 1000)
    work = _workload(settings, described["n_rows"], described["n_shards"], described["first_shard_bricks"])
    gen5 = gen5_workload(GEN5_SHARD_SAMPLES)
    emr = emr_gen5_cost(listed)
    columns = {
        "this run": estimate_cost(work, measured, site, listed),
        "Gen5 run, here": estimate_cost(gen5, measured, Site(emr.vcpu, site.latency_s), listed),
        "Gen5 run, EMR": emr,
    }
    sources = cost_sources(measured, site, listed, work, settings.injection.mode)
    typer.echo(as_json(as_document(columns, sources)) if json_output else "\n".join([cost_table(columns), *sources]))


def _workload(config: RunConfig, n_stamps: int, n_shards: int, bricks_per_shard: int) -> Workload:
    bands, size = len(config.survey.bands), config.survey.stamp_size_px
    return Workload(n_stamps, n_shards, bricks_per_shard * n_shards, bands, size)


def _rates(path: Path | None, stamps_per_core_s: float | None) -> MeasuredRates:
    if path is None:
        raise ConfigError("--cost needs --rates FILE, a result of benchmarks/emr.py: no rate is assumed")
    measured = read_rates(path)
    if stamps_per_core_s is None:
        return measured
    stretch = measured.stamps_per_core_s / stamps_per_core_s
    changed = {
        "cutouts_core_s": measured.cutouts_core_s * stretch,
        "injection_core_s": measured.injection_core_s * stretch,
        "source": f"CPU rate given as {stamps_per_core_s:g} stamps/s per core; bytes and requests: {measured.source}",
    }
    return measured.model_copy(update=changed)
