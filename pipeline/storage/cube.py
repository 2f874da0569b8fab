"""Cubes: Zarr v3 with whole-shard writes, published last.

A cube is a folder with `cube.zarr` and, once every shard was verified, `_SUCCESS`. Until then
`cube.zarr` has no root metadata, so no reader can mistake it for finished. Pixels are sharded
arrays without compression and with crc32c per inner chunk; columns have one chunk per shard.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.core.common import JSON
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from pipeline.contracts.errors import ContractError, StorageError, VerificationError
from pipeline.contracts.schema import SAMPLE_DIM, CubeSchema, Variable, validate
from pipeline.storage.locations import STORAGE_FAILURES, Location, storage_errors

HIERARCHY = "cube.zarr"
MARKER = "_SUCCESS"

# Variables of a shard that are written or read at the same time: S3 latency overlaps.
_CONCURRENT_VARIABLES = 8


@dataclass(frozen=True)
class CubeShape:
    """Lengths of a cube's dimensions and of its shards.

    Attributes:
        sizes: length of every dimension; `sample` is the number of rows.
        shard_samples: rows of a shard; the last shard may hold fewer.
        inner_chunk: rows of an inner chunk of the pixel arrays; divides `shard_samples`.
    """

    sizes: Mapping[str, int]
    shard_samples: int
    inner_chunk: int

    @property
    def n_shards(self) -> int:
        """Number of shards that cover all rows."""
        return -(-self.sizes[SAMPLE_DIM] // self.shard_samples)

    def rows(self, shard: int) -> slice:
        """The rows of one shard."""
        start = shard * self.shard_samples
        return slice(start, min(start + self.shard_samples, self.sizes[SAMPLE_DIM]))


def create_cube(location: Location, schema: CubeSchema, shape: CubeShape) -> None:
    """Write the metadata of every array; repeating it changes nothing. Root metadata stays away."""
    folder = location.join(HIERARCHY)
    store = folder.zarr_store()
    existing = set(folder.names())
    with cube_errors(f"create cube {location.url}"):
        for variable in schema.variables:
            if variable.name not in existing or not folder.join(variable.name, "zarr.json").exists():
                _create_array(store, variable, shape)
    if not is_published(location):
        folder.join("zarr.json").remove()


def write_shard(
    location: Location, schema: CubeSchema, shape: CubeShape, shard: int, dataset: xr.Dataset
) -> dict[str, dict[str, int | str]]:
    """Validate and write one whole shard, read its objects back, and return what is in the store.

    Args:
        dataset: every variable of the schema, `sample` equal to the rows of the shard.

    Returns:
        Object name relative to the cube -> {"bytes": size, "sha256": digest of the stored bytes}.

    Each object is encoded by zarr in memory and put as a whole, so a shard costs one write and one read
    per variable and a reader never sees a part of one.

    Raises:
        ContractError: the dataset breaks the schema.
        StorageError: a write or the reading back failed.
        VerificationError: the store gives back other bytes than were written, or they decode to other values.
    """
    rows = shape.rows(shard)
    sizes = {**shape.sizes, SAMPLE_DIM: rows.stop - rows.start}
    validate(dataset, schema, sizes)

    def write(variable: Variable) -> tuple[str, dict[str, int | str]]:
        name = object_name(variable, shard)
        data = _encode(variable, CubeShape(sizes, shape.shard_samples, shape.inner_chunk), dataset[variable.name])
        location.join(name).write_bytes(data)
        if location.join(name).read_bytes() != data:
            raise VerificationError(f"{location.url}: {name} reads back differently than it was written")
        return name, {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    with ThreadPoolExecutor(_CONCURRENT_VARIABLES) as pool:
        return dict(pool.map(write, schema.variables))


def verify_metadata(location: Location, schema: CubeSchema, shape: CubeShape) -> None:
    """Compare the stored metadata of every array with what the schema asks for.

    Raises:
        VerificationError: names the first array whose metadata differs.
    """
    expected: dict[str, Buffer] = {}
    for variable in schema.variables:
        _create_array(MemoryStore(expected), variable, shape)
    for variable in schema.variables:
        name = f"{variable.name}/zarr.json"
        stored = location.join(HIERARCHY, name)
        if not stored.size() or json.loads(stored.read_bytes()) != json.loads(expected[name].to_bytes()):
            raise VerificationError(f"{stored.url} is not the metadata that cube schema {schema.name!r} asks for")


def publish_cube(location: Location, attributes: Mapping[str, Any]) -> None:
    """Write the root metadata, consolidate, and only then the marker. All shards must be verified."""
    store = location.join(HIERARCHY).zarr_store()
    with cube_errors(f"publish {location.url}"):
        zarr.open_group(store, mode="a").update_attributes(dict(attributes))
        zarr.consolidate_metadata(store)
    location.join(MARKER).write_bytes(b"")


def is_published(location: Location) -> bool:
    """True if the cube has its marker."""
    return location.join(MARKER).exists()


class PublishedCube:
    """A finished cube, for reading.

    Attributes:
        attrs: root attributes: schema, plan and configuration hashes, code version, bands.
        n_samples: rows.
        shard_samples: rows of a shard.
        n_shards: number of shards.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._store = location.join(HIERARCHY).zarr_store()
        with cube_errors(f"open {location.url}"):
            group = zarr.open_group(self._store, mode="r", use_consolidated=True)
            self._arrays = dict(group.arrays())
            self.attrs: dict[str, Any] = dict(group.attrs)
        missing = [name for name in ("n_samples", "shard_samples", "schema") if name not in self.attrs]
        if missing:
            raise ContractError(f"{location.url} is a Zarr group but not a cube: it has no attribute {missing[0]!r}")
        self.n_samples = int(self.attrs["n_samples"])
        self.shard_samples = int(self.attrs["shard_samples"])
        self.n_shards = -(-self.n_samples // self.shard_samples)

    def shard_range(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the row after its last."""
        start = shard * self.shard_samples
        return start, min(start + self.shard_samples, self.n_samples)

    def columns(self, names: Sequence[str]) -> xr.Dataset:
        """Whole columns, in memory; StorageError if an object of them is missing or empty."""
        return self._read(names, range(self.n_shards))

    def read_shard(self, shard: int, names: Sequence[str]) -> xr.Dataset:
        """Variables of the rows of one shard, in memory.

        Raises:
            ContractError: no such shard or variable.
            StorageError: an object is missing, empty, or fails its checksum (crc32c).
        """
        if not 0 <= shard < self.n_shards:
            raise ContractError(f"{self.location.url} has shards 0 to {self.n_shards - 1}, not {shard}")
        return self._read(names, range(shard, shard + 1))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Lengths of a variable's dimensions; ContractError if there is none of this name."""
        if name not in self._arrays:
            raise ContractError(f"{self.location.url} has no variable {name}")
        return tuple(self._arrays[name].shape)

    def column_names(self) -> list[str]:
        """Names of the variables that are not stamps."""
        return [name for name, array in self._arrays.items() if array.ndim <= 2]

    def array_metadata(self, name: str) -> dict[str, Any]:
        """Zarr metadata of one array; ContractError if there is no such variable."""
        self._require_arrays([name])
        return dict(self._arrays[name].metadata.to_dict())

    def shard_object(self, name: str, shard: int) -> str:
        """Path of the object that holds a variable of a shard, relative to the cube."""
        self._require_arrays([name])
        return "/".join((HIERARCHY, name, "c", str(shard), *("0" for _ in self._arrays[name].shape[1:])))

    def _require_arrays(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self._arrays]
        if unknown:
            raise ContractError(f"{self.location.url} has no variable {', '.join(unknown)}")

    def _read(self, names: Sequence[str], shards: range) -> xr.Dataset:
        self._require_arrays(names)
        rows = slice(self.shard_range(shards[0])[0], self.shard_range(shards[-1])[1])

        def read(name: str) -> NDArray[Any]:
            self._require_objects(name, shards)
            return _plain(np.asarray(self._arrays[name][rows]))

        with cube_errors(f"read {self.location.url}"), ThreadPoolExecutor(_CONCURRENT_VARIABLES) as pool:
            values = list(pool.map(read, names))
        return xr.Dataset(
            {
                name: (_dims(self._arrays[name]), value, dict(self._arrays[name].attrs))
                for name, value in zip(names, values, strict=True)
            }
        )

    def _require_objects(self, name: str, shards: range) -> None:
        """A missing object would read as fill values, silently."""
        folder = self.location.join(HIERARCHY, name, "c")
        tail = "/0" * (self._arrays[name].ndim - 1)
        sizes = folder.join(f"{shards[0]}{tail}").size() if len(shards) == 1 else folder.sizes()
        lost = [shard for shard in shards if not (sizes if isinstance(sizes, int) else sizes.get(f"{shard}{tail}", 0))]
        if lost:
            raise StorageError(f"{self.location.url}: {name} of shard {lost[0]} is missing or empty")


def open_cube(location: Location) -> PublishedCube:
    """Open a published cube; ContractError if its marker is missing."""
    if not is_published(location):
        raise ContractError(f"{location.url} is not a published cube: expected the marker {MARKER}")
    return PublishedCube(location)


def object_name(variable: Variable, shard: int) -> str:
    """Path of a variable's object of one shard, relative to the cube."""
    return "/".join((HIERARCHY, variable.name, "c", str(shard), *("0" for _ in variable.dims[1:])))


def cube_attributes(schema: CubeSchema, shape: CubeShape, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Root attributes of a cube."""
    return {
        "title": f"darkhaloscope {schema.name} cube",
        "schema": schema.name,
        "schema_version": schema.version,
        "n_samples": shape.sizes[SAMPLE_DIM],
        "shard_samples": shape.shard_samples,
        **json.loads(json.dumps(dict(provenance))),
    }


@contextmanager
def cube_errors(action: str) -> Iterator[None]:
    """Storage failures as StorageError; zarr reports a failed checksum as ValueError."""
    with storage_errors(action), warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        try:
            yield
        except STORAGE_FAILURES:
            raise
        except ValueError as error:
            raise StorageError(f"cannot {action}: {error}") from error


def _encode(variable: Variable, shape: CubeShape, array: xr.DataArray) -> bytes:
    """The object of one variable of a shard, as zarr encodes it; `shape` is that of the shard."""
    objects: dict[str, Buffer] = {}
    values = array.to_numpy()
    target = _create_array(MemoryStore(objects), variable, shape).with_config({"write_empty_chunks": True})
    target[...] = values
    if not _same(np.asarray(target[...]), values):
        raise VerificationError(f"{variable.name} does not survive its encoding")
    return objects[object_name(variable, 0).removeprefix(f"{HIERARCHY}/")].to_bytes()


def _create_array(store: Store, variable: Variable, shape: CubeShape) -> zarr.Array[Any]:
    lengths = tuple(shape.sizes[dim] for dim in variable.dims)
    rest = lengths[1:]
    return zarr.create_array(
        store,
        name=variable.name,
        shape=lengths,
        dtype=str if variable.dtype == "str" else variable.dtype,
        chunks=(shape.inner_chunk if variable.is_pixels else shape.shard_samples, *rest),
        shards=(shape.shard_samples, *rest) if variable.is_pixels else None,
        compressors=[Crc32cCodec()],
        fill_value=variable.fill_value,
        dimension_names=variable.dims,
        attributes=cast("dict[str, JSON]", variable.attributes()),
    )


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    names = getattr(array.metadata, "dimension_names", None)
    if not names:
        raise ContractError(f"array {array.name!r} names no dimensions")
    return tuple(str(name) for name in names)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Strings as Python objects, which every consumer can cast; numbers as they are."""
    return values.astype(object) if values.dtype.kind == "T" else values


def _same(read: np.ndarray, written: np.ndarray) -> bool:
    if written.dtype.kind == "f":
        return np.array_equal(read, written, equal_nan=True)
    return bool(read.tolist() == written.tolist())
