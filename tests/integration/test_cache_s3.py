"""A coadd cache filled in a bucket, from a folder and then from another bucket prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.contracts.cache_config import CacheConfig
from pipeline.contracts.cluster_config import ClusterSection
from pipeline.driver.coadd_cache import CacheTask, fill_bricks
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location


def test_bucket_is_filled_and_is_a_source_itself(s3_server: Any, survey: Path) -> None:
    """Every object of a brick arrives whole with its empty marker; a second prefix is filled from the first."""
    names = tuple(sorted(path.name for path in (survey / "coadd").iterdir()))[:2]
    place = {"region": "us-east-2", "endpoint_url": s3_server.endpoint_url}
    bucket = Location(f"s3://{s3_server.bucket}", **place)
    sources = ({"url": str(survey / "coadd")}, {"url": bucket.join("first").url, **place})
    for source, target in zip(sources, ("first", "second"), strict=True):
        config = CacheConfig.model_validate(
            {
                "source": {**source, "layout": "cache"},
                "cache": {
                    "url": f"s3a://{s3_server.bucket}/{target}",
                    "output": bucket.join("cache_record").url,
                    "variant": f"v6_{target}",
                    **place,
                },
                "bricks": {"names": names},
                "files": {"bands": ["g", "r", "z"], "psfsize": True},
                "patience": {"start_spread_s": 0.0},
                "cluster": ClusterSection(kind="local").model_dump(),
            }
        )
        task = CacheTask(config, EmrLayout(bucket.join("cache_record"), f"v6_{target}"), 0, names, "plan", "code")
        receipt = fill_bricks(task)
        assert (receipt.counts, receipt.work["files"]) == ({"none": 2}, 20)
        held = bucket.join(target, names[0]).sizes()
        disk = {path.name: path.stat().st_size for path in (survey / "coadd" / names[0]).iterdir()}
        assert held == {**{name: size for name, size in disk.items() if name != "_SUCCESS"}, "_SUCCESS": 0}
        assert fill_bricks(task).work["files"] == 0
    name = next(iter(held))
    assert bucket.join("second", names[0], name).read_bytes() == (survey / "coadd" / names[0] / name).read_bytes()
