"""What a run costs: bytes, requests, core-hours, wall time and dollars, from a plan and measured rates.

A worker is taken to do one thing at a time: compute, wait for an answer, transfer. So nothing overlaps, and the wall
time is the sum over a worker's share of the shards. The CPU rate is measured; latency, bandwidth and prices are stated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.prices import GEN5, MeasuredRates, Prices
from pipeline.contracts.schema import CubeSchema

# Rows of a shard in configs/dr10.yaml.
GEN5_SHARD_SAMPLES = 2048

_TEXT_BYTES = 64
_CONCURRENT_OBJECTS = 8
_ROUND_TRIPS_PER_BRICK = 2
_GBIT_BYTES = 1.25e8
_EMR_SOURCE = (
    "EMR: time, nodes and output as its documents report them; bytes and requests from its design (seven whole files a "
    "brick, everything evaluated twice); its master node and all disks are left out"
)


@dataclass(frozen=True)
class Workload:
    """How much a run does.

    Attributes:
        n_stamps: rows of the plan.
        n_shards: shards that hold them.
        brick_openings: bricks opened, once per shard that needs them.
        bands: bands of a stamp.
        stamp_size_px: its side. [pixel]
    """

    n_stamps: int
    n_shards: int
    brick_openings: int
    bands: int
    stamp_size_px: int


@dataclass(frozen=True)
class Site:
    """Where a run runs.

    Attributes:
        vcpu: worker processes of one thread, one per vCPU.
        latency_s: time from a request to S3 to its first byte. [s]
    """

    vcpu: int
    latency_s: float


@dataclass(frozen=True)
class CostEstimate:
    """An estimate; for EMR what was reported and what follows from it. Dollars are of the run alone, storage apart."""

    n_stamps: int
    vcpu: int
    read_bytes: float
    written_bytes: float
    stored_bytes: float
    get_requests: float
    put_requests: float
    core_h: float
    wall_h: float
    compute_h: float | None
    waiting_h: float | None
    transfer_h: float | None
    nodes_usd_on_demand: float
    nodes_usd_spot: float
    requests_usd: float
    usd_on_demand: float
    usd_spot: float
    storage_usd_per_month: float


def estimate_cost(work: Workload, rates: MeasuredRates, site: Site, prices: Prices) -> CostEstimate:
    """Cost of both cubes of a run; training of the network is not part of it."""
    cutouts, training = (_row_bytes(schema, work) * work.n_stamps for schema in (CUTOUTS, TRAINING))
    brick_bytes = rates.read_bytes_per_brick * work.brick_openings
    # Every object is read back after it is written, and the injection stage reads the cutouts once more.
    read_bytes = brick_bytes + 2.0 * cutouts + training
    written = cutouts + training
    objects = {schema.name: len(schema.variables) for schema in (CUTOUTS, TRAINING)}
    puts = work.n_shards * (sum(objects.values()) + 2.0)
    gets = rates.requests_per_brick * work.brick_openings
    gets += work.n_shards * (2.0 * objects["cutouts"] + objects["training"])
    waves = {name: math.ceil(count / _CONCURRENT_OBJECTS) for name, count in objects.items()}
    round_trips = work.n_shards * (3 * waves["cutouts"] + 2 * waves["training"] + 2)
    round_trips += _ROUND_TRIPS_PER_BRICK * work.brick_openings
    bytes_per_s = prices.node_network_gbit_per_s * _GBIT_BYTES / prices.node_vcpu
    core_h = work.n_stamps / rates.stamps_per_core_s / 3600
    waiting_h = round_trips * site.latency_s / 3600
    transfer_h = (read_bytes + written) / bytes_per_s / 3600
    # Shards are dealt whole: the last round of them may leave workers idle.
    rounds = math.ceil(work.n_shards / site.vcpu)
    wall_h = (core_h + waiting_h + transfer_h) / work.n_shards * rounds
    nodes = math.ceil(site.vcpu / prices.node_vcpu)
    steady = wall_h * (prices.driver_usd_per_h + prices.eks_usd_per_h)
    on_demand = nodes * wall_h * prices.node_on_demand_usd_per_h
    spot = nodes * wall_h * prices.node_spot_usd_per_h
    requests = (gets * prices.s3_get_usd_per_1000 + puts * prices.s3_put_usd_per_1000) / 1000
    return CostEstimate(
        n_stamps=work.n_stamps,
        vcpu=site.vcpu,
        read_bytes=read_bytes,
        written_bytes=written,
        stored_bytes=written,
        get_requests=gets,
        put_requests=puts,
        core_h=core_h,
        wall_h=wall_h,
        compute_h=core_h / site.vcpu,
        waiting_h=waiting_h / site.vcpu,
        transfer_h=transfer_h / site.vcpu,
        nodes_usd_on_demand=on_demand,
        nodes_usd_spot=spot,
        requests_usd=requests,
        usd_on_demand=on_demand + steady + requests,
        usd_spot=spot + steady + requests,
        storage_usd_per_month=written / 1e9 * prices.s3_storage_usd_per_gb_month,
    )


def emr_gen5_cost(prices: Prices) -> CostEstimate:
    """The EMR system's own run of 11.75 million stamps: time, nodes and output as reported, the rest by its design."""
    core_nodes = GEN5.nodes * GEN5.wall_h
    on_demand, spot = (
        core_nodes * (price + prices.emr_fee_usd_per_node_h)
        for price in (prices.node_on_demand_usd_per_h, prices.node_spot_usd_per_h)
    )
    gets = float(GEN5.passes * GEN5.n_bricks * GEN5.files_per_brick)
    requests = (gets * prices.s3_get_usd_per_1000 + GEN5.files * prices.s3_put_usd_per_1000) / 1000
    return CostEstimate(
        n_stamps=GEN5.n_stamps,
        vcpu=GEN5.vcpu,
        read_bytes=GEN5.passes * GEN5.n_bricks * GEN5.brick_bytes,
        written_bytes=GEN5.stored_bytes,
        stored_bytes=GEN5.stored_bytes,
        get_requests=gets,
        put_requests=float(GEN5.files),
        core_h=GEN5.vcpu * GEN5.wall_h,
        wall_h=GEN5.wall_h,
        compute_h=None,
        waiting_h=None,
        transfer_h=None,
        nodes_usd_on_demand=on_demand,
        nodes_usd_spot=spot,
        requests_usd=requests,
        usd_on_demand=on_demand + requests,
        usd_spot=spot + requests,
        storage_usd_per_month=GEN5.stored_bytes / 1e9 * prices.s3_storage_usd_per_gb_month,
    )


