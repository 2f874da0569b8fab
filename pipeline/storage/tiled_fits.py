"""Decoding of chosen tiles of a compressed FITS image from the byte ranges that were fetched.

Every error is a BrickCorruptError that begins with the file's name.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.io.fits.hdu.compressed._compression import (  # astropy exports them nowhere else
    CfitsioException,
    decompress_hcompress_1_c,
)
from numpy.typing import NDArray

from pipeline.contracts.errors import BrickCorruptError
from pipeline.kernels import rice
from pipeline.storage.fits_cards import FitsCards
from pipeline.storage.tile_table import TiledImage, TileStorage

_RICE_ERRORS = {
    rice.STATUS_TRUNCATED: "its Rice stream ends early",
    rice.STATUS_BAD_BLOCK: "its Rice stream holds an impossible block code",
}
_HCOMPRESS_HEAD = struct.Struct(">Hii")
_HCOMPRESS_MAGIC = 0xDD99
_HCOMPRESS_BYTE_PIX = 8
_MAX_PARAMETERS = 10
_GZIP_WINDOW_BITS = 31


class SparseFile:
    """A file of which only some byte ranges are in memory: headers, table and touched tiles of a remote file.

    Attributes:
        buffer: the pieces one after the other in file order, and the padding that the Rice decoder needs.
    """

    def __init__(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """pieces: (first byte, content), not overlapping."""
        ordered = sorted(pieces)
        self._starts = np.array([start for start, _ in ordered], dtype=np.int64)
        lengths = np.array([len(content) for _, content in ordered], dtype=np.int64)
        self._shifts = np.cumsum(lengths) - lengths - self._starts
        joined = b"".join([*(content for _, content in ordered), bytes(rice.BUFFER_PADDING_BYTES)])
        self.buffer: NDArray[np.uint8] = np.frombuffer(joined, dtype=np.uint8)

    def positions(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in `buffer` of file offsets, each of which lies in a piece. Adjacent pieces stay adjacent."""
        return offsets + self._shifts[np.searchsorted(self._starts, offsets, side="right") - 1]


def decode_tiles(
    image: TiledImage,
    source: SparseFile,
    tiles: NDArray[np.int64],
    pixels: NDArray[np.int64],
    dtype: type[np.float32 | np.int32],
) -> NDArray[Any]:
    """Decode tiles to physical values, each from its first pixel on.

    Args:
        image: the file's table.
        source: holds at least the byte ranges of `tiles`.
        tiles: (tile,) int64 numbers.
        pixels: (tile,) int64 pixels needed of each, counted from its first in row order; at most those it has.
        dtype: float32, where blank pixels become NaN; or int32, where they keep their stored value.

    Returns:
        (tile, pixel) array of `dtype`: BSCALE, BZERO and the tile's scale and dither applied. The first `pixels` of a
        row are the tile's, in rows as wide as the tile is at its place; the rest is undefined.

    Raises:
        BrickCorruptError: a tile has no data or does not decode; int32 was asked of floats or of values beyond it.
    """
    if dtype is np.int32 and image.bitpix < 0:
        raise BrickCorruptError(f"{image.name}: expected integer pixels, got ZBITPIX = {image.bitpix}")
    storage = image.storage[tiles]
    if (absent := np.flatnonzero(storage == TileStorage.ABSENT)).size:
        raise BrickCorruptError(f"{image.name}: tile {tiles[absent[0]]} has no data in any column")
    out: NDArray[Any] = np.empty((tiles.size, int(pixels.max(initial=0))), dtype=dtype)
    for kind, decode in ((TileStorage.RICE, _decode_rice), (TileStorage.HCOMPRESS, _decode_hcompress)):
        chosen = np.flatnonzero(storage == kind)
        if chosen.size == tiles.size:
            decode(image, source, tiles, pixels, out)
        elif chosen.size:
            part = np.empty((chosen.size, out.shape[1]), dtype=dtype)
            decode(image, source, tiles[chosen], pixels[chosen], part)
            out[chosen] = part
    for k in np.flatnonzero((storage != TileStorage.RICE) & (storage != TileStorage.HCOMPRESS)):
        out[k, : pixels[k]] = _decode_stored(image, source, int(tiles[k]), out.dtype)[: pixels[k]]
    return out


