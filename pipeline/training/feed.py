"""The feed: examples of a training cube in batches, in any order, at the speed of memory.

Stamps are copied from mapped shards into a few batch buffers that are used again and again, by threads that run ahead
of the network. There are no worker processes: at 49 kB a stamp, passing it between processes costs more than copying
it. What starts processes of its own (torchrun) must spawn them: zarr's event loop does not survive a fork.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contracts.datasets import TRAINED_SPLITS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.feed_config import FeedSection
from pipeline.storage.cube import PublishedCube
from pipeline.storage.pixel_shards import PixelLayout, pixel_layout
from pipeline.training.batch_stream import BatchStream
from pipeline.training.epoch_order import PAIR_EXAMPLES, batch_share, shuffled_order
from pipeline.training.example_index import (
    COLUMNS,
    WEIGHT_COLUMNS,
    example_features,
    example_weights,
    index_split,
    require_training_cube,
)
from pipeline.training.memory_limit import available_memory_bytes
from pipeline.training.shard_cache import ShardCache
from pipeline.training.shard_reader import KINDS, ShardReader

MEMORY_FRACTION = 0.6
DEFAULT_CACHE_FOLDER = "darkhaloscope-shards"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Some examples, on the host.

    Attributes:
        stamps: (example, band, y, x) float32 as stored; overwritten once the next batch was asked for. [nmgy]
        label: (example) float32, 1 for an injected stamp.
        weight: (example) float32 sample weight.
        row: (example) int64 row of the cube.
        features: (example, feature) float32 configured columns.
    """

    stamps: Tensor
    label: Tensor
    weight: Tensor
    row: NDArray[np.int64]
    features: Tensor

    def __len__(self) -> int:
        return len(self.row)


