"""What a configuration may say, and what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import parse_config
from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.priors import Prior

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"
NO_DEFAULT = (
    "run.name",
    "run.root",
    "run.region",
    "run.seed",
    "survey.bands",
    "survey.stamp_size_px",
    "survey.bricks",
    "survey.layout",
    "manifest.kind",
    "manifest.url",
    "injection.mode",
    "injection.extinction",
    "injection.priors.theta_e_arcsec",
    "injection.priors.src_mag_r",
    "sampling.metric",
    "training.epochs",
    "shards.samples",
    "cluster.kind",
)


def demo_content() -> dict[str, Any]:
    """The demo configuration as plain data."""
    content: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    return content


def changed(**values: object) -> dict[str, Any]:
    """Demo content with `section__key=value` replaced; `...` removes the key."""
    content = copy.deepcopy(demo_content())
    for path, value in values.items():
        *parents, leaf = path.split("__")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is ...:
            del node[leaf]
        else:
            node[leaf] = value
    return content


def parsed(**values: object) -> RunConfig:
    """The demo configuration with changes."""
    return parse_config(changed(**values), where="test")


@pytest.mark.parametrize("key", NO_DEFAULT)
def test_keys_where_a_wrong_default_would_cost_a_day_have_none(key: str) -> None:
    """Leaving out a required key is an error that names it."""
    with pytest.raises(ConfigError, match=f"missing key '{key}'"):
        parsed(**{key.replace(".", "__"): ...})


@pytest.mark.parametrize("written", ["g,r,z", "g, r ,z", ["g", "r", "z"], ("g", "r", "z")])
def test_bands_may_be_a_list_or_text_with_commas(written: object) -> None:
    """`bands: g,r,z` means the same as the list, also for the hash."""
    config = parsed(survey__bands=written)
    assert config.survey.bands == ("g", "r", "z")
    assert config.sha256() == parsed().sha256()


@pytest.mark.parametrize("bands", [["g", "g"], [], "", "grz", ["g", "y"]])
def test_bad_bands_are_refused(bands: object) -> None:
    """Repeated, absent and unknown bands are errors that name the key."""
    with pytest.raises(ConfigError, match=r"survey"):
        parsed(survey__bands=bands, sampling__band="g")


def test_band_i_is_refused_with_its_reason() -> None:
    """A configuration that asks for i says that i has no source colour."""
    with pytest.raises(ConfigError, match="band i has no source colour"):
        parsed(survey__bands=["g", "r", "i"])


@pytest.mark.parametrize(
    ("root", "name"),
    [("s3://darkhaloscope/phase4_pipeline/phase4c", "v5_cosmos_paired"), ("/data/phase4c/v4_sota_moffat/", "mine")],
)
def test_prefixes_of_the_emr_system_are_refused(root: str, name: str) -> None:
    """No run is written where the old results lie; such a name elsewhere is free."""
    with pytest.raises(ConfigError, match="which the EMR system wrote"):
        parsed(run__root=root, run__name=name, run__region="us-east-2")
    assert parsed(run__root="/data/runs", run__name="v5_again").run.name == "v5_again"


def test_sampling_method_is_snr_first_unless_named() -> None:
    """The documented default."""
    assert parsed(sampling__method=...).sampling.method == "snr_first"


@pytest.mark.parametrize("url", ["s3://bucket/x", "s3a://bucket/x"])
@pytest.mark.parametrize("key", ["run__root", "survey__bricks", "manifest__url"])
@pytest.mark.parametrize("region", [None, "", "us-east", "east-2", "us-east-2 "])
def test_s3_without_a_region_is_refused(key: str, url: str, region: str | None) -> None:
    """Any S3 URL needs a well-formed AWS region, and the error names the URL."""
    with pytest.raises(ConfigError, match=f"region of {url}"):
        parsed(**{key: url, "run__region": region})


@pytest.mark.parametrize(
    "values",
    [
        {"injection__psf": {"profile": "measured", "stamps": "s3://bucket/{band}.fits"}},
        {"injection__source": {"kind": "bank", "url": "s3://bucket/bank.h5", "sha256": "0" * 64}},
    ],
)
def test_injection_inputs_on_s3_need_a_region(values: dict[str, object]) -> None:
    """Measured PSFs and banks are read from S3 with the run's region too."""
    with pytest.raises(ConfigError, match="region of s3://bucket/"):
        parsed(**values)
    assert parsed(**values, run__region="us-east-2").run.region == "us-east-2"


