"""Whole files from a server that may be slow, busy or broken: asked for again, at growing distances.

404 and 410 say that a file does not exist; 429, every 5xx, a lost connection, silence and a short or wrong body are
passing troubles and tried again; any other answer is final. A server's Retry-After is kept.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self, TypeVar

import aiohttp

from pipeline.contracts.cache_config import PatienceSection
from pipeline.contracts.errors import BrickError, BrickMissingError, StorageError
from pipeline.storage.fits_cards import FITS_BLOCK_BYTES
from pipeline.storage.locations import Location

_CHUNK_BYTES = 2**20
_ABSENT_STATUS = (404, 410)
_BUSY_STATUS = 429
_FITS_BEGINS = b"SIMPLE  ="

Answer = TypeVar("Answer")


class _PassingTrouble(Exception):  # noqa: N818 - a trouble, not yet an error
    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class RemoteFiles:
    """FITS files below a location, for one event loop at a time.

    Attributes:
        requests: requests made, tries included.
        retries: tries beyond the first of each file.
    """

    def __init__(self, root: Location, patience: PatienceSection) -> None:
        self.requests = 0
        self.retries = 0
        self._root = root
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None
        self._waits = random.SystemRandom()

    async def __aenter__(self) -> Self:
        if self._root.scheme in ("http", "https"):
            silence = self._patience.silence_s
            limits = aiohttp.ClientTimeout(total=self._patience.try_s, sock_connect=silence, sock_read=silence)
            # A server that compressed its answer would announce another length than the file's.
            headers = {"Accept-Encoding": "identity", "User-Agent": "darkhaloscope"}
            self._session = aiohttp.ClientSession(timeout=limits, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def start(self) -> None:
        """Wait a random time, so that many clients do not begin at once."""
        await asyncio.sleep(self._waits.uniform(0.0, self._patience.start_spread_s))

    async def size(self, path: str) -> int:
        """Size of a file in bytes, at least 1, without reading it.

        Raises:
            BrickMissingError: the file does not exist.
            BrickError: the server refuses it, or kept failing.
        """
        return await self._patiently(path, self._size)

    async def read(self, path: str, size: int) -> bytes:
        """The whole file, of exactly `size` bytes and FITS.

        Raises:
            BrickMissingError: the file does not exist.
            BrickError: the server refuses it, or kept failing or sending something else.
        """

        async def read_once(path: str) -> bytes:
            data = await self._read(path, size)
            if len(data) != size:
                raise _PassingTrouble(f"expected {size} bytes, got {len(data)}")
            if not data.startswith(_FITS_BEGINS) or len(data) % FITS_BLOCK_BYTES:
                raise _PassingTrouble(f"expected a FITS file, got {len(data)} bytes that begin with {data[:20]!r}")
            return data

        return await self._patiently(path, read_once)

    async def _patiently(self, path: str, ask: Callable[[str], Awaitable[Answer]]) -> Answer:
        url, tries = self._root.join(path).url, self._patience.tries
        for tried in range(1, tries + 1):
            self.requests += 1
            try:
                return await ask(path)
            except (_PassingTrouble, StorageError, aiohttp.ClientError, TimeoutError) as trouble:
                reason = str(trouble) or type(trouble).__name__
                asked_s = trouble.wait_s if isinstance(trouble, _PassingTrouble) else 0.0
                if tried == tries or asked_s > self._patience.try_s:
                    raise BrickError(f"{url}: gave up after {tried} tries: {reason}") from trouble
                self.retries += 1
                await asyncio.sleep(max(self._wait_s(tried), asked_s))
        raise BrickError(f"{url}: expected at least one try, got {tries}")

    def _wait_s(self, tried: int) -> float:
        wait_s = min(self._patience.first_wait_s * 2.0 ** (tried - 1), self._patience.max_wait_s)
        return wait_s * self._waits.uniform(1.0 - self._patience.jitter, 1.0 + self._patience.jitter)

    async def _size(self, path: str) -> int:
        if self._session is None:
            size = await asyncio.to_thread(self._stored_size, path)
        else:
            async with self._session.head(self._root.join(path).url, allow_redirects=True) as response:
                _judge(response)
                size = response.content_length or 0
        if size < 1:
            raise _PassingTrouble(f"expected a file with content, the source gives its size as {size}")
        return size

    async def _read(self, path: str, size: int) -> bytes:
        if self._session is None:
            return await asyncio.to_thread(self._root.join(path).read_bytes)
        async with self._session.get(self._root.join(path).url) as response:
            _judge(response)
            data = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                data += chunk
                if len(data) > size:
                    raise _PassingTrouble(f"expected {size} bytes, got more")
            return bytes(data)

    def _stored_size(self, path: str) -> int:
        location = self._root.join(path)
        size = location.size()
        if not size and not location.exists():
            raise BrickMissingError(f"{location.url}: expected a file, found none")
        return size


def _judge(response: aiohttp.ClientResponse) -> None:
    """Raise unless the answer is a file."""
    status, url = response.status, str(response.url)
    if status in _ABSENT_STATUS:
        raise BrickMissingError(f"{url}: HTTP {status}")
    if status == _BUSY_STATUS or status >= 500:
        raise _PassingTrouble(f"HTTP {status}", _retry_after_s(response.headers.get("Retry-After")))
    if status != 200:
        raise BrickError(f"{url}: HTTP {status}, which another try would not change")


def _retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, given as a number or a date; 0 without one or for nonsense."""
    if header is None:
        return 0.0
    if header.strip().isdigit():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max((until - dt.datetime.now(dt.UTC)).total_seconds(), 0.0) if until.tzinfo else 0.0
