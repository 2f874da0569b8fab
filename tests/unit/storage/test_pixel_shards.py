"""Stamps found in stored objects without zarr, against what zarr reads."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline.contracts.errors import ContractError, StorageError
from pipeline.contracts.schema import CubeSchema, Variable
from pipeline.storage.cube import (
    HIERARCHY,
    CubeShape,
    PublishedCube,
    create_cube,
    cube_attributes,
    open_cube,
    publish_cube,
    write_shard,
)
from pipeline.storage.locations import Location
from pipeline.storage.pixel_shards import pixel_layout, stamp_offsets

STAMPS = CubeSchema("stamps", 1, (Variable("image", ("sample", "band", "y", "x"), "float32", "nmgy", "Stamps"),))
SIZES = {"sample": 20, "band": 2, "y": 5, "x": 5}


@pytest.fixture
def cube(tmp_path: Path) -> PublishedCube:
    """Twenty stamps in shards of twelve, inner chunks of four; the last shard is not full."""
    location, shape = Location(str(tmp_path / "cube")), CubeShape(SIZES, 12, 4)
    create_cube(location, STAMPS, shape)
    pixels = np.random.default_rng(1).normal(size=tuple(SIZES.values())).astype(np.float32)
    pixels[7] = 0.0
    for shard in range(shape.n_shards):
        part = xr.Dataset({"image": (STAMPS["image"].dims, pixels[shape.rows(shard)])})
        write_shard(location, STAMPS, shape, shard, part)
    publish_cube(location, cube_attributes(STAMPS, shape, {}))
    return open_cube(location)


def stored(cube: PublishedCube, shard: int) -> np.ndarray:
    return np.frombuffer(cube.location.join(cube.shard_object("image", shard)).read_bytes(), np.uint8)


def test_offsets_point_at_the_stamps_that_zarr_reads(cube: PublishedCube) -> None:
    """Every stamp of a full and of a partial shard, a chunk of zeros too, lies where the offset says."""
    layout = pixel_layout(cube, ("image",))
    assert (layout.stamp_shape, layout.shard_samples, layout.inner_chunk) == ((2, 5, 5), 12, 4)
    for shard, n_rows in ((0, 12), (1, 8)):
        data = stored(cube, shard)
        assert data.size == layout.object_bytes(n_rows)
        offsets = stamp_offsets(data, layout, n_rows)
        found = np.stack([data[start : start + layout.stamp_bytes].view("<f4").reshape(2, 5, 5) for start in offsets])
        np.testing.assert_array_equal(found, cube.read_shard(shard, ["image"])["image"])


@pytest.mark.parametrize("place", [0, 0.3, 0.6, -1, -30])
def test_any_flipped_bit_is_found(cube: PublishedCube, place: float) -> None:
    """In pixels, checksums and index alike."""
    layout, data = pixel_layout(cube, ("image",)), stored(cube, 0).copy()
    data[int(place * data.size) if 0 < place < 1 else int(place)] ^= 1
    data.flags.writeable = False
    with pytest.raises(StorageError, match="fails its checksum"):
        stamp_offsets(data, layout, 12)


def test_shortened_object_is_refused(cube: PublishedCube) -> None:
    """Another size than that of so many rows says both."""
    layout, data = pixel_layout(cube, ("image",)), stored(cube, 0)
    with pytest.raises(StorageError, match=f"expected {data.size} bytes, got {data.size - 1}"):
        stamp_offsets(data[:-1], layout, 12)


@pytest.mark.parametrize("entry", [(2**64 - 1, 2**64 - 1), (0, 4), (2**40, 804)])
def test_chunk_that_is_absent_or_elsewhere_is_refused(cube: PublishedCube, entry: tuple[int, int]) -> None:
    """An index entry that is no chunk of this object is not used as an offset, though its checksum is right."""
    layout, data = pixel_layout(cube, ("image",)), stored(cube, 0).copy()
    assert layout.chunk_bytes == 804
    index = data[-layout.index_bytes :]
    index[16:32] = np.array(entry, "<u8").view(np.uint8)
    index[-4:] = np.array([google_crc32c.value(index[:-4].tobytes())], "<u4").view(np.uint8)
    data.flags.writeable = False
    with pytest.raises(StorageError, match="inner chunk 1 is absent or has another size than 804 bytes"):
        stamp_offsets(data, layout, 12)


def test_other_encodings_are_refused(cube: PublishedCube, tmp_path: Path) -> None:
    """Compressed stamps cannot be mapped, and the error says what was found."""
    zarr.create_array(
        tmp_path / "cube" / HIERARCHY, name="packed", shape=(20, 2, 5, 5), chunks=(4, 2, 5, 5), shards=(12, 2, 5, 5),
        dtype="float32",
    )  # fmt: skip
    publish_cube(cube.location, {})
    with pytest.raises(ContractError, match="expected packed as whole stamps of float32"):
        pixel_layout(open_cube(cube.location), ("image", "packed"))
