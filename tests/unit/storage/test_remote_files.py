from __future__ import annotations

import asyncio
import datetime as dt
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts.cache_config import PatienceSection
from pipeline.contracts.errors import BrickError, BrickMissingError
from pipeline.storage.locations import Location
from pipeline.storage.remote_files import RemoteFiles

CONTENT = b"SIMPLE  =                    T".ljust(5760, b" ")
QUICK = {"first_wait_s": 0.01, "max_wait_s": 0.05, "start_spread_s": 0.0, "silence_s": 0.3, "try_s": 2.0}


def ask(server: Any, fault: object = None, name: str = "a.fits", **settings: object) -> tuple[bytes, int]:
    """Size and content of a file whose first request meets a fault; the content, and retries."""
    (server.folder / "a.fits").write_bytes(CONTENT)
    if fault is not None:
        server.faults[f"GET {name}"].append(fault)

    async def both() -> tuple[bytes, int]:
        async with RemoteFiles(Location(server.url), PatienceSection(**{**QUICK, **settings})) as files:
            await files.start()
            return await files.read(name, await files.size(name)), files.retries

    return asyncio.run(both())


@pytest.mark.parametrize("fault", [500, 502, 503, 429, "truncate", "short", "page", "slow"])
def test_passing_troubles_are_tried_again(faulty_server: Any, fault: object) -> None:
    """A busy or broken server, a truncated body, a page instead of a file and silence cost one more try each."""
    assert ask(faulty_server, fault) == (CONTENT, 1)
    assert faulty_server.asked("a.fits") == 2


def test_file_that_drips_is_given_up_after_the_limit_of_a_try(faulty_server: Any) -> None:
    """A server that keeps sending single bytes is never silent; the limit of the whole try ends it."""
    assert ask(faulty_server, "drip", try_s=0.5) == (CONTENT, 1)


def test_head_is_tried_again_and_never_taken_for_absence(faulty_server: Any) -> None:
    """An error of the server on HEAD is not a missing file."""
    faulty_server.faults["HEAD a.fits"] += [500, 503, 500, 503]
    with pytest.raises(BrickError, match="gave up after 3 tries: HTTP 500") as caught:
        ask(faulty_server, tries=3)
    assert not isinstance(caught.value, BrickMissingError)
    assert ask(faulty_server) == (CONTENT, 1)


@pytest.mark.parametrize("status", [404, 410])
def test_absent_file_is_asked_for_once(faulty_server: Any, status: int) -> None:
    """404 and 410 are final and say that the file does not exist."""
    faulty_server.faults["HEAD b.fits"].append(status)
    with pytest.raises(BrickMissingError, match=f"b.fits: HTTP {status}"):
        ask(faulty_server, name="b.fits")
    assert faulty_server.asked("b.fits", "HEAD") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 416])
def test_refusal_is_final_and_not_absence(faulty_server: Any, status: int) -> None:
    """Another 4xx is not tried again, and the brick is not counted as absent."""
    with pytest.raises(BrickError, match=f"HTTP {status}") as caught:
        ask(faulty_server, status)
    assert not isinstance(caught.value, BrickMissingError)
    assert faulty_server.asked("a.fits") == 1


def test_tries_end(faulty_server: Any) -> None:
    """A server that never recovers is an error that names URL, tries and the last reason."""
    faulty_server.faults["GET a.fits"] += [500] * 9
    with pytest.raises(BrickError, match=r"http://127.*/a.fits: gave up after 3 tries: HTTP 500"):
        ask(faulty_server, tries=3)
    assert faulty_server.asked("a.fits") == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept(faulty_server: Any, as_date: bool) -> None:
    """The second try comes no earlier than the server asked, given in seconds or as a date."""
    date = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2))
    ask(faulty_server, (429, {"Retry-After": date if as_date else "1"}))
    first, second = (at for method, _, at in faulty_server.requests if method == "GET")
    assert second - first >= 0.7


def test_unreasonable_retry_after_is_given_up(faulty_server: Any) -> None:
    """A server that asks for more than the limit of a try is not waited for; nonsense is ignored."""
    with pytest.raises(BrickError, match="gave up after 1 tries: HTTP 503"):
        ask(faulty_server, (503, {"Retry-After": "86400"}))
    assert ask(faulty_server, (503, {"Retry-After": "soon"})) == (CONTENT, 1)


def test_waits_double_with_jitter_up_to_the_longest() -> None:
    """first, 2 first, 4 first, ... within 25 %, never above the longest wait and its jitter."""
    files = RemoteFiles(Location("https://example.org"), PatienceSection(max_wait_s=10.0))
    for tried, middle in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 10.0)):
        waits = [files._wait_s(tried) for _ in range(200)]
        assert 0.75 * middle <= min(waits) < 0.9 * middle
        assert 1.1 * middle < max(waits) <= 1.25 * middle


def test_folder_is_a_source_too(tmp_path: Path) -> None:
    """Stored files are read the same way: absent, empty and good ones."""
    (tmp_path / "good").write_bytes(CONTENT)
    (tmp_path / "empty").write_bytes(b"")

    async def read(name: str) -> bytes:
        async with RemoteFiles(Location(str(tmp_path)), PatienceSection(**QUICK, tries=2)) as files:
            return await files.read(name, await files.size(name))

    assert asyncio.run(read("good")) == CONTENT
    with pytest.raises(BrickMissingError, match="found none"):
        asyncio.run(read("absent"))
    with pytest.raises(BrickError, match="size as 0"):
        asyncio.run(read("empty"))
