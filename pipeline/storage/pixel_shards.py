"""Where each stamp lies in a stored shard object, so that a shard is used without being copied.

An object of a pixel array is the inner chunks, each plain little-endian float32 followed by its crc32c, and then
the index: offset and length of every chunk, uint64, and the crc32c of the index (Zarr v3, sharding codec 1.0).
A stamp is therefore one piece of `stamp_bytes` in a mapped file or a downloaded object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError, StorageError
from pipeline.storage.cube import PublishedCube

_CRC_BYTES = 4
_PIXEL_BYTES = 4
_ENTRY_BYTES = 16
_ABSENT = np.uint64(2**64 - 1)
_PLAIN = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


@dataclass(frozen=True)
class PixelLayout:
    """Encoding of the stamp arrays of a cube.

    Attributes:
        stamp_shape: (band, y, x) of a stamp.
        shard_samples: rows that the index of an object covers.
        inner_chunk: rows of an inner chunk.
    """

    stamp_shape: tuple[int, int, int]
    shard_samples: int
    inner_chunk: int

    @property
    def stamp_bytes(self) -> int:
        """Bytes of a stamp."""
        return _PIXEL_BYTES * int(np.prod(self.stamp_shape))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of an inner chunk with its checksum."""
        return self.inner_chunk * self.stamp_bytes + _CRC_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index with its checksum."""
        return _ENTRY_BYTES * (self.shard_samples // self.inner_chunk) + _CRC_BYTES

    def object_bytes(self, n_rows: int) -> int:
        """Size of the object of a shard with so many rows."""
        return -(-n_rows // self.inner_chunk) * self.chunk_bytes + self.index_bytes


def pixel_layout(cube: PublishedCube, names: tuple[str, ...]) -> PixelLayout:
    """Layout that the stamp arrays `names` of a cube share.

    Raises:
        ContractError: no such array, another encoding than plain float32 chunks with crc32c, or not the same for all.
    """
    layouts = [_layout(cube, name, cube.array_metadata(name)) for name in names]
    if any(layout != layouts[0] for layout in layouts):
        raise ContractError(f"{cube.location.url}: expected {' and '.join(names)} alike, got {layouts}")
    return layouts[0]


def stamp_offsets(stored: NDArray[np.uint8], layout: PixelLayout, n_rows: int) -> NDArray[np.int64]:
    """Check an object and return where its stamps begin.

    Args:
        stored: (byte) the whole object, read-only.
        layout: its encoding.
        n_rows: rows of the shard.

    Returns:
        (row) byte offset of every stamp.

    Raises:
        StorageError: another size, an index or chunk that fails its checksum, a chunk that is not there.
    """
    expected = layout.object_bytes(n_rows)
    if stored.size != expected:
        raise StorageError(f"expected {expected} bytes, got {stored.size}")
    _check(stored[-layout.index_bytes :], "the index")
    entries = stored[-layout.index_bytes : -_CRC_BYTES].view("<u8").reshape(-1, 2)
    n_chunks = -(-n_rows // layout.inner_chunk)
    begin, length = entries[:n_chunks, 0], entries[:n_chunks, 1]
    last_begin = stored.size - layout.index_bytes - layout.chunk_bytes
    wrong = np.flatnonzero((begin == _ABSENT) | (length != layout.chunk_bytes) | (begin > last_begin))
    if wrong.size:
        raise StorageError(f"inner chunk {wrong[0]} is absent or has another size than {layout.chunk_bytes} bytes")
    starts = begin.astype(np.int64)
    for chunk, start in enumerate(starts.tolist()):
        _check(stored[start : start + layout.chunk_bytes], f"inner chunk {chunk}")
    row = np.arange(n_rows)
    return starts[row // layout.inner_chunk] + (row % layout.inner_chunk) * layout.stamp_bytes


def _layout(cube: PublishedCube, name: str, metadata: dict[str, Any]) -> PixelLayout:
    codecs = metadata["codecs"]
    shape, grid = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    sharding = codecs[0].get("configuration", {})
    inner = sharding.get("chunk_shape", ())
    plain = (
        metadata["data_type"] == "float32"
        and [codec["name"] for codec in codecs] == ["sharding_indexed"]
        and _plain(sharding["codecs"]) == _plain(sharding["index_codecs"]) == _PLAIN
        and sharding["index_location"] == "end"
        and len(shape) == 4
        and list(shape[1:]) == list(grid[1:]) == list(inner[1:])
        and grid[0] == cube.shard_samples
    )
    if not plain:
        raise ContractError(
            f"{cube.location.url}: expected {name} as whole stamps of float32, sharded, with crc32c and without "
            f"compression, got {metadata['data_type']}, shape {shape}, codecs {codecs}"
        )
    return PixelLayout((shape[1], shape[2], shape[3]), grid[0], inner[0])


def _plain(codecs: Any) -> list[dict[str, Any]]:
    """Codecs as plain data; an empty configuration is none."""
    named = [{"name": codec["name"], "configuration": codec.get("configuration")} for codec in codecs]
    return [codec if codec["configuration"] else {"name": codec["name"]} for codec in named]


def _check(piece: NDArray[np.uint8], what: str) -> None:
    stored = int(piece[-_CRC_BYTES:].view("<u4")[0])
    computed = google_crc32c.value(piece[:-_CRC_BYTES])
    if stored != computed:
        raise StorageError(f"{what} fails its checksum: crc32c {computed:08x}, stored {stored:08x}")
