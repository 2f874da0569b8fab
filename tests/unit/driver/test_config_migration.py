from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands.migrate_config import migrate_config_command
from pipeline.contracts.config_file import load_config
from pipeline.contracts.errors import ConfigError
from pipeline.driver.config_migration import Answers, Migrated, as_yaml, migrate_config

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"
FULL = Answers(root="s3://darkhaloscope/runs", region="us-east-2", seed=7)
# As a launch script wrote it: flags with underscores, one level.
FLAGS = {
    "stage": "4c",
    "output_s3": "s3a://darkhaloscope/phase4_pipeline",
    "variant": "v4_sota_moffat",
    "experiment_id": "train_stamp64_bandsgrz_gridgrid_sota",
    "bands": "g,r,z",
    "psf_model": "gaussian",
    "use_psfsize_maps": 1,
    "sweep_partitions": 600,
    "split_seed": 42,
    "force": 1,
}
# As stage 4c noted about itself: nested, and without what decides the arcs.
STAGE = {
    "stage": "4c",
    "timestamp_utc": "2026-01-24T00:00:00Z",
    "variant": "v4_sota_moffat",
    "output_s3": "s3://darkhaloscope/phase4_pipeline",
    "experiment_id": "train_stamp96_bandsgrz_gridgrid_sota",
    "inputs": {"manifest": "s3://darkhaloscope/m", "coadd_s3_cache_prefix": "s3://darkhaloscope/dr10/coadd_cache"},
    "bands": ["g", "r", "z"],
    "src_flux_scale": 1.0,
    "spark": {"sweep_partitions": 2},
    "idempotency": {"skip_if_exists": 1, "force": 0},
}
RUN = {
    "stage": "4c",
    "variant": "v4_sota_moffat",
    "experiment_id": "train_stamp96_bandsgrz_gridgrid_sota",
    "source_mode": "sersic",
    "cosmos_bank_h5": None,
    "cosmos_salt": "",
    "seed_base": 42,
    "psf_model": "moffat",
    "moffat_beta": 3.5,
    "split_seed": 99887766,
    "execution_timestamp_utc": "2026-01-24T01:00:00Z",
    "spark_version": "3.5.9",
}


def migrate(*documents: dict[str, Any], answers: Answers = FULL, **changed: Any) -> Migrated:
    """The first document with changes, and the others."""
    first, *rest = documents
    named = {f"{k}.json": document for k, document in enumerate([{**first, **changed}, *rest])}
    return migrate_config(named, answers)


def test_flags_become_a_run_configuration() -> None:
    """Manifest from prefix, variant and experiment; PSF, bands and size carried; EMR's defaults for the rest."""
    migrated = migrate(FLAGS)
    config = migrated.config
    folder = "phase4a/v4_sota_moffat/manifests/train_stamp64_bandsgrz_gridgrid_sota"
    assert config.manifest.url == f"s3a://darkhaloscope/phase4_pipeline/{folder}"
    assert (config.survey.bands, config.survey.stamp_size_px) == (("g", "r", "z"), 64)
    assert config.survey.bricks == "s3://darkhaloscope/dr10/coadd_cache"
    assert (config.injection.psf.profile, config.injection.psf.psfsize_from) == ("gaussian", "map")
    assert (config.injection.mode, config.sampling.method, config.training.enabled) == ("frozen", "none", False)
    assert (config.run.seed, config.run.name) == (7, "train_stamp64_bandsgrz_gridgrid_sota")


def test_every_key_is_accounted_for() -> None:
    """One line per key with its fate and a reason, defaults marked as such; the file repeats them and parses."""
    migrated = migrate(FLAGS)
    lines = {line.partition("=")[0]: line for line in migrated.report}
    assert set(FLAGS) <= set(lines)
    assert "dropped -> dhs manifest build" in lines["split_seed"]
    assert "kept -> injection.psf.profile" in lines["psf_model"]
    assert "(EMR's default, or --old)" in lines["moffat_beta"]
    text = as_yaml(migrated, ["old.json"])
    assert yaml.safe_load(text) == migrated.content
    assert all(f"#   {line}" in text for line in migrated.report)


def test_what_has_no_safe_default_is_asked_for_at_once() -> None:
    """Seed, root and, for a bucket, region; never taken from seed_base, output_s3 or a guess."""
    with pytest.raises(ConfigError) as caught:
        migrate(FLAGS, answers=Answers(root=None, region=None, seed=None))
    assert "give --seed" in str(caught.value)
    assert "give --root" in str(caught.value)
    with pytest.raises(ConfigError, match="give --region"):
        migrate(FLAGS, answers=Answers(root="s3://b/runs", region=None, seed=1))
    with pytest.raises(ConfigError, match=r"run\.region must name the AWS region"):
        migrate(FLAGS, answers=Answers(root="runs", region=None, seed=1))