@pytest.mark.parametrize("region", ["us-east-2", "eu-central-1", "us-gov-west-1", "ap-southeast-2"])
def test_s3_with_a_region_is_accepted(region: str) -> None:
    """Real region names pass."""
    assert parsed(run__root="s3a://bucket/runs", run__region=region).run.region == region


def test_frozen_mode_needs_an_emr_manifest_and_no_sampling() -> None:
    """Frozen rows come from EMR manifests and are not sampled."""
    frozen = {"injection__mode": "frozen", "sampling__method": "none", "sampling__target": None}
    assert parsed(manifest__kind="emr", **frozen).injection.mode == "frozen"
    with pytest.raises(ConfigError, match="frozen needs"):
        parsed(manifest__kind="parent", **frozen)
    with pytest.raises(ConfigError, match="frozen needs"):
        parsed(manifest__kind="emr", injection__mode="frozen")


@pytest.mark.parametrize("key", ["lens", "source", "psf"])
def test_unknown_kind_of_a_model_is_named(key: str) -> None:
    """A model that does not exist is an error about its own key."""
    name = "profile" if key == "psf" else "kind"
    with pytest.raises(ConfigError, match=rf"injection\.{key}"):
        parsed(**{f"injection__{key}": {name: "other"}})


def test_sample_mode_needs_priors() -> None:
    """Drawing needs something to draw from."""
    with pytest.raises(ConfigError, match=r"needs injection\.priors"):
        parsed(injection__priors=...)


@pytest.mark.parametrize(("method", "target"), [("none", "keep"), ("snr_first", None), ("rejection", None)])
def test_target_and_method_belong_together(method: str, target: str | None) -> None:
    """A target without method, or a method without target, is refused."""
    values: dict[str, object] = {"sampling__method": method}
    if target is None:
        values["sampling__target"] = None
    with pytest.raises(ConfigError, match=r"sampling\.target is needed"):
        parsed(**values)


def test_metric_band_must_be_configured() -> None:
    """The band of the SNR columns is one of the stamp's bands."""
    with pytest.raises(ConfigError, match=r"sampling\.band 'r' is not in survey\.bands"):
        parsed(survey__bands=["g", "z"])


@pytest.mark.parametrize("metric", SNR_METRICS)
def test_every_metric_can_be_the_target(metric: str) -> None:
    """Each linear SNR column may be the target metric in r."""
    assert parsed(sampling__metric=metric).sampling.metric == metric


@pytest.mark.parametrize("metric", ["arc_snr_region", "arc_snr_cumulative", "snr"])
def test_metrics_that_are_not_proportional_to_flux_are_refused(metric: str) -> None:
    """A target metric must fix the flux by one division."""
    with pytest.raises(ConfigError, match=r"sampling\.metric"):
        parsed(sampling__metric=metric)


