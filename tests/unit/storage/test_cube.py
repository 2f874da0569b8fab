"""Cubes: what is written is what is read, and nothing unfinished or damaged passes for a cube."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ContractError, StorageError
from pipeline.contracts.schema import CubeSchema, Variable
from pipeline.storage.cube import (
    CubeShape,
    PublishedCube,
    create_cube,
    cube_attributes,
    is_published,
    object_name,
    open_cube,
    publish_cube,
    write_shard,
)
from pipeline.storage.locations import Location

SCHEMA = CubeSchema(
    "toy",
    3,
    (
        Variable("image", ("sample", "band", "y", "x"), "float32", "nmgy", "Pixels"),
        Variable("mask", ("sample", "y", "x"), "int32", "1", "Bits"),
        Variable("name", ("sample",), "str", "1", "Text"),
        Variable("seeing", ("sample", "band"), "float32", "arcsec", "Per band"),
        Variable("number", ("sample",), "int64", "1", "Large number"),
        Variable("ra_deg", ("sample",), "float64", "deg", "Position"),
        Variable("colour", ("sample",), "uint8", "1", "Flag", ("none", "red", "blue")),
    ),
)
SHAPE = CubeShape({"sample": 10, "band": 2, "y": 4, "x": 4}, shard_samples=4, inner_chunk=2)


def shard_rows(shard: int, shape: CubeShape = SHAPE, seed: int = 5) -> xr.Dataset:
    """Rows with every awkward value: NaN, infinities, -0.0, subnormals, extreme integers, long and empty text."""
    rows = shape.rows(shard)
    count, band, size = rows.stop - rows.start, shape.sizes["band"], shape.sizes["y"]
    generator = np.random.default_rng([seed, shard])
    image = generator.normal(size=(count, band, size, size)).astype(np.float32)
    image.flat[:5] = [np.nan, np.inf, -np.inf, -0.0, 1e-42]
    names = np.array(["", "ü" * 40, "a\nb", "x" * 300][:count] + ["n"] * max(count - 4, 0), dtype=object)
    variables = {
        "image": image,
        "mask": generator.integers(-(2**31), 2**31, (count, size, size)).astype(np.int32),
        "name": names,
        "seeing": generator.normal(size=(count, band)).astype(np.float32),
        "number": np.array([-(2**63), 2**63 - 1, 0, 7], dtype=np.int64)[np.arange(count) % 4],
        "ra_deg": generator.uniform(0, 360, count),
        "colour": (np.arange(count) % 3).astype(np.uint8),
    }
    return xr.Dataset({v.name: (v.dims, variables[v.name]) for v in SCHEMA.variables})


def made(folder: Path, shape: CubeShape = SHAPE, publish: bool = True) -> Location:
    """A toy cube with all its shards."""
    location = Location(str(folder / "cube"))
    create_cube(location, SCHEMA, shape)
    for shard in range(shape.n_shards):
        write_shard(location, SCHEMA, shape, shard, shard_rows(shard, shape))
    if publish:
        publish_cube(location, cube_attributes(SCHEMA, shape, {"bands": ["g", "r"], "plan_sha256": "abc"}))
    return location


def files_of(location: Location) -> dict[str, bytes]:
    """Every file of a cube."""
    return {name: location.join(name).read_bytes() for name in location.sizes()}


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal shape and bytes; text by value."""
    if left.dtype.kind in "OTU":
        return bool(left.tolist() == right.tolist())
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_shape_covers_every_row_once() -> None:
    """Shards follow each other; the last may be short."""
    assert SHAPE.n_shards == 3
    assert [SHAPE.rows(shard) for shard in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    """Every shard, the partial last one included, reads back bit for bit, NaN payloads and -0.0 too."""
    cube = open_cube(made(tmp_path))
    assert (cube.n_samples, cube.shard_samples, cube.n_shards) == (10, 4, 3)
    names = [variable.name for variable in SCHEMA.variables]
    for shard in range(3):
        read, written = cube.read_shard(shard, names), shard_rows(shard)
        for variable in SCHEMA.variables:
            assert read[variable.name].dims == variable.dims
            assert same_bits(read[variable.name].to_numpy(), written[variable.name].to_numpy()), variable.name
    whole = cube.columns(["number", "name", "seeing"])
    parts = xr.concat([shard_rows(shard) for shard in range(3)], dim="sample")
    for name in whole:
        assert same_bits(whole[name].to_numpy(), parts[name].to_numpy())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.integers(1, 13), inner=st.sampled_from([1, 2, 3]), chunks=st.integers(1, 3), size=st.sampled_from([2, 4])
)
def test_any_shape_round_trips(
    tmp_path_factory: pytest.TempPathFactory, samples: int, inner: int, chunks: int, size: int
) -> None:
    """Any number of rows with any shard and inner chunk size survives."""
    shape = CubeShape({"sample": samples, "band": 2, "y": size, "x": size}, inner * chunks, inner)
    cube = open_cube(made(tmp_path_factory.mktemp("shape"), shape))
    for shard in range(shape.n_shards):
        written = shard_rows(shard, shape)
        read = cube.read_shard(shard, [str(name) for name in written])
        assert all(same_bits(read[name].to_numpy(), written[name].to_numpy()) for name in written)


