"""Batches of the feed: right stamps, every example once, the same for any number of processes and after a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contracts.datasets import ROLES, SPLITS
from pipeline.contracts.errors import ConfigError, ContractError, StorageError, VerificationError
from pipeline.contracts.feed_config import FeedSection
from pipeline.storage.cube import PublishedCube
from pipeline.training import feed as feed_module
from pipeline.training.epoch_order import epoch_permutation
from pipeline.training.feed import Batch, SplitFeed, open_feed

CubeMaker = Callable[..., PublishedCube]
PAIR = ROLES.index("pair")


def copied(batches: Any) -> list[Batch]:
    """Batches with stamps of their own, for the feed uses its buffers again."""
    return [Batch(b.stamps.clone(), b.label, b.weight, b.row, b.features) for b in batches]


def expected_stamps(cube: PublishedCube, row: np.ndarray, label: np.ndarray) -> np.ndarray:
    pixels = [cube.read_shard(shard, ["control", "injected"]) for shard in range(cube.n_shards)]
    both = np.stack([np.concatenate([part[kind] for part in pixels]) for kind in ("control", "injected")])
    return both[label.astype(int), row]


def train_feed(cube: PublishedCube, folder: Path | None = None, **settings: Any) -> SplitFeed:
    return open_feed(cube, FeedSection.model_validate(settings), folder)["train"]


@pytest.mark.parametrize("settings", [{"cache": "never"}, {"cache": "always"}, {"cache": "always", "threads": 5}])
def test_stamps_labels_and_rows_belong_together(
    long_cube: PublishedCube, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """In cube order and shuffled, mapped or cached, for every split."""
    for name, split in open_feed(long_cube, FeedSection.model_validate(settings), tmp_path / "cache").items():
        for batches in (copied(split.in_order(16)), copied(split.shuffled(16, 7, 0)), copied(split.shuffled(16, 7, 1))):
            row = np.concatenate([batch.row for batch in batches])
            label = torch.cat([batch.label for batch in batches]).numpy()
            assert sorted(zip(row, label, strict=True)) == sorted(zip(split.row, split.label, strict=True))
            stamps = torch.cat([batch.stamps for batch in batches]).numpy()
            np.testing.assert_array_equal(stamps, expected_stamps(long_cube, row, label))
            assert [len(batch) for batch in batches[:-1]] == [16] * (split.n_batches(16) - 1)
        assert set(split.columns["split"].to_numpy().tolist()) == {SPLITS.index(name)}
    assert np.concatenate([batch.row for batch in split.in_order(16)]).tolist() == split.row.tolist()


def test_order_is_that_of_seed_and_epoch(long_cube: PublishedCube) -> None:
    """Global epochs follow the epoch permutation; epoch 0 goes by shards; where shards lie changes neither."""
    split = train_feed(long_cube)
    order = epoch_permutation(len(split), 7, 2)
    assert np.concatenate([batch.row for batch in split.shuffled(16, 7, 2)]).tolist() == split.row[order].tolist()
    by_shards = np.concatenate([batch.row for batch in train_feed(long_cube, order="shards").shuffled(16, 7, 0)])
    assert np.concatenate([batch.row for batch in split.shuffled(16, 7, 0)]).tolist() == by_shards.tolist()


@pytest.mark.parametrize("settings", [{}, {"order": "shards", "pairs": "kept", "shuffle_shards": 2}])
def test_processes_share_the_batches_of_one(long_cube: PublishedCube, settings: dict[str, Any]) -> None:
    """Ranks of three put together are the batches of a single process, and all give equally many."""
    split = train_feed(long_cube, **settings)
    for epoch in (0, 1):
        alone = copied(split.shuffled(10, 3, epoch))
        shares = [copied(split.shuffled(10, 3, epoch, rank, 3)) for rank in range(3)]
        for batch, parts in zip(alone, zip(*shares, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate([part.row for part in parts]), batch.row)
            np.testing.assert_array_equal(torch.cat([part.stamps for part in parts]), batch.stamps)


def test_epoch_goes_on_where_it_stopped(long_cube: PublishedCube) -> None:
    """From any batch on, the batches are those of the whole epoch."""
    split = train_feed(long_cube, order="shards", shuffle_shards=2)
    whole = copied(split.shuffled(16, 3, 1))
    for start in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        rest = copied(split.shuffled(16, 3, 1, start_batch=start))
        assert len(rest) == len(whole) - start
        for batch, expected in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(batch.row, expected.row)
            np.testing.assert_array_equal(batch.stamps, expected.stamps)


def test_kept_pairs_are_in_one_batch(long_cube: PublishedCube) -> None:
    """Both stamps of every pair, by shards and globally; an odd batch size is refused."""
    split = train_feed(long_cube, pairs="kept")
    is_pair = set(split.row[split.columns["role"].to_numpy() == PAIR].tolist())
    for epoch in (0, 1):
        for batch in split.shuffled(8, 3, epoch):
            row, count = np.unique(batch.row, return_counts=True)
            assert {r for r, n in zip(row.tolist(), count, strict=True) if n == 2} == is_pair & set(row.tolist())
    with pytest.raises(ConfigError, match="even batch_size, got 9"):
        split.shuffled(9, 3, 0)


def test_weights_and_features_go_with_their_examples(make_cube: CubeMaker) -> None:
    """What a batch carries are the rows of the split's tables."""

    def fill(rows: dict[str, np.ndarray]) -> None:
        rows["weight_prior"][:] = 1.0 + np.arange(120)
        rows["ebv_mag"][:] = np.arange(120)

    split = train_feed(make_cube(fill), weights="prior", features=("ebv_mag", "psfsize_arcsec"))
    for batch in split.shuffled(16, 1, 1):
        np.testing.assert_array_equal(batch.features[:, 0], batch.row.astype(np.float32))
        lens = batch.label.numpy() == 1
        ratio = batch.weight.numpy()[lens] / (1.0 + batch.row[lens])
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
        assert (batch.weight[~lens] == 1.0).all()


