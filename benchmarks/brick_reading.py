"""Stamps out of one full-size brick: this package beside fitsio and astropy.

    python benchmarks/brick_reading.py [--rounds N] [--stamps 40 200]

Makes one brick of 3600x3600 px in three bands as the survey compresses it (RICE_1, tiles of 100x100 px, step 1e-4
nmgy, SUBTRACTIVE_DITHER_2) from white noise and exponential sources, cuts random 64x64 px stamps in all bands with each
method, and prints stamps per second of process CPU time (user and system), the ratio to fitsio sections, and whether
all pixels are the same. Methods take turns inside a round; the figure is the median over rounds. Bytes and requests are
those of this package, beside the least that ranges can do: headers, tables and touched tiles.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import fsspec
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.contracts.survey import BRICK_SIZE_PX, PIXEL_SCALE_ARCSEC
from pipeline.storage.bricks import Brick, Key, Windows, brick_file
from pipeline.storage.tile_table import metadata_bytes, parse_tiled_image
from pipeline.storage.window_plan import plan_windows

BRICK = "1498p020"
SKY_SIGMA_NMGY = {"g": 0.0025, "r": 0.0045, "z": 0.011}
STAMP_PX = 64
N_SOURCES = 6000
TILE_PX = 100
KEYS: list[Key] = [("image", band) for band in SKY_SIGMA_NMGY]

Method = Callable[[Path, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


def main() -> None:
    """Make the brick, run the rounds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stamps", type=int, nargs="+", default=[40, 200])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_full_brick(root)
        for n_stamps in arguments.stamps:
            compare(root, n_stamps, arguments.rounds)


