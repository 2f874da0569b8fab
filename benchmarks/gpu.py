"""Does the feed keep up with the network? Training rate from a cube on disk against that on tensors already there.

    python benchmarks/gpu.py [--rows 20000] [--networks resnet18 efficientnet_v2_s] [--batch-size 512]

Writes a synthetic training cube of random 64-px stamps in three bands into a temporary folder, trains one epoch to warm
up and --epochs more, once from the cube through the feed and once with one batch that stays on the device. bf16 where
the device has it. Prints samples per second, their ratio, and the share of time that the loop waited for batches.
Runs on a CPU too; the device's name stands in the first line.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from pipeline.contracts.datasets import ROLES, SPLITS, TRAINING
from pipeline.contracts.training_config import TrainingSection
from pipeline.storage.cube import CubeShape, PublishedCube, create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.cube import write_shard as write_cube_shard
from pipeline.storage.locations import Location
from pipeline.training.feed import Batch, SplitFeed, open_feed
from pipeline.training.processes import World, configure_torch
from pipeline.training.train import train

SIZE_PX, BANDS, SHARD_ROWS = 64, ("g", "r", "z"), 1024


class StandingFeed:
    """A feed whose batches lie on the device and are always the same."""

    def __init__(self, feed: SplitFeed, batch_size: int, device: torch.device) -> None:
        first = next(iter(feed.shuffled(batch_size, 0, 0)))
        stamps, label, weight, features = (
            values.clone().to(device) for values in (first.stamps, first.label, first.weight, first.features)
        )
        self.batch = Batch(stamps, label, weight, first.row.copy(), features.cpu())
        self.feed, self.features, self.stamp_shape = feed, feed.features, feed.stamp_shape

    def __len__(self) -> int:
        return len(self.feed) // len(self.batch) * len(self.batch)

    def shuffled(self, *_: object) -> Iterator[Batch]:
        """The batch, as often as an epoch has batches."""
        return (self.batch for _ in range(len(self) // len(self.batch)))


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "efficientnet_v2_s"])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2, help="measured, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--folder", help="where the cube is written; a temporary folder if not given")
    options = parser.parse_args()
    device = configure_torch(options.threads, deterministic=False)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {platform.machine()}"
    print(f"{name}, {options.threads} threads; batches of {options.batch_size}, {SIZE_PX} px, {len(BANDS)} bands")
    print(f"{'network':20s} {'from cube /s':>14s} {'on device /s':>14s} {'ratio':>7s} {'waiting':>8s}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        cube = write_cube(Path(folder), options.rows)
        for network in options.networks:
            section = TrainingSection.model_validate(
                {
                    "epochs": 1 + options.epochs,
                    "batch_size": options.batch_size,
                    "network": {"name": network},
                    "deterministic": False,
                    "compile": options.compile,
                    "feed": {"order": "global", "pinned": device.type == "cuda"},
                }
            )
            feeds = open_feed(cube, section.feed)
            standing = {"train": StandingFeed(feeds["train"], options.batch_size, device), "val": feeds["val"]}
            fed, free = (train(given, section, 1, World(device)).history[1:] for given in (feeds, standing))
            rates = [float(np.median([record.samples_per_s for record in history])) for history in (fed, free)]
            waiting = float(np.median([record.data_wait_fraction for record in fed]))
            print(
                f"{network:20s} {rates[0]:14.0f} {rates[1]:14.0f} {rates[0] / rates[1]:7.3f} {waiting:8.3f}", flush=True
            )


def write_cube(folder: Path, n_rows: int) -> PublishedCube:
    """A published training cube of pairs of noise, in which a few rows are for validation and test."""
    sizes = {"sample": n_rows, "band": len(BANDS), "y": SIZE_PX, "x": SIZE_PX}
    shape, location = CubeShape(sizes, SHARD_ROWS, 16), Location(str(folder / "cube"))
    create_cube(location, TRAINING, shape)
    generator = np.random.default_rng(0)
    for shard in range(shape.n_shards):
        rows = np.arange(shape.rows(shard).start, shape.rows(shard).stop)
        part = {}
        for variable in TRAINING.variables:
            lengths = tuple({**sizes, "sample": rows.size}[dim] for dim in variable.dims)
            values = np.full(lengths, "", object) if variable.dtype == "str" else np.zeros(lengths, variable.dtype)
            if variable.is_pixels:
                values = generator.standard_normal(lengths, np.float32)
            part[variable.name] = (variable.dims, values)
        part["role"][1][:] = ROLES.index("pair")
        part["split"][1][:] = np.select(
            [rows % 100 == 0, rows % 100 == 1], [SPLITS.index("val"), SPLITS.index("test")], SPLITS.index("train")
        )
        write_cube_shard(location, TRAINING, shape, shard, xr.Dataset(part))
    publish_cube(location, cube_attributes(TRAINING, shape, {"bands": list(BANDS), "plan_sha256": "p"}))
    return open_cube(location)


if __name__ == "__main__":
    main()
