"""The feed beside other loaders, in one run: examples of 64x64x3 float32 per second of wall and of CPU time.

    python benchmarks/feed.py [--examples 8192] [--rounds 5] [--threads 2] [--json FILE] [--folder DIR]

Loaders take turns; medians over the rounds, ratios of a round's own rates. webdataset and litdata run where they are
installed; an environment of their own is best, with this project's packages and

    pip install webdataset==1.0.2
    pip install --no-deps litdata==0.2.76 lightning-utilities boto3 s3transfer obstore tifffile

Every loader gives batches of 256 in a random order, in the main process or its threads; worker processes are slower for
49 kB an example. `cold` opens the data anew and begins with an empty page cache; `first` opens it anew; `warm` goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from feed_peers import PEERS, Stamps
from numpy.typing import NDArray

from pipeline.contracts.datasets import ROLES, SPLITS, TRAINING
from pipeline.contracts.feed_config import FeedSection
from pipeline.contracts.schema import SAMPLE_DIM
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, open_cube, publish_cube, write_shard
from pipeline.storage.locations import Location
from pipeline.training.feed import SplitFeed, open_feed

BATCH = 256
SHAPE = (3, 64, 64)
SHARD_ROWS = 1024
WEBDATASET, RAM = "webdataset, first", "RAM gather A[perm]"


class Loaders:
    """Everything that is timed: names to a call that consumes an epoch and returns its examples."""

    def __init__(self, folder: Path, n_examples: int, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self.cube = folder / "cube"
        stamps = write_cube(self.cube, n_examples)
        self.files = Stamps(folder, stamps)
        self.epoch = 0
        self.warm: dict[str, SplitFeed] = {}

    def calls(self) -> dict[str, Callable[[], int]]:
        """Every loader by name; those called cold need an empty page cache."""
        found: dict[str, Callable[[], int]] = {
            name: partial(call, self.files, BATCH)
            for name, (call, packages) in PEERS.items()
            if all(_installed(package) for package in packages)
        }
        found["this package, cold"] = partial(self._ours, anew=True, cache="never")
        found["this package, first"] = partial(self._ours, anew=True, cache="never")
        found["this package, first, filling the cache"] = partial(self._ours, anew=True, cache="always")
        found["this package, warm, global shuffle"] = partial(self._ours, anew=False, cache="never")
        found["this package, warm, pairs kept"] = partial(self._ours, anew=False, cache="never", pairs="kept")
        found["this package, warm, by shards"] = partial(self._ours, anew=False, cache="never", order="shards")
        return found

    def _ours(self, *, anew: bool, **settings: str) -> int:
        key = json.dumps(settings)
        if anew or key not in self.warm:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
            section = FeedSection.model_validate({"threads": self.threads, **settings})
            split = open_feed(open_cube(Location(str(self.cube))), section, self.folder / "cache")["train"]
            if not anew:
                self.warm[key] = split
                consume(split.shuffled(BATCH, 0, 1))
        else:
            split = self.warm[key]
        self.epoch += 1
        return consume(split.shuffled(BATCH, 0, 0 if anew else self.epoch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads that fill our batches")
    parser.add_argument("--folder", type=Path, help="where the data are written; a temporary folder by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        loaders = Loaders(Path(folder), arguments.examples, arguments.threads)
        rates = measure(loaders, arguments.rounds)
    result = summary(rates, arguments)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def consume(batches: Iterable[Any]) -> int:
    """Ask for every batch of an epoch; number of examples."""
    return sum(len(batch.row) for batch in batches)


def measure(loaders: Loaders, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Loader to (round, 2) examples per wall and per CPU second; a first round is not counted."""
    calls = loaders.calls()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            # What one loader wrote is not to be carried to the disk while the next is timed.
            os.sync()
            if name.endswith("cold"):
                drop_page_cache(loaders.folder)
            wall, cpu = time.perf_counter(), time.process_time()
            n_examples = call()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                rates[name].append((n_examples / spent[0], n_examples / spent[1]))
            print(
                f"round {number}: {name:42s} {n_examples / spent[0]:9.0f}/s  load {os.getloadavg()[0]:.1f}", flush=True
            )
    return {name: np.array(values) for name, values in rates.items()}


def drop_page_cache(folder: Path) -> None:
    """Let the kernel forget the pages of every file of the benchmark, where nothing maps them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def summary(rates: dict[str, NDArray[np.float64]], arguments: argparse.Namespace) -> dict[str, Any]:
    rows = {}
    for name, values in rates.items():
        row = {"wall": round(float(np.median(values[:, 0]))), "cpu": round(float(np.median(values[:, 1])))}
        for against, base in (("webdataset", WEBDATASET), ("ram", RAM)):
            if base in rates:
                ratio = np.median(values / rates[base], axis=0)
                row |= {
                    f"wall_over_{against}": float(f"{ratio[0]:.3g}"),
                    f"cpu_over_{against}": float(f"{ratio[1]:.3g}"),
                }
        rows[name] = row
    packages = ("torch", "numpy", "zarr", "webdataset", "litdata")
    return {
        "examples": arguments.examples,
        "batch": BATCH,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages if _installed(name)},
        "rates": rows,
    }


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{'examples per second of':44s} {'wall':>8s} {'CPU':>8s}   over webdataset: wall, CPU   over RAM: wall, CPU"
    )
    for name, row in result["rates"].items():
        ratios = [
            row.get(f"{kind}_over_{base}", float("nan")) for base in ("webdataset", "ram") for kind in ("wall", "cpu")
        ]
        numbers = f"{row['wall']:8d} {row['cpu']:8d}   {ratios[0]:16.2f} {ratios[1]:8.2f}"
        print(f"{name:44s} {numbers}   {ratios[2]:12.3f} {ratios[3]:7.3f}")


def write_cube(folder: Path, n_examples: int) -> NDArray[np.float32]:
    """A published training cube of pairs, and the training examples in cube order."""
    n_pairs = n_examples // 2
    n_rows = n_pairs + 40
    sizes = {SAMPLE_DIM: n_rows, "band": SHAPE[0], "y": SHAPE[1], "x": SHAPE[2]}
    rows: dict[str, np.ndarray] = {}
    for variable in TRAINING.variables:
        shape = tuple(sizes[dim] for dim in variable.dims)
        rows[variable.name] = np.full(shape, "", object) if variable.dtype == "str" else np.zeros(shape, variable.dtype)
    generator = np.random.default_rng(1)
    for kind in ("control", "injected"):
        rows[kind] = generator.standard_normal((n_rows, *SHAPE), dtype=np.float32)
    rows["role"][:] = ROLES.index("pair")
    rows["split"][n_pairs:] = np.repeat([SPLITS.index("val"), SPLITS.index("test")], 20)
    rows["task_id"] = np.array([f"task-{row}" for row in range(n_rows)], dtype=object)
    location, shape = Location(str(folder)), CubeShape(sizes, SHARD_ROWS, 16)
    create_cube(location, TRAINING, shape)
    for shard in range(shape.n_shards):
        part = {v.name: (v.dims, rows[v.name][shape.rows(shard)]) for v in TRAINING.variables}
        write_shard(location, TRAINING, shape, shard, xr.Dataset(part))
    provenance = {"bands": ["g", "r", "z"], "plan_sha256": "", "config_sha256": "", "code_version": ""}
    publish_cube(location, cube_attributes(TRAINING, shape, provenance))
    both = np.stack([rows["injected"][:n_pairs], rows["control"][:n_pairs]], axis=1)
    return both.reshape(-1, *SHAPE)


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
