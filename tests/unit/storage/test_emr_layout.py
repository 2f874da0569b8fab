"""Prefixes of the EMR bucket, and the variants that are refused."""

from __future__ import annotations

import pytest

from pipeline.contracts.errors import ConfigError
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location

PHASE4 = Location("s3a://darkhaloscope/phase4_pipeline", "us-east-2")
EXPERIMENT = "train_stamp64_bandsgrz_gridgrid_sota"


@pytest.fixture
def layout() -> EmrLayout:
    """A new variant in the old bucket."""
    return EmrLayout(PHASE4, "v6_dask_zarr")


def test_prefixes_are_those_of_the_emr_system(layout: EmrLayout) -> None:
    """Every prefix, letter by letter."""
    four = "s3://darkhaloscope/phase4_pipeline/"
    found = {
        layout.manifest(EXPERIMENT).url: four + f"phase4a/v6_dask_zarr/manifests/{EXPERIMENT}",
        layout.manifest(EXPERIMENT, csv=True).url: four + f"phase4a/v6_dask_zarr/manifests/{EXPERIMENT}_csv",
        layout.bricks_manifest().url: four + "phase4a/v6_dask_zarr/bricks_manifest",
        layout.bricks_manifest(csv=True).url: four + "phase4a/v6_dask_zarr/bricks_manifest_csv",
        layout.brick_blacklist.url: four + "phase4a/v6_dask_zarr/brick_blacklist.json",
        layout.assets_manifest(csv=True).url: four + "phase4b/v6_dask_zarr/assets_manifest_csv",
        layout.stage_config("4b").url: four + "phase4b/v6_dask_zarr/_stage_config.json",
        layout.cache_success.url: four + "phase4b/v6_dask_zarr/_SUCCESS",
        layout.stamps(EXPERIMENT).url: four + f"phase4c/v6_dask_zarr/stamps/{EXPERIMENT}",
        layout.metrics(EXPERIMENT).url: four + f"phase4c/v6_dask_zarr/metrics/{EXPERIMENT}",
        layout.stage_config("4c", "x").url: four + "phase4c/v6_dask_zarr/_stage_config_x.json",
        layout.run_config("x").url: four + "phase4c/v6_dask_zarr/run_config_x.json",
        layout.paired("val").url: four + "phase4c/v6_dask_zarr_paired/val",
        layout.completeness("x").url: four + "phase4d/v6_dask_zarr/completeness/x",
        layout.stage_config("4p5").url: four + "phase4p5/v6_dask_zarr/_stage_config.json",
    }
    assert list(found) == list(found.values())


@pytest.mark.parametrize(
    "variant",
    ["v3_color_relaxed", "v4_sota_moffat", "v5_cosmos_production", "v5_cosmos_paired", "v5", "cosmos_corrected"],
)
def test_old_variants_are_read_but_never_written(variant: str) -> None:
    """Reading an old data set is fine; the refusal names what may be chosen instead."""
    layout = EmrLayout(PHASE4, variant)
    assert variant in layout.stamps("x").url
    with pytest.raises(ConfigError, match=f"v6_{variant}"):
        layout.for_writing()


@pytest.mark.parametrize("variant", ["v6_demo", "v35_new", "pilot"])
def test_new_variants_are_written(variant: str) -> None:
    """Any other name is free."""
    assert EmrLayout(PHASE4, variant).for_writing().variant == variant


def test_doubled_prefixes_are_refused() -> None:
    """An output that already names a phase would be nested a second time."""
    with pytest.raises(ConfigError, match="holds phase4c"):
        EmrLayout(PHASE4.join("phase4c", "v5_cosmos_production"), "new")
    with pytest.raises(ConfigError, match="expected letters"):
        EmrLayout(PHASE4, "a/b")


def test_names_that_do_not_exist(layout: EmrLayout) -> None:
    """Stage configurations that the EMR system does not have."""
    with pytest.raises(ConfigError, match="per experiment"):
        layout.stage_config("4c")


def test_what_spark_must_not_read_begins_with_an_underscore(layout: EmrLayout) -> None:
    """Receipts and plans lie in names that a reader of the folder passes over."""
    for place in (layout.receipts("x", "stamps"), layout.cache_plan, layout.cache_part(3)):
        relative = place.url.split(f"{layout.variant}/")[1]
        assert relative.startswith("_")
    assert layout.receipts("x", "stamps").url.startswith(layout.exports.url)