def test_stage_config_alone_does_not_know_the_arcs() -> None:
    """What a _stage_config does not record is not assumed; the run_config beside it or --old supplies it."""
    with pytest.raises(ConfigError) as caught:
        migrate(STAGE)
    for key in ("psf_model", "moffat_beta", "use_psfsize_maps", "core_mask_radius", "source_mode"):
        assert f"give --old {key}=VALUE" in str(caught.value)
    rest = {"use_psfsize_maps": "0", "core_mask_radius": "0"}
    both = migrate(STAGE, RUN, answers=Answers(**{**vars(FULL), "old": rest}))
    assert (both.config.manifest.url, both.config.survey.stamp_size_px) == ("s3://darkhaloscope/m", 96)
    assert both.config.injection.psf.psfsize_from == "manifest"


def test_files_that_contradict_each_other_are_refused() -> None:
    """Two files of different runs."""
    with pytest.raises(ConfigError, match="variant is 'v4_sota_moffat', another file says 'v3'"):
        migrate(STAGE, RUN, variant="v3")


@pytest.mark.parametrize(("key", "value"), [("core_mask_radius", 5), ("src_flux_scale", 2.0), ("odd_key", 1)])
def test_losses_must_be_accepted_by_name(key: str, value: object) -> None:
    """Masked cores, scaled fluxes and unknown keys are named; --accept goes on and says so."""
    with pytest.raises(ConfigError, match=f"{key}={value}: .*give --accept {key}"):
        migrate(FLAGS, **{key: value})
    migrated = migrate(FLAGS, answers=Answers(**{**vars(FULL), "accepted": (key,)}), **{key: value})
    assert any(line.startswith(f"{key}={value}: lost, as accepted") for line in migrated.report)


def test_templates_of_a_cosmos_run_are_carried_over() -> None:
    """Bank, salt and a digest that nobody recorded; each is asked for where the files lack it."""
    old = {"source_mode": "cosmos", "cosmos_bank_h5": "s3a://b/bank.h5", "cosmos_salt": "production_v1"}
    answers = Answers(**{**vars(FULL), "bank_sha256": "0" * 64})
    source = migrate(FLAGS, answers=answers, **old).config.injection.source
    assert source.kind == "bank"
    assert (source.url, source.emr_salt) == ("s3a://b/bank.h5", "production_v1")
    with pytest.raises(ConfigError, match=r"give --old cosmos_bank_h5=URL; bank digest: .*give --bank-sha256"):
        migrate(FLAGS, source_mode="cosmos")
    with pytest.raises(ConfigError, match="give --old cosmos_salt=VALUE"):
        migrate(STAGE, answers=answers, source_mode="cosmos")
    with pytest.raises(ConfigError, match="expected sersic or cosmos, got 'clumps'"):
        migrate(FLAGS, source_mode="clumps")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stage": "4a"}, "for this one use dhs manifest build"),
        ({"moffat_beta": "steep"}, "moffat_beta: expected a number, got 'steep'"),
        ({"experiment_id": "", "parent_s3": "s3://b/m", "stamp_sizes": "64,96"}, "expected one size"),
        ({"experiment_id": ""}, "give --old manifest=URL"),
        ({"psf_model": "airy"}, r"injection\.psf\.profile"),
    ],
)
def test_what_cannot_be_migrated_says_why(changed: dict[str, Any], message: str) -> None:
    """Another stage, no number, several sizes, no manifest, a value that the strict configuration refuses."""
    with pytest.raises(ConfigError, match=message):
        migrate(FLAGS, **changed)


def test_parent_s3_is_the_manifest() -> None:
    """Stage 4c read its manifest from --parent-s3 where it was given."""
    assert migrate(FLAGS, parent_s3="s3://b/m").config.manifest.url == "s3://b/m"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden data is not here: {GOLDEN}")
def test_stage_config_of_the_emr_code_is_migrated_from_the_command_line(tmp_path: Path) -> None:
    """A file that the EMR code wrote, with what it left out, gives a file that `dhs run` takes."""
    source = GOLDEN / "stage4c" / "sersic_moffat" / "_stage_config.json"
    unrecorded = (
        "psf_model=moffat",
        "moffat_beta=3.5",
        "use-psfsize-maps=0",
        "core_mask_radius=0",
        "source_mode=sersic",
    )
    options = [part for pair in unrecorded for part in ("--old", pair)]
    options += ["--seed", "3", "--root", "runs", "--region", "us-east-2", "-o", str(tmp_path / "new.yaml")]
    shown = CliRunner().invoke(app, ["migrate-config", str(source), *options])
    assert shown.exit_code == 0, shown.output
    config = load_config(tmp_path / "new.yaml")
    assert config.manifest.url == json.loads(source.read_text())["inputs"]["manifest"]
    assert config.run.seed == 3


def test_unreadable_files_are_configuration_errors(tmp_path: Path) -> None:
    """No file, no JSON, no object, a malformed option."""
    for content, message in (("{", "is not JSON"), ("[]", "expected a JSON object")):
        (tmp_path / "old.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            migrate_config_command([tmp_path / "old.json"])
    with pytest.raises(ConfigError, match="No such file"):
        migrate_config_command([tmp_path / "absent.json"])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        migrate_config_command([tmp_path / "old.json"], old=["psf_model"])
