from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts.cache_config import PatienceSection
from pipeline.storage.bricks import brick_file
from pipeline.storage.coadd_cache import BrickCopier, BrickState
from pipeline.storage.locations import Location
from pipeline.storage.remote_files import RemoteFiles

BRICK = "0591m305"
KEYS = (("image", "r"), ("invvar", "r"), ("maskbits", ""))
NAMES = [brick_file("cache", BRICK, key).rsplit("/", 1)[-1] for key in KEYS]
QUICK = PatienceSection(tries=2, first_wait_s=0.01, start_spread_s=0.0, silence_s=0.3, try_s=2.0)


def content(blocks: int) -> bytes:
    """Bytes that pass as FITS."""
    return b"SIMPLE  =                    T".ljust(2880 * blocks, b" ")


@pytest.fixture
def server(faulty_server: Any) -> Any:
    """The server with one brick of three files in the public layout."""
    for blocks, key in enumerate(KEYS, start=1):
        path = faulty_server.folder / brick_file("public", BRICK, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(blocks))
    return faulty_server


def fill(
    server: Any, cache: Path, brickname: str = BRICK, known: Mapping[str, int] | None = None, check_source: bool = False
) -> BrickState:
    """Fill one brick."""

    async def one() -> BrickState:
        async with RemoteFiles(Location(server.url), QUICK) as source:
            copier = BrickCopier(source, "public", Location(str(cache)), KEYS, check_source, connections=2)
            return await copier.fill(brickname, known or {})

    server.requests.clear()
    return asyncio.run(one())


def held(cache: Path) -> dict[str, int]:
    """Size of every file of the brick in the cache."""
    return {path.name: path.stat().st_size for path in (cache / BRICK).glob("*")}


WHOLE = {**{name: 2880 * (k + 1) for k, name in enumerate(NAMES)}, "_SUCCESS": 0}


def test_brick_is_copied_and_marked(server: Any, tmp_path: Path) -> None:
    """All files arrive under the layout of the cache, the marker is empty, a second look asks the server nothing."""
    state = fill(server, tmp_path / "cache")
    assert state == BrickState(BRICK, "fetched", "", {name: WHOLE[name] for name in NAMES}, 3, 6 * 2880)
    assert held(tmp_path / "cache") == WHOLE
    again = fill(server, tmp_path / "cache")
    assert (again.state, again.fetched_files, server.requests) == ("cached", 0, [])


def test_absent_brick_is_told_from_a_broken_server(server: Any, tmp_path: Path) -> None:
    """404 makes a brick absent, also if another file fails otherwise; nothing is downloaded, no marker is left."""
    server.faults[f"HEAD {NAMES[2]}"].append(404)
    server.faults[f"HEAD {NAMES[0]}"] += [500] * 2
    state = fill(server, tmp_path / "cache")
    assert state.state == "absent"
    assert "maskbits.fits.fz: HTTP 404" in state.reason
    assert held(tmp_path / "cache") == {}
    assert fill(server, tmp_path / "cache", "0000p000").state == "absent"


def test_failed_file_leaves_a_partial_brick_that_is_completed_later(server: Any, tmp_path: Path) -> None:
    """Whole files are kept, the brick has no marker; the next run fetches only what is missing."""
    server.faults[f"GET {NAMES[1]}"] += ["truncate"] * 2
    state = fill(server, tmp_path / "cache")
    assert state.state == "failed"
    assert NAMES[1] in state.reason
    assert held(tmp_path / "cache") == {NAMES[0]: 2880, NAMES[2]: 3 * 2880}
    state = fill(server, tmp_path / "cache")
    assert (state.state, state.fetched_files) == ("fetched", 1)
    assert held(tmp_path / "cache") == WHOLE
    assert [server.asked(name) for name in NAMES] == [0, 1, 0]


@pytest.mark.parametrize("marked", [False, True])
def test_truncated_file_is_never_complete(server: Any, tmp_path: Path, marked: bool) -> None:
    """A short file without marker is found by its size at the source; with a marker, by the recorded size."""
    first = fill(server, tmp_path / "cache")
    path = tmp_path / "cache" / BRICK / NAMES[2]
    path.write_bytes(path.read_bytes()[:2880])
    if not marked:
        (tmp_path / "cache" / BRICK / "_SUCCESS").unlink()
    state = fill(server, tmp_path / "cache", known=first.sizes if marked else None)
    assert (state.state, state.fetched_files) == ("fetched", 1)
    assert held(tmp_path / "cache") == WHOLE


def test_empty_or_missing_file_is_not_complete_in_spite_of_a_marker(server: Any, tmp_path: Path) -> None:
    """The marker alone is not believed: every file must be there with content."""
    fill(server, tmp_path / "cache")
    (tmp_path / "cache" / BRICK / NAMES[0]).write_bytes(b"")
    (tmp_path / "cache" / BRICK / NAMES[1]).unlink()
    assert fill(server, tmp_path / "cache").fetched_files == 2
    assert held(tmp_path / "cache") == WHOLE


def test_source_check_compares_a_marked_brick_with_the_source(server: Any, tmp_path: Path) -> None:
    """Another size at the source is fetched; a brick that the source dropped is kept and says so."""
    fill(server, tmp_path / "cache")
    (server.folder / brick_file("public", BRICK, KEYS[0])).write_bytes(content(7))
    assert fill(server, tmp_path / "cache").state == "cached"
    assert fill(server, tmp_path / "cache", check_source=True).fetched_bytes == 7 * 2880
    (server.folder / brick_file("public", BRICK, KEYS[1])).unlink()
    state = fill(server, tmp_path / "cache", check_source=True)
    assert state.is_complete
    assert "no longer at the source" in state.reason


def test_leftovers_of_an_interrupted_write_are_removed(server: Any, tmp_path: Path) -> None:
    """A partial file of a killed process does not stay in the cache."""
    leftover = tmp_path / "cache" / BRICK / f"{NAMES[0]}.0123.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    fill(server, tmp_path / "cache")
    assert held(tmp_path / "cache") == WHOLE
