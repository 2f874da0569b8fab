"""Opening shards: checked once, mapped ones kept, corrupt cache files fetched again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.contracts.errors import ContractError, StorageError
from pipeline.storage.cube import PublishedCube
from pipeline.storage.pixel_shards import pixel_layout
from pipeline.training.gather import gather_stamps
from pipeline.training.shard_cache import ShardCache
from pipeline.training.shard_reader import KINDS, ShardReader

CubeMaker = Callable[..., PublishedCube]
EXAMPLES = {"train": (np.array([0, 0, 3, 41, 41]), np.array([1, 0, 0, 1, 0], np.uint8))}


def reader_of(cube: PublishedCube, cache: ShardCache | None = None) -> ShardReader:
    return ShardReader(cube, pixel_layout(cube, KINDS), EXAMPLES, cache)


def cache_of(cube: PublishedCube, folder: Path) -> ShardCache:
    names = [cube.shard_object(kind, shard) for shard in range(cube.n_shards) for kind in KINDS]
    return ShardCache(folder, cube, {name: cube.location.join(name).size() for name in names}, None)


def stamps_of(reader: ShardReader, shard: int) -> np.ndarray:
    """(label, row, band, y, x) through the addresses."""
    opened = reader.open(shard)
    out = np.empty((opened.address.size, *reader.layout.stamp_shape), np.float32)
    gather_stamps(opened.address.reshape(-1), np.arange(opened.address.size), out)
    return out.reshape(*opened.address.shape, *reader.layout.stamp_shape)


@pytest.mark.parametrize("cached", [False, True])
def test_addresses_hold_the_stamps_of_both_kinds(make_cube: CubeMaker, tmp_path: Path, cached: bool) -> None:
    """Mapped from the cube or from its cache, every row of a shard; it stays open."""
    cube = make_cube()
    reader = reader_of(cube, cache_of(cube, tmp_path / "cache") if cached else None)
    pixels = cube.read_shard(1, KINDS)
    np.testing.assert_array_equal(stamps_of(reader, 1), np.stack([pixels[kind] for kind in KINDS]))
    assert reader.stays_open(1)
    with ThreadPoolExecutor(4) as pool:
        assert len({id(opened) for opened in pool.map(reader.open, [1] * 8)}) == 1


def test_object_of_a_kind_without_example_is_not_read(make_cube: CubeMaker) -> None:
    """A shard whose examples are all controls needs no injected stamps."""
    cube = make_cube()
    cube.location.join(cube.shard_object("injected", 0)).remove()
    layout = pixel_layout(cube, KINDS)
    controls = {"train": (np.array([0, 3]), np.zeros(2, np.uint8))}
    assert (ShardReader(cube, layout, controls, None).open(0).address[1] == 0).all()
    with pytest.raises(StorageError, match="injected"):
        reader_of(cube).open(0)


def test_pixels_that_are_not_finite_are_found_in_examples_only(make_cube: CubeMaker) -> None:
    """Other rows may hold anything; an example names shard, split, kind and count."""

    def spoil(rows: dict[str, np.ndarray]) -> None:
        rows["control"][3, 0, 3, 3] = np.nan
        rows["injected"][3] = np.inf
        rows["injected"][42] = np.inf

    reader = reader_of(make_cube(spoil))
    with pytest.raises(ContractError, match="shard 0, split train: 1 of 2 used control stamps hold pixels"):
        reader.open(0)
    reader.open(1)


def test_corrupt_cache_file_is_fetched_again_with_a_warning(
    make_cube: CubeMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped byte, and a file cut short, cost a download; the log says which file."""
    cube = make_cube()
    cache = cache_of(cube, tmp_path / "cache")
    expected = stamps_of(reader_of(cube, cache), 0)
    file = cache.file(cube.shard_object("control", 0))
    data = file.read_bytes()
    file.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(stamps_of(reader_of(cube, cache), 0), expected)
    assert [record.getMessage() for record in caplog.records] == ["cached shard is fetched again"]
    file.write_bytes(data[:-7])
    np.testing.assert_array_equal(stamps_of(reader_of(cube, cache), 0), expected)
    assert file.read_bytes() == data


@pytest.mark.parametrize("cached", [False, True])
def test_corrupt_cube_is_an_error(make_cube: CubeMaker, tmp_path: Path, cached: bool) -> None:
    """A flipped byte in the store itself names the object, and fails again when tried again."""
    cube = make_cube()
    location = cube.location.join(cube.shard_object("injected", 0))
    data = bytearray(location.read_bytes())
    data[1000] ^= 1
    location.write_bytes(bytes(data))
    reader = reader_of(cube, cache_of(cube, tmp_path / "cache") if cached else None)
    for _ in range(2):
        with pytest.raises(StorageError, match="injected/c/0/0/0/0: inner chunk 0 fails its checksum"):
            reader.open(0)