def test_unpublished_cube_is_refused(tmp_path: Path) -> None:
    """Before publication neither our reader nor plain xarray takes the folder for a cube."""
    location = made(tmp_path, publish=False)
    assert not is_published(location)
    assert not location.join("cube.zarr", "zarr.json").exists()
    with pytest.raises(ContractError, match="not a published cube"):
        open_cube(location)
    with pytest.raises(StorageError):
        PublishedCube(location)
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(str(tmp_path / "cube" / "cube.zarr"), chunks=None)


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    """A path without anything is not a published cube."""
    with pytest.raises(ContractError, match="not a published cube"):
        open_cube(Location(str(tmp_path / "nothing")))


def test_publication_keeps_every_object_and_adds_attributes(tmp_path: Path) -> None:
    """Publishing touches metadata alone; schema, version, rows and provenance are root attributes."""
    location = made(tmp_path, publish=False)
    before = {name: data for name, data in files_of(location).items() if "/c/" in name}
    publish_cube(location, cube_attributes(SCHEMA, SHAPE, {"plan_sha256": "abc", "bands": ("g", "r")}))
    after = files_of(location)
    assert {name: after[name] for name in before} == before
    attributes = open_cube(location).attrs
    assert attributes["schema"] == "toy"
    assert attributes["schema_version"] == 3
    assert (attributes["n_samples"], attributes["shard_samples"]) == (10, 4)
    assert (attributes["plan_sha256"], attributes["bands"]) == ("abc", ["g", "r"])


def test_creating_again_keeps_shards(tmp_path: Path) -> None:
    """A resumed run finds the shards that were written, and still no root metadata."""
    location = made(tmp_path, publish=False)
    before = files_of(location)
    create_cube(location, SCHEMA, SHAPE)
    assert files_of(location) == before


def test_creating_again_completes_a_broken_creation(tmp_path: Path) -> None:
    """An array whose metadata is lost is made again beside its shards, and reads as before."""
    location = made(tmp_path, publish=False)
    before = files_of(location)
    location.join("cube.zarr", "number", "zarr.json").remove()
    create_cube(location, SCHEMA, SHAPE)
    assert files_of(location) == before


def test_creating_a_published_cube_again_keeps_it_published(tmp_path: Path) -> None:
    """Repeating a finished run does not unpublish it."""
    location = made(tmp_path)
    before = files_of(location)
    create_cube(location, SCHEMA, SHAPE)
    assert files_of(location) == before
    assert open_cube(location).n_samples == 10


def test_writing_a_shard_again_gives_the_same_objects(tmp_path: Path) -> None:
    """A retried shard replaces its objects with equal ones and touches no other shard."""
    location = made(tmp_path, publish=False)
    before = files_of(location)
    write_shard(location, SCHEMA, SHAPE, 1, shard_rows(1))
    assert files_of(location) == before


