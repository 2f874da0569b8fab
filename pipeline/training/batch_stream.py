"""Batches filled ahead by threads, in order, into buffers that are used again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contracts.feed_config import FeedSection
from pipeline.training.gather import gather_stamps
from pipeline.training.shard_reader import OpenShard, ShardReader


@dataclass(frozen=True)
class ShardUse:
    """When shards are needed.

    Attributes:
        shard: (shard) numbers, by the first batch that needs them.
        first: (shard) that batch.
        last: (shard) the last batch that needs it.
    """

    shard: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


class BatchStream:
    """Stamps of given examples, batch after batch.

    Iterating yields the examples of a batch and their stamps, (example, band, y, x) float32, in order. The stamps are
    overwritten once the next batch was asked for; what the GPU was given to do before that is waited for.

    Args:
        reader: opens the shards.
        split: whose examples are meant.
        batches: examples of every batch; may be empty.
        section: threads, buffers and fetches.
        spare: buffers of earlier streams; those that fit are used, and all are left there at the end.
    """

    def __init__(
        self,
        reader: ShardReader,
        split: str,
        batches: Sequence[NDArray[np.int64]],
        section: FeedSection,
        spare: list[Tensor],
    ) -> None:
        self._reader, self._batches, self._section, self._spare = reader, batches, section, spare
        self._row, self._label = reader.examples[split]
        self._address = np.zeros(self._row.size, np.int64)
        self._pinned = section.pinned and torch.cuda.is_available()
        self._use = shard_use(batches, self._row // reader.cube.shard_samples)
        self._opened: dict[int, OpenShard] = {}

    def most_streamed(self) -> int:
        """Most shards without a place on a local disk that are in memory at a time."""
        use, n_batches = self._use, len(self._batches)
        streamed = np.array([not self._reader.stays_open(shard) for shard in use.shard.tolist()], bool)
        begun, done = use.first[streamed], np.sort(use.last[streamed])
        submitted = np.arange(n_batches) + self._section.prefetch_batches
        opened = np.searchsorted(begun, submitted, side="right") + self._section.fetches
        closed = np.searchsorted(done, np.arange(n_batches), side="left")
        return int((np.minimum(opened, begun.size) - closed).max(initial=0))

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        batches, section = self._batches, self._section
        opening = deque(zip(self._use.first.tolist(), self._use.shard.tolist(), strict=True))
        closing = self._closing()
        buffers = [self._buffer() for _ in range(min(section.prefetch_batches, len(batches)) + 1)]
        free: deque[tuple[Tensor, torch.cuda.Event | None]] = deque((buffer, None) for buffer in buffers)
        filling: deque[tuple[Tensor, list[Future[None]]]] = deque()
        fetched: deque[tuple[int, Future[None]]] = deque()
        ahead: deque[int] = deque()
        submitted = 0
        with ThreadPoolExecutor(section.fetches) as fetchers, ThreadPoolExecutor(section.threads) as fillers:
            try:
                for number, chosen in enumerate(batches):
                    while submitted < len(batches) and free:
                        while ahead and ahead[0] <= submitted:
                            ahead.popleft()
                        while opening and (opening[0][0] <= submitted or len(ahead) < section.fetches):
                            first, shard = opening.popleft()
                            ahead.append(first)
                            fetched.append((first, fetchers.submit(self._open, shard)))
                        needed = [future for first, future in fetched if first <= submitted]
                        fetched = deque(entry for entry in fetched if not _is_done(entry[1]))
                        buffer, released = free.popleft()
                        work = [
                            fillers.submit(self._fill, batches[submitted], part, buffer, needed, released)
                            for part in _parts(batches[submitted].size, section.threads)
                        ]
                        filling.append((buffer, work))
                        submitted += 1
                    buffer, work = filling.popleft()
                    for future in work:
                        future.result()
                    while closing and closing[0][0] <= number:
                        del self._opened[closing.popleft()[1]]
                    yield chosen, buffer[: chosen.size]
                    free.append((buffer, self._event()))
            finally:
                for future in (*(future for _, future in fetched), *chain.from_iterable(work for _, work in filling)):
                    future.cancel()
                if self._pinned:
                    torch.cuda.current_stream().synchronize()
        self._spare.extend(buffers)

    def _closing(self) -> deque[tuple[int, int]]:
        order = np.argsort(self._use.last, kind="stable")
        return deque(zip(self._use.last[order].tolist(), self._use.shard[order].tolist(), strict=True))

    def _open(self, shard: int) -> None:
        """Open a shard and note where the stamps of its examples lie."""
        opened = self._reader.open(shard)
        rows = self._reader.cube.shard_range(shard)
        first, last = np.searchsorted(self._row, rows)
        self._address[first:last] = opened.address[self._label[first:last], self._row[first:last] - rows[0]]
        self._opened[shard] = opened

    def _fill(
        self,
        chosen: NDArray[np.int64],
        part: slice,
        buffer: Tensor,
        needed: Sequence[Future[None]],
        released: torch.cuda.Event | None,
    ) -> None:
        for future in needed:
            future.result()
        if released is not None:
            released.synchronize()
        gather_stamps(self._address, chosen[part], buffer.numpy()[part])

    def _buffer(self) -> Tensor:
        shape = (max((chosen.size for chosen in self._batches), default=0), *self._reader.layout.stamp_shape)
        while self._spare:
            buffer = self._spare.pop()
            if buffer.shape == shape:
                return buffer
        # numpy asks for huge pages, torch does not.
        return torch.empty(shape, pin_memory=True) if self._pinned else torch.from_numpy(np.empty(shape, np.float32))

    def _event(self) -> torch.cuda.Event | None:
        """What the consumer's stream has to have reached before its buffer may be overwritten."""
        if not self._pinned:
            return None
        event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event


def shard_use(batches: Sequence[NDArray[np.int64]], shard: NDArray[np.int64]) -> ShardUse:
    """First and last batch that need each shard.

    Args:
        batches: examples of every batch.
        shard: (example) shard of every example.
    """
    if not batches:
        return ShardUse(*(np.empty(0, np.int64) for _ in range(3)))
    batch = np.repeat(np.arange(len(batches)), [chosen.size for chosen in batches])
    present, place = np.unique(shard[np.concatenate(batches)], return_inverse=True)
    first, last = np.empty(present.size, np.int64), np.empty(present.size, np.int64)
    # Of equal places the last assignment stays.
    last[place] = batch
    first[place[::-1]] = batch[::-1]
    order = np.argsort(first, kind="stable")
    return ShardUse(present[order], first[order], last[order])


def _parts(n_examples: int, threads: int) -> list[slice]:
    """A batch as one piece per thread, so that they fill one buffer while it is in the cache."""
    ends = [n_examples * part // threads for part in range(threads + 1)]
    return [slice(first, last) for first, last in pairwise(ends) if last > first]


def _is_done(future: Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
