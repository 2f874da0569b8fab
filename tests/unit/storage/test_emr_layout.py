"""Prefixes of the EMR bucket, and the variants that are refused."""

from __future__ import annotations

import pytest

from pipeline.contracts.errors import ConfigError
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location

BUCKET = Location("s3a://darkhaloscope", "us-east-2")
EXPERIMENT = "train_stamp64_bandsgrz_gridgrid_sota"


@pytest.fixture
def layout() -> EmrLayout:
    """A new variant in the old bucket."""
    return EmrLayout.of_bucket(BUCKET, "v6_dask_zarr")


def test_prefixes_are_those_of_the_emr_system(layout: EmrLayout) -> None:
    """Every prefix, letter by letter."""
    root = "s3://darkhaloscope/"
    four = root + "phase4_pipeline/"
    found = {
        layout.coadd_cache.url: root + "dr10/coadd_cache",
        layout.survey_input("sweeps").url: root + "dr10/sweeps",
        layout.brick_file("0591m305", "image", "g").url: root
        + "dr10/coadd_cache/0591m305/legacysurvey-0591m305-image-g.fits.fz",
        layout.brick_file("0591m305", "maskbits").url: root
        + "dr10/coadd_cache/0591m305/legacysurvey-0591m305-maskbits.fits.fz",
        layout.brick_success("0591m305").url: root + "dr10/coadd_cache/0591m305/_SUCCESS",
        layout.phase3("3p5", "v3_color_relaxed", "parent_compact").url: root
        + "phase3_pipeline/phase3p5/v3_color_relaxed/parent_compact",
        layout.manifest(EXPERIMENT).url: four + f"phase4a/v6_dask_zarr/manifests/{EXPERIMENT}",
        layout.manifest(EXPERIMENT, filtered=True).url: four + f"phase4a/v6_dask_zarr/manifests_filtered/{EXPERIMENT}",
        layout.manifest(EXPERIMENT, csv=True).url: four + f"phase4a/v6_dask_zarr/manifests/{EXPERIMENT}_csv",
        layout.bricks_manifest(filtered=True).url: four + "phase4a/v6_dask_zarr/bricks_manifest_filtered",
        layout.brick_blacklist.url: four + "phase4a/v6_dask_zarr/brick_blacklist.json",
        layout.assets_manifest(csv=True).url: four + "phase4b/v6_dask_zarr/assets_manifest_csv",
        layout.psfsize_repair.url: four + "phase4b_psfsize/v6_dask_zarr",
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
    layout = EmrLayout.of_bucket(BUCKET, variant)
    assert variant in layout.stamps("x").url
    with pytest.raises(ConfigError, match=f"v6_{variant}"):
        layout.for_writing()


@pytest.mark.parametrize("variant", ["v6_demo", "v35_new", "pilot"])
def test_new_variants_are_written(variant: str) -> None:
    """Any other name is free."""
    assert EmrLayout.of_bucket(BUCKET, variant).for_writing().variant == variant


def test_doubled_prefixes_are_refused() -> None:
    """An output that already names a phase would be nested a second time."""
    with pytest.raises(ConfigError, match="holds phase4c"):
        EmrLayout(BUCKET.join("phase4_pipeline", "phase4c", "v5_cosmos_production"), "new")
    with pytest.raises(ConfigError, match="expected letters"):
        EmrLayout(BUCKET, "a/b")


def test_names_that_do_not_exist(layout: EmrLayout) -> None:
    """Tables, kinds of files and stage configurations that the EMR system does not have."""
    with pytest.raises(ConfigError, match="has no 'manifests'"):
        layout.phase3("3a", "v3_color_relaxed", "manifests")
    with pytest.raises(ConfigError, match="expected maskbits"):
        layout.brick_file("0591m305", "psfex", "g")
    with pytest.raises(ConfigError, match="expected maskbits"):
        layout.brick_file("0591m305", "maskbits", "g")
    with pytest.raises(ConfigError, match="per experiment"):
        layout.stage_config("4c")


def test_bucket_of_another_folder(layout: EmrLayout) -> None:
    """Without the usual name the phase-4 folder is its own bucket."""
    assert layout.bucket == Location("s3://darkhaloscope", "us-east-2")
    assert EmrLayout(Location("/data/out"), "new").coadd_cache.url == "file:///data/out/dr10/coadd_cache"
