"""Tiles decoded from files of astropy and CFITSIO are the pixels that astropy reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.contracts.errors import BrickCorruptError
from pipeline.storage.tile_table import TiledImage, parse_tiled_image
from pipeline.storage.tiled_fits import SparseFile, decode_tiles

NO_DITHER, DITHER_1, DITHER_2 = -1, 1, 2
SHAPE = (130, 217)
TILES = (40, 50)


def sky() -> NDArray[np.float32]:
    """Noise with a bright gradient, a constant tile, exact zeros and NaN pixels."""
    rng = np.random.default_rng(5)
    image = rng.normal(0.0, 3e-3, SHAPE).astype(np.float32)
    image[60:100] += np.linspace(0, 50, SHAPE[1], dtype=np.float32)
    image[:40, :50] = 0.125
    image[5:9, 120:140] = 0.0
    image[20, 60:70] = np.nan
    image[100:, 200:] = np.nan
    return image


def write(data: NDArray[Any], **options: Any) -> bytes:
    """A compressed file by astropy."""
    target = io.BytesIO()
    hdu = fits.CompImageHDU(data, **{"tile_shape": TILES, **options})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(target)
    return target.getvalue()


def read_all(content: bytes, dtype: type[np.float32 | np.int32] = np.float32) -> NDArray[Any]:
    """The whole image, put together from its tiles."""
    image = parse_tiled_image(content, "a.fits")
    return assemble(image, SparseFile([(0, content)]), dtype)


def assemble(image: TiledImage, source: SparseFile, dtype: type[np.float32 | np.int32]) -> NDArray[Any]:
    """Decode every tile and put it in its place."""
    boxes = [image.tile_box(t) for t in range(image.start.size)]
    sizes = np.array([(y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in boxes])
    decoded = decode_tiles(image, source, np.arange(len(boxes)), sizes, dtype)
    out = np.zeros(image.shape, dtype)
    for (y0, y1, x0, x1), size, values in zip(boxes, sizes, decoded, strict=True):
        out[y0:y1, x0:x1] = values[:size].reshape(y1 - y0, x1 - x0)
    return out


def astropy_all(content: bytes) -> NDArray[Any]:
    """The whole image as astropy reads it."""
    with fits.open(io.BytesIO(content)) as hdus:
        return np.array(hdus[1].data)


def rebuild(content: bytes, change: Any) -> bytes:
    """The file with the columns and header of its table changed by `change(columns, header)`."""
    target = io.BytesIO()
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        table = hdus[1]
        columns = {column.name: (column.format, table.data[column.name]) for column in table.columns}
        header = table.header.copy()
        change(columns, header)
        made = [fits.Column(name=name, format=form, array=values) for name, (form, values) in columns.items()]
        rebuilt = fits.BinTableHDU.from_columns(made)
        for card in header.cards:
            if card.keyword.startswith("Z") or card.keyword in ("BSCALE", "BZERO", "BLANK"):
                rebuilt.header.append(card)
        fits.HDUList([fits.PrimaryHDU(), rebuilt]).writeto(target)
    return target.getvalue()


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("dither", [NO_DITHER, DITHER_1, DITHER_2])
@pytest.mark.parametrize("level", [16.0, -1e-4])
def test_quantised_floats_equal_astropy(compression: str, dither: int, level: float) -> None:
    """Every dither and quantised compression gives astropy's pixels, also in edge tiles, constants and NaN."""
    data = np.nan_to_num(sky())[:120, :200] if compression == "HCOMPRESS_1" else sky()
    content = write(data, compression_type=compression, quantize_level=level, quantize_method=dither, dither_seed=9_998)
    expected = astropy_all(content)
    assert np.array_equal(read_all(content), expected, equal_nan=True)
    assert np.isnan(expected).sum() == np.isnan(data).sum()


