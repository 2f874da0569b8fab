"""`dhs score` from the table to the page, its tasks run in this process; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError, VerificationError
from pipeline.contracts.network_file import NETWORK_FILE
from pipeline.contracts.search_config import SearchConfig
from pipeline.driver import scoring
from pipeline.driver.cube_scores import score_cube
from pipeline.driver.scoring import find_network
from pipeline.driver.search import search_positions
from pipeline.driver.search_tasks import SCORES
from pipeline.stages.synthetic_sky import make_brick, make_parent_rows
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.brick_writer import write_brick
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import Location
from pipeline.storage.receipts import Receipt

SKY = SyntheticSky(seed=5, brick_size_px=300, hosts_per_brick=8)
SIZE_PX = 32


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bricks of 300 px with eight hosts each, and their parent catalogue."""
    folder = tmp_path_factory.mktemp("survey")
    coadd = Location(str(folder / "coadd"))
    for index in range(2):
        write_brick(coadd.filesystem, coadd.path, "cache", make_brick(SKY, index))
    pd.concat([make_parent_rows(SKY, index) for index in range(2)]).to_parquet(folder / "parent.parquet")
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Tasks run in this process, without a cluster; returns which."""
    log: list[tuple[str, int]] = []

    def run_here(
        _cluster: Any, stage: str, function: Any, tasks: Sequence[Any], done: dict[int, Receipt], _retries: int
    ) -> dict[int, Receipt]:
        log.extend((stage, task.shard) for task in tasks if task.shard not in done)
        return done | {task.shard: function(task) for task in tasks if task.shard not in done}

    monkeypatch.setattr(scoring, "run_shards", run_here)
    return log


def configured(folder: Path, **changes: Any) -> SearchConfig:
    """A search of the survey."""
    place = {"bands": ["g", "r", "z"], "stamp_size_px": SIZE_PX, "bricks": str(folder / "coadd"), "layout": "cache"}
    return SearchConfig.model_validate(
        {"survey": place, "candidates": {"top": 3}, "shards": {"samples": 8, "inner_chunk": 4}} | changes
    )


def listed(survey: Path, folder: Path) -> Location:
    """The hosts, one of them twice, one position without brick and one that is none."""
    parent = pd.read_parquet(survey / "parent.parquet")[["brickname", "ra", "dec"]]
    more = pd.DataFrame({"brickname": ["1234m500", None], "ra": [123.4, -1.0], "dec": [-50.0, 0.0]})
    path = folder / "positions.csv"
    pd.concat([parent, parent.iloc[:1], more]).assign(id=lambda rows: np.arange(len(rows))).to_csv(path, index=False)
    return Location(str(path))


def test_search_scores_every_position_and_keeps_the_best(
    survey: Path, tmp_path: Path, made: list[tuple[str, int]], make_network: Callable[..., bytes]
) -> None:
    """Scores in input order, reasons for what was kept out, candidates with pixels and a page; nothing done twice."""
    out, table, config = Location(str(tmp_path / "out")), listed(survey, tmp_path), configured(survey)
    summary = search_positions(config, make_network(), table, out)
    scores = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert scores["position_id"].tolist() == [str(row) for row in range(19)]
    assert scores["reject_reason"].tolist()[-2:] == ["brick_missing", "position_invalid"]
    assert scores["logit"].iloc[16] == scores["logit"].iloc[0]
    usable = scores[scores["usable"] == 1]
    assert summary["rows_by_reason"]["none"] == len(usable) > 3
    assert scores.loc[scores["usable"] == 0, "logit"].isna().all()

    candidates = pd.read_parquet(tmp_path / "out" / "candidates.parquet")
    distinct = usable.drop_duplicates(["ra_deg", "dec_deg"])
    assert candidates["logit"].tolist() == sorted(distinct["logit"], reverse=True)[:3]
    cube = open_cube(out.join("cubes", "candidates-3"))
    stamps = cube.read_shard(0, ["image", "task_id", "ra_deg"])
    assert stamps["task_id"].to_numpy().tolist() == candidates["position_id"].tolist()
    np.testing.assert_allclose(stamps["image"].mean(("band", "y", "x")), candidates["logit"], rtol=1e-5)
    assert (tmp_path / "out" / "index.html").read_text().count('alt="candidate ') == 3

    assert made == [(SCORES, 0), (SCORES, 1), (SCORES, 2), ("candidates-3", 0)]
    assert search_positions(config, make_network(), table, out) == summary
    out.join("cubes", SCORES, "000001.parquet").remove()
    out.join("_SUCCESS").remove()
    search_positions(config, make_network(), table, out)
    assert made[4:] == [(SCORES, 1)]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "scores.parquet"), scores)

    search_positions(configured(survey, candidates={"top": 2}), make_network(), table, out)
    assert made[5:] == [("candidates-2", 0)]
    with pytest.raises(PlanChangedError, match="quality differ"):
        search_positions(configured(survey, quality={"bad_pixel_frac_max": 0.1}), make_network(), table, out)
    with pytest.raises(PlanChangedError, match="network_sha256 differ"):
        search_positions(config, make_network(code_version="other"), table, out)


def test_partition_does_not_change_scores(
    survey: Path, tmp_path: Path, made: list[tuple[str, int]], make_network: Callable[..., bytes]
) -> None:
    """One position a task or all in one: the same table."""
    table, network = listed(survey, tmp_path), make_network()
    for name, size in (("a", 1), ("b", 64)):
        config = configured(survey, shards={"samples": size, "inner_chunk": 1})
        search_positions(config, network, table, Location(str(tmp_path / name)))
    a, b = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("a", "b"))
    pd.testing.assert_frame_equal(a, b)
    assert len({stage for stage, _ in made}) == 2


def test_candidates_of_a_search_can_be_scored_as_a_cube(
    survey: Path, tmp_path: Path, made: list[tuple[str, int]], make_network: Callable[..., bytes]
) -> None:
    """A cutouts cube gives the scores that its stamps had, and a ranking of its own."""
    first, out = Location(str(tmp_path / "first")), Location(str(tmp_path / "second"))
    config = configured(survey)
    search_positions(config, make_network(), Location(str(survey / "parent.parquet")), first)
    summary = score_cube(config, make_network(), open_cube(first.join("cubes", "candidates-3")), out, ["test"])
    assert summary["rows"] == 3
    a, b = (pd.read_parquet(tmp_path / name / "candidates.parquet") for name in ("first", "second"))
    pd.testing.assert_frame_equal(a.drop(columns="row"), b.drop(columns="row"))
    assert b["row"].tolist() == [0, 1, 2]


def test_what_cannot_be_searched_is_refused(
    survey: Path, tmp_path: Path, made: list[tuple[str, int]], make_network: Callable[..., bytes]
) -> None:
    """No survey, another stamp size, no bricks at all, no position."""
    table, out = listed(survey, tmp_path), Location(str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="section survey"):
        search_positions(configured(survey, survey=None), make_network(), table, out)
    with pytest.raises(ContractError, match="expects bands g,r,z, 64 px"):
        search_positions(configured(survey), make_network(size_px=64), table, out)
    with pytest.raises(ConfigError, match="does not exist"):
        search_positions(configured(tmp_path), make_network(), table, out)
    public = configured(survey).survey.model_copy(update={"layout": "public"})  # type: ignore[union-attr]
    with pytest.raises(ContractError, match="no brick of the first"):
        search_positions(configured(survey, survey=public.model_dump()), make_network(), table, out)
    nowhere = tmp_path / "nowhere.csv"
    nowhere.write_text("ra,dec\n400,0\n")
    with pytest.raises(ContractError, match="none of 1 rows has a valid position"):
        search_positions(configured(survey), make_network(), Location(str(nowhere)), Location(str(tmp_path / "o")))


def test_network_is_found_beside_its_checkpoint(tmp_path: Path, make_network: Callable[..., bytes]) -> None:
    """The file, its folder, or the checkpoint it was made from, and no other checkpoint."""
    folder = Location(str(tmp_path))
    checkpoint = folder.join("checkpoint.pt")
    checkpoint.write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"pipeline\.training\.export --checkpoint"):
        find_network(checkpoint)
    with pytest.raises(ConfigError, match="no network is there"):
        find_network(folder.join(NETWORK_FILE))
    network = make_network(checkpoint_sha256=checkpoint.sha256())
    folder.join(NETWORK_FILE).write_bytes(network)
    assert find_network(checkpoint) == find_network(folder) == find_network(folder.join(NETWORK_FILE)) == network
    checkpoint.write_bytes(b"others")
    with pytest.raises(VerificationError, match="export it again"):
        find_network(checkpoint)


def test_command_tells_cubes_from_positions(
    survey: Path, tmp_path: Path, made: list[tuple[str, int]], make_network: Callable[..., bytes]
) -> None:
    """As a user types it; without --config only a cube can be scored."""
    network = tmp_path / NETWORK_FILE
    network.write_bytes(make_network())
    settings = tmp_path / "search.yaml"
    settings.write_text(json.dumps(configured(survey).model_dump(mode="json")))
    arguments = ["score", str(network), str(survey / "parent.parquet"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--config", str(settings), "--set", "candidates.top=2"])
    assert done.exit_code == 0, done.output
    assert "index.html" in done.output
    cube = str(tmp_path / "out" / "cubes" / "candidates-2")
    done = CliRunner().invoke(app, ["score", str(network), cube, "-o", str(tmp_path / "again")])
    assert json.loads(done.output.rsplit("\n", 2)[0])["rows"] == 2
    failed = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "third")])
    assert "section survey" in str(failed.exception)
