"""Shard objects of a cube as files of a local folder, for memory mapping.

    <folder>/<identity>/<array>-<shard>     the stored object, byte for byte, with the checksums it holds
    <folder>/<identity>/in-use              locked by every process that has the cache open

The identity is a digest of the cube's attributes and of size and entity tag of every object, so that two cubes never
mix and one that was made again is fetched again. A file appears as a whole; processes of one machine share it, and one
fetches while the others wait. Over the limit, cubes that nobody has open are dropped, the least recently used first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.contracts.errors import StorageError
from pipeline.storage.cube import PublishedCube

_IN_USE = "in-use"
_IDENTITY_LENGTH = 32
_IDENTITY_PATTERN = "[0-9a-f]" * _IDENTITY_LENGTH
_PARTIAL_SUFFIX = ".partial"
_ATTRIBUTES = ("schema", "schema_version", "n_samples", "shard_samples", "plan_sha256", "config_sha256", "code_version")

logger = logging.getLogger(__name__)


class ShardCache:
    """The files of one cube; open for as long as the object lives.

    Args:
        folder: of all caches.
        cube: where missing objects are fetched from.
        sizes: object, relative to the cube, to its bytes, in the order in which they deserve room.
        limit_bytes: most bytes of the whole folder; None for what the disk has.

    Attributes:
        held: objects that have room.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, cube: PublishedCube, sizes: Mapping[str, int], limit_bytes: int | None) -> None:
        self._cube = cube
        self._sizes = dict(sizes)
        try:
            self._folder = folder / cube_identity(cube, self._sizes)
            self._folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "lock"):
                (self._folder / _IN_USE).touch()
                marker = os.open(self._folder / _IN_USE, os.O_RDONLY)
                weakref.finalize(self, os.close, marker)
                fcntl.flock(marker, fcntl.LOCK_SH)
                self.held = self._make_room(folder, limit_bytes)
        except OSError as error:
            raise StorageError(f"cannot keep shards in {folder}: {error}") from error

    def file(self, name: str) -> Path:
        """The local file of an object that is held; fetched if it is not there in full.

        Raises:
            StorageError: the object cannot be read or the file not be written.
        """
        path = self._path(name)
        if not self._is_whole(path, name):
            self._fetch(path, name, anew=False)
        return path

    def replace(self, name: str, reason: str) -> Path:
        """Fetch an object again whose file turned out to be corrupt, and say so in the log."""
        path = self._path(name)
        logger.warning("cached shard is fetched again", extra={"fields": {"file": str(path), "reason": reason}})
        self._fetch(path, name, anew=True)
        return path

    def _fetch(self, path: Path, name: str, *, anew: bool) -> None:
        partial = path.with_name(path.name + _PARTIAL_SUFFIX)
        try:
            with _locked(path.with_name(path.name + ".lock")):
                if not anew and self._is_whole(path, name):
                    return
                data = self._cube.location.join(name).read_bytes()
                if len(data) != self._sizes[name]:
                    raise StorageError(
                        f"{self._cube.location.join(name).url}: expected {self._sizes[name]} bytes, got {len(data)}"
                    )
                partial.write_bytes(data)
                partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write {path}: {error}") from error

    def _path(self, name: str) -> Path:
        array, shard = name.split("/")[1], name.split("/")[3]
        return self._folder / f"{array}-{shard}"

    def _is_whole(self, path: Path, name: str) -> bool:
        return path.exists() and path.stat().st_size == self._sizes[name]

    def _make_room(self, folder: Path, limit_bytes: int | None) -> frozenset[str]:
        """Which objects have room, after dropping other cubes if they need it."""
        own = sum(size for name, size in self._sizes.items() if self._is_whole(self._path(name), name))
        others = {path.parent: _bytes_below(path.parent) for path in folder.glob(f"{_IDENTITY_PATTERN}/{_IN_USE}")}
        del others[self._folder]
        needed = sum(self._sizes.values())

        def room() -> int:
            disk = own + shutil.disk_usage(folder).free
            return disk if limit_bytes is None else min(limit_bytes - sum(others.values()), disk)

        for path in sorted(others, key=lambda path: (path / _IN_USE).stat().st_mtime):
            if room() >= needed:
                break
            if _drop(path):
                del others[path]
        left, held = room(), set()
        for name, size in self._sizes.items():
            if size > left:
                break
            left -= size
            held.add(name)
        return frozenset(held)


def cube_identity(cube: PublishedCube, objects: Mapping[str, int]) -> str:
    """Digest that tells a published cube from every other, and from another one under the same URL."""
    versions = cube.location.versions()
    lost = next((name for name in objects if name not in versions), None)
    if lost is not None:
        raise StorageError(f"{cube.location.url}: {lost} is missing")
    content = [{name: cube.attrs.get(name) for name in _ATTRIBUTES}, {name: versions[name] for name in sorted(objects)}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_IDENTITY_LENGTH]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _drop(path: Path) -> bool:
    """Remove the files of another cube unless a process has it open; True if they are gone."""
    with (path / _IN_USE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(path)
    logger.info("dropped the cached shards of another cube", extra={"fields": {"folder": str(path)}})
    return True


def _bytes_below(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.iterdir())
