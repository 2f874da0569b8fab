from __future__ import annotations

import numpy as np

from pipeline.training.batch_stream import shard_use


def test_shards_are_listed_by_first_need_and_with_the_last() -> None:
    """Empty batches count; a shard that comes back is one shard."""
    shard = np.array([0, 0, 5, 5, 9])
    use = shard_use([np.array([4]), np.array([], np.int64), np.array([2, 0]), np.array([4, 3]), np.array([1])], shard)
    assert use.shard.tolist() == [9, 0, 5]
    assert use.first.tolist() == [0, 2, 2]
    assert use.last.tolist() == [3, 4, 3]
    assert shard_use([], shard).shard.size == 0
