"""Header and tile table of a tile-compressed FITS image (FITS Standard 4.0, section 10), read from its first bytes.

Nothing here fetches: `metadata_bytes` says how many bytes lead the file, `parse_tiled_image` reads them. Every error
is a BrickCorruptError that begins with the file's name.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import BrickCorruptError
from pipeline.kernels import rice
from pipeline.storage.fits_cards import FITS_BLOCK_BYTES, FitsCards, header_end

MAX_METADATA_BYTES = 1 << 24
MAX_IMAGE_PIXELS = 1 << 28


class TileStorage(enum.IntEnum):
    """How the bytes of one tile are stored."""

    RICE = 0
    GZIP_1 = 1
    GZIP_2 = 2
    HCOMPRESS = 3
    RAW = 4
    ABSENT = 5


@dataclass(frozen=True)
class TiledImage:
    """What header and tile table say of the image in HDU 1. Tiles are numbered from 0, along x first.

    Attributes:
        name: file name for messages.
        header: header of HDU 1 as it stands in the file.
        metadata_bytes: length of headers and table, which begin the file. [byte]
        data_end: one past the last byte of the heap. [byte]
        shape: (y, x) of the image. [pixel]
        tile_shape: (y, x) of a tile that the edge does not cut. [pixel]
        bitpix: ZBITPIX, type of the image's pixels.
        bscale: BSCALE of the image.
        bzero: BZERO of the image.
        block_size: pixels per Rice block.
        byte_pix: width of a pixel in the Rice stream. [byte]
        quantised: pixels are floats stored as integers with a scale and zero point per tile.
        dither: one of the dithers of pipeline.kernels.rice.
        dither_origin: ZDITHER0.
        storage: (tile,) uint8 TileStorage.
        verbatim: (tile,) bool, the tile lies in a column beside COMPRESSED_DATA, where nothing is quantised.
        start: (tile,) int64 first byte of each tile in the file.
        length: (tile,) int64 bytes of each tile.
        scale: (tile,) float64 ZSCALE.
        zero: (tile,) float64 ZZERO.
        blank: (tile,) int64 integer that stands for NaN, rice.NO_BLANK for none.
    """

    name: str
    header: bytes
    metadata_bytes: int
    data_end: int
    shape: tuple[int, int]
    tile_shape: tuple[int, int]
    bitpix: int
    bscale: float
    bzero: float
    block_size: int
    byte_pix: int
    quantised: bool
    dither: int
    dither_origin: int
    storage: NDArray[np.uint8]
    verbatim: NDArray[np.bool_]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    scale: NDArray[np.float64]
    zero: NDArray[np.float64]
    blank: NDArray[np.int64]

    @property
    def tiles_x(self) -> int:
        """Tiles along x."""
        return -(-self.shape[1] // self.tile_shape[1])

    def tile_box(self, tile: int) -> tuple[int, int, int, int]:
        """(y0, y1, x0, x1) of a tile in pixels, ends exclusive, cut at the image's edge."""
        y0, x0 = (tile // self.tiles_x) * self.tile_shape[0], (tile % self.tiles_x) * self.tile_shape[1]
        return y0, min(y0 + self.tile_shape[0], self.shape[0]), x0, min(x0 + self.tile_shape[1], self.shape[1])


def metadata_bytes(prefix: bytes, name: str) -> int:
    """Bytes that headers and tile table take at the head of a file, as far as `prefix` (its first bytes) tells.

    If more than len(prefix), ask again with that many.

    Raises:
        BrickCorruptError: not FITS, an image in the primary HDU, an HDU 1 that is no compressed image, or more than
            MAX_METADATA_BYTES.
    """
    needed = _locate(prefix, name).table_end
    if needed > MAX_METADATA_BYTES:
        raise BrickCorruptError(
            f"{name}: expected headers and tile table within {MAX_METADATA_BYTES} bytes, need {needed}"
        )
    return needed


def parse_tiled_image(prefix: bytes, name: str) -> TiledImage:
    """Read headers and tile table of the compressed image in HDU 1.

    Args:
        prefix: the first bytes of the file, at least metadata_bytes(prefix, name) of them.
        name: file name for messages.

    Raises:
        BrickCorruptError: a keyword or column is missing or impossible, or the compression is unknown.
    """
    layout = _locate(prefix, name)
    if layout.table_end > len(prefix):
        raise BrickCorruptError(f"{name}: expected {layout.table_end} bytes of headers and table, got {len(prefix)}")
    cards = layout.cards
    if cards.integer("ZNAXIS") != 2:
        raise BrickCorruptError(f"{name}: expected an image of 2 axes, got ZNAXIS = {cards.integer('ZNAXIS')}")
    shape = (cards.integer("ZNAXIS2"), cards.integer("ZNAXIS1"))
    tile_shape = (min(cards.integer("ZTILE2", 1), shape[0]), min(cards.integer("ZTILE1", shape[1]), shape[1]))
    bitpix, rows = cards.integer("ZBITPIX"), cards.integer("NAXIS2")
    if min(*shape, *tile_shape) < 1 or shape[0] * shape[1] > MAX_IMAGE_PIXELS or abs(bitpix) not in (8, 16, 32, 64):
        raise BrickCorruptError(f"{name}: impossible image: shape {shape}, tiles {tile_shape}, ZBITPIX {bitpix}")
    tiles = -(-shape[0] // tile_shape[0]) * -(-shape[1] // tile_shape[1])
    if rows != tiles:
        raise BrickCorruptError(f"{name}: expected a row for each of {tiles} tiles, got {rows} rows")

    table = np.frombuffer(prefix, np.uint8, layout.table_end - layout.table_start, layout.table_start)
    table = table.reshape(rows, -1)
    columns = _columns(cards, table.shape[1])
    heap = layout.table_start + cards.integer("THEAP", table.size)
    data_end = layout.table_end + cards.integer("PCOUNT")
    storage, verbatim, start, length = _tile_ranges(table, columns, _compression(cards))
    if heap < layout.table_end or ((start < 0) | (length < 0) | (heap + start + length > data_end)).any():
        raise BrickCorruptError(f"{name}: the tile table points outside its heap, bytes {heap} to {data_end}")

    block_size, byte_pix = _rice_parameters(cards)
    quantised = bitpix < 0 and ("ZSCALE" in columns or "ZSCALE" in cards)
    dither = _dither(cards)
    blank = cards.integer("ZBLANK", cards.integer("BLANK", rice.NO_BLANK))
    return TiledImage(
        name=name,
        header=layout.header,
        metadata_bytes=layout.table_end,
        data_end=data_end,
        shape=shape,
        tile_shape=tile_shape,
        bitpix=bitpix,
        bscale=cards.real("BSCALE", 1.0),
        bzero=cards.real("BZERO", 0.0),
        block_size=block_size,
        byte_pix=byte_pix,
        quantised=quantised,
        dither=dither,
        dither_origin=cards.integer("ZDITHER0") if quantised and dither != rice.NO_DITHER else 1,
        storage=storage,
        verbatim=verbatim,
        start=heap + start,
        length=length,
        scale=_numbers(table, columns, "ZSCALE", cards.real("ZSCALE", 1.0)),
        zero=_numbers(table, columns, "ZZERO", cards.real("ZZERO", 0.0)),
        blank=_numbers(table, columns, "ZBLANK", blank).astype(np.int64),
    )


@dataclass(frozen=True)
class _Layout:
    """Where header and table of HDU 1 lie; until the headers are complete only `table_end`, a guess, means anything."""

    cards: FitsCards
    header: bytes
    table_start: int
    table_end: int


def _locate(prefix: bytes, name: str) -> _Layout:
    empty = FitsCards(b"", name)
    if not prefix.startswith(b"SIMPLE  ="):
        raise BrickCorruptError(f"{name}: expected a FITS file, which begins with 'SIMPLE  =', got {prefix[:9]!r}")
    primary_end = header_end(prefix, 0)
    if primary_end is None:
        return _Layout(empty, b"", 0, 2 * max(len(prefix), FITS_BLOCK_BYTES))
    if FitsCards(prefix[:primary_end], name).integer("NAXIS") != 0:
        raise BrickCorruptError(
            f"{name}: expected a tile-compressed image in HDU 1, got a plain image in the primary HDU"
        )
    table_start = header_end(prefix, primary_end)
    if table_start is None:
        return _Layout(empty, b"", 0, 2 * max(len(prefix), FITS_BLOCK_BYTES))
    header = prefix[primary_end:table_start]
    cards = FitsCards(header, name)
    if not header.startswith(b"XTENSION=") or not cards.flag("ZIMAGE"):
        kind = cards.text("XTENSION") if "XTENSION" in cards else "none"
        raise BrickCorruptError(
            f"{name}: expected a tile-compressed image (BINTABLE with ZIMAGE = T) in HDU 1, got XTENSION {kind!r}"
        )
    width, rows = cards.integer("NAXIS1"), cards.integer("NAXIS2")
    if width < 1 or rows < 1:
        raise BrickCorruptError(f"{name}: impossible tile table of {rows} rows of {width} bytes")
    return _Layout(cards, header, table_start, table_start + width * rows)


def _columns(cards: FitsCards, width: int) -> dict[str, tuple[str, int]]:
    """Column name -> (format without its count, first byte in the row)."""
    sizes = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
    columns = {}
    offset = 0
    for i in range(1, cards.integer("TFIELDS") + 1):
        form = cards.text(f"TFORM{i}")
        match = re.match(r"(\d{0,9})([LBAIJEKDCMPQ])", form)
        if match is None:
            raise cards.corrupt(f"TFORM{i} is {form!r}, which is no binary table format")
        columns[cards.text(f"TTYPE{i}", f"column {i}")] = (form[match.end(1) :], offset)
        offset += int(match[1] or 1) * sizes[match[2]]
    if offset != width:
        raise cards.corrupt(f"the columns take {offset} bytes, the table's rows {width}")
    if "COMPRESSED_DATA" not in columns:
        raise cards.corrupt(f"expected a column COMPRESSED_DATA, got {', '.join(columns)}")
    return columns


def _tile_ranges(
    table: NDArray[np.uint8], columns: dict[str, tuple[str, int]], compression: TileStorage
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """storage, verbatim, heap offset and bytes of each tile: of the first column in which the tile is not empty."""
    storage = np.full(len(table), TileStorage.ABSENT, dtype=np.uint8)
    verbatim = np.ones(len(table), dtype=np.bool_)
    start = np.zeros(len(table), dtype=np.int64)
    length = np.zeros(len(table), dtype=np.int64)
    element_bytes = {"B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8}
    kinds = {
        "COMPRESSED_DATA": compression,
        "GZIP_COMPRESSED_DATA": TileStorage.GZIP_1,
        "UNCOMPRESSED_DATA": TileStorage.RAW,
    }
    for column, kind in kinds.items():
        form, at = columns.get(column, ("", 0))
        if form[:1] in ("P", "Q") and form[1:2] in element_bytes:
            pair = ">i4" if form[0] == "P" else ">i8"
            count, offset = _view(table, at, pair, 2).T
            found = (storage == TileStorage.ABSENT) & (count != 0)
            storage[found] = kind
            verbatim[found] = column != "COMPRESSED_DATA"
            start[found] = offset[found]
            length[found] = count[found] * element_bytes[form[1]]
    return storage, verbatim, start, length


def _compression(cards: FitsCards) -> TileStorage:
    known = {
        "RICE_1": TileStorage.RICE,
        "RICE_ONE": TileStorage.RICE,
        "GZIP_1": TileStorage.GZIP_1,
        "GZIP_2": TileStorage.GZIP_2,
        "HCOMPRESS_1": TileStorage.HCOMPRESS,
        "NOCOMPRESS": TileStorage.RAW,
    }
    found = cards.text("ZCMPTYPE")
    if found not in known:
        raise cards.corrupt(f"expected ZCMPTYPE of {', '.join(known)}, got {found!r}")
    return known[found]


def _dither(cards: FitsCards) -> int:
    known = {
        "NO_DITHER": rice.NO_DITHER,
        "NONE": rice.NO_DITHER,
        "SUBTRACTIVE_DITHER_1": rice.SUBTRACTIVE_DITHER_1,
        "SUBTRACTIVE_DITHER_2": rice.SUBTRACTIVE_DITHER_2,
    }
    found = cards.text("ZQUANTIZ", "NO_DITHER")
    if found not in known:
        raise cards.corrupt(f"expected ZQUANTIZ of {', '.join(known)}, got {found!r}")
    return known[found]


def _rice_parameters(cards: FitsCards) -> tuple[int, int]:
    """BLOCKSIZE and BYTEPIX, 32 and 4 where the header is silent."""
    values = {}
    for i in range(1, 100):
        if f"ZNAME{i}" in cards:
            values[cards.text(f"ZNAME{i}").upper()] = f"ZVAL{i}"
    block_size = cards.integer(values["BLOCKSIZE"]) if "BLOCKSIZE" in values else 32
    byte_pix = cards.integer(values["BYTEPIX"]) if "BYTEPIX" in values else 4
    if byte_pix not in (1, 2, 4) or not 1 <= block_size <= 1 << 20:
        raise cards.corrupt(f"impossible Rice parameters BLOCKSIZE {block_size}, BYTEPIX {byte_pix}")
    return block_size, byte_pix


def _numbers(
    table: NDArray[np.uint8], columns: dict[str, tuple[str, int]], column: str, default: float
) -> NDArray[np.float64]:
    """(tile,) float64 of a numeric column, or the default in every tile."""
    formats = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
    form, at = columns.get(column, ("", 0))
    if form[:1] not in formats:
        return np.full(len(table), default, dtype=np.float64)
    return _view(table, at, formats[form[0]], 1)[:, 0].astype(np.float64)


def _view(table: NDArray[np.uint8], at: int, dtype: str, count: int) -> NDArray[np.generic]:
    width = np.dtype(dtype).itemsize * count
    return np.ascontiguousarray(table[:, at : at + width]).view(dtype)