def write_full_brick(root: Path) -> None:
    """Write the image coadds of one brick of full size, seeded."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, BRICK_SIZE_PX, (2, N_SOURCES))
    flux_nmgy = 10 ** ((22.5 - 17.0 - 7.2 * rng.power(4.0, N_SOURCES)) / 2.5)
    radius_px = rng.uniform(2.0, 6.0, N_SOURCES)
    degrees = PIXEL_SCALE_ARCSEC / 3600
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 149.8, "CRVAL2": 2.0, "CRPIX1": 1800.5}
    header |= {"CRPIX2": 1800.5, "CD1_1": -degrees, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": degrees, "BRICK": BRICK}
    for (kind, band), (_, sigma_nmgy) in zip(KEYS, SKY_SIGMA_NMGY.items(), strict=True):
        image = rng.normal(0.0, sigma_nmgy, (BRICK_SIZE_PX, BRICK_SIZE_PX)).astype(np.float32)
        for k in range(N_SOURCES):
            half = int(6 * radius_px[k])
            rows = slice(max(0, int(y[k]) - half), int(y[k]) + half)
            columns = slice(max(0, int(x[k]) - half), int(x[k]) + half)
            yy, xx = np.ogrid[rows, columns]
            yy, xx = yy[yy[:, 0] < BRICK_SIZE_PX], xx[:, xx[0] < BRICK_SIZE_PX]
            distance = np.sqrt((xx - x[k]) ** 2 + (yy - y[k]) ** 2 + 1.5) / radius_px[k]
            image[rows, columns] += flux_nmgy[k] * np.exp(-distance) / (2 * np.pi * radius_px[k] ** 2)
        path = root / brick_file("cache", BRICK, (kind, band))
        path.parent.mkdir(parents=True, exist_ok=True)
        with fitsio.FITS(path, "rw", clobber=True) as file:
            file.write(
                image,
                header=header,
                compress="RICE",
                tile_dims=(TILE_PX, TILE_PX),
                qlevel=-1e-4,
                qmethod="SUBTRACTIVE_DITHER_2",
                dither_seed=1,
                extname="COMPRESSED_IMAGE",
            )


def compare(root: Path, n_stamps: int, rounds: int) -> None:
    """Time every method on the same stamps in interleaved rounds and print one table."""
    rng = np.random.default_rng(n_stamps)
    x0, y0 = rng.integers(0, BRICK_SIZE_PX - STAMP_PX, (2, n_stamps))
    expected = fitsio_whole(root, x0, y0)
    identical = {name: bool(np.array_equal(method(root, x0, y0), expected)) for name, method in METHODS.items()}
    rates: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, method in METHODS.items():
            start = time.process_time()
            method(root, x0, y0)
            rates[name].append(n_stamps / (time.process_time() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{n_stamps} stamps of {STAMP_PX}x{STAMP_PX} px in {len(KEYS)} bands, {rounds} rounds")
    print(f"{'method':20s} {'stamps/s CPU':>13s} {'min - max':>17s} {'/ fitsio sections':>18s}  pixels")
    for name, rate in medians.items():
        spread = f"{min(rates[name]):.0f} - {max(rates[name]):.0f}"
        ratio = rate / medians["fitsio sections"]
        print(f"{name:20s} {rate:13.0f} {spread:>17s} {ratio:18.2f}  {'same' if identical[name] else 'DIFFERENT'}")
    brick = _open(root)
    brick.read(dict.fromkeys(KEYS, Windows(x0, y0, STAMP_PX)))
    least = sum(_least_bytes(root, key, x0, y0) for key in KEYS)
    whole = sum((root / brick_file("cache", BRICK, key)).stat().st_size for key in KEYS)
    print(
        f"bytes {brick.bytes_fetched / 1e6:.2f} MB in {brick.requests} requests;"
        f" headers + tables + touched tiles {least / 1e6:.2f} MB (x {brick.bytes_fetched / least:.3f});"
        f" whole files {whole / 1e6:.2f} MB"
    )


def ours(root: Path, x0: NDArray[np.int64], y0: NDArray[np.int64]) -> NDArray[np.float32]:
    """Brick.open and Brick.read, nothing kept from earlier calls."""
    stamps = _open(root).read(dict.fromkeys(KEYS, Windows(x0, y0, STAMP_PX)))
    return np.stack([stamps[key] for key in KEYS], axis=1)


def fitsio_sections(root: Path, x0: NDArray[np.int64], y0: NDArray[np.int64]) -> NDArray[np.float32]:
    """One section per stamp and band."""

    def cut(path: Path, out: NDArray[np.float32]) -> None:
        with fitsio.FITS(path) as file:
            for k, (x, y) in enumerate(zip(x0.tolist(), y0.tolist(), strict=True)):
                out[k] = file[1][y : y + STAMP_PX, x : x + STAMP_PX]

    return _each_band(root, x0.size, cut)


def fitsio_whole(root: Path, x0: NDArray[np.int64], y0: NDArray[np.int64]) -> NDArray[np.float32]:
    """The whole image, then slices."""
    return _each_band(root, x0.size, lambda path, out: _slice(fitsio.read(path, ext=1), x0, y0, out))


def astropy_sections(root: Path, x0: NDArray[np.int64], y0: NDArray[np.int64]) -> NDArray[np.float32]:
    """One CompImageHDU.section per stamp and band."""

    def cut(path: Path, out: NDArray[np.float32]) -> None:
        with fits.open(path) as hdus:
            _slice(hdus[1].section, x0, y0, out)

    return _each_band(root, x0.size, cut)


def astropy_whole(root: Path, x0: NDArray[np.int64], y0: NDArray[np.int64]) -> NDArray[np.float32]:
    """The whole image, then slices."""

    def cut(path: Path, out: NDArray[np.float32]) -> None:
        with fits.open(path) as hdus:
            _slice(hdus[1].data, x0, y0, out)

    return _each_band(root, x0.size, cut)


METHODS: dict[str, Method] = {
    "ours": ours,
    "fitsio sections": fitsio_sections,
    "fitsio whole": fitsio_whole,
    "astropy sections": astropy_sections,
    "astropy whole": astropy_whole,
}


def _open(root: Path) -> Brick:
    return Brick.open(fsspec.filesystem("file"), str(root), "cache", BRICK, KEYS)


def _each_band(root: Path, n_stamps: int, cut: Callable[[Path, NDArray[np.float32]], None]) -> NDArray[np.float32]:
    out = np.empty((len(KEYS), n_stamps, STAMP_PX, STAMP_PX), np.float32)
    for key, band in zip(KEYS, out, strict=True):
        cut(root / brick_file("cache", BRICK, key), band)
    return out.transpose(1, 0, 2, 3)


def _slice(image: Any, x0: NDArray[np.int64], y0: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    for k, (x, y) in enumerate(zip(x0.tolist(), y0.tolist(), strict=True)):
        out[k] = image[y : y + STAMP_PX, x : x + STAMP_PX]


def _least_bytes(root: Path, key: Key, x0: NDArray[np.int64], y0: NDArray[np.int64]) -> int:
    content = (root / brick_file("cache", BRICK, key)).read_bytes()
    image = parse_tiled_image(content, BRICK)
    tiles = plan_windows(image, x0, y0, STAMP_PX).tiles
    return metadata_bytes(content, BRICK) + int(image.length[tiles].sum())


if __name__ == "__main__":
    main()
