from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.contracts.cache_config import CacheConfig
from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS
from pipeline.contracts.errors import ConfigError, ContractError, PlanChangedError, StorageError, VerificationError
from pipeline.driver import coadd_cache
from pipeline.driver.coadd_cache import fill_bricks, fill_cache
from pipeline.driver.plan import make_plan
from pipeline.driver.tasks import ShardTask, make_cutouts_shard
from pipeline.storage.bricks import brick_file
from pipeline.storage.cube import create_cube, open_cube, publish_cube
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location, RunLayout

REPOSITORY = Path(__file__).parents[3]
MINIBRICK = REPOSITORY.parent / "shared" / "data" / "minibrick_0591m305"
KEYS = (("image", "r"), ("invvar", "r"), ("maskbits", ""))
BRICKS = ("0000m010", "0002m010", "0005m010")
QUICK = {"tries": 2, "first_wait_s": 0.01, "start_spread_s": 0.0, "silence_s": 1.0, "try_s": 5.0}


def serve(folder: Path, bricknames: tuple[str, ...], keys: tuple[tuple[str, str], ...] = KEYS) -> None:
    """Files that pass as FITS, in the public layout."""
    for name in bricknames:
        for key in keys:
            path = folder / brick_file("public", name, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"SIMPLE  =                    T".ljust(2880, b" "))


def config_for(server: Any, folder: Path, **sections: Any) -> dict[str, Any]:
    """A configuration that copies three bricks of one band from the server."""
    content = {
        "source": {"url": server.url, "layout": "public"},
        "cache": {"url": str(folder / "cache"), "output": str(folder), "variant": "v6_test", "region": None},
        "bricks": {"names": list(BRICKS)},
        "files": {"bands": ["r"], "psfsize": False},
        "patience": QUICK,
        "bricks_per_task": 2,
        "cluster": {"kind": "local", "workers": 1, "memory_per_worker": "1GiB"},
    }
    return {**content, **sections}