@pytest.mark.parametrize("band", ["g", "z"])
def test_annulus_metric_is_refused_where_no_depth_is_known(band: str) -> None:
    """arc_snr_annulus divides by the noise of psfdepth_r, so its band is r."""
    with pytest.raises(ConfigError, match=r"arc_snr_annulus needs sampling\.band: r"):
        parsed(sampling__metric="arc_snr_annulus", sampling__band=band)


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "bins", "edges": [1, 2], "shares": [0.5, 0.5]},
        {"kind": "bins", "edges": [1, 2, 2], "shares": [0.5, 0.5]},
        {"kind": "bins", "edges": [2, 1, 3], "shares": [0.5, 0.5]},
        {"kind": "bins", "edges": [1, 2, 3], "shares": [0.5, 0.4]},
        {"kind": "bins", "edges": [0, 2, 3], "shares": [0.5, 0.5]},
        {"kind": "bins", "edges": [1, 2, 3], "shares": [1.5, -0.5]},
        {"edges": [1, 2], "shares": [1]},
        {"kind": "gaussian"},
    ],
)
def test_inconsistent_target_is_refused(target: dict[str, object]) -> None:
    """Edges, shares and kind of a target must make a distribution."""
    with pytest.raises(ConfigError, match=r"sampling\.target"):
        parsed(sampling__target=target)


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "loguniform", "low": 50, "high": 2},
        {"kind": "loguniform", "low": 5, "high": 5},
        {"kind": "loguniform", "low": 5, "high": float("inf")},
        {"kind": "bins", "edges": [1, float("inf")], "shares": [1]},
    ],
)
def test_target_range_must_be_ordered_and_finite(target: dict[str, object]) -> None:
    """A target whose density cannot be normalised is refused."""
    with pytest.raises(ConfigError, match=r"sampling\.target"):
        parsed(sampling__target=target)


@pytest.mark.parametrize(
    "prior",
    [
        {"kind": "uniform", "low": 2, "high": 1},
        {"kind": "uniform", "low": 0},
        {"kind": "loguniform", "low": 0, "high": 1},
        {"kind": "disc", "high": 1},
        {"kind": "normal", "mean": 0, "sigma": 1, "low": 2, "high": 1},
        {"kind": "normal", "mean": 0, "sigma": -1},
        {"kind": "beta", "low": 0, "high": 1},
    ],
)
def test_impossible_prior_is_refused(prior: dict[str, object]) -> None:
    """A range out of order, open where it must be closed, or an unknown kind is an error."""
    with pytest.raises(ConfigError, match=r"injection\.priors\.src_gr"):
        parsed(injection__priors__src_gr=prior)


@pytest.mark.parametrize(
    "prior",
    [
        {"kind": "fixed"},
        {"kind": "fixed", "value": float("nan")},
        {"kind": "normal", "low": -0.3, "high": 1.5},
        {"kind": "normal", "mean": 0, "sigma": 0.1, "low": float("nan"), "high": 1},
        {"kind": "disc", "low": -1, "high": 1},
    ],
)
def test_prior_without_its_own_numbers_is_refused(prior: dict[str, object]) -> None:
    """A kind needs its numbers written out, finite and meaningful."""
    with pytest.raises(ConfigError, match=r"injection\.priors\.src_gr"):
        parsed(injection__priors__src_gr=prior)


