"""Square windows out of the coadds of one brick, at the cost of the compressed tiles that they touch.

A brick is opened with one batch of concurrent range requests and read with another. A file that is missing or does
not decode is a recorded problem of that file; a filesystem that fails is a StorageError.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import fsspec
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from pipeline.contracts.errors import (
    BrickCorruptError,
    BrickError,
    BrickMissingError,
    ContractError,
    StorageError,
)
from pipeline.contracts.survey import BANDS, COADD_KINDS
from pipeline.storage.fits_cards import CARD_BYTES
from pipeline.storage.locations import storage_errors
from pipeline.storage.tile_table import TiledImage, metadata_bytes, parse_tiled_image
from pipeline.storage.tiled_fits import SparseFile, decode_tiles
from pipeline.storage.window_plan import WindowPlan, paste_windows, plan_windows

# Headers and tile table of a survey image take about 40 kB; the rest of the first range is tiles.
FIRST_RANGE_BYTES = 48_960
# Tile ranges of a file are merged over gaps of this size, smallest first, while all gaps of a batch together stay
# below this part of what is needed.
MAX_GAP_BYTES = 16_384
MAX_WASTE_FRACTION = 0.1
# From S3 over any gap that is cheaper than a request: at 0.0004 USD per 1000 requests and 0.384 USD per hour of a node
# of 2.5 Gbit/s, whose bytes within the region are free but for its time, a request costs as much as 1.2 MB.
S3_GAP_BYTES = 2**20

Key = tuple[str, str]
"""(kind, band): ("image", "g"), ("invvar", "r"), ("psfsize", "z"), ("maskbits", "")."""

_WCS_KEYWORDS = re.compile(
    rb"(WCSAXES|CTYPE\d|CRVAL\d|CRPIX\d|CD\d_\d|PC\d_\d|CDELT\d|CROTA\d|CUNIT\d|RADESYS|EQUINOX|LONPOLE|LATPOLE"
    rb"|PV\d_\d+) *="
)


@dataclass(frozen=True)
class Windows:
    """Square windows of one file. They may leave the image.

    Attributes:
        x0: (n,) int64 first column of each window, 0-based. [pixel]
        y0: (n,) int64 first row of each window, 0-based. [pixel]
        size: side of every window, at least 1. [pixel]
    """

    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    size: int

    def __post_init__(self) -> None:
        if self.x0.ndim != 1 or self.x0.shape != self.y0.shape or self.size < 1:
            raise ContractError(
                f"windows: expected x0 and y0 of one shape (n,) and size >= 1, got {self.x0.shape}, {self.y0.shape}"
                f" and {self.size}"
            )


def brick_file(layout: str, brickname: str, key: Key) -> str:
    """Path of a coadd below the bricks' root: <brick>/<file> for layout "cache", <AAA>/<brick>/<file> for "public".

    Raises:
        ContractError: unknown layout, kind or band.
    """
    kind, band = key
    if layout not in ("cache", "public"):
        raise ContractError(f"brick layout: expected 'cache' or 'public', got {layout!r}")
    if key != ("maskbits", "") and (kind not in COADD_KINDS or band not in BANDS):
        raise ContractError(f"brick file: expected ('maskbits', '') or one of {COADD_KINDS} and {BANDS}, got {key}")
    folder = brickname if layout == "cache" else f"{brickname[:3]}/{brickname}"
    suffix = f"{kind}-{band}" if band else kind
    return f"{folder}/legacysurvey-{brickname}-{suffix}.fits.fz"


class Brick:
    """The coadds of one brick whose headers and tile tables have been read.

    Attributes:
        brickname: name of the brick.
        problems: why a file cannot be used: BrickMissingError, or BrickCorruptError that names brick and file, what
            was expected and what came. `read` adds what it finds.
        bytes_fetched: bytes received so far.
        requests: range requests made so far.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, brickname: str, paths: Mapping[Key, str]) -> None:
        """A brick of which nothing has been read; `open` is the way to one that can be used."""
        self.brickname = brickname
        self.problems: dict[Key, BrickError] = {}
        self.bytes_fetched = 0
        self.requests = 0
        self._fs = fs
        self._paths = dict(paths)
        self._prefixes: dict[Key, bytes] = {}
        self._images: dict[Key, TiledImage] = {}
        self._wcs: WCS | None = None

    @classmethod
    def open(
        cls,
        fs: fsspec.AbstractFileSystem,
        root: str,
        layout: Literal["cache", "public"],
        brickname: str,
        keys: Sequence[Key],
    ) -> Brick:
        """Read headers and tile tables of all files at once; a second batch only for tables that reach further.

        Args:
            fs: filesystem of the bricks.
            root: their root, as `fs` writes paths.
            layout: see brick_file.
            brickname: name of the brick.
            keys: files wanted; the first one that can be used gives `shape` and `wcs`.

        Raises:
            StorageError: a read failed for a reason other than a missing or short file.
            ContractError: unknown layout, kind or band.
        """
        base = root.rstrip("/")
        brick = cls(fs, brickname, {key: f"{base}/{brick_file(layout, brickname, key)}" for key in keys})
        brick._read_metadata()
        brick._compare_files()
        return brick

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of every image of the brick. [pixel] Raises the first problem if no file can be used."""
        return next(iter(self._images.values())).shape if self._images else self._unusable()

    @property
    def wcs(self) -> WCS:
        """World coordinates of the first usable file. Raises the first problem if there is none."""
        return self._wcs if self._wcs is not None else self._unusable()

    def read(self, requests: Mapping[Key, Windows]) -> dict[Key, NDArray[Any]]:
        """Cut windows out of several files, all their tiles fetched in one batch, each decoded at most once.

        Args:
            requests: windows per file; files in `problems` are passed over.

        Returns:
            (n, y, x) arrays in the files' units, float32, or int32 for maskbits; zero outside the image, NaN where
            the survey has no value. Files with a problem, also one found now, are left out.

        Raises:
            StorageError: as in open.
            ContractError: a file that the brick was not opened with.
        """
        if unknown := [key for key in requests if key not in self._paths]:
            raise ContractError(f"brick {self.brickname} was opened with {list(self._paths)}, not with {unknown}")
        plans = {
            key: plan_windows(self._images[key], windows.x0, windows.y0, windows.size)
            for key, windows in requests.items()
            if key not in self.problems
        }
        pieces = {key: [(0, self._prefixes[key])] for key in plans}
        ranges = self._tile_ranges(plans)
        for (key, start, _), content in zip(ranges, self._fetch(ranges), strict=True):
            if isinstance(content, BrickError):
                self.problems.setdefault(key, content)
            else:
                pieces[key].append((start, content))
        stamps: dict[Key, NDArray[Any]] = {}
        for key, plan in plans.items():
            if key not in self.problems:
                image = self._images[key]
                dtype = np.int32 if key[0] == "maskbits" else np.float32
                try:
                    source = SparseFile(pieces[key])
                    tiles = decode_tiles(image, source, plan.tiles, plan.pixels, dtype)
                except BrickCorruptError as problem:
                    self.problems[key] = problem
                else:
                    stamps[key] = paste_windows(image, plan, tiles)
        return stamps

    def _read_metadata(self) -> None:
        missing = [(key, 0, FIRST_RANGE_BYTES) for key in self._paths]
        while missing:
            longer = []
            for (key, _, end), content in zip(missing, self._fetch(missing, may_end=True), strict=True):
                if isinstance(content, BrickError):
                    self.problems[key] = content
                    continue
                prefix = self._prefixes.get(key, b"") + content
                self._prefixes[key] = prefix
                try:
                    needed = metadata_bytes(prefix, self._name(key))
                    if needed > len(prefix) and len(prefix) == end:
                        longer.append((key, end, needed))
                    else:
                        self._images[key] = parse_tiled_image(prefix, self._name(key))
                except BrickCorruptError as problem:
                    self.problems[key] = problem
            missing = longer

    def _compare_files(self) -> None:
        """Take shape and WCS from the first usable file; another shape is a problem of the file that has it."""
        first: TiledImage | None = None
        readable = {key: self._images[key] for key in self._paths if key in self._images}
        self._images = {}
        for key, image in readable.items():
            if first is None:
                try:
                    self._wcs = _celestial_wcs(image)
                except BrickCorruptError as problem:
                    self.problems[key] = problem
                    continue
                first = image
            if image.shape != first.shape:
                self.problems[key] = BrickCorruptError(
                    f"{image.name}: expected the shape {first.shape} of {first.name}, got {image.shape}"
                )
            else:
                self._images[key] = image

    def _tile_ranges(self, plans: Mapping[Key, WindowPlan]) -> list[tuple[Key, int, int]]:
        """Byte ranges of all touched tiles beyond what is in memory, merged over small gaps."""
        wanted: list[tuple[Key, int, int]] = []
        needed_bytes = 0
        for key, plan in plans.items():
            image, have = self._images[key], len(self._prefixes[key])
            start, length = image.start[plan.tiles], image.length[plan.tiles]
            needed_bytes += image.metadata_bytes + int(length.sum())
            ends = (start + length).tolist()
            starts = np.maximum(start, have).tolist()
            wanted += sorted((key, low, high) for low, high in zip(starts, ends, strict=True) if low < high)
        protocol = self._fs.protocol
        if "s3" in ((protocol,) if isinstance(protocol, str) else protocol):
            return _merge(wanted, S3_GAP_BYTES)
        return _merge(wanted, MAX_GAP_BYTES, int(MAX_WASTE_FRACTION * needed_bytes))

    def _fetch(self, ranges: Sequence[tuple[Key, int, int]], may_end: bool = False) -> list[bytes | BrickError]:
        """Contents of byte ranges, all requested at once; a missing or too short file is returned as its problem."""
        if not ranges:
            return []
        paths = [self._paths[key] for key, _, _ in ranges]
        starts, ends = [start for _, start, _ in ranges], [end for _, _, end in ranges]
        with storage_errors(f"read brick {self.brickname}: {len(ranges)} ranges such as {paths[0]}"):
            results = self._fs.cat_ranges(paths, starts, ends, on_error="return")
        self.requests += len(ranges)
        return [self._judge(*wanted, result, may_end) for wanted, result in zip(ranges, results, strict=True)]

    def _judge(self, key: Key, start: int, end: int, result: object, may_end: bool) -> bytes | BrickError:
        name = self._name(key)
        if isinstance(result, FileNotFoundError):
            return BrickMissingError(f"{name}: expected a file, found none")
        if isinstance(result, bytes):
            self.bytes_fetched += len(result)
            if len(result) > end - start:
                raise StorageError(f"{name}: asked for {end - start} bytes, got {len(result)}: ranges are not honoured")
            if len(result) < end - start and not may_end:
                return BrickCorruptError(
                    f"{name}: expected data up to byte {end}, the file ends at {start + len(result)}"
                )
            return result
        if not isinstance(result, Exception):
            raise StorageError(f"{name}: reading bytes {start} to {end} gave {result!r}")
        if getattr(result, "errno", None) == errno.EINVAL or getattr(result, "status", None) == 416:
            with storage_errors(f"read the size of {name}"):
                size = int(self._fs.info(self._paths[key])["size"])
            if size <= start:
                return BrickCorruptError(f"{name}: expected data up to byte {end}, the file ends at {size}")
        raise StorageError(
            f"{name}: reading bytes {start} to {end} failed: {type(result).__name__}: {result}"
        ) from result

    def _name(self, key: Key) -> str:
        return f"brick {self.brickname}: {self._paths[key]}"

    def _unusable(self) -> Any:
        if not self.problems:
            raise ContractError(f"brick {self.brickname} was opened with no files")
        raise next(iter(self.problems.values()))


def _merge(
    wanted: Sequence[tuple[Key, int, int]], gap_bytes: int, waste_bytes: float = math.inf
) -> list[tuple[Key, int, int]]:
    """Merge neighbouring ranges of a file, smallest gaps first, up to `gap_bytes` each and `waste_bytes` in all."""
    gaps = [
        (max(after[1] - before[2], 0), i)
        for i, (before, after) in enumerate(pairwise(wanted), start=1)
        if before[0] == after[0]
    ]
    bridged = set()
    for gap, i in sorted(gaps):
        waste_bytes -= gap
        if gap > gap_bytes or waste_bytes < 0:
            break
        bridged.add(i)
    merged: list[tuple[Key, int, int]] = []
    for i, (key, start, end) in enumerate(wanted):
        if i in bridged:
            merged[-1] = (key, merged[-1][1], max(merged[-1][2], end))
        else:
            merged.append((key, start, end))
    return merged


def _celestial_wcs(image: TiledImage) -> WCS:
    cards = [image.header[at : at + CARD_BYTES] for at in range(0, len(image.header), CARD_BYTES)]
    chosen = b"".join(card for card in cards if _WCS_KEYWORDS.match(card))
    try:
        wcs = WCS(fits.Header.fromstring(chosen))
    except (ValueError, KeyError, TypeError, fits.VerifyError) as error:
        raise BrickCorruptError(f"{image.name}: its world coordinates cannot be used: {error}") from error
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise BrickCorruptError(
            f"{image.name}: expected celestial world coordinates on 2 axes, got {list(wcs.wcs.ctype)}"
        )
    wcs.pixel_shape = (image.shape[1], image.shape[0])
    return wcs