class SerialTasks:
    """Stands in for the cluster: the tasks of `run_shards`, one after the other in this process."""

    def __call__(
        self, _cluster: Any, _stage: str, function: Any, tasks: Any, done: Any, _retries: int, *, inspect: Any
    ) -> None:
        receipts = []
        for task in tasks:
            receipts.append(function(task))
            inspect(receipts)


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in this process, so that a test takes milliseconds."""
    monkeypatch.setattr(coadd_cache, "run_shards", SerialTasks())


def assets(record: Path) -> pd.DataFrame:
    """The assets manifest by brick."""
    return pd.read_parquet(record / "assets_manifest").set_index("brickname")


def test_faults_of_a_server_through_dask(faulty_server: Any, tmp_path: Path) -> None:
    """As a user runs it: busy, broken, truncating and silent answers are overcome, an absent brick is listed."""
    serve(faulty_server.folder, BRICKS[:2])
    files = [brick_file("public", name, KEYS[0]).rsplit("/", 1)[-1] for name in BRICKS]
    faulty_server.faults[f"GET {files[0]}"] += [(429, {"Retry-After": "1"})]
    faulty_server.faults[f"GET {files[1]}"] += ["truncate"]
    faulty_server.faults[f"HEAD {files[1]}"] += [500]
    path = tmp_path / "cache.yaml"
    path.write_text(yaml.safe_dump(config_for(faulty_server, tmp_path)))
    shown = CliRunner().invoke(app, ["cache", str(path)])
    assert shown.exit_code == 0, shown.output
    summary = json.loads(shown.stdout[shown.stdout.index("{") :])
    assert summary["bricks"] == {"cached": 0, "fetched": 2, "absent": 1, "failed": 0, "pending": 0}
    found = assets(tmp_path / "phase4b" / "v6_test")
    assert found["ok"].to_dict() == {BRICKS[0]: 1, BRICKS[1]: 1, BRICKS[2]: 0}
    assert "HTTP 404" in found.loc[BRICKS[2], "error"]
    blacklist = json.loads((tmp_path / "phase4a" / "v6_test" / "brick_blacklist.json").read_text())
    assert list(blacklist["bricks"]) == [BRICKS[2]]
    assert (tmp_path / "phase4b" / "v6_test" / "_SUCCESS").exists()
    stage = json.loads((tmp_path / "phase4b" / "v6_test" / "_stage_config.json").read_text())
    assert {key: stage[key] for key in ("stage", "bands", "include_psfsize", "cache_partitions", "variant")} == {
        "stage": "4b", "bands": ["r"], "include_psfsize": 0, "cache_partitions": 2, "variant": "v6_test",
    }  # fmt: skip


@pytest.mark.usefixtures("serial")
def test_failed_bricks_end_the_run_and_are_tried_again(faulty_server: Any, tmp_path: Path) -> None:
    """The first run ends retriable with a full manifest and without marker; the second fetches the rest alone."""
    serve(faulty_server.folder, BRICKS)
    name = brick_file("public", BRICKS[1], KEYS[1]).rsplit("/", 1)[-1]
    faulty_server.faults[f"GET {name}"] += [503, 503]
    config = CacheConfig.model_validate(config_for(faulty_server, tmp_path))
    with pytest.raises(StorageError, match="1 of 3 bricks failed"):
        fill_cache(config)
    assert assets(tmp_path / "phase4b" / "v6_test")["state"].to_list() == ["fetched", "failed", "fetched"]
    assert not (tmp_path / "phase4b" / "v6_test" / "_SUCCESS").exists()
    faulty_server.requests.clear()
    summary = fill_cache(config)
    assert summary["bricks"] == {"cached": 2, "fetched": 1, "absent": 0, "failed": 0, "pending": 0}
    assert next(made for made in faulty_server.requests if made[0] == "GET")[1].endswith(name)
    assert faulty_server.asked(name) == 1
    assert len(assets(tmp_path / "phase4b" / "v6_test")) == 3


@pytest.mark.usefixtures("serial")
def test_recorded_sizes_find_a_truncated_file_of_a_marked_brick(faulty_server: Any, tmp_path: Path) -> None:
    """What an earlier run stored is compared with what it recorded, without asking the source."""
    serve(faulty_server.folder, BRICKS)
    config = CacheConfig.model_validate(config_for(faulty_server, tmp_path))
    fill_cache(config)
    damaged = tmp_path / "cache" / brick_file("cache", BRICKS[0], KEYS[2])
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert fill_cache(config)["bricks"]["fetched"] == 1
    assert damaged.stat().st_size == 2880


@pytest.mark.usefixtures("serial")
def test_limits_stop_a_run_that_goes_wrong(faulty_server: Any, tmp_path: Path) -> None:
    """Too many failed or absent bricks, or none at all, end the run; untried bricks are pending in the manifest."""
    config = config_for(faulty_server, tmp_path, limits={"failed_bricks": 0})
    for name in BRICKS[:2]:
        for key in KEYS:
            faulty_server.faults[f"HEAD {brick_file('public', name, key).rsplit('/', 1)[-1]}"] += [500] * 2
    with pytest.raises(StorageError, match="2 bricks failed so far"):
        fill_cache(CacheConfig.model_validate(config))
    assert assets(tmp_path / "phase4b" / "v6_test")["state"].to_list() == ["failed", "failed", "pending"]
    with pytest.raises(VerificationError, match=r"none of the 3 bricks: are source\.url and source\.layout right"):
        fill_cache(CacheConfig.model_validate(config_for(faulty_server, tmp_path)))
    limited = config_for(faulty_server, tmp_path, limits={"absent_bricks": 1})
    with pytest.raises(VerificationError, match="lacks 2 bricks so far"):
        fill_cache(CacheConfig.model_validate(limited))


@pytest.mark.usefixtures("serial")
def test_bricks_come_from_a_table_less_a_blacklist(faulty_server: Any, tmp_path: Path) -> None:
    """Every distinct brickname of a manifest, less an earlier run's blacklist; a limit has a record of its own."""
    serve(faulty_server.folder, BRICKS)
    pd.DataFrame({"brickname": [*BRICKS, *BRICKS], "ra": 0.0}).to_parquet(tmp_path / "manifest.parquet")
    (tmp_path / "old.json").write_text(json.dumps({"bricks": [BRICKS[1]]}))
    chosen = {"table": str(tmp_path / "manifest.parquet"), "blacklist": str(tmp_path / "old.json")}
    config = CacheConfig.model_validate(config_for(faulty_server, tmp_path, bricks=chosen))
    assert fill_cache(config, limit_bricks=1)["bricks"]["fetched"] == 1
    assert assets(tmp_path / "phase4b" / "v6_test-limit1").index.to_list() == [BRICKS[0]]
    assert fill_cache(config)["bricks"] == {"cached": 1, "fetched": 1, "absent": 0, "failed": 0, "pending": 0}
    pd.DataFrame({"brickname": ["nonsense"]}).to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(ContractError, match="nonsense"):
        fill_cache(config)


