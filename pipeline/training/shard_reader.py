"""Shards of a training cube as addresses of their stamps, checked once when they are opened.

An object on a local disk, of the cube itself or of its cache, is mapped and stays open; any other is downloaded and
held by whoever opened it. Opening checks every checksum, and that the stamps in use hold finite pixels only.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError, StorageError
from pipeline.storage.cube import PublishedCube
from pipeline.storage.pixel_shards import PixelLayout, stamp_offsets
from pipeline.training.gather import count_not_finite
from pipeline.training.shard_cache import ShardCache

KINDS = ("control", "injected")

_LIBC = ctypes.CDLL(None)
_MADV_POPULATE_READ = 22


@dataclass(frozen=True)
class OpenShard:
    """A shard whose stamps can be copied for as long as this object lives.

    Attributes:
        address: (label, row of the shard) int64 address of the control and of the injected stamp; 0 where the object
            of that label is not needed.
        stored: what keeps the memory.
    """

    address: NDArray[np.int64]
    stored: tuple[NDArray[np.uint8], ...]


class ShardReader:
    """Opens the shards of a cube.

    Args:
        cube: published training cube.
        layout: encoding of its stamps.
        examples: split -> (example) row, not decreasing, and label; these stamps must be finite.
        cache: where objects are kept that do not lie on a local disk; None keeps nothing.

    Attributes:
        cube, layout, examples: as given.
    """

    def __init__(
        self,
        cube: PublishedCube,
        layout: PixelLayout,
        examples: Mapping[str, tuple[NDArray[np.int64], NDArray[np.uint8]]],
        cache: ShardCache | None,
    ) -> None:
        self.cube, self.layout, self.examples = cube, layout, examples
        self._cache = cache
        self._kept: dict[int, Future[OpenShard]] = {}
        self._guard = Lock()

    def stays_open(self, shard: int) -> bool:
        """True if the shard is mapped from a local disk, so that opening it again costs nothing."""
        return all(self._is_local(kind, shard) for kind in KINDS)

    def open(self, shard: int) -> OpenShard:
        """Open a shard, from several threads if need be.

        Raises:
            ContractError: pixels that are not finite in a stamp of an example; the message names shard and split.
            StorageError: unreadable or corrupt bytes.
        """
        if not self.stays_open(shard):
            return self._load(shard)
        with self._guard:
            found = self._kept.get(shard)
            opening: Future[OpenShard] = Future()
            if found is None:
                self._kept[shard] = opening
        if found is not None:
            return found.result()
        try:
            opening.set_result(self._load(shard))
        except BaseException as error:
            with self._guard:
                del self._kept[shard]
            opening.set_exception(error)
            raise
        return opening.result()

    def _load(self, shard: int) -> OpenShard:
        rows = self.cube.shard_range(shard)
        wanted = {name: self._in_shard(name, rows) for name in self.examples}
        address = np.zeros((len(KINDS), rows[1] - rows[0]), np.int64)
        stored = []
        for label, kind in enumerate(KINDS):
            if any((labels == label).any() for _, labels in wanted.values()):
                data, offsets = self._checked(self.cube.shard_object(kind, shard), rows[1] - rows[0])
                address[label] = offsets + data.ctypes.data
                stored.append(data)
        for name, (row, labels) in wanted.items():
            for label, kind in enumerate(KINDS):
                self._require_finite(address[label, row[labels == label]], f"shard {shard}, split {name}", kind)
        return OpenShard(address, tuple(stored))

    def _in_shard(self, split: str, rows: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        row, label = self.examples[split]
        first, last = np.searchsorted(row, rows)
        return row[first:last] - rows[0], label[first:last]

    def _require_finite(self, address: NDArray[np.int64], where: str, kind: str) -> None:
        broken = count_not_finite(address, int(np.prod(self.layout.stamp_shape)))
        if broken:
            raise ContractError(
                f"{self.cube.location.url} {where}: {broken} of {address.size} used {kind} stamps hold pixels that "
                "are not finite"
            )

    def _checked(self, name: str, n_rows: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The bytes of an object, and where its stamps begin; a corrupt cache file is fetched again once."""
        cache = self._cache if self._cache is not None and name in self._cache.held else None
        if cache is not None:
            data = _mapped(cache.file(name))
            try:
                return data, stamp_offsets(data, self.layout, n_rows)
            except StorageError as error:
                data = _mapped(cache.replace(name, str(error)))
        elif self.cube.location.scheme == "file":
            data = _mapped(Path(self.cube.location.join(name).path))
        else:
            data = np.frombuffer(self.cube.location.join(name).read_bytes(), np.uint8)
        try:
            return data, stamp_offsets(data, self.layout, n_rows)
        except StorageError as error:
            raise StorageError(f"{self.cube.location.join(name).url}: {error}") from error

    def _is_local(self, kind: str, shard: int) -> bool:
        if self._cache is not None:
            return self.cube.shard_object(kind, shard) in self._cache.held
        return self.cube.location.scheme == "file"


def _mapped(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped read-only.

    Python's own maps keep a file descriptor each, of which a process has a thousand; torch's do not.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
        if not size:
            raise StorageError(f"{path} is empty")
        tensor = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"cannot map {path}: {error}") from error
    data: NDArray[Any] = tensor.numpy()
    data.flags.writeable = False
    # Reads the whole file now, without the interpreter's lock; a kernel that cannot do so reads on first touch.
    _LIBC.madvise(ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(size), _MADV_POPULATE_READ)
    return data
