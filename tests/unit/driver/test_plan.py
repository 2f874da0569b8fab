from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SPLITS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.injection import CoreSuppression
from pipeline.driver.plan import check_rows, make_plan, manifest_locations, read_rows
from pipeline.stages.splits import assign_splits


def catalogue(n_rows: int) -> pd.DataFrame:
    """A parent catalogue of hosts on a line."""
    return pd.DataFrame(
        {
            "brickname": [f"{k // 10:04d}m005" for k in range(n_rows)],
            "ra": 10.0 + 0.001 * np.arange(n_rows),
            "dec": np.full(n_rows, -0.5),
            "gmag": np.full(n_rows, 20.0),
            "rmag": np.full(n_rows, 19.0),
            "zmag": np.full(n_rows, 18.5),
            "ebv": np.full(n_rows, 0.03),
        }
    )


@pytest.fixture
def config(make_config: Callable[..., RunConfig], tmp_path: Path) -> RunConfig:
    """Shards of 16 rows over a table of three files with 50 rows."""
    folder = tmp_path / "parent"
    folder.mkdir()
    rows = catalogue(50)
    for number, (start, stop) in enumerate([(0, 20), (20, 27), (27, 50)]):
        rows.iloc[start:stop].to_parquet(folder / f"part-{number}.parquet", row_group_size=8)
    return make_config(f"manifest.url={folder}", "shards.samples=16", f"run.root={tmp_path}")


def test_plan_covers_every_row_once(config: RunConfig) -> None:
    """The shards' rows, in order, are the table's rows."""
    plan = make_plan(config)
    assert plan.shape.n_shards == 4
    rows = [read_rows(config, plan.pieces(shard)) for shard in range(4)]
    assert [part.sizes["sample"] for part in rows] == [16, 16, 16, 2]
    ra = np.concatenate([part["ra_deg"].to_numpy() for part in rows])
    np.testing.assert_array_equal(ra, catalogue(50)["ra"])


def test_limited_plan_is_the_first_shards_of_the_full_one(config: RunConfig) -> None:
    """A limit keeps shard contents, opens only the files it needs, and is another plan."""
    full, limited = make_plan(config), make_plan(config, limit_shards=1)
    assert limited.pieces(0) == full.pieces(0)
    assert len(limited.parts) == 1
    assert limited.shape.sizes["sample"] == 16
    assert limited.sha256 != full.sha256


def test_plan_hash_ignores_what_does_not_decide_bytes(config: RunConfig) -> None:
    """Workers, evaluation and the tolerance of the shares do not change the plan; seed, sampling and arcs do."""
    base = make_plan(config).sha256
    evaluation = config.evaluation.model_copy(update={"base_rate": 1e-5})
    assert make_plan(config.model_copy(update={"evaluation": evaluation})).sha256 == base
    workers = config.cluster.model_copy(update={"workers": 7})
    assert make_plan(config.model_copy(update={"cluster": workers})).sha256 == base
    wider = config.splits.model_copy(update={"tolerance": 0.9})
    assert make_plan(config.model_copy(update={"splits": wider})).sha256 == base
    finer = config.splits.model_copy(update={"nside": 512})
    assert make_plan(config.model_copy(update={"splits": finer})).sha256 != base
    seeded = config.run.model_copy(update={"seed": 8})
    assert make_plan(config.model_copy(update={"run": seeded})).sha256 != base
    suppressed = config.injection.model_copy(update={"core_suppression": CoreSuppression(radius_px=4)})
    assert make_plan(config.model_copy(update={"injection": suppressed})).sha256 != base
    sampling = config.sampling.model_copy(update={"max_attempts": 3})
    assert make_plan(config.model_copy(update={"sampling": sampling})).sha256 != base


def test_duplicates_across_shards_are_found(config: RunConfig, tmp_path: Path) -> None:
    """A host that occurs in two shards is a duplicate task_id."""
    rows = pd.concat([catalogue(40), catalogue(3)], ignore_index=True)
    rows.to_parquet(tmp_path / "twice.parquet")
    section = config.manifest.model_copy(update={"url": str(tmp_path / "twice.parquet")})
    twice = config.model_copy(update={"manifest": section})
    with pytest.raises(ContractError, match="3 rows with a duplicate task_id"):
        check_rows(twice, make_plan(twice))


def test_counts_of_the_manifest(config: RunConfig) -> None:
    """Rows, hosts and bricks are counted over the plan."""
    counts = check_rows(config, make_plan(config))
    assert (counts["rows"], counts["hosts"], counts["bricks"], counts["controls"]) == (50, 50, 5, 0)


def test_rows_that_ask_for_a_pair_are_counted_by_split(config: RunConfig) -> None:
    """The counts are those of the splits that the cube will have."""
    rows = catalogue(50)
    split, _ = assign_splits(rows["ra"].to_numpy(), rows["dec"].to_numpy(), config.run.seed, config.splits)
    assert check_rows(config, make_plan(config))["pairs_by_split"] == {
        name: int((split == code).sum()) for code, name in enumerate(SPLITS)
    }


def test_extinction_needs_ebv(config: RunConfig, tmp_path: Path) -> None:
    """With extinction on, a parent catalogue without ebv is an error that names the column."""
    catalogue(4).drop(columns="ebv").to_parquet(tmp_path / "noebv.parquet")
    section = config.manifest.model_copy(update={"url": str(tmp_path / "noebv.parquet")})
    without = config.model_copy(update={"manifest": section})
    with pytest.raises(ContractError, match="missing column 'ebv'"):
        check_rows(without, make_plan(without))


def test_manifest_location_has_the_run_region(config: RunConfig) -> None:
    """The manifest is reached with the run's region."""
    assert [place.region for place in manifest_locations(config)] == [config.run.region]
