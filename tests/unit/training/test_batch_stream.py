from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.feed_config import FeedSection
from pipeline.storage.cube import PublishedCube
from pipeline.storage.pixel_shards import pixel_layout
from pipeline.training.batch_stream import BatchStream, shard_use
from pipeline.training.shard_reader import KINDS, ShardReader


def test_shards_are_listed_by_first_need_and_with_the_last() -> None:
    """Empty batches count; a shard that comes back is one shard."""
    shard = np.array([0, 0, 5, 5, 9])
    use = shard_use([np.array([4]), np.array([], np.int64), np.array([2, 0]), np.array([4, 3]), np.array([1])], shard)
    assert use.shard.tolist() == [9, 0, 5]
    assert use.first.tolist() == [0, 2, 2]
    assert use.last.tolist() == [3, 4, 3]
    assert shard_use([], shard).shard.size == 0


@pytest.mark.parametrize("fetches", [1, 3])
def test_no_more_shards_are_held_than_said(long_cube: PublishedCube, fetches: int) -> None:
    """Shards that are not kept open come and go: never more at a time than most_streamed, far fewer than all."""
    row = np.arange(400)
    reader = ShardReader(long_cube, pixel_layout(long_cube, KINDS), {"train": (row, np.zeros(400, np.uint8))}, None)
    reader.stays_open = lambda _: False  # type: ignore[method-assign]
    section = FeedSection(fetches=fetches, prefetch_batches=2, threads=2)
    stream = BatchStream(reader, "train", np.array_split(row, 50), section, [])
    most = stream.most_streamed()
    assert fetches + 2 <= most <= fetches + 3
    held = [len(stream._opened) for _ in stream]
    assert len(held) == 50
    assert max(held) <= most
    assert held[-1] == 0