def test_full_cache_is_needed_for_global_order_only(long_cube: PublishedCube, tmp_path: Path) -> None:
    """Over the limit, order by shards streams the rest; a global order is refused with the remedy."""
    limit = {"cache": "always", "cache_limit_gb": 0.005}
    split = train_feed(long_cube, tmp_path / "cache", **limit, order="shards", shuffle_shards=2)
    reference = copied(train_feed(long_cube, order="shards", shuffle_shards=2).shuffled(16, 3, 0))
    for batch, expected in zip(copied(split.shuffled(16, 3, 0)), reference, strict=True):
        np.testing.assert_array_equal(batch.stamps, expected.stamps)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 5_000_000
    with pytest.raises(ConfigError, match="have no room in the cache; .* set training.feed.order to shards"):
        train_feed(long_cube, tmp_path / "cache", **limit).shuffled(16, 3, 0)


def test_streaming_that_needs_more_than_memory_is_refused(
    long_cube: PublishedCube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the bytes needed and the limit."""
    split = train_feed(long_cube, tmp_path / "cache", cache="always", cache_limit_gb=1e-6, order="shards")
    monkeypatch.setattr(feed_module, "available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(ConfigError, match=r"needs \d+ bytes of memory for 10 shards at a time, the limit is 600000"):
        split.shuffled(16, 3, 0)


def test_bad_pixels_and_bytes_end_the_epoch(make_cube: CubeMaker) -> None:
    """The error of a shard reaches whoever asks for batches; what was asked for is checked at once."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        rows["control"][np.flatnonzero((rows["split"] == 0) & (rows["role"] == PAIR))[-1]] = np.nan

    with pytest.raises(ContractError, match="shard 2, split train: 1 of"):
        list(train_feed(make_cube(spoil)).shuffled(16, 1, 0))
    cube = make_cube(name="lost")
    split = train_feed(cube)
    cube.location.join(cube.shard_object("control", 1)).remove()
    with pytest.raises(StorageError, match="control/c/1/0/0/0"):
        list(split.in_order(16))
    for wrong in ({"rank": 2, "world": 2}, {"start_batch": 99}):
        with pytest.raises(ContractError, match="expected rank below world"):
            split.shuffled(16, 1, 0, **wrong)


def test_iteration_may_stop_early_and_interleave(long_cube: PublishedCube) -> None:
    """Two epochs of one split at a time do not disturb each other; an abandoned one ends its threads."""
    split = train_feed(long_cube)
    first, second = split.shuffled(16, 1, 1), split.shuffled(16, 1, 1)
    for _ in range(3):
        a, b = next(first), next(second)
        np.testing.assert_array_equal(a.stamps, b.stamps)
    first.close()  # type: ignore[attr-defined]
    second.close()  # type: ignore[attr-defined]
    assert len(list(split.shuffled(16, 1, 1))) == split.n_batches(16)


def test_other_cubes_and_thin_splits_are_refused(make_cube: CubeMaker) -> None:
    """Another schema version, and a split with one class only."""
    cube = make_cube()
    cube.attrs["schema_version"] = 99
    with pytest.raises(ContractError, match="expected cube schema 'training' version 3"):
        open_feed(cube, FeedSection())

    def thin(rows: dict[str, np.ndarray]) -> None:
        rows["role"][rows["split"] == SPLITS.index("val")] = ROLES.index("control")

    with pytest.raises(VerificationError, match="split val has 0 injected"):
        open_feed(make_cube(thin, name="thin"), FeedSection())