class SplitFeed:
    """The examples of one split.

    Attributes:
        split: name of the split.
        label: (example) uint8, 1 for an injected stamp.
        row: (example) int64 row of the cube, not decreasing; a pair's injected stamp comes first.
        columns: cube columns of those rows, dim `example`; arc_snr and theta_e_arcsec of a control are its pair's.
        weight: (example) float32.
        features: (example, feature) float32.
        stamp_shape: (band, y, x).
    """

    def __init__(self, split: str, reader: ShardReader, columns: xr.Dataset, section: FeedSection) -> None:
        self.split, self.columns = split, columns
        self.row, self.label = reader.examples[split]
        self.weight = example_weights(self.label, columns, section.weights)
        self.features = example_features(columns, section.features)
        self.stamp_shape = reader.layout.stamp_shape
        self._reader, self._section = reader, section
        self._shard = self.row // reader.cube.shard_samples
        self._label = torch.from_numpy(self.label.astype(np.float32))
        self._spare: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.label)

    def n_batches(self, batch_size: int) -> int:
        """Batches of an epoch; the last may be shorter."""
        return -(-len(self) // batch_size)

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1, start_batch: int = 0
    ) -> Iterator[Batch]:
        """Every example once, in the order of an epoch, from a batch on.

        The order depends on the configuration, `seed` and `epoch` alone. Process `rank` gets its share of every batch,
        `batch_share`, so that all processes together see the same batches whatever `world` is; a share of a short last
        batch may be empty.

        Args:
            batch_size: examples of a batch, all processes together; even if pairs are kept.
            seed: decides the order, with the epoch.
            epoch: 0-based.
            rank: 0 to world - 1.
            world: number of processes.
            start_batch: first batch to give, to go on after an interruption.

        Raises:
            ConfigError: pairs are kept and the size is odd; or a global order of shards that are not on a local disk.
            ContractError: rank, size or batch out of range; pixels that are not finite.
            StorageError: unreadable or corrupt bytes.
        """
        section = self._section
        keep_pairs = section.pairs == "kept"
        if keep_pairs and batch_size % PAIR_EXAMPLES:
            raise ConfigError(f"training.feed.pairs kept needs an even batch_size, got {batch_size}")
        by_shards = section.order == "shards" or (section.order == "shards_then_global" and epoch == 0)
        if section.order != "shards":
            self._require_local_shards()
        order = shuffled_order(
            self.row,
            seed,
            epoch,
            shard=self._shard if by_shards else None,
            width=section.shuffle_shards,
            keep_pairs=keep_pairs,
        )
        return self._batches(order, batch_size, rank, world, start_batch, PAIR_EXAMPLES if keep_pairs else 1)

    def in_order(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every example once, in cube order; arguments and errors as in `shuffled`."""
        return self._batches(np.arange(len(self)), batch_size, rank, world, 0, 1)

    def _batches(
        self,
        order: NDArray[np.int64],
        batch_size: int,
        rank: int,
        world: int,
        start_batch: int,
        together: int,
    ) -> Iterator[Batch]:
        n_batches = self.n_batches(batch_size) if batch_size > 0 else 0
        if not (0 <= rank < world and 0 <= start_batch <= n_batches and batch_size > 0):
            raise ContractError(
                f"split {self.split}: expected rank below world and start_batch up to {n_batches}, got rank {rank}, "
                f"world {world}, start_batch {start_batch}, batch_size {batch_size}"
            )
        parts = [order[start : start + batch_size] for start in range(start_batch * batch_size, len(self), batch_size)]
        mine = [part[slice(*batch_share(part.size, rank, world, together))] for part in parts]
        stream = BatchStream(self._reader, self.split, mine, self._section, self._spare)
        self._require_memory(stream)
        return (
            Batch(
                stamps=stamps,
                label=torch.from_numpy(self.label[chosen].astype(np.float32)),
                weight=torch.from_numpy(self.weight[chosen]),
                row=self.row[chosen],
                features=torch.from_numpy(self.features[chosen]),
            )
            for chosen, stamps in stream
        )

    def _require_local_shards(self) -> None:
        shards = np.unique(self._shard).tolist()
        streamed = [shard for shard in shards if not self._reader.stays_open(shard)]
        if streamed:
            raise ConfigError(
                f"training.feed.order {self._section.order} needs every shard of split {self.split} on a local disk, "
                f"but {len(streamed)} of {len(shards)} shards are not and have no room in the cache; "
                "enlarge training.feed.cache_limit_gb or the disk, or set training.feed.order to shards"
            )

    def _require_memory(self, stream: BatchStream) -> None:
        """Shards that have no place on a local disk must fit into memory for as long as they are needed."""
        streamed = stream.most_streamed()
        needed = streamed * len(KINDS) * self._reader.layout.object_bytes(self._reader.cube.shard_samples)
        limit = int(MEMORY_FRACTION * available_memory_bytes()) if streamed else 0
        if needed > limit:
            raise ConfigError(
                f"streaming split {self.split} needs {needed} bytes of memory for {streamed} shards at a time, the "
                f"limit is {limit}; lower training.feed.shuffle_shards or fetches, or give the cache more room"
            )


def open_feed(cube: PublishedCube, section: FeedSection, cache_folder: Path | None = None) -> dict[str, SplitFeed]:
    """The feeds of train, val and test; stamps are read when batches are asked for.

    Args:
        cube: published training cube.
        section: how.
        cache_folder: where shards are kept; None is the configured folder.

    Raises:
        VerificationError: a split has fewer than 10 examples of a class, or a weight is not positive.
        ContractError: not a training cube of this version or encoding; a feature that is not finite.
        StorageError: columns cannot be read, or the cache not be written.
    """
    require_training_cube(cube)
    layout = pixel_layout(cube, KINDS)
    columns = cube.columns(tuple(dict.fromkeys((*COLUMNS, *WEIGHT_COLUMNS[section.weights], *section.features))))
    examples = {name: index_split(columns, name) for name in TRAINED_SPLITS}
    cache = _open_cache(cube, layout, examples["train"][0], section, cache_folder)
    reader = ShardReader(cube, layout, examples, cache)
    feeds = {
        name: SplitFeed(name, reader, columns.isel(sample=row).rename(sample="example"), section)
        for name, (row, _) in examples.items()
    }
    shards = np.unique(np.concatenate([row for row, _ in examples.values()]) // cube.shard_samples)
    local = sum(reader.stays_open(shard) for shard in shards.tolist())
    fields = {"cube": cube.location.url, "shards": shards.size, "on_local_disk": local, "cache": cache is not None}
    logger.info("feed", extra={"fields": fields})
    return feeds


def _open_cache(
    cube: PublishedCube,
    layout: PixelLayout,
    train_row: NDArray[np.int64],
    section: FeedSection,
    cache_folder: Path | None,
) -> ShardCache | None:
    """The cache, in which shards with training examples have room before the others."""
    if section.cache == "never" or (section.cache == "remote" and cube.location.scheme == "file"):
        return None
    trained = np.unique(train_row // cube.shard_samples).tolist()
    rest = sorted(set(range(cube.n_shards)) - set(trained))
    sizes = {}
    for shard in (*trained, *rest):
        first, last = cube.shard_range(shard)
        sizes.update({cube.shard_object(kind, shard): layout.object_bytes(last - first) for kind in KINDS})
    configured = section.cache_folder or str(Path(tempfile.gettempdir()) / DEFAULT_CACHE_FOLDER)
    limit = None if section.cache_limit_gb is None else int(section.cache_limit_gb * 1e9)
    return ShardCache(cache_folder or Path(configured), cube, sizes, limit)
