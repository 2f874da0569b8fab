"""Headers and tile tables of compressed images."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from pipeline.contracts.errors import BrickCorruptError
from pipeline.kernels import rice
from pipeline.storage.tile_table import TileStorage, metadata_bytes, parse_tiled_image


def compressed(**options: Any) -> bytes:
    """A 70x110 px image of noise in tiles of 30x50 px."""
    data = np.random.default_rng(0).normal(0, 1, (70, 110)).astype(np.float32)
    target = io.BytesIO()
    settings = {"compression_type": "RICE_1", "tile_shape": (30, 50), "quantize_method": 2, "dither_seed": 5} | options
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, **settings)]).writeto(target)
    return target.getvalue()


def replace_card(content: bytes, keyword: str, value: str) -> bytes:
    """The file with the first card of a keyword in HDU 1 replaced; an empty value makes it a comment."""
    at = content.index(f"{keyword:8s}=".encode(), 2880)
    card = f"{keyword:8s}= {value:>20s}" if value else "COMMENT"
    return content[:at] + card.ljust(80).encode() + content[at + 80 :]


def test_table_of_an_astropy_file() -> None:
    """Shape, tiles, parameters and byte ranges are those of the file."""
    content = compressed()
    image = parse_tiled_image(content, "a.fits")
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        table, table_start = hdus[1], hdus[1].fileinfo()["datLoc"]
        assert image.metadata_bytes == table_start + table.header["NAXIS1"] * table.header["NAXIS2"]
        assert np.array_equal(image.scale, table.data["ZSCALE"])
        assert np.array_equal(image.zero, table.data["ZZERO"])
        assert [row.size for row in table.data["COMPRESSED_DATA"]] == image.length.tolist()
        for t, row in enumerate(table.data["COMPRESSED_DATA"]):
            assert content[image.start[t] : image.start[t] + image.length[t]] == row.tobytes()
    assert image.shape == (70, 110) and image.tile_shape == (30, 50) and image.tiles_x == 3
    assert image.tile_box(0) == (0, 30, 0, 50) and image.tile_box(8) == (60, 70, 100, 110)
    assert image.quantised and image.dither == rice.SUBTRACTIVE_DITHER_2 and image.dither_origin == 5
    assert (image.block_size, image.byte_pix) == (32, 4)
    assert (image.storage == TileStorage.RICE).all() and not image.verbatim.any()


def test_metadata_bytes_grows_until_the_headers_are_there() -> None:
    """Too short a prefix asks for more than it is; with the headers the length is exact."""
    content = compressed()
    exact = parse_tiled_image(content, "a.fits").metadata_bytes
    for length in (80, 2880, 5759):
        assert metadata_bytes(content[:length], "a.fits") > length
    assert metadata_bytes(content[: exact - 1], "a.fits") == exact == metadata_bytes(content, "a.fits")
    with pytest.raises(
        BrickCorruptError, match=f"a.fits: expected {exact} bytes of headers and table, got {exact - 1}"
    ):
        parse_tiled_image(content[: exact - 1], "a.fits")


def test_plain_images_are_refused() -> None:
    """An image in the primary HDU, or an uncompressed one in HDU 1, is named as such."""
    data = np.zeros((3, 4), np.float32)
    primary, extension = io.BytesIO(), io.BytesIO()
    fits.PrimaryHDU(data).writeto(primary)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data)]).writeto(extension)
    with pytest.raises(BrickCorruptError, match="a plain image in the primary HDU"):
        metadata_bytes(primary.getvalue(), "a.fits")
    with pytest.raises(BrickCorruptError, match="in HDU 1, got XTENSION 'IMAGE'"):
        metadata_bytes(extension.getvalue(), "a.fits")


@pytest.mark.parametrize("content", [b"", b"<html>Not here</html>", bytes(5000)])
def test_other_content_is_refused(content: bytes) -> None:
    """What does not begin as FITS is not FITS."""
    with pytest.raises(BrickCorruptError, match="a.fits: expected a FITS file"):
        metadata_bytes(content, "a.fits")


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("ZCMPTYPE", "'PLIO_1'", "expected ZCMPTYPE of .* got 'PLIO_1'"),
        ("ZQUANTIZ", "'DITHER_9'", "expected ZQUANTIZ of .* got 'DITHER_9'"),
        ("ZDITHER0", "", "the header has no ZDITHER0"),
        ("ZNAXIS1", "", "the header has no ZNAXIS1"),
        ("ZNAXIS1", "1000", "expected a row for each of 60 tiles, got 9 rows"),
        ("ZNAXIS1", "-3", "impossible image"),
        ("ZNAXIS2", "999999999", "impossible image"),
        ("ZTILE1", "0", "impossible image"),
        ("ZBITPIX", "12", "impossible image"),
        ("ZNAXIS", "3", "expected an image of 2 axes"),
        ("ZVAL1", "0", "impossible Rice parameters BLOCKSIZE 0"),
        ("ZVAL2", "8", "impossible Rice parameters .* BYTEPIX 8"),
        ("TFORM1", "'banana'", "TFORM1 is 'banana'"),
        ("TFORM1", "'1QB(9)'", "the columns take"),
        ("TTYPE1", "'OTHER'", "expected a column COMPRESSED_DATA"),
        ("PCOUNT", "10", "the tile table points outside its heap"),
        ("ZIMAGE", "F", "expected a tile-compressed image"),
        ("NAXIS2", "0", "impossible tile table"),
        ("NAXIS2", "9000000", "expected headers and tile table within"),
    ],
)
def test_impossible_keywords_are_refused(keyword: str, value: str, message: str) -> None:
    """Every keyword that cannot be is an error with the file's name."""
    content = replace_card(compressed(), keyword, value)
    with pytest.raises(BrickCorruptError, match=f"^a.fits: {message}"):
        metadata_bytes(content, "a.fits")
        parse_tiled_image(content, "a.fits")


def test_descriptor_outside_the_heap_is_refused() -> None:
    """A garbled table row is found when the table is read."""
    content = bytearray(compressed())
    image = parse_tiled_image(bytes(content), "a.fits")
    content[image.metadata_bytes - 32 : image.metadata_bytes] = b"\xff" * 32
    with pytest.raises(BrickCorruptError, match="a.fits: the tile table points outside its heap"):
        parse_tiled_image(bytes(content), "a.fits")