@pytest.mark.parametrize(
    "prior",
    [
        {"kind": "fixed", "value": 24},
        {"kind": "loguniform", "low": 20, "high": 26},
        {"kind": "normal", "mean": 24, "sigma": 1},
        {"kind": "normal", "mean": 24, "sigma": 0, "low": 20, "high": 26},
        {"kind": "uniform", "low": 24, "high": 24},
    ],
)
def test_source_magnitude_needs_a_density(prior: dict[str, object]) -> None:
    """The sampler divides by the magnitude prior's density, so the prior must have one."""
    with pytest.raises(ConfigError, match=r"injection\.priors.*src_mag_r"):
        parsed(injection__priors__src_mag_r=prior)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shards__samples", 100, "multiple of inner_chunk"),
        ("splits__train", 0.8, "sum to 1"),
        ("cluster__address", "tcp://x:1", r"cluster\.address"),
        ("cluster__kind", "address", r"cluster\.address"),
        ("run__seed", -1, r"run\.seed"),
        ("run__seed", 2**63, r"run\.seed"),
        ("run__name", "Has Spaces", r"run\.name"),
        ("run__name", "../up", r"run\.name"),
        ("survey__stamp_size_px", 63, r"survey\.stamp_size_px"),
        ("gates__waive", {"core_auc": "short"}, r"gates\.waive"),
        ("training__preprocess", {"annulus_px": [60, 70]}, "outside the stamp"),
        ("cluster__memory_per_worker", "2 gigs", r"cluster\.memory_per_worker"),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object, message: str) -> None:
    """Each limit is enforced with an error about the right key."""
    with pytest.raises(ConfigError, match=message):
        parsed(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("training__preprocess", {"annulus_px": [30, 20]}), ("gates__core_ratio_range", [1.05, 0.95])],
)
def test_ranges_out_of_order_are_refused(key: str, value: object) -> None:
    """A pair of bounds whose first exceeds its second is an error."""
    with pytest.raises(ConfigError):
        parsed(**{key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("evaluation__base_rate", 2.0, "evaluation.base_rate"),
        ("evaluation__false_positive_rates", [0.01, 1.0], "evaluation.false_positive_rates"),
        ("evaluation__edges", {"arc_snr": [2.0, 1.0]}, "evaluation.edges.arc_snr: .*edges must increase"),
        ("evaluation__edges", {"theta_e": [1.0, 2.0]}, "'evaluation.edges.theta_e', did you mean 'theta_e_arcsec'"),
        ("training__centre_mask_px", 5, "unknown key 'training.centre_mask_px'"),
        ("training__centre_degradation", {"radius_px": 40, "probability": 1}, "centre_degradation reaches 42 px"),
        ("injection__core_suppression", {"radius": 3}, "'injection.core_suppression.radius', did you mean 'radius_px'"),
    ],
)
def test_errors_of_remedies_and_evaluation_name_their_key(key: str, value: object, message: str) -> None:
    """The whole path of a wrong key is in the error."""
    with pytest.raises(ConfigError, match=message):
        parsed(**{key: value})


def test_config_is_frozen() -> None:
    """A validated configuration cannot be changed in place."""
    config = parsed()
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 1


def test_hash_of_named_sections_changes_with_these_alone() -> None:
    """The hash of sections ignores every other section, and the whole hash none."""
    sections = ("survey", "injection")
    base = parsed()
    other_run, other_survey = parsed(run__seed=1), parsed(survey__stamp_size_px=48)
    assert base.sha256(*sections) == other_run.sha256(*sections)
    assert base.sha256(*sections) != other_survey.sha256(*sections)
    assert len({config.sha256() for config in (base, other_run, other_survey)}) == 3
    assert base.sha256("survey") != base.sha256("injection")


def test_hash_does_not_depend_on_key_order_or_written_defaults() -> None:
    """Writing a default out, or writing keys in another order, keeps the hash."""
    reordered = {section: dict(reversed(keys.items())) for section, keys in reversed(demo_content().items())}
    assert parse_config(reordered, "test").sha256() == parsed().sha256()
    assert parsed(shards__retries=3).sha256() == parsed().sha256()


def test_stored_configuration_reads_back_equal() -> None:
    """The resolved configuration survives YAML unchanged."""
    config = parsed()
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    again = parse_config(yaml.safe_load(text), "stored")
    assert again == config
    assert again.sha256() == config.sha256()


def test_json_schema_describes_every_section() -> None:
    """The JSON schema builds, is JSON, and names all sections and required keys."""
    schema = RunConfig.model_json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert {"run", "survey", "manifest", "injection", "sampling"} <= set(schema["required"])
    assert {"root", "region", "seed"} <= set(schema["$defs"]["RunSection"]["required"])


def test_a_fixed_prior_keeps_its_value() -> None:
    """A complete prior of every kind is accepted as written."""
    assert Prior(kind="fixed", value=0.3).value == 0.3
    assert Prior(kind="disc", low=0.0, high=1.0).high == 1.0
    assert Prior(kind="normal", mean=0.4, sigma=0.1).sigma == 0.1


def test_demo_content_is_the_fixture(make_config: Callable[..., RunConfig]) -> None:
    """Loading the demo file equals parsing its content."""
    assert make_config() == parsed()
