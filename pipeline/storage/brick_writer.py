"""Coadds of a brick as DR10 files: names, header cards and tile compression of the survey.

    kind      compression  tiles    floats become integers by
    image     RICE_1       100x100  absolute step 1e-4 nmgy, SUBTRACTIVE_DITHER_2
    invvar    RICE_1       100x100  1/16 of the noise of each tile, no dither
    psfsize   GZIP_2       100x100  not at all, lossless
    maskbits  HCOMPRESS_1  100x100  integers already, lossless

The bytes of a file follow from the brick alone: no date, no checksum, a dither seed made of the file's name.
"""

from __future__ import annotations

import hashlib
import io

import fsspec
import numpy as np
import xarray as xr
from astropy.io import fits

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.survey import COADD_KINDS, MASKBITS, PIXEL_SCALE_ARCSEC, ZERO_POINT_MAG
from pipeline.storage.locations import storage_errors

MASK_KIND = "maskbits"
TILE_SIZE_PX = 100
IMAGE_STEP_NMGY = 1e-4
HeaderCard = tuple[str, str | int | float, str]

_LAYOUTS = ("cache", "public")
_UNITS = {"image": "nanomaggy", "invvar": "1/nanomaggy^2", "psfsize": "arcsec"}
_NO_DITHER = -1
_SUBTRACTIVE_DITHER_2 = 2
_COMPRESSION: dict[str, dict[str, str | float]] = {
    "image": {
        "compression_type": "RICE_1",
        "quantize_level": -IMAGE_STEP_NMGY,
        "quantize_method": _SUBTRACTIVE_DITHER_2,
    },
    "invvar": {"compression_type": "RICE_1", "quantize_level": 16.0, "quantize_method": _NO_DITHER},
    "psfsize": {"compression_type": "GZIP_2", "quantize_level": 0.0, "quantize_method": _NO_DITHER},
    "maskbits": {"compression_type": "HCOMPRESS_1"},
}


