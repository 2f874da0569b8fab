"""The commands on EMR tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands import emr
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.storage.locations import Location

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"
RAW = GOLDEN / "stage4c/raw_spark_output_unp1_sersic_moffat"
EXPERIMENT = "train_stamp64_bandsgrz_gridgrid_sota"


def dhs(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the EMR system's own tables are not here: {GOLDEN}")
def test_old_tables_are_read_and_new_ones_written(tmp_path: Path) -> None:
    """Both commands take the experiment's name from their input and print what they wrote."""
    to = ("--output", tmp_path, "--variant", "v6_new")
    done = dhs("completeness", RAW / "metrics" / EXPERIMENT, *to, "--recovery-snr-thresh", "25")
    assert json.loads(done.stdout)["rows"] == 54
    assert (tmp_path / "phase4d/v6_new/completeness" / EXPERIMENT / "_SUCCESS").exists()
    done = dhs("compact", RAW / "stamps" / EXPERIMENT, *to, "--partitions", "4")
    assert json.loads(done.stdout)["files"] == 4
    assert (tmp_path / "phase4p5/v6_new/stamps" / EXPERIMENT / "_SUCCESS").exists()


def test_export_reaches_a_bucket_as_the_run_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Region and endpoint of the record of a local run hold for its output, until an option says otherwise."""
    settings = {"region": "eu-central-1", "endpoint_url": "http://127.0.0.1:9", "cutouts_from": None}
    (tmp_path / "run.json").write_text(json.dumps({"config": {"run": settings}}))
    places: list[Location] = []
    monkeypatch.setattr(emr, "plan_export", lambda run, layout, *_, **__: places.append(layout.phase4))
    monkeypatch.setattr(emr, "export_run", lambda _: {})
    to = ("--output", "s3://bucket/phase4_pipeline", "--variant", "v6_new")
    for more in ((), ("--region", "us-east-2")):
        assert dhs("export", tmp_path, *to, *more).exit_code == 0
    url = "s3://bucket/phase4_pipeline"
    assert places == [Location(url, region, settings["endpoint_url"]) for region in ("eu-central-1", "us-east-2")]


def test_refusals(tmp_path: Path) -> None:
    """An old variant is refused; a folder without a run cannot be exported."""
    done = dhs("compact", tmp_path, "--output", tmp_path, "--variant", "v4_sota_moffat")
    assert isinstance(done.exception, ConfigError)
    assert isinstance(dhs("export", tmp_path / "nothing").exception, ContractError)
