"""Tables in CSV files become numbers of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.config_file import load_config, parse_config
from pipeline.contracts.density_csv import inline_tables
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.sampling import TableTarget

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The demo configuration in a folder with two tables."""
    (tmp_path / "target.csv").write_text("snr,density\n1,0.5\n4, 2\n\n40,0\n", encoding="utf-8")
    (tmp_path / "mags.csv").write_bytes(b"\xef\xbb\xbfmag,density\r\n20,0\r\n24,3\r\n27,1\r\n")
    path = tmp_path / "run.yaml"
    path.write_text(DEMO.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_numbers_of_the_files_are_in_the_configuration(config_file: Path, tmp_path: Path) -> None:
    """Relative names start at the configuration file; the resolved configuration stands without the files."""
    overrides = [
        "sampling.target={kind: table, csv: target.csv}",
        f"injection.priors.src_mag_r={{kind: table, csv: {tmp_path / 'mags.csv'}}}",
    ]
    config = load_config(config_file, overrides)
    assert config.sampling.target == TableTarget(kind="table", snr=(1, 4, 40), density=(0.5, 2, 0))
    assert config.injection.priors is not None
    assert config.injection.priors.src_mag_r.points == (20, 24, 27)
    assert config.injection.priors.src_mag_r.bounds == (20, 27)
    assert parse_config(config.model_dump(mode="json"), "again").sha256() == config.sha256()
    (tmp_path / "target.csv").write_text("snr,density\n1,0.5\n4,3\n40,0\n", encoding="utf-8")
    changed = load_config(config_file, overrides)
    assert changed.sha256("sampling") != config.sha256("sampling")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "not a CSV file with a header"),
        ("mag,density\n1,2\n", "expected the header snr,density, got mag,density"),
        ("snr,weight\n1,2\n", "expected the header"),
        ("snr,density\n1,x\n", "two numbers per row"),
        ("snr,density\n1,2,3\n", "two numbers per row"),
        ("snr,density\n1,2\n", "two or more increasing snr"),
        ("snr,density\n3,2\n1,2\n", "two or more increasing snr"),
        ("snr,density\n1,0\n3,0\n", "zero everywhere"),
    ],
)
def test_file_that_is_no_density_is_refused(config_file: Path, content: str | None, message: str) -> None:
    """Absent, empty, wrong heading, wrong numbers: each names the key or the file."""
    if content is not None:
        config_file.with_name("bad.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(config_file, ["sampling.target={kind: table, csv: bad.csv}"])


def test_file_beside_numbers_is_refused(tmp_path: Path) -> None:
    """A table has its numbers from one place."""
    with pytest.raises(ConfigError, match="takes no other numbers"):
        inline_tables({"a": {"kind": "table", "csv": "x.csv", "points": [1]}}, tmp_path)


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    """Mappings without csv, and values that are no mappings, stay."""
    content = {"a": {"kind": "table", "points": [1, 2]}, "b": [1], "c": {"csv": "x.csv"}, "d": None}
    assert inline_tables(content, tmp_path) == content
