"""The order of an epoch: a function of seed, epoch and configuration, not of what is cached or who else reads.

Global order is a permutation of all examples. Order by shards gives shard number s of the epoch's permutation of shards
a window [s, s + width) and every example of it a uniform time there; examples come by their times. Any moment then
mixes about `width` shards, each is needed once, and nothing depends on a buffer's state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHUFFLE_PURPOSE = 0
PAIR_EXAMPLES = 2


def epoch_permutation(n_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(example) permutation of one epoch; depends on `seed` and `epoch` only."""
    return _generator(seed, epoch).permutation(n_examples)


def shuffled_order(
    row: NDArray[np.int64], seed: int, epoch: int, *, shard: NDArray[np.int64] | None, width: int, keep_pairs: bool
) -> NDArray[np.int64]:
    """Every example once, in the order of an epoch.

    Args:
        row: (example) row of the cube, not decreasing; two equal ones are a pair.
        seed: any integer >= 0.
        epoch: 0-based.
        shard: (example) shard of each example for order by shards; None for global order.
        width: shards of the window.
        keep_pairs: both examples of a pair stand at places 2k and 2k + 1; so do two single ones, neighbours in the
            order, and only the last place may hold a single one.

    Returns:
        (example) permutation.
    """
    if shard is None and not keep_pairs:
        return epoch_permutation(row.size, seed, epoch)
    generator = _generator(seed, epoch)
    first = np.flatnonzero(np.diff(row, prepend=row[0] - 1)) if keep_pairs else np.arange(row.size)
    time = generator.random(first.size)
    if shard is not None:
        present, rank = np.unique(shard[first], return_inverse=True)
        time = generator.permutation(present.size)[rank] + width * time
    order = first[np.argsort(time, kind="stable")]
    return _in_twos(order, row) if keep_pairs else order


def batch_share(n_examples: int, rank: int, world: int, together: int) -> tuple[int, int]:
    """Places of a batch that one of `world` processes takes; they are disjoint and cover it.

    Args:
        n_examples: examples of the batch.
        rank: 0 to world - 1.
        world: number of processes.
        together: neighbouring places that are not separated, counted from the batch's first.

    Returns:
        First place and the one after the last; shares differ by `together` at most, and may be empty.
    """
    groups = -(-n_examples // together)
    return min(groups * rank // world * together, n_examples), min(groups * (rank + 1) // world * together, n_examples)


def _in_twos(order: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Expand first members to pairs and join single ones two by two, at the place of the second."""
    has_partner = np.append(row[1:] == row[:-1], False)[order]
    place = np.arange(order.size)
    pairs = np.stack([order[has_partner], order[has_partner] + 1], axis=1)
    single, single_place = order[~has_partner], place[~has_partner]
    whole = single.size // PAIR_EXAMPLES * PAIR_EXAMPLES
    twos = np.concatenate([pairs, single[:whole].reshape(-1, PAIR_EXAMPLES)])
    by_place = np.argsort(np.concatenate([place[has_partner], single_place[1:whole:PAIR_EXAMPLES]]))
    return np.concatenate([twos[by_place].reshape(-1), single[whole:]])


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, SHUFFLE_PURPOSE])))