def _decode_rice(
    image: TiledImage,
    source: SparseFile,
    tiles: NDArray[np.int64],
    pixels: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    start = source.positions(image.start[tiles])
    end = start + image.length[tiles]
    integers = np.zeros((0, 0) if image.quantised else out.shape, dtype=np.int32)
    if image.quantised:
        status = rice.decode_rice_floats(
            source.buffer,
            start,
            end,
            pixels,
            image.block_size,
            image.byte_pix,
            image.scale[tiles],
            image.zero[tiles],
            image.blank[tiles],
            image.dither,
            (tiles + image.dither_origin - 1) % rice.DITHER_VALUES,
            out,
        )
    else:
        status = rice.decode_rice_integers(
            source.buffer, start, end, pixels, image.block_size, image.byte_pix, integers
        )
    if (failed := np.flatnonzero(status)).size:
        raise BrickCorruptError(f"{image.name}: tile {tiles[failed[0]]}: {_RICE_ERRORS[int(status[failed[0]])]}")
    if image.quantised:
        _scale_in_place(image, out)
    else:
        out[...] = _physical(image, integers, image.blank[tiles, None], out.dtype)


def _decode_hcompress(
    image: TiledImage,
    source: SparseFile,
    tiles: NDArray[np.int64],
    pixels: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """HCOMPRESS_1, by astropy's decoder, which trusts the size in the stream; so the tile's own is demanded first."""
    smooth = _hcompress_smooth(image)
    for k, tile in enumerate(tiles.tolist()):
        y0, y1, x0, x1 = image.tile_box(tile)
        _check_hcompress(image, source, tile, (y1 - y0, x1 - x0))
        first = int(source.positions(image.start[tile : tile + 1])[0])
        content = source.buffer[first : first + int(image.length[tile])].tobytes()
        try:
            plain = decompress_hcompress_1_c(content, y1 - y0, x1 - x0, 0, smooth, _HCOMPRESS_BYTE_PIX)
        except (CfitsioException, ValueError) as error:
            raise BrickCorruptError(f"{image.name}: HCOMPRESS_1 tiles do not decode: tile {tile}: {error}") from error
        stored = np.frombuffer(plain, dtype=np.int32)[: pixels[k]]
        out[k, : pixels[k]] = (
            _dequantised(image, tile, stored)
            if image.quantised
            else _physical(image, stored, image.blank[tile], out.dtype)
        )


def _hcompress_smooth(image: TiledImage) -> int:
    """SMOOTH of the header: whether the decoder smooths what a lossy compression left."""
    cards = FitsCards(image.header, image.name)
    numbers = (i for i in range(1, _MAX_PARAMETERS) if f"ZNAME{i}" in cards)
    return next((cards.integer(f"ZVAL{i}") for i in numbers if cards.text(f"ZNAME{i}").upper() == "SMOOTH"), 0)


def _check_hcompress(image: TiledImage, source: SparseFile, tile: int, shape: tuple[int, int]) -> None:
    first = int(source.positions(image.start[tile : tile + 1])[0])
    head = source.buffer[first : first + min(int(image.length[tile]), _HCOMPRESS_HEAD.size)].tobytes()
    if len(head) < _HCOMPRESS_HEAD.size or _HCOMPRESS_HEAD.unpack(head) != (_HCOMPRESS_MAGIC, *shape):
        raise BrickCorruptError(
            f"{image.name}: tile {tile}: expected an HCOMPRESS_1 stream of {shape} px, got {head!r}"
        )


def _decode_stored(image: TiledImage, source: SparseFile, tile: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(pixel,) values of a tile that is gzipped or not compressed at all."""
    y0, y1, x0, x1 = image.tile_box(tile)
    count = (y1 - y0) * (x1 - x0)
    first = int(source.positions(image.start[tile : tile + 1])[0])
    content = source.buffer[first : first + int(image.length[tile])].tobytes()
    if image.storage[tile] != TileStorage.RAW:
        content = _gunzip(content, 8 * count, f"{image.name}: tile {tile}")
    width = len(content) // count
    if width not in (1, 2, 4, 8) or len(content) != width * count:
        raise BrickCorruptError(f"{image.name}: tile {tile}: expected {count} pixels, got {len(content)} bytes")
    if image.storage[tile] == TileStorage.GZIP_2:
        content = np.frombuffer(content, np.uint8).reshape(width, count).T.tobytes()
    # Floats that would not quantise well stand as they are in the columns beside COMPRESSED_DATA.
    integers = image.bitpix > 0 or (image.quantised and not image.verbatim[tile])
    kind = "i" if integers and width > 1 else "u" if integers else "f"
    if kind == "f" and width < 4:
        raise BrickCorruptError(f"{image.name}: tile {tile}: expected {count} floats, got {len(content)} bytes")
    stored = np.frombuffer(content, dtype=f">{kind}{width}")
    if not (integers and image.quantised):
        return _physical(image, stored, image.blank[tile], dtype)
    return _dequantised(image, tile, stored)


def _dequantised(image: TiledImage, tile: int, stored: NDArray[Any]) -> NDArray[np.float32]:
    """(pixel,) floats of a tile's integers, from its first pixel on."""
    values = np.empty(stored.size, dtype=np.float32)
    rice.dequantise(
        stored.astype(np.int32),
        image.scale[tile],
        image.zero[tile],
        image.blank[tile],
        image.dither,
        (tile + image.dither_origin - 1) % rice.DITHER_VALUES,
        values,
    )
    _scale_in_place(image, values)
    return values


def _gunzip(content: bytes, limit: int, where: str) -> bytes:
    """The gzip stream's content, which is at most `limit` bytes."""
    stream = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        plain = stream.decompress(content, limit + 1)
    except zlib.error as error:
        raise BrickCorruptError(f"{where}: its gzip stream does not decode: {error}") from error
    if not stream.eof:
        raise BrickCorruptError(f"{where}: its gzip stream is cut short or longer than {limit} bytes")
    return plain


def _physical(image: TiledImage, stored: NDArray[Any], blank: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Stored integers or floats to `dtype`: BSCALE and BZERO, and NaN for blank integers of a float32 result.

    Scaling is done in float32 for pixels of up to 16 bits and for floats, else in float64, as astropy does.
    """
    if image.bscale == 1.0 and image.bzero == 0.0:
        values = stored
    else:
        values = stored.astype(np.float64 if image.bitpix > 16 else np.float32)
        values = values * values.dtype.type(image.bscale) + values.dtype.type(image.bzero)
    if dtype == np.int32:
        return _within(image, values, dtype)
    floats = values.astype(np.float32)
    if stored.dtype.kind != "f":
        floats[stored == blank] = np.nan
    return floats


def _scale_in_place(image: TiledImage, values: NDArray[np.float32]) -> None:
    """BSCALE and BZERO of floats, which almost no file has."""
    if image.bscale != 1.0 or image.bzero != 0.0:
        values *= np.float32(image.bscale)
        values += np.float32(image.bzero)


def _within(image: TiledImage, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`values` as `dtype`; integers must fit."""
    if dtype == np.int32:
        limits = np.iinfo(np.int32)
        if not ((values >= limits.min) & (values <= limits.max)).all():
            raise BrickCorruptError(f"{image.name}: expected pixels that fit 32-bit integers, got {values.max()}")
    return values.astype(dtype)