def test_returned_objects_are_what_is_stored(tmp_path: Path) -> None:
    """One object per variable, with the size and digest of the stored bytes."""
    location = made(tmp_path, publish=False)
    objects = write_shard(location, SCHEMA, SHAPE, 2, shard_rows(2))
    assert set(objects) == {object_name(variable, 2) for variable in SCHEMA.variables}
    for name, entry in objects.items():
        data = location.join(name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_shard_of_fill_values_is_stored(tmp_path: Path) -> None:
    """NaN pixels, zeros and empty text are objects like any other, so that absence means loss."""
    location = Location(str(tmp_path / "cube"))
    create_cube(location, SCHEMA, SHAPE)
    blank = {
        v.name: (v.dims, np.full([4 if d == "sample" else SHAPE.sizes[d] for d in v.dims], v.fill_value, _dtype(v)))
        for v in SCHEMA.variables
    }
    objects = write_shard(location, SCHEMA, SHAPE, 0, xr.Dataset(blank))
    assert len(objects) == len(SCHEMA.variables)
    assert min(int(entry["bytes"]) for entry in objects.values()) > 0
    pixels = int(objects["cube.zarr/image/c/0/0/0/0"]["bytes"])
    assert pixels >= 4 * 2 * 4 * 4 * 4


@pytest.mark.parametrize("name", ["image", "mask", "name", "seeing", "number", "colour"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_one_corrupt_byte_is_noticed(tmp_path: Path, name: str, where: float) -> None:
    """Any flipped byte of a stored object makes reading its shard a StorageError, other shards stay readable."""
    location = made(tmp_path)
    path = Path(location.join(object_name(SCHEMA[name], 1)).path)
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0x10
    path.write_bytes(bytes(data))
    cube = open_cube(location)
    with pytest.raises(StorageError, match="cannot read"):
        cube.read_shard(1, [name])
    assert cube.read_shard(0, [name]).sizes["sample"] == 4


@pytest.mark.parametrize("name", ["image", "number", "name"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_truncated_object_is_noticed(tmp_path: Path, name: str, keep: float) -> None:
    """An object cut short makes reading its shard a StorageError."""
    location = made(tmp_path)
    path = Path(location.join(object_name(SCHEMA[name], 1)).path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(StorageError):
        open_cube(location).read_shard(1, [name])


@pytest.mark.parametrize("name", ["image", "number", "name"])
def test_lost_object_is_noticed(tmp_path: Path, name: str) -> None:
    """An object that vanished from a published cube is an error, not NaN, 0 or empty text."""
    location = made(tmp_path)
    location.join(object_name(SCHEMA[name], 1)).remove()
    with pytest.raises(StorageError):
        open_cube(location).read_shard(1, [name])


def test_schema_violation_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """All problems of a shard are listed, and no object appears."""
    location = Location(str(tmp_path / "cube"))
    create_cube(location, SCHEMA, SHAPE)
    before = files_of(location)
    rows = shard_rows(0)
    bad = rows.assign(image=rows["image"].astype("float64"), colour=rows["colour"] + np.uint8(7)).drop_vars("name")
    with pytest.raises(ContractError) as caught:
        write_shard(location, SCHEMA, SHAPE, 0, bad)
    for problem in (
        "image: expected dtype float32",
        "colour: flags 7..9 are not all defined",
        "missing variable 'name'",
    ):
        assert problem in str(caught.value)
    with pytest.raises(ContractError, match=r"expected shape \(2,"):
        write_shard(location, SCHEMA, SHAPE, 2, rows)
    assert files_of(location) == before


@pytest.mark.parametrize("shard", [-1, 3, 99])
def test_shard_that_does_not_exist_is_refused(tmp_path: Path, shard: int) -> None:
    """Reading a shard outside the cube is an error, not an empty dataset."""
    cube = open_cube(made(tmp_path))
    with pytest.raises((ContractError, IndexError, ValueError)):
        cube.read_shard(shard, ["number"])


def test_unknown_variable_is_refused(tmp_path: Path) -> None:
    """Reading a variable that the cube lacks names it."""
    with pytest.raises(ContractError, match=r"no variable '?nope"):
        open_cube(made(tmp_path)).columns(["nope"])


def test_marker_without_cube_is_an_error(tmp_path: Path) -> None:
    """A folder that has only the marker is a StorageError with its URL."""
    location = Location(str(tmp_path / "cube"))
    location.join("_SUCCESS").write_bytes(b"")
    with pytest.raises(StorageError, match=location.url):
        open_cube(location)


def test_foreign_zarr_group_is_refused(tmp_path: Path) -> None:
    """A published group without the root attributes of a cube is an error of this package."""
    location = made(tmp_path, publish=False)
    publish_cube(location, {"title": "something else"})
    with pytest.raises(ContractError):
        open_cube(location)


def test_plain_xarray_reads_a_cutouts_cube_with_units(tmp_path: Path, make_cutouts: Callable[..., xr.Dataset]) -> None:
    """xarray.open_zarr gives every variable with units, description, exact values and types; flags have meanings."""
    cutouts = make_cutouts(10, size=16)
    shape = CubeShape({"sample": 10, "band": 3, "y": 16, "x": 16}, shard_samples=4, inner_chunk=2)
    location = Location(str(tmp_path / "cutouts"))
    create_cube(location, CUTOUTS, shape)
    for shard in range(shape.n_shards):
        write_shard(location, CUTOUTS, shape, shard, cutouts.isel(sample=shape.rows(shard)))
    publish_cube(location, cube_attributes(CUTOUTS, shape, {}))
    with xr.open_zarr(str(tmp_path / "cutouts" / "cube.zarr"), chunks=None) as opened:
        assert set(opened.variables) == {variable.name for variable in CUTOUTS.variables}
        for variable in CUTOUTS.variables:
            found = opened[variable.name]
            assert found.dims == variable.dims
            assert found.attrs["units"] == variable.unit
            assert found.attrs["description"] == variable.description
            assert variable.dtype == "str" or found.dtype == np.dtype(variable.dtype)
            assert same_bits(found.to_numpy(), cutouts[variable.name].to_numpy()), variable.name
        assert "brick_missing" in opened["reject_reason"].attrs["flag_meanings"]
    cube = open_cube(location)
    assert set(cube.column_names()) == {v.name for v in CUTOUTS.variables} - {"image", "invvar", "maskbits"}
    assert cube.shard_range(2) == (8, 10)


def _dtype(variable: Variable) -> np.dtype:
    return np.dtype(object) if variable.dtype == "str" else np.dtype(variable.dtype)