def write_brick(fs: fsspec.AbstractFileSystem, root: str, layout: str, brick: xr.Dataset) -> list[str]:
    """Write the files of one brick, each as a whole and in one call.

    Args:
        fs: file system of `root`.
        root: folder of the coadds, as `fs` spells it.
        layout: "cache" for <brick>/ with an empty _SUCCESS written last, "public" for <AAA>/<brick>/.
        brick: image, invvar, psfsize (band, y, x) float32 [nmgy/pixel, nmgy**-2, arcsec] and maskbits (y, x)
            int32, square, with attributes brickname, ra_deg, dec_deg of the centre. NaN pixels stay NaN.

    Returns:
        Paths written, relative to `root`, in the order of writing.

    Raises:
        ConfigError: the layout is unknown, or the brick's side is not a multiple of 100 px, so that edge tiles
            would be too thin for HCOMPRESS.
        ContractError: a variable or attribute is missing, or has other dims, shape or dtype.
        StorageError: a file could not be written.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"brick layout: expected one of {_LAYOUTS}, got {layout!r}")
    _check(brick)
    name = str(brick.attrs["brickname"])
    folder = name if layout == "cache" else f"{name[:3]}/{name}"
    files: list[tuple[str, str | None]] = [(kind, band) for kind in COADD_KINDS for band in brick["band"].values]
    written = []
    with storage_errors(f"make folder {folder} in {root}"):
        fs.makedirs(f"{root.rstrip('/')}/{folder}", exist_ok=True)
    for kind, band in [*files, (MASK_KIND, None)]:
        suffix = kind if band is None else f"{kind}-{band}"
        written.append(f"{folder}/legacysurvey-{name}-{suffix}.fits.fz")
        _write(fs, root, written[-1], serialise_coadd(brick, kind, band))
    if layout == "cache":
        written.append(f"{folder}/_SUCCESS")
        _write(fs, root, written[-1], b"")
    return written


def serialise_coadd(brick: xr.Dataset, kind: str, band: str | None) -> bytes:
    """Bytes of one .fits.fz file: an empty primary HDU, then one compressed image. `band` is None for maskbits."""
    pixels = brick[kind].values if band is None else brick[kind].sel(band=band).values
    seed = hashlib.blake2b(f"{brick.attrs['brickname']}-{kind}-{band}".encode(), digest_size=8).digest()
    compressed = fits.CompImageHDU(
        data=np.ascontiguousarray(pixels),
        header=fits.Header(brick_header_cards(brick, kind, band)),
        name="COMPRESSED_IMAGE",
        tile_shape=(TILE_SIZE_PX, TILE_SIZE_PX),
        dither_seed=1 + int.from_bytes(seed, "big") % 10_000,
        **_COMPRESSION[kind],
    )
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(buffer)
    return _without_gzip_times(buffer.getvalue())


def brick_header_cards(brick: xr.Dataset, kind: str, band: str | None) -> list[HeaderCard]:
    """Header cards (keyword, value, comment) of one coadd: identity, unit and the TAN grid, +x West, +y North."""
    size = brick.sizes["y"]
    step_deg = PIXEL_SCALE_ARCSEC / 3600
    cards: list[HeaderCard] = [
        ("BRICK", str(brick.attrs["brickname"]), "name of the brick"),
        ("IMTYPE", kind, "kind of coadd"),
    ]
    if band is None:
        cards += [(f"MBIT_{bit}", name, f"maskbits bit {bit} (0x{1 << bit:x})") for name, bit in MASKBITS.items()]
    else:
        cards += [
            ("FILTER", str(band), "filter short name"),
            ("BAND", str(band), "filter short name"),
            ("BUNIT", _UNITS[kind], "unit of the pixels"),
            ("MAGZERO", ZERO_POINT_MAG, "AB magnitude of 1 nanomaggy"),
        ]
    return [
        *cards,
        ("EQUINOX", 2000.0, "equinox of the coordinates"),
        ("CTYPE1", "RA---TAN", "tangent-plane projection"),
        ("CTYPE2", "DEC--TAN", "tangent-plane projection"),
        ("CRVAL1", float(brick.attrs["ra_deg"]), "RA of the reference pixel [deg]"),
        ("CRVAL2", float(brick.attrs["dec_deg"]), "Dec of the reference pixel [deg]"),
        ("CRPIX1", size / 2 + 0.5, "reference pixel, 1-based"),
        ("CRPIX2", size / 2 + 0.5, "reference pixel, 1-based"),
        ("CD1_1", -step_deg, "[deg/pixel]"),
        ("CD1_2", 0.0, "[deg/pixel]"),
        ("CD2_1", 0.0, "[deg/pixel]"),
        ("CD2_2", step_deg, "[deg/pixel]"),
    ]


def _without_gzip_times(file: bytes) -> bytes:
    """The file with the modification time of every gzip member (RFC 1952, bytes 4 to 7) set to 0."""
    content = bytearray(file)
    with fits.open(io.BytesIO(file), disable_image_compression=True) as hdus:
        table = hdus[1]
        rows, row_bytes = table.header["NAXIS2"], table.header["NAXIS1"]
        start = table.fileinfo()["datLoc"]
        dtype = table.columns.dtype.newbyteorder(">")
        lossless = table.header["ZCMPTYPE"].startswith("GZIP")
    tiles = np.frombuffer(file, dtype=dtype, count=rows, offset=start)
    column = "COMPRESSED_DATA" if lossless else "GZIP_COMPRESSED_DATA"
    for length, offset in tiles[column] if column in tiles.dtype.names else ():
        if length > 0:
            member = start + rows * row_bytes + offset
            content[member + 4 : member + 8] = bytes(4)
    return bytes(content)


def _check(brick: xr.Dataset) -> None:
    expected = dict.fromkeys(COADD_KINDS, (("band", "y", "x"), "float32")) | {MASK_KIND: (("y", "x"), "int32")}
    problems = [f"missing attribute {name!r}" for name in ("brickname", "ra_deg", "dec_deg") if name not in brick.attrs]
    if "band" not in brick.coords:
        problems.append("missing coordinate 'band'")
    for name, (dims, dtype) in expected.items():
        if name not in brick.variables:
            problems.append(f"missing variable {name!r}")
        elif brick[name].dims != dims or brick[name].dtype != dtype:
            problems.append(f"{name}: expected {dims} {dtype}, got {brick[name].dims} {brick[name].dtype}")
    if problems:
        raise ContractError(f"brick {brick.attrs.get('brickname')!r} cannot be written: " + "; ".join(problems))
    height, width = brick.sizes["y"], brick.sizes["x"]
    if height != width or height % TILE_SIZE_PX:
        raise ConfigError(f"brick side: expected a multiple of {TILE_SIZE_PX} px, square, got {height} x {width}")


def _write(fs: fsspec.AbstractFileSystem, root: str, relative: str, content: bytes) -> None:
    path = f"{root.rstrip('/')}/{relative}"
    with storage_errors(f"write {path} ({len(content)} bytes)"):
        fs.pipe_file(path, content)