@pytest.mark.usefixtures("serial")
def test_record_belongs_to_one_choice_of_bricks(faulty_server: Any, tmp_path: Path) -> None:
    """Other bricks under the same record are refused; other patience is not."""
    serve(faulty_server.folder, BRICKS)
    fill_cache(CacheConfig.model_validate(config_for(faulty_server, tmp_path)))
    fill_cache(CacheConfig.model_validate(config_for(faulty_server, tmp_path, patience={**QUICK, "tries": 3})))
    with pytest.raises(PlanChangedError, match=r"take another cache\.variant"):
        fill_cache(CacheConfig.model_validate(config_for(faulty_server, tmp_path, bricks={"names": [BRICKS[0]]})))


def test_mistyped_folder_is_not_a_sky_without_bricks(faulty_server: Any, tmp_path: Path) -> None:
    """A source folder that does not exist is an error before any work."""
    source = {"url": str(tmp_path / "nothing"), "layout": "public"}
    with pytest.raises(ConfigError, match="does not exist"):
        fill_cache(CacheConfig.model_validate(config_for(faulty_server, tmp_path, source=source)))
    assert not (tmp_path / "phase4b").exists()


@pytest.mark.usefixtures("serial")
@pytest.mark.skipif(not MINIBRICK.is_dir(), reason=f"real imaging is not here: {MINIBRICK}")
def test_cutouts_are_made_from_the_cache(faulty_server: Any, tmp_path: Path) -> None:
    """A real brick copied over HTTP gives the cutouts stage the pixels of its source."""
    public = faulty_server.folder / "059" / "0591m305"
    public.mkdir(parents=True)
    for path in MINIBRICK.glob("legacysurvey-*"):
        (public / path.name).write_bytes(path.read_bytes())
    sections = {"files": {"bands": ["g", "r", "z"], "psfsize": True}, "bricks": {"names": ["0591m305"]}}
    summary = fill_cache(CacheConfig.model_validate(config_for(faulty_server, tmp_path, **sections)))
    assert summary["fetched_files"] == 10
    rows = {"brickname": "0591m305", "ra": [59.107, 59.105], "dec": [-30.485, -30.484], "gmag": 20.0, "rmag": 19.0}
    pd.DataFrame({**rows, "zmag": 18.5, "ebv": 0.01}).to_parquet(tmp_path / "parent.parquet")
    images = [
        _cutouts(tmp_path / name, tmp_path / "parent.parquet", bricks, layout)
        for name, bricks, layout in (("a", tmp_path / "cache", "cache"), ("b", faulty_server.folder, "public"))
    ]
    assert np.isfinite(images[0]).all()
    np.testing.assert_array_equal(images[0], images[1])


def _cutouts(root: Path, manifest: Path, bricks: Path, layout: str) -> np.ndarray:
    """Images of the run's first shard, all of whose rows must be usable."""
    settings = [f"run.root={root}", f"survey.bricks={bricks}", f"survey.layout={layout}", f"manifest.url={manifest}"]
    config = load_config(REPOSITORY / "configs" / "demo.yaml", settings)
    plan, run = make_plan(config), RunLayout(Location(str(root)))
    create_cube(run.cube("cutouts"), CUTOUTS, plan.shape)
    task = ShardTask(config, run, plan.shape, 0, tuple(plan.pieces(0)), plan.sha256, "code")
    assert set(make_cutouts_shard(task).counts) == {REJECT_REASONS[0]}
    attributes = {"schema": "cutouts", "n_samples": 2, "shard_samples": plan.shape.shard_samples}
    publish_cube(run.cube("cutouts"), attributes)
    image: np.ndarray = open_cube(run.cube("cutouts")).read_shard(0, ["image"])["image"].to_numpy()
    return image


def test_task_says_what_it_did(faulty_server: Any, tmp_path: Path) -> None:
    """The receipt counts bricks by state, files, bytes, requests and retries."""
    serve(faulty_server.folder, BRICKS[:1])
    config = CacheConfig.model_validate(config_for(faulty_server, tmp_path))
    task = coadd_cache.CacheTask(config, EmrLayout(Location(str(tmp_path)), "v6_test"), 0, BRICKS[:2], "plan", "code")
    receipt = fill_bricks(task)
    assert receipt.counts == {"none": 1, "absent": 1}
    assert receipt.work == {"files": 3, "bytes_fetched": 3 * 2880, "requests": 9, "retries": 0}
    assert "HTTP 404" in receipt.notes[0]
