from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands.plan import plan_command
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.prices import MeasuredRates

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    """Options of a plan of 300 rows in 3 bricks, and measured rates."""
    rows = {"brickname": ["0001m002", "0003m002", "0005m002"] * 100, "ra": [0.1 + 1e-3 * k for k in range(300)]}
    frame = pd.DataFrame({**rows, "dec": -0.2, "gmag": 20.0, "rmag": 19.0, "zmag": 18.5, "ebv": 0.01})
    frame.sort_values("brickname").to_parquet(tmp_path / "parent.parquet")
    rates = MeasuredRates(
        source="a test", mode="frozen", rows_per_brick=88, cutouts_core_s=0.003, injection_core_s=0.001,
        read_bytes_per_brick=1e7, requests_per_brick=500,
    )  # fmt: skip
    (tmp_path / "rates.json").write_text(rates.model_dump_json())
    return [str(DEMO), "--set", f"manifest.url={tmp_path}/parent.parquet", "--set", f"run.root={tmp_path}"]


def test_cost_is_set_beside_emr(settings: list[str], tmp_path: Path) -> None:
    """Three columns: this run, the Gen5 run here, and as EMR did it; with their sources."""
    options = ["--cost", "--rates", f"{tmp_path}/rates.json", "--vcpu", "4"]
    shown = CliRunner().invoke(app, ["plan", *settings, *options])
    assert shown.exit_code == 0, shown.output
    lines = {line[:24].strip(): line[24:].split() for line in shown.output.splitlines()}
    assert lines["stamps"] == ["300", "11,750,000", "11,750,000"]
    assert lines["worker vCPU"] == ["4", "272", "272"]
    assert lines["wall time [min]"][2] == "145.0"
    assert (
        lines["PUT requests [million]"][1]
        == f"{5738 * (len(CUTOUTS.variables) + len(TRAINING.variables) + 2) / 1e6:.3f}"
    )
    assert "measured: a test" in shown.output
    assert "rates were measured in mode frozen, this run is sample" in shown.output


def test_rate_of_the_options_is_named(settings: list[str], tmp_path: Path) -> None:
    """A CPU rate given by hand replaces the measured one and says so, in the JSON too."""
    options = ["--cost", "--rates", f"{tmp_path}/rates.json", "--stamps-per-core-s", "100", "--json"]
    content = json.loads(CliRunner().invoke(app, ["plan", *settings, *options]).output)
    assert content["estimates"]["this run"]["core_h"] == pytest.approx(300 / 100 / 3600)
    assert "given as 100 stamps/s per core" in content["sources"][0]


def test_no_rate_is_assumed(settings: list[str]) -> None:
    """--cost without measured rates is an error; the plan alone needs none."""
    with pytest.raises(ConfigError, match="no rate is assumed"):
        plan_command(Path(settings[0]), None, settings[2::2], cost=True, rates=None, stamps_per_core_s=None, vcpu=None)
    plan = json.loads(CliRunner().invoke(app, ["plan", *settings]).output)
    assert (plan["n_rows"], plan["n_shards"], plan["first_shard_bricks"]) == (300, 3, 2)
