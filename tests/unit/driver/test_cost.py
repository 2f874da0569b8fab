from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.prices import GEN5, MeasuredRates, Prices
from pipeline.driver.cost import (
    Site,
    Workload,
    cost_sources,
    cost_table,
    emr_gen5_cost,
    estimate_cost,
    gen5_workload,
    read_prices,
    read_rates,
)

RATES = MeasuredRates(
    source="a test",
    mode="frozen",
    rows_per_brick=88.0,
    cutouts_core_s=0.003,
    injection_core_s=0.001,
    read_bytes_per_brick=1e7,
    requests_per_brick=500.0,
)
WORK = Workload(n_stamps=1_024_000, n_shards=500, brick_openings=12_000, bands=3, stamp_size_px=64)
PRICES = Prices()


def test_core_hours_and_wall_time_follow_from_the_rates() -> None:
    """250 stamps/s a core; without latency and with a fast network the wall time is the computing time."""
    fast = PRICES.model_copy(update={"node_network_gbit_per_s": 1e9})
    cost = estimate_cost(WORK, RATES, Site(100, 0.0), fast)
    assert cost.core_h == pytest.approx(1_024_000 / 250 / 3600)
    assert cost.wall_h == pytest.approx(cost.core_h / 100, rel=1e-6)
    assert estimate_cost(WORK, RATES, Site(200, 0.0), fast).wall_h == pytest.approx(cost.core_h * 3 / 500, rel=1e-6)


def test_latency_and_network_add_to_the_wall_time() -> None:
    """Waiting is the same for ten times the bandwidth, transfer for any latency; the sum is the wall time."""
    cost = estimate_cost(WORK, RATES, Site(100, 0.1), PRICES)
    wide = estimate_cost(WORK, RATES, Site(100, 0.1), PRICES.model_copy(update={"node_network_gbit_per_s": 25.0}))
    assert (cost.compute_h, cost.waiting_h) == (wide.compute_h, wide.waiting_h)
    assert wide.transfer_h == pytest.approx(cost.transfer_h / 10)
    assert cost.wall_h == pytest.approx(cost.compute_h + cost.waiting_h + cost.transfer_h)
    assert cost.transfer_h * 100 * 3600 * 2.5e9 / 8 / 8 == pytest.approx(cost.read_bytes + cost.written_bytes)


def test_bytes_are_those_of_both_cubes() -> None:
    """Two stamps and a mask, two stamps again, some hundred bytes of columns; each read back, cutouts once more."""
    cost = estimate_cost(WORK, RATES, Site(100, 0.1), PRICES)
    stamp, mask = 3 * 64 * 64 * 4, 64 * 64 * 4
    assert 0 < cost.stored_bytes / WORK.n_stamps - (4 * stamp + mask) < 2000
    per_stamp = (cost.read_bytes - 12_000 * 1e7) / WORK.n_stamps
    assert per_stamp == pytest.approx(2 * (2 * stamp + mask) + 2 * stamp, rel=0.02)


def test_requests_and_dollars_add_up() -> None:
    """Dollars are nodes, driver, control plane and requests at their prices."""
    cost = estimate_cost(WORK, RATES, Site(100, 0.1), PRICES)
    assert cost.put_requests == 500 * (len(CUTOUTS.variables) + len(TRAINING.variables) + 2)
    assert cost.get_requests > 12_000 * 500
    assert cost.requests_usd == pytest.approx((cost.get_requests * 0.4 + cost.put_requests * 5) / 1e6)
    assert cost.nodes_usd_on_demand == pytest.approx(13 * cost.wall_h * 0.384)
    assert cost.usd_spot == pytest.approx(cost.wall_h * (13 * 0.16 + 0.292) + cost.requests_usd)


def test_emr_run_is_the_reported_one() -> None:
    """2 h 25 min on 272 vCPU, about 40 dollars, 0.2 core-seconds and 41.7 kB a stamp, 19.6 TB read."""
    cost = emr_gen5_cost(PRICES)
    assert cost.wall_h * 60 == pytest.approx(145.0)
    assert cost.usd_on_demand == pytest.approx(40.0, abs=1.0)
    assert cost.core_h * 3600 / cost.n_stamps == pytest.approx(0.2, abs=0.005)
    assert cost.stored_bytes / cost.n_stamps == pytest.approx(41_700, rel=1e-3)
    assert cost.read_bytes == pytest.approx(19.6e12, rel=0.01)
    assert GEN5.vcpu == GEN5.nodes * PRICES.node_vcpu


def test_gen5_workload_covers_its_stamps() -> None:
    """Shards of 2048 rows; every brick opened once, and once more where it straddles two shards."""
    work = gen5_workload(2048)
    assert work.n_shards == 5738
    assert work.brick_openings == 133_163 + 5737


def test_sources_name_measurement_assumptions_and_stretches() -> None:
    """The output says where every number is from, and when rates are used beyond where they were measured."""
    site = Site(100, 0.06)
    lines = "\n".join(cost_sources(RATES, site, PRICES, WORK, "frozen"))
    for word in ("a test", "60 ms", "2.5 Gbit/s", "list prices of 2025", "evaluated twice"):
        assert word in lines
    assert "stretched" not in lines
    stretched = "\n".join(cost_sources(RATES, site, PRICES, replace(WORK, brick_openings=500_000), "sample"))
    assert stretched.count("stretched") == 2


def test_table_sets_estimates_side_by_side() -> None:
    """One column each; EMR's time is not divided into parts."""
    table = cost_table({"ours": estimate_cost(WORK, RATES, Site(100, 0.1), PRICES), "EMR": emr_gen5_cost(PRICES)})
    lines = {line[:24].strip(): line[24:].split() for line in table.splitlines()}
    assert lines["wall time [min]"][1] == "145.0"
    assert lines["computing"][1] == "-"
    assert lines["worker vCPU"] == ["100", "272"]


def test_rates_come_from_a_result_file(tmp_path: Path) -> None:
    """The benchmark's whole result, or the rates alone; anything else is refused."""
    path = tmp_path / "rates.json"
    for content in ({"rates": RATES.model_dump(), "other": 1}, RATES.model_dump()):
        path.write_text(json.dumps(content))
        assert read_rates(path) == RATES
    for broken in ("[]", "{}", "not json", json.dumps({**RATES.model_dump(), "cutouts_core_s": 0})):
        path.write_text(broken)
        with pytest.raises(ConfigError, match="expected the result of"):
            read_rates(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_rates(tmp_path / "absent.json")


def test_prices_can_be_overridden() -> None:
    """By name; the output then says so. An unknown name lists the known ones."""
    prices = read_prices(["node_spot_usd_per_h=0.2"])
    assert prices.node_spot_usd_per_h == 0.2
    assert "node_spot_usd_per_h=0.2" in prices.as_of
    assert read_prices(["as_of=2027-01-01", "eks_usd_per_h=0"]).as_of == "2027-01-01"
    with pytest.raises(ConfigError, match=r"node_spott.*known: as_of"):
        read_prices(["node_spott=0.2"])
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        read_prices(["0.2"])
