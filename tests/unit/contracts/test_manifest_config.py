"""What a build of manifests may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts.config_file import load_config_as
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.manifest_config import ManifestConfig

EXAMPLE = Path(__file__).parents[3] / "configs" / "manifest.yaml"


def load(*overrides: str) -> ManifestConfig:
    """The example with overrides."""
    return load_config_as(ManifestConfig, EXAMPLE, overrides)


def test_example_names_its_experiments() -> None:
    """Names are those of the EMR system; the digest does not depend on where the output goes."""
    config = load("tiers.debug={grid: grid_small, n_per_config: 5}", "bandsets=[r, grz]", "stamp_sizes_px=[64, 96]")
    names = [experiment.experiment_id for experiment in config.experiments()]
    assert names[:2] == ["debug_stamp64_bandsr_gridgrid_small", "train_stamp64_bandsr_gridgrid_sota"]
    assert len(set(names)) == 8
    assert load().sha256() == load("output=elsewhere", "max_tasks=null").sha256()
    assert load().sha256() != load("split_seed=14").sha256()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("variant=v4_sota_moffat", "holds results of the EMR system"),
        ("variant=cosmos_corrected", "holds results of the EMR system"),
        ("region=null", "region is needed for s3"),
        ("tiers={}", "at least one of debug, grid, train"),
        ("tiers.train.grid=grid_large", "grid_small"),
        ("tiers.train.n_per_config=5", "unknown key 'tiers.train.n_per_config'.*n_total_per_split"),
        ("psf_edges_arcsec=[1.0, 1.2, 1.1, 1.4, 1.6]", "psf_edges_arcsec needs increasing edges"),
        ("bandsets=[grz, grz]", "bandsets must be distinct"),
        ("bandsets=[gr]", "'grz' or 'r'"),
        ("replicate=2", "did you mean 'replicates'"),
        ("max_tasks=0", "max_tasks"),
        ("selection_set_ids=[]", "selection_set_ids"),
    ],
)
def test_configurations_without_meaning_are_refused(override: str, message: str) -> None:
    """Each with the key and what was expected."""
    with pytest.raises(ConfigError, match=message):
        load(override)


def test_edges_of_the_old_manifests_are_five(tmp_path: Path) -> None:
    """Four bins have five edges."""
    with pytest.raises(ConfigError, match="depth_edges_mag"):
        load("depth_edges_mag=[23.6, 24.2]")


def test_tiers_keep_their_meaning() -> None:
    """A host tier counts hosts per grid entry, the train tier per split."""
    sections: dict[str, Any] = dict(load("tiers.grid={grid: grid_medium, n_per_config: 25}").tiers.items())
    assert (sections["grid"].n_hosts, sections["grid"].control_frac) == (25, 0.0)
    assert (sections["train"].n_hosts, sections["train"].control_frac) == (200_000, 0.5)
