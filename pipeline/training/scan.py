"""One pass over a split: the logit of every example in order, and of a few examples more than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.training.feed import SplitFeed
from pipeline.training.processes import World
from pipeline.training.scorer import SCORING_BATCH, Scorer


@dataclass(frozen=True)
class Kept:
    """Some examples of a split, ascending in place.

    Attributes:
        place: (example) index into the split.
        values: (example, ...) what was kept of each.
    """

    place: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Scan:
    """What a pass over a split found.

    Attributes:
        logit: (example) float32, in the order of the split.
        stamps: raw stamps of the examples asked for. [nmgy]
        embeddings: features below the head, of the examples asked for.
        worst: raw stamps of the negatives with the highest and the positives with the lowest logits. [nmgy]
    """

    logit: NDArray[np.float32]
    stamps: Kept
    embeddings: Kept
    worst: Kept


def scan_split(
    scorer: Scorer,
    feed: SplitFeed,
    world: World,
    stamps_of: NDArray[np.int64] | None = None,
    embeddings_of: NDArray[np.int64] | None = None,
    n_worst: int = 0,
) -> Scan:
    """Score every example of a split once, each process its share.

    Args:
        scorer: the network.
        feed: the split.
        world: the processes; all of them get the same result.
        stamps_of: examples whose raw stamps are kept, by place in the split.
        embeddings_of: examples that are embedded.
        n_worst: stamps of each class kept of those that the network is most wrong about.

    Raises:
        ContractError: an unusable stamp.
        VerificationError: an example was not read exactly once, or a logit is not finite.
    """
    order = np.argsort(_keys(feed.row, feed.label))
    keys = _keys(feed.row, feed.label)[order]
    beside = None if scorer.features is None else scorer.features.standardised(feed.features)
    places, logits = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    stamps, embeddings = _Collector(stamps_of), _Collector(embeddings_of)
    worst = {label: _Worst(n_worst) for label in (0, 1)}
    for batch in feed.in_order(SCORING_BATCH, world.rank, world.size):
        raw, label = batch.stamps.numpy(), batch.label.numpy().astype(np.uint8)
        place = order[np.searchsorted(keys, _keys(batch.row, label))]
        logit = scorer.logits(raw, None if beside is None else beside[place])
        places.append(place)
        logits.append(logit)
        chosen = stamps.among(place)
        stamps.add(place[chosen], raw[chosen])
        chosen = embeddings.among(place)
        if chosen.size:
            embeddings.add(place[chosen], scorer.embeddings(scorer.normalised(raw[chosen]))[-1])
        for kind, found in worst.items():
            found.add(place, np.where(kind, -logit, logit), raw, np.flatnonzero(label == kind))
    mine = (np.concatenate(places), np.concatenate(logits))
    shares = world.gather(mine)
    place, logit = (np.concatenate([share[part] for share in shares]) for part in (0, 1))
    if not np.array_equal(np.sort(place), np.arange(len(feed))):
        raise VerificationError(
            f"split {feed.split}: {place.size} examples were read, expected each of {len(feed)} once"
        )
    for found in worst.values():
        found.merge(world)
    return Scan(
        logit=logit[np.argsort(place)],
        stamps=stamps.merged(world),
        embeddings=embeddings.merged(world),
        worst=_sorted(
            np.concatenate([found.place for found in worst.values()]),
            _joined([found.stamps for found in worst.values()]),
        ),
    )


def evenly_spread(n_examples: int, n_wanted: int) -> NDArray[np.int64]:
    """Places of at most `n_wanted` examples of a split, spread evenly over it."""
    if n_wanted == 0:
        return np.empty(0, np.int64)
    return np.unique(np.linspace(0, n_examples - 1, n_wanted).astype(np.int64))


class _Collector:
    """Values of examples that were asked for, as they come by."""

    def __init__(self, wanted: NDArray[np.int64] | None) -> None:
        self.wanted = np.empty(0, np.int64) if wanted is None else wanted
        self.place: list[NDArray[np.int64]] = []
        self.values: list[NDArray[np.float32]] = []

    def among(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin(place, self.wanted))

    def add(self, place: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        if place.size:
            self.place.append(place)
            self.values.append(values)

    def merged(self, world: World) -> Kept:
        shares = world.gather((self.place, self.values))
        place = [part for share in shares for part in share[0]]
        values = [part for share in shares for part in share[1]]
        return _sorted(np.concatenate([np.empty(0, np.int64), *place]), _joined(values))


class _Worst:
    """The examples with the largest `error` so far; ties go to the earlier place."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.place = np.empty(0, np.int64)
        self.error = np.empty(0, np.float32)
        self.stamps: NDArray[np.float32] | None = None

    def add(
        self,
        place: NDArray[np.int64],
        error: NDArray[np.float32],
        stamps: NDArray[np.float32],
        candidates: NDArray[np.int64],
    ) -> None:
        chosen = candidates[np.lexsort((place[candidates], -error[candidates]))[: self.count]]
        if not chosen.size:
            return
        all_place = np.concatenate([self.place, place[chosen]])
        all_error = np.concatenate([self.error, error[chosen]])
        all_stamps = stamps[chosen] if self.stamps is None else np.concatenate([self.stamps, stamps[chosen]])
        best = np.lexsort((all_place, -all_error))[: self.count]
        self.place, self.error, self.stamps = all_place[best], all_error[best], all_stamps[best]

    def merge(self, world: World) -> None:
        shares = world.gather((self.place, self.error, self.stamps))
        self.place, self.error, self.stamps = np.empty(0, np.int64), np.empty(0, np.float32), None
        for place, error, stamps in shares:
            if stamps is not None:
                self.add(place, error, stamps, np.arange(place.size))


def _keys(row: NDArray[np.int64], label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(example) a number that no two examples of a split share: a row has at most one stamp of each class."""
    return 2 * row + (1 - label.astype(np.int64))


def _joined(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else np.empty((0, 0), np.float32)


def _sorted(place: NDArray[np.int64], values: NDArray[np.float32]) -> Kept:
    order = np.argsort(place)
    return Kept(place[order], values[order])
