"""Files of a cube on local disk: fetched once, shared, limited, never those of another cube."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.contracts.errors import StorageError
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.training.shard_cache import ShardCache, cube_identity

CubeMaker = Callable[..., PublishedCube]


def sizes_of(cube: PublishedCube) -> dict[str, int]:
    names = [cube.shard_object(kind, shard) for shard in range(cube.n_shards) for kind in ("control", "injected")]
    return {name: cube.location.join(name).size() for name in names}


def test_files_are_the_stored_objects_and_are_fetched_once(make_cube: CubeMaker, tmp_path: Path) -> None:
    """Bytes equal the store's; a second cache of the same cube takes the files that are there."""
    cube = make_cube()
    sizes = sizes_of(cube)
    cache = ShardCache(tmp_path / "cache", cube, sizes, None)
    assert cache.held == set(sizes)
    for name in sizes:
        assert cache.file(name).read_bytes() == cube.location.join(name).read_bytes()
    before = {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("*-*") if path.suffix == ""}
    again = ShardCache(tmp_path / "cache", cube, sizes, None)
    assert {again.file(name): again.file(name).stat().st_ino for name in sizes}.items() <= before.items()


def test_limit_is_kept_and_gives_room_in_order(make_cube: CubeMaker, tmp_path: Path) -> None:
    """Only the first objects that fit are held."""
    cube = make_cube()
    sizes = sizes_of(cube)
    two = list(sizes)[:2]
    cache = ShardCache(tmp_path / "cache", cube, sizes, sum(sizes[name] for name in two) + 10)
    assert cache.held == set(two)


def test_cubes_do_not_mix_and_idle_ones_make_room(make_cube: CubeMaker, tmp_path: Path) -> None:
    """Same attributes, other objects: another folder. A cube in use is kept, one that is not is dropped."""
    first, second = make_cube(name="first"), make_cube(lambda rows: rows["control"].__iadd__(1.0), name="second")
    assert cube_identity(first, sizes_of(first)) != cube_identity(second, sizes_of(second))
    limit = int(1.5 * sum(sizes_of(first).values()))
    old = ShardCache(tmp_path / "cache", first, sizes_of(first), limit)
    kept = [old.file(name) for name in sizes_of(first)]
    assert 0 < len(ShardCache(tmp_path / "cache", second, sizes_of(second), limit).held) < len(sizes_of(second))
    assert all(path.exists() for path in kept)
    del old
    assert ShardCache(tmp_path / "cache", second, sizes_of(second), limit).held == set(sizes_of(second))
    assert not any(path.exists() for path in kept)


def test_cube_made_again_is_fetched_again(make_cube: CubeMaker, tmp_path: Path) -> None:
    """An object that was replaced under the same URL changes the identity; a missing one is an error."""
    cube = make_cube()
    sizes = sizes_of(cube)
    before = cube_identity(cube, sizes)
    name = next(iter(sizes))
    location = cube.location.join(name)
    location.write_bytes(location.read_bytes())
    assert cube_identity(cube, sizes) != before
    location.remove()
    with pytest.raises(StorageError, match="control/c/0/0/0/0 is missing"):
        ShardCache(tmp_path / "cache", cube, sizes, None)


def test_folder_that_cannot_be_written_is_an_error(make_cube: CubeMaker, tmp_path: Path) -> None:
    """A file in the place of the folder is a StorageError that names it."""
    (tmp_path / "cache").write_text("")
    cube = make_cube()
    with pytest.raises(StorageError, match="cannot keep shards in"):
        ShardCache(tmp_path / "cache", cube, sizes_of(cube), None)


FILL = """
import sys
from pathlib import Path
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import Location
from pipeline.training.shard_cache import ShardCache
url, folder, sizes = sys.argv[1], sys.argv[2], eval(sys.argv[3])
cache = ShardCache(Path(folder), open_cube(Location(url)), sizes, None)
reads, read = [], Location.read_bytes
Location.read_bytes = lambda self: (reads.append(self.url), read(self))[1]
print("ready", flush=True)
sys.stdin.readline()
assert all(cache.file(name).stat().st_size == sizes[name] for name in cache.held)
print(len(reads))
"""


def test_two_processes_fill_one_cache(make_cube: CubeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both get every file in full, one of them fetches each, and nothing partial is left."""
    cube = make_cube()
    sizes = sizes_of(cube)
    cache = ShardCache(tmp_path / "cache", cube, sizes, None)
    reads: list[str] = []
    read = Location.read_bytes
    monkeypatch.setattr(Location, "read_bytes", lambda self: (reads.append(self.url), read(self))[1])
    command = [sys.executable, "-c", FILL, cube.location.url, str(tmp_path / "cache"), repr(sizes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        assert all(cache.file(name).stat().st_size == size for name, size in sizes.items())
        answer = other.communicate()[0]
    assert other.returncode == 0
    assert len(reads) + int(answer) == len(sizes)
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_other_folders_are_left_alone(make_cube: CubeMaker, tmp_path: Path) -> None:
    """A cache in a folder that holds other things never drops them, however little room there is."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "in-use").write_text("x")
    (tmp_path / ("a" * 32)).mkdir()
    (tmp_path / ("a" * 32) / "precious").write_text("x")
    cube = make_cube()
    assert ShardCache(tmp_path, cube, sizes_of(cube), 10).held == frozenset()
    assert (tmp_path / "mine" / "in-use").exists()
    assert (tmp_path / ("a" * 32) / "precious").exists()
