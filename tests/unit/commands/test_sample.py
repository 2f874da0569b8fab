"""`dhs sample plan` on a small survey, from its bricks and from its published cutouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.commands.sample import app
from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.driver.plan import make_plan, read_rows
from pipeline.driver.sample_plan import plan_sampling
from pipeline.driver.synthetic_survey import write_survey
from pipeline.driver.tasks import StampSource, cut_stamps
from pipeline.report.sample_plan_text import plan_lines
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.cube import create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.locations import Location, RunLayout

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"
METHODS = {("snr_first", "conditional"), ("rejection", "conditional"), ("direct", "conditional")}
METHODS |= {("snr_first", "pooled"), ("rejection", "pooled")}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that point the demo at three small bricks."""
    folder = tmp_path_factory.mktemp("sample")
    write_survey(Location(str(folder)), SyntheticSky(seed=5, brick_size_px=300, hosts_per_brick=8), 3, "cache", 1)
    return [
        f"survey.bricks={folder / 'coadd'}",
        f"manifest.url={folder / 'parent.parquet'}",
        f"run.root={folder / 'runs'}",
        "survey.stamp_size_px=32",
        "injection.accuracy=0.02",
        "shards.samples=16",
        "training.preprocess={annulus_px: [10, 16]}",
        "sampling.target={kind: loguniform, low: 1.0, high: 20.0}",
    ]


def dhs_sample(overrides: list[str], *arguments: str) -> Result:
    """The command, run to its end or its error."""
    settings = [part for override in overrides for part in ("--set", override)]
    return CliRunner().invoke(app, ["plan", str(DEMO), "--draws", "256", *arguments, *settings])


def test_plan_predicts_every_method_and_writes_nothing(overrides: list[str]) -> None:
    """JSON holds the pilot, the target, and acceptance, renders, cap failures and time of each method."""
    done = dhs_sample(overrides, "--json")
    assert done.exit_code == 0, done.exception
    document = json.loads(done.output)
    assert document["rows"] == 24
    assert 0 < document["rows_that_ask_for_an_arc"] <= 24
    assert document["pilot"]["draws"] >= 256 * 0.7
    methods = {(entry["method"], entry["hosts"]): entry for entry in document["methods"]}
    assert set(methods) == METHODS
    configured = methods["snr_first", "conditional"]
    assert configured["configured"]
    assert 0 < configured["acceptance"] <= 1
    assert configured["renders_per_accepted"] > 4
    assert configured["core_seconds"] > 0
    seconds = configured["core_seconds"] / document["workers"]
    assert configured["hours_at_workers"] == pytest.approx(seconds / 3600)
    assert [set(entry) >= {"attempts", "cap_failures"} for entry in configured["bins"]] == [True]
    assert methods["direct", "conditional"]["renders_per_accepted"] == pytest.approx(1.0)
    assert document["measured_seconds"]["per_stamp_cut"] > 0
    runs = next(item.split("=", 1)[1] for item in overrides if item.startswith("run.root"))
    assert not Path(runs).exists()


def test_plan_prints_a_table(overrides: list[str]) -> None:
    """The text marks the configured method and holds every target bin."""
    done = dhs_sample([*overrides, "sampling.hosts=pooled", "sampling.method=rejection"])
    assert done.exit_code == 0, done.exception
    assert "* rejection, pooled" in done.output
    assert "  snr_first, conditional" in done.output
    assert "1-20" in done.output


def test_unreachable_target_ends_with_code_2_or_is_left_out(overrides: list[str]) -> None:
    """A bin that no draw reaches is an error that names it; with allow_renormalise it is marked in the table."""
    far = [*overrides, "sampling.target={kind: bins, edges: [1, 8, 1.0e+6, 1.0e+7], shares: [0.5, 0.3, 0.2]}"]
    done = dhs_sample(far)
    assert isinstance(done.exception, ContractError)
    assert done.exception.exit_code == 2
    assert "1e+06-1e+07" in str(done.exception)
    kept = dhs_sample([*far, "sampling.allow_renormalise=true"])
    assert kept.exit_code == 0, kept.exception
    assert "unreachable, left out" in kept.output


def test_plan_without_target_is_refused(overrides: list[str]) -> None:
    """Method none has nothing to plan; absent bricks are named."""
    done = dhs_sample([*overrides, "sampling.method=none", "sampling.target=null"])
    assert isinstance(done.exception, ConfigError)
    done = dhs_sample([*overrides, "survey.bricks=nowhere"])
    assert isinstance(done.exception, ConfigError)
    assert "does not exist" in str(done.exception)


def test_published_cutouts_give_the_same_draws(
    overrides: list[str], make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """With the cutouts published no brick is read, and the forecast is that made from the bricks."""
    config = make_config(*overrides, f"run.root={tmp_path}")
    from_bricks = plan_sampling(config, 256)
    layout, plan = RunLayout.of(config.run), make_plan(config)
    create_cube(layout.cube("cutouts"), CUTOUTS, plan.shape)
    for shard in range(plan.shape.n_shards):
        cutouts, _, _ = cut_stamps(StampSource.of(config), read_rows(config, plan.pieces(shard)))
        write_shard(layout.cube("cutouts"), CUTOUTS, plan.shape, shard, cutouts)
    attributes = {"bands": ["g", "r", "z"], "cutouts_sha256": plan.cutouts_sha256}
    publish_cube(layout.cube("cutouts"), cube_attributes(CUTOUTS, plan.shape, attributes))
    from_cube = plan_sampling(config, 256)
    assert from_cube["measured_seconds"]["per_stamp_cut"] == 0.0
    assert from_cube["pilot"] == from_bricks["pilot"]
    assert [entry["acceptance"] for entry in from_cube["methods"]] == [
        entry["acceptance"] for entry in from_bricks["methods"]
    ]
    assert plan_lines(from_cube).splitlines()[0].startswith("24 rows")
