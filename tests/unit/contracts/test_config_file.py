"""Reading configurations: overrides, and errors that say everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.config_file import load_config, parse_config
from pipeline.contracts.errors import ConfigError

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


def edited(tmp_path: Path, *replacements: tuple[str, str], append: str = "") -> Path:
    """The demo file with text replaced."""
    text = DEMO.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "edited.yaml"
    path.write_text(text + append, encoding="utf-8")
    return path


def test_every_violation_is_in_one_error(tmp_path: Path) -> None:
    """Unknown, missing and invalid keys of different sections are reported together, with the file."""
    path = edited(tmp_path, ("  seed: 20260101\n", ""), ("epochs: 16", "epochz: 6"), ("samples: 128", "samples: -3"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert str(path) in message
    assert "missing key 'run.seed'" in message
    assert "unknown key 'training.epochz', did you mean 'epochs'?" in message
    assert "missing key 'training.epochs'" in message
    assert "shards.samples" in message
    assert "-3" in message


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("survey.band=g", "did you mean 'bands'"),
        ("sampling.metrics=arc_snr", "did you mean 'metric'"),
        ("sampling.target.edge=[1]", "did you mean 'edges'"),
        ("injection.priors.theta_e={}", "did you mean 'theta_e_arcsec'"),
        ("injection.priors.lens_q.hi=1", "did you mean 'high'"),
        ("injection.psf.beta=3", "did you mean 'moffat_beta'"),
        ("shards.zzzzzz=3", "known keys: inner_chunk, retries, samples"),
    ],
)
def test_unknown_key_suggests_the_nearest(override: str, hint: str) -> None:
    """An unknown key at any depth names the closest known one, or all of them."""
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=f"unknown key '{key}', {hint}"):
        load_config(DEMO, [override])


def test_unknown_section_suggests_the_nearest() -> None:
    """A misspelt section is reported as a whole."""
    with pytest.raises(ConfigError, match="unknown key 'trainin', did you mean 'training'"):
        load_config(DEMO, ["trainin.epochs=3"])


def test_overrides_replace_values_with_yaml_types() -> None:
    """--set replaces one value, typed as YAML types it, and later overrides win."""
    overrides = [
        "run.seed=7",
        "run.seed=8",
        "survey.bands=g,r",
        "injection.priors.lens_q.low=0.25",
        "training.epochs=2",
    ]
    config = load_config(DEMO, [*overrides, "sampling.target={kind: loguniform, low: 2, high: 50}"])
    assert config.run.seed == 8
    assert config.survey.bands == ("g", "r")
    assert config.injection.priors is not None
    assert (config.injection.priors.lens_q.low, config.injection.priors.lens_q.high) == (0.25, 1.0)
    assert config.sampling.target is not None
    assert config.sampling.target.kind == "loguniform"


def test_override_can_add_a_section_that_the_file_leaves_out() -> None:
    """A key below an absent optional section makes the section."""
    assert load_config(DEMO, ["quality.bad_pixel_frac_max=0.5"]).quality.bad_pixel_frac_max == 0.5


@pytest.mark.parametrize(
    "override", ["run.seed", "=3", "", "run.seed.x=3", "survey.bands.0=g", "run.name=[", "run.name=a: b: c"]
)
def test_malformed_override_is_refused(override: str) -> None:
    """An override without value, through a value, or that is not YAML is a ConfigError."""
    with pytest.raises(ConfigError):
        load_config(DEMO, [override])


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- b\n", b"text", b"run: {name: x", b"run:\n\tname: x", b"run: {name: \xe9}"]
)
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, list, text, broken and non-UTF-8 files are ConfigErrors that name the file."""
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    """A missing file is a ConfigError with the path and the system's reason."""
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        load_config(tmp_path / "absent.yaml")


def test_key_written_twice_is_refused(tmp_path: Path) -> None:
    """A section that occurs twice is an error; the first is not silently dropped."""
    with pytest.raises(ConfigError, match="shards"):
        load_config(edited(tmp_path, append="\nshards:\n  samples: 64\n"))


def test_section_without_content_is_refused() -> None:
    """An empty section is an error that names it."""
    with pytest.raises(ConfigError, match="gates"):
        load_config(DEMO, ["gates="])


def test_source_of_a_parsed_mapping_is_named() -> None:
    """Errors of `parse_config` begin with where the mapping came from."""
    with pytest.raises(ConfigError, match=r"^run\.json of x: missing key 'run'"):
        parse_config({}, where="run.json of x")


@pytest.mark.parametrize("name", ["demo", "demo-real", "pilot", "dr10"])
def test_every_run_that_is_shipped_is_valid(name: str) -> None:
    """Each loads; those for the survey name anchors, and judge their network on arcs that can be seen."""
    config = load_config(DEMO.parent / f"{name}.yaml", [])
    assert config.gates.network.control_mean_p_max == 0.2
    if name in ("pilot", "dr10"):
        assert config.anchors is not None
        assert config.gates.network.visible_arc_snr == 2.0
        assert not {"control_scores", "arc_suppressed"} & set(config.gates.waive)