def gen5_workload(shard_samples: int) -> Workload:
    """The stamps of the EMR system's Gen5 run, as shards of this package over a manifest sorted by brick."""
    n_shards = math.ceil(GEN5.n_stamps / shard_samples)
    # A brick that straddles two shards is opened in both.
    return Workload(GEN5.n_stamps, n_shards, GEN5.n_bricks + n_shards - 1, bands=3, stamp_size_px=64)


def read_rates(path: str | Path) -> MeasuredRates:
    """Rates from a result file of benchmarks/emr.py, or from the rates alone.

    Raises:
        ConfigError: unreadable, or not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return MeasuredRates.model_validate(content.get("rates", content))
    except OSError as error:
        raise ConfigError(f"rates file {path}: {error.strerror}") from error
    except (ValueError, AttributeError, ValidationError) as error:
        raise ConfigError(f"rates file {path}: expected the result of benchmarks/emr.py: {error}") from error


def read_prices(overrides: Sequence[str]) -> Prices:
    """The prices with `NAME=VALUE` overrides; ConfigError for an unknown name or a wrong value."""
    changed: dict[str, str] = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--price expects NAME=VALUE, got {override!r}")
        changed[name] = value
    try:
        prices = Prices.model_validate(changed)
    except ValidationError as error:
        known = ", ".join(Prices.model_fields)
        raise ConfigError(
            f"--price: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}; known: {known}"
        ) from error
    if changed and not {"as_of", "source"} & set(changed):
        prices = prices.model_copy(update={"as_of": f"{prices.as_of}, but given: {', '.join(overrides)}"})
    return prices


def cost_table(columns: Mapping[str, CostEstimate]) -> str:
    """Estimates side by side, one line per figure."""
    figures: dict[str, Callable[[CostEstimate], str]] = {
        "stamps": lambda cost: f"{cost.n_stamps:,}",
        "worker vCPU": lambda cost: f"{cost.vcpu}",
        "read from S3 [TB]": lambda cost: f"{cost.read_bytes / 1e12:.2f}",
        "written to S3 [TB]": lambda cost: f"{cost.written_bytes / 1e12:.2f}",
        "GET requests [million]": lambda cost: f"{cost.get_requests / 1e6:.2f}",
        "PUT requests [million]": lambda cost: f"{cost.put_requests / 1e6:.3f}",
        "core-hours": lambda cost: f"{cost.core_h:.1f}",
        "wall time [min]": lambda cost: f"{cost.wall_h * 60:.1f}",
        "  computing": lambda cost: _minutes(cost.compute_h),
        "  waiting for answers": lambda cost: _minutes(cost.waiting_h),
        "  transferring": lambda cost: _minutes(cost.transfer_h),
        "stamps/s": lambda cost: f"{cost.n_stamps / cost.wall_h / 3600:,.0f}",
        "nodes, on demand [USD]": lambda cost: f"{cost.nodes_usd_on_demand:.2f}",
        "nodes, spot [USD]": lambda cost: f"{cost.nodes_usd_spot:.2f}",
        "requests [USD]": lambda cost: f"{cost.requests_usd:.2f}",
        "run, on demand [USD]": lambda cost: f"{cost.usd_on_demand:.2f}",
        "run, spot [USD]": lambda cost: f"{cost.usd_spot:.2f}",
        "storage [USD/month]": lambda cost: f"{cost.storage_usd_per_month:.2f}",
    }
    width = max(16, *(len(name) for name in columns))
    lines = [" " * 24 + "".join(f"  {name:>{width}}" for name in columns)]
    for label, show in figures.items():
        lines.append(f"{label:24s}" + "".join(f"  {show(cost):>{width}}" for cost in columns.values()))
    return "\n".join(lines)


def cost_sources(rates: MeasuredRates, site: Site, prices: Prices, work: Workload, mode: str) -> list[str]:
    """What the estimate rests on, one line each; and where it is stretched."""
    per_brick = work.n_stamps / max(work.brick_openings, 1)
    speed = f"{rates.stamps_per_core_s:.0f} stamps/s per core"
    reading = f"{rates.read_bytes_per_brick / 1e6:.2f} MB in {rates.requests_per_brick:.0f} requests per brick"
    network = f"{prices.node_network_gbit_per_s:g} Gbit/s per {prices.node_type} of {prices.node_vcpu} workers"
    lines = [
        f"rates: {speed}, {reading}; measured: {rates.source}",
        f"assumed: {site.latency_s * 1000:g} ms to the first byte of an answer; {network}; nothing overlaps",
        f"prices: {prices.as_of}; {prices.source}",
        _EMR_SOURCE,
    ]
    if rates.mode != mode:
        lines.append(f"stretched: rates were measured in mode {rates.mode}, this run is {mode}; redraws cost more CPU")
    if not 0.5 < per_brick / rates.rows_per_brick < 2.0:
        measured = f"{rates.rows_per_brick:.0f} rows a brick"
        lines.append(f"stretched: rates were measured at {measured}, this run has {per_brick:.1f}")
    return lines


def as_document(columns: Mapping[str, CostEstimate], sources: Sequence[str]) -> dict[str, Any]:
    """The estimates for a program."""
    return {"estimates": {name: asdict(cost) for name, cost in columns.items()}, "sources": list(sources)}


def _row_bytes(schema: CubeSchema, work: Workload) -> float:
    lengths = {"band": work.bands, "y": work.stamp_size_px, "x": work.stamp_size_px}
    total = 0.0
    for variable in schema.variables:
        item = _TEXT_BYTES if variable.dtype == "str" else np.dtype(variable.dtype).itemsize
        total += item * math.prod(lengths.get(dim, 1) for dim in variable.dims[1:])
    return total


def _minutes(hours: float | None) -> str:
    return "-" if hours is None else f"{hours * 60:.1f}"
