"""The coadd cache: <brick>/ with the files of a brick and, once all are there, an empty `_SUCCESS`.

A file is stored as a whole or not at all; the marker is written after the folder was listed and every size compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from pipeline.contracts.errors import BrickError, BrickMissingError, StorageError
from pipeline.storage.bricks import Key, brick_file
from pipeline.storage.emr_layout import SUCCESS
from pipeline.storage.locations import Location
from pipeline.storage.remote_files import RemoteFiles

State = Literal["cached", "fetched", "absent", "failed"]
"""Complete before; complete now; not at the source (HTTP 404); not complete although it was tried."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class BrickState:
    """What is known of one brick after it was looked at.

    Attributes:
        state: see State.
        reason: why it is absent or failed, or what is odd about a brick that is complete.
        sizes: size in bytes of each of its files in the cache.
        fetched_files: files copied this time.
        fetched_bytes: their bytes.
    """

    brickname: str
    state: State
    reason: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    fetched_files: int = 0
    fetched_bytes: int = 0

    @property
    def is_complete(self) -> bool:
        """True if every file is in the cache."""
        return self.state in ("cached", "fetched")


@dataclass(frozen=True)
class BrickCopier:
    """Copies bricks from a source to a cache.

    Attributes:
        source: where the files come from, with the patience to get them.
        layout: their layout there, "public" or "cache".
        cache: folder of the cache.
        keys: files of a brick.
        check_source: compare the files of a brick that has its marker with the source as well.
        connections: files in flight.
    """

    source: RemoteFiles
    layout: str
    cache: Location
    keys: Sequence[Key]
    check_source: bool
    connections: int

    async def fill(self, brickname: str, known_sizes: Mapping[str, int]) -> BrickState:
        """Bring one brick to the cache, or find that it is there.

        Args:
            brickname: name of the brick.
            known_sizes: sizes of its files where an earlier run recorded them; another size is not complete.

        Raises:
            StorageError: the cache cannot be listed or written.
        """
        paths = {_file_name(path): path for path in (brick_file(self.layout, brickname, key) for key in self.keys)}
        folder = self.cache.join(brickname)
        held = await asyncio.to_thread(folder.sizes)
        complete = SUCCESS in held and all(
            held.get(name, 0) > 0 and held[name] == known_sizes.get(name, held[name]) for name in paths
        )
        if complete and not self.check_source:
            return BrickState(brickname, "cached", sizes=_only_files(held))
        try:
            sizes = dict(zip(paths, await self._each(self.source.size, list(paths.values())), strict=True))
            wanted = {name: size for name, size in sizes.items() if held.get(name) != size}
            if wanted:
                await asyncio.to_thread(folder.join(SUCCESS).remove)
                await asyncio.to_thread(folder.remove_partial_files)
                await self._each(partial(self._copy, folder, paths, wanted), list(wanted))
        except BrickMissingError as problem:
            if complete:
                return BrickState(brickname, "cached", f"no longer at the source: {problem}", _only_files(held))
            return BrickState(brickname, "absent", str(problem))
        except BrickError as problem:
            return BrickState(brickname, "failed", str(problem))
        held = await asyncio.to_thread(folder.sizes)
        for name, size in sizes.items():
            if held.get(name) != size:
                raise StorageError(f"{folder.join(name).url}: expected {size} bytes, the cache holds {held.get(name)}")
        if SUCCESS not in held:
            await asyncio.to_thread(folder.join(SUCCESS).write_bytes, b"")
        state: State = "fetched" if wanted else "cached"
        return BrickState(brickname, state, "", _only_files(held), len(wanted), sum(wanted.values()))

    async def _copy(self, folder: Location, paths: Mapping[str, str], sizes: Mapping[str, int], name: str) -> None:
        data = await self.source.read(paths[name], sizes[name])
        await asyncio.to_thread(folder.join(name).write_bytes, data)

    async def _each(self, ask: Callable[[str], Awaitable[Answer]], names: Sequence[str]) -> list[Answer]:
        """`ask` for every name, some at a time; all end before the first error is raised, absent files first."""
        gate = asyncio.Semaphore(self.connections)

        async def one(name: str) -> Answer:
            async with gate:
                return await ask(name)

        answers = await asyncio.gather(*map(one, names), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in sorted(errors, key=lambda found: not isinstance(found, BrickMissingError)):
            raise error
        return [answer for answer in answers if not isinstance(answer, BaseException)]


def _file_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _only_files(held: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in held.items() if name != SUCCESS}