@pytest.mark.parametrize("compression", ["GZIP_1", "GZIP_2", "NOCOMPRESS"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32, np.uint8])
def test_lossless_tiles_equal_the_input(compression: str, dtype: type) -> None:
    """Unquantised tiles of every pixel type come back as they went in, as float32."""
    data: NDArray[Any] = (
        (np.nan_to_num(sky()) * 100).astype(dtype) if np.dtype(dtype).kind != "f" else sky().astype(dtype)
    )
    content = write(data, compression_type=compression, quantize_level=0.0)
    assert np.array_equal(read_all(content), data.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.uint16])
def test_integer_tiles_equal_astropy(compression: str, dtype: type) -> None:
    """Integer images come back exactly as int32 and as float32, unsigned ones included."""
    rng = np.random.default_rng(2)
    data: NDArray[Any] = (rng.integers(0, 2, (120, 200)) * rng.integers(0, 250, (120, 200))).astype(dtype)
    if dtype is np.uint16:
        data[3] += 60_000
    content = write(data, compression_type=compression)
    assert np.array_equal(read_all(content, np.int32), data.astype(np.int32))
    assert np.array_equal(read_all(content), astropy_all(content).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_scaled_integers_with_blank_equal_astropy(dtype: type) -> None:
    """BSCALE, BZERO and BLANK of an integer image are applied as astropy does."""
    data: NDArray[Any] = np.random.default_rng(2).integers(-900, 900, SHAPE).astype(dtype)

    def scale(_columns: Any, header: fits.Header) -> None:
        header["BSCALE"], header["BZERO"], header["ZBLANK"] = 0.013, 7.7, -11

    content = rebuild(write(data, compression_type="RICE_1"), scale)
    expected = astropy_all(content).astype(np.float32)
    assert np.isnan(expected).any()
    assert np.array_equal(read_all(content), expected, equal_nan=True)


def test_fallback_tiles_equal_astropy(tmp_path: Path) -> None:
    """Tiles that CFITSIO could not quantise, gzipped beside COMPRESSED_DATA, come back as floats."""
    data = sky()
    data[40:80, 50:100] = np.random.default_rng(0).normal(0, 1, (40, 50)) * 1e-20
    data[41, 51] = 1e15
    path = tmp_path / "fallback.fits.fz"
    with fitsio.FITS(path, "rw") as file:
        file.write(data, compress="RICE", tile_dims=TILES, qlevel=16.0, qmethod="SUBTRACTIVE_DITHER_1", dither_seed=1)
    content = path.read_bytes()
    image = parse_tiled_image(content, "a.fits")
    assert image.verbatim.any() and not image.verbatim.all()
    assert np.array_equal(read_all(content), astropy_all(content), equal_nan=True)
    assert np.array_equal(read_all(content), fitsio.read(path), equal_nan=True)


def test_uncompressed_tiles_equal_astropy() -> None:
    """Tiles in the column UNCOMPRESSED_DATA come back as they stand."""
    data = sky()[:40, :100]
    boxes = [data[:, :50].ravel(), data[:, 50:].ravel()]

    def uncompress(columns: Any, _header: fits.Header) -> None:
        columns.clear()
        columns["COMPRESSED_DATA"] = ("1PB()", np.array([np.zeros(0, np.uint8)] * 2 + [None], object)[:2])
        columns["UNCOMPRESSED_DATA"] = ("1PE()", np.array([*boxes, None], object)[:2])

    content = rebuild(write(data, compression_type="GZIP_1", quantize_level=0.0), uncompress)
    assert np.array_equal(read_all(content), data, equal_nan=True)
    assert np.array_equal(astropy_all(content), data, equal_nan=True)


def test_blank_column_counts_before_the_keyword() -> None:
    """A ZBLANK column holds the blank integer of each tile."""
    content = write(sky(), compression_type="RICE_1", quantize_level=16.0, quantize_method=NO_DITHER)
    expected = astropy_all(content)

    def move_blank(columns: Any, header: fits.Header) -> None:
        rows = len(columns["ZSCALE"][1])
        columns["ZBLANK"] = ("J", np.full(rows, header["ZBLANK"], np.int32))
        header["ZBLANK"] = 12345

    assert np.array_equal(read_all(rebuild(content, move_blank)), expected, equal_nan=True)
    assert np.isnan(expected).any()


def test_scale_keywords_replace_columns() -> None:
    """ZSCALE and ZZERO may be keywords, one value for all tiles."""
    content = write(
        sky()[:40, :50] + sky()[:40, 100:150],
        compression_type="RICE_1",
        quantize_level=16.0,
        quantize_method=DITHER_1,
        dither_seed=3,
    )

    def to_keywords(columns: Any, header: fits.Header) -> None:
        header["ZSCALE"], header["ZZERO"] = float(columns.pop("ZSCALE")[1][0]), float(columns.pop("ZZERO")[1][0])

    assert np.array_equal(read_all(rebuild(content, to_keywords)), astropy_all(content), equal_nan=True)


@pytest.mark.parametrize("compression", ["RICE_1", "HCOMPRESS_1"])
def test_only_touched_ranges_are_needed(compression: str) -> None:
    """A file that holds header, table and one tile's bytes is enough for that tile."""
    data = np.random.default_rng(2).integers(0, 4, (120, 200)).astype(np.int32)
    content = write(data, compression_type=compression)
    image = parse_tiled_image(content, "a.fits")
    start, end = int(image.start[6]), int(image.start[6] + image.length[6])
    source = SparseFile([(start, content[start:end]), (0, content[: image.metadata_bytes])])
    decoded = decode_tiles(image, source, np.array([6]), np.array([2000]), np.int32)
    assert np.array_equal(decoded.reshape(40, 50), data[40:80, 100:150])


def test_float_tiles_are_no_integers() -> None:
    """Asking a float image for int32 is an error."""
    with pytest.raises(BrickCorruptError, match="a.fits: expected integer pixels, got ZBITPIX = -32"):
        read_all(write(sky()), np.int32)


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_garbled_tile_is_corrupt(compression: str) -> None:
    """Overwritten tile bytes give a BrickCorruptError that names file and tile, or pixels, and nothing else."""
    data = np.random.default_rng(2).integers(0, 500, (120, 200)).astype(np.int32)
    content = write(data, compression_type=compression)
    image = parse_tiled_image(content, "a.fits")
    start, end = int(image.start[3]), int(image.start[3] + image.length[3])
    garbled = content[:start] + b"\xff" * (end - start) + content[end:]
    with pytest.raises(BrickCorruptError, match=r"a.fits: tile 3: "):
        read_all(garbled, np.int32)


def test_short_gzip_stream_is_corrupt() -> None:
    """A gzip stream whose table entry is too short is reported as cut."""
    content = write(sky(), compression_type="GZIP_1", quantize_level=0.0)
    image = parse_tiled_image(content, "a.fits")
    image.length[2] -= 9
    source = SparseFile([(0, content)])
    with pytest.raises(BrickCorruptError, match="tile 2: its gzip stream is cut short"):
        decode_tiles(image, source, np.array([2]), np.array([2000]), np.float32)


def test_tile_without_data_is_corrupt() -> None:
    """A tile that is empty in every column is an error that names it."""
    content = bytearray(write(sky(), compression_type="GZIP_1", quantize_level=0.0))
    image = parse_tiled_image(bytes(content), "a.fits")
    width = (image.metadata_bytes - (image.metadata_bytes // 2880) * 2880) // image.start.size
    row = image.metadata_bytes - (image.start.size - 4) * width
    content[row : row + 4] = bytes(4)
    with pytest.raises(BrickCorruptError, match="tile 4 has no data in any column"):
        read_all(bytes(content))


def test_sparse_file_finds_its_pieces() -> None:
    """The buffer holds the pieces in file order; offsets in any of them are found in it."""
    source = SparseFile([(10, b"def"), (2, b"abc")])
    assert source.buffer[:6].tobytes() == b"abcdef"
    assert source.positions(np.array([2, 4, 10, 12])).tolist() == [0, 2, 3, 5]
