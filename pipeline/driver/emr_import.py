"""A run whose training cube holds stamps that were finished elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.contracts.config_file import build_config
from pipeline.contracts.errors import ConfigError
from pipeline.driver.run import run
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_record


def import_stamps(
    tables: Sequence[str],
    output: str,
    seed: int,
    region: str | None = None,
    endpoint_url: str | None = None,
    overrides: Sequence[str] = (),
) -> tuple[RunLayout, dict[str, Any]]:
    """Make the run and its training cube; finished shards are kept.

    Args:
        tables: URLs of parquet files or folders of stamps, read in this order.
        output: URL of the run's folder; its last part is the run's name.
        seed: seed of the run.
        region, endpoint_url: how s3:// URLs are reached.
        overrides: `section.key=value`, such as survey.stamp_size_px=96.

    Returns:
        The run's layout, and rows per reject reason, "none" counting those that can be used.

    Raises:
        ConfigError: no table, a folder without a name, or an override that cannot be.
        ContractError: no rows, or a table without stamps.
        PlanChangedError: another run lies there.
    """
    if not tables:
        raise ConfigError("expected at least one table of stamps")
    first, *others = (Location(table, region, endpoint_url).url for table in tables)
    root, _, name = Location(output, region, endpoint_url).url.rpartition("/")
    content: dict[str, Any] = {
        "run": {"name": name, "root": root, "region": region, "endpoint_url": endpoint_url, "seed": seed},
        # The stamps are their own survey: no brick is opened.
        "survey": {"bands": ["g", "r", "z"], "stamp_size_px": 64, "bricks": first, "layout": "cache"},
        "manifest": {"kind": "stamps", "url": first, "also": others},
        "injection": {"mode": "frozen", "extinction": False},
        "sampling": {"method": "none", "metric": "arc_snr"},
        "training": {"epochs": 16},
        "shards": {"samples": 1024, "inner_chunk": 16},
        "cluster": {"kind": "local", "workers": 2},
    }
    config = build_config(content, overrides, where="dhs import")
    if config.manifest.kind != "stamps":
        raise ConfigError(f"manifest.kind {config.manifest.kind!r}: an import reads finished stamps")
    layout = run(config, only="inject")
    return layout, dict(read_record(layout)["stages"]["training"]["counts"])
