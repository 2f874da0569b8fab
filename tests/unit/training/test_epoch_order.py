"""Orders are permutations that nothing but seed, epoch and configuration decides, and shares cover every batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.epoch_order import batch_share, epoch_permutation, shuffled_order

SHARD_ROWS = 8


def rows_of(kinds: list[int]) -> np.ndarray:
    """(example) rows: 0 is a row without example, 1 a single one, 2 a pair."""
    return np.repeat(np.arange(len(kinds)), kinds)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.integers(0, 2), min_size=1, max_size=80).filter(any),
    by_shards=st.booleans(),
    keep_pairs=st.booleans(),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_every_example_is_given_once_to_one_process(
    kinds: list[int], by_shards: bool, keep_pairs: bool, batch_size: int, world: int, epoch: int
) -> None:
    """Shares of all batches put together are every example once; kept pairs are in one share."""
    row = rows_of(kinds)
    batch_size *= 2 if keep_pairs else 1
    together = 2 if keep_pairs else 1
    shard = row // SHARD_ROWS if by_shards else None
    order = shuffled_order(row, 5, epoch, shard=shard, width=3, keep_pairs=keep_pairs)
    seen = []
    for start in range(0, row.size, batch_size):
        batch = order[start : start + batch_size]
        shares = [batch[slice(*batch_share(batch.size, rank, world, together))] for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(shares), batch)
        sizes = [share.size for share in shares]
        assert max(sizes) - min(sizes) <= together
        if keep_pairs:
            for share in shares:
                halves = np.bincount(row[share], minlength=len(kinds))
                assert (halves[halves > 0] == np.array(kinds)[halves > 0]).all()
        seen += shares
    assert sorted(np.concatenate(seen).tolist()) == list(range(row.size))


def test_global_order_is_the_permutation_of_seed_and_epoch() -> None:
    """The same key repeats whatever the global generators did; large seeds are allowed."""
    row = np.arange(50)
    np.random.seed(1)  # noqa: NPY002
    first = epoch_permutation(50, 2**62, 3)
    np.random.seed(2)  # noqa: NPY002
    assert first.tolist() == shuffled_order(row, 2**62, 3, shard=None, width=8, keep_pairs=False).tolist()
    assert first.tolist() != epoch_permutation(50, 2**62 + 1, 3).tolist()
    assert first.tolist() != epoch_permutation(50, 2**62, 4).tolist()


@pytest.mark.parametrize("keep_pairs", [False, True])
def test_window_of_shards_mixes_and_stays_small(keep_pairs: bool) -> None:
    """At any place about `width` shards are open, never many more; each place's neighbours come from several shards."""
    row = np.repeat(np.arange(40 * 64), 1 + np.arange(40 * 64) % 2)
    shard = row // 64
    order = shuffled_order(row, 1, 0, shard=shard, width=5, keep_pairs=keep_pairs)
    place = np.empty(row.size, np.int64)
    place[order] = np.arange(row.size)
    first = np.array([place[shard == number].min() for number in range(40)])
    last = np.array([place[shard == number].max() for number in range(40)])
    middle = np.arange(row.size // 4, 3 * row.size // 4)
    n_open = ((first[:, None] <= middle) & (middle <= last[:, None])).sum(axis=0)
    assert n_open.min() >= 4
    assert n_open.max() <= 7
    assert min(np.unique(shard[order[k : k + 32]]).size for k in middle[::40]) >= 3
    assert order.tolist() != shuffled_order(row, 1, 1, shard=shard, width=5, keep_pairs=keep_pairs).tolist()
