from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.cache_config import CacheConfig
from pipeline.contracts.config_file import load_config_as
from pipeline.contracts.errors import ConfigError

DR10 = Path(__file__).parents[3] / "configs" / "cache-dr10.yaml"


def test_shipped_configuration_asks_for_the_files_of_a_dr10_brick() -> None:
    """Ten files: image, invvar and psfsize in three bands, and maskbits; EMR's tries and waits."""
    config = load_config_as(CacheConfig, DR10)
    assert len(config.files.keys()) == 10
    assert config.files.model_copy(update={"psfsize": False}).keys()[-1] == ("maskbits", "")
    assert (config.patience.tries, config.patience.first_wait_s, config.patience.jitter) == (5, 1.0, 0.25)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache.variant=v3_color_relaxed", "'v3_color_relaxed' holds results of the EMR system"),
        ("cache.region=null", r"cache\.region must name the AWS region of s3://darkhaloscope/dr10/coadd_cache"),
        ("source.url=s3://other/coadd", r"source\.region must name"),
        ("cache.url=https://example.org", "cannot be written to"),
        ("bricks.names=[0001m002]", "either names or table"),
        ("files.bands=[g, g]", "distinct"),
        ("patience.triez=3", "did you mean 'tries'"),
        ("bricks={names: [1m2]}", "of the form 0591m305"),
    ],
)
def test_what_cannot_be_meant_is_refused(override: str, message: str) -> None:
    """Prefixes of EMR variants, missing regions, two choices of bricks, unknown keys."""
    with pytest.raises(ConfigError, match=message):
        load_config_as(CacheConfig, DR10, [override])


def test_identity_follows_what_decides_the_content() -> None:
    """Patience and cluster are not part of it; source, files and bricks are."""
    first = load_config_as(CacheConfig, DR10).identity_sha256(["0001m002"])
    patient = load_config_as(CacheConfig, DR10, ["patience.tries=9", "cluster.workers=2"])
    assert patient.identity_sha256(["0001m002"]) == first
    assert patient.identity_sha256(["0001m005"]) != first
    assert load_config_as(CacheConfig, DR10, ["files.psfsize=false"]).identity_sha256(["0001m002"]) != first
