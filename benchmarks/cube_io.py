"""Zarr encodings side by side: write, read and random access of stamps, in MB/s of process CPU time.

    python benchmarks/cube_io.py [--rounds 3] [--stamps 512]

Prints one row per encoding and the ratio to one stamp per inner chunk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

ENCODINGS = {
    "1 stamp, raw": (1, []),
    "16 stamps, raw": (16, []),
    "64 stamps, raw": (64, []),
    "1 stamp, zstd 1": (1, [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")]),
    "16 stamps, zstd 1": (16, [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")]),
    "64 stamps, zstd 1": (64, [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")]),
}
SHARDS = 4
RANDOM_READS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stamps", type=int, default=512, help="stamps of a shard")
    arguments = parser.parse_args()
    generator = np.random.default_rng(1)
    stamps = generator.normal(0.0, 0.004, (arguments.stamps, 3, 64, 64)).astype(np.float32)
    chosen = generator.integers(0, SHARDS * arguments.stamps, RANDOM_READS)
    results: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ENCODINGS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, (inner, codecs) in ENCODINGS.items():
                path = Path(folder) / f"{number}-{name}.zarr"
                results[name].append(_measure(path, inner, codecs, stamps, chosen))
    _print(results, stamps.nbytes)


def _measure(
    path: Path, inner: int, codecs: list[BloscCodec], stamps: np.ndarray, chosen: np.ndarray
) -> tuple[float, float, float, float]:
    n_stamps = len(stamps)
    array = zarr.create_array(
        path,
        shape=(SHARDS * n_stamps, *stamps.shape[1:]),
        chunks=(inner, *stamps.shape[1:]),
        shards=stamps.shape,
        dtype="float32",
        compressors=[*codecs, Crc32cCodec()],
    )
    parts = [slice(k * n_stamps, (k + 1) * n_stamps) for k in range(SHARDS)]
    write = _seconds(lambda: [array.__setitem__(part, stamps) for part in parts])
    read = _seconds(lambda: [array[part] for part in parts])
    single = _seconds(lambda: [array[int(row)] for row in chosen])
    assert np.array_equal(array[parts[-1]], stamps)
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return write, read, single, stored / (SHARDS * stamps.nbytes)


def _seconds(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def _print(results: dict[str, list[tuple[float, float, float, float]]], shard_bytes: int) -> None:
    medians = {name: np.median(np.array(rows), axis=0) for name, rows in results.items()}
    base = medians["1 stamp, raw"]
    megabytes = SHARDS * shard_bytes / 1e6
    print(f"{'encoding':20s} {'write MB/s':>11s} {'read MB/s':>11s} {'random/s':>10s} {'size':>6s}   ratio write, read")
    for name, (write, read, single, size) in medians.items():
        print(
            f"{name:20s} {megabytes / write:11.0f} {megabytes / read:11.0f} {RANDOM_READS / single:10.0f} {size:6.3f}"
            f"   x{base[0] / write:.1f}, x{base[1] / read:.1f}"
        )


if __name__ == "__main__":
    main()
