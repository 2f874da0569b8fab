"""A training cube scored by `dhs score`: the trainer's examples, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.search_config import SearchConfig
from pipeline.driver import scoring
from pipeline.driver.cube_scores import score_cube
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.storage.receipts import Receipt
from pipeline.training.example_index import index_split

DEFAULTS = SearchConfig.model_validate({})


@pytest.fixture(autouse=True)
def _serial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in this process, without a cluster."""

    def run_here(
        _cluster: Any, _stage: str, function: Any, tasks: Sequence[Any], done: dict[int, Receipt], _retries: int
    ) -> dict[int, Receipt]:
        return done | {task.shard: function(task) for task in tasks if task.shard not in done}

    monkeypatch.setattr(scoring, "run_shards", run_here)


def test_table_is_the_trainers(
    make_cube: Callable[..., PublishedCube], make_network: Callable[..., bytes], tmp_path: Path
) -> None:
    """Rows, order and labels of the asked splits are those that the trainer scores; no page is written."""
    cube, out = make_cube(), Location(str(tmp_path / "out"))
    network = make_network()
    summary = score_cube(DEFAULTS, network, cube, out, ["val", "test"])
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert summary["rows"] == len(table)
    assert summary["candidates"] is None
    assert not out.join("index.html").exists()
    columns = cube.columns(["role", "split", "task_id"])
    for split in ("val", "test"):
        scored, (row, label) = table[table["split"] == split], index_split(columns, split)
        assert scored["label"].tolist() == label.tolist()
        assert scored["task_id"].tolist() == columns["task_id"].to_numpy()[row].tolist()
    injected, control = (table[table["label"] == label].set_index("task_id")["logit"] for label in (1, 0))
    both = injected.index.intersection(control.index)
    assert (injected[both] > control[both]).all()


def test_unknown_splits_and_other_bands_are_refused(
    make_cube: Callable[..., PublishedCube], make_network: Callable[..., bytes], tmp_path: Path
) -> None:
    """Before anything is scored."""
    cube, out = make_cube(), Location(str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="--splits: expected some of train, val, test, guard, got tests"):
        score_cube(DEFAULTS, make_network(), cube, out, ["tests"])
    with pytest.raises(ContractError, match=r"expects bands r,g,z, 32 px.*got g,r,z, 32 px"):
        score_cube(DEFAULTS, make_network(("r", "g", "z")), cube, out, ["test"])
    assert not out.exists()
