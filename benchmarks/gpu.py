"""Does the feed keep up with the network? Training rate from a cube on disk against that on tensors already there.

    python benchmarks/gpu.py [--rows 20000] [--networks resnet18 efficientnet_v2_s] [--batch-size 512]

Writes a synthetic training cube of random 64-px stamps in three bands into a temporary folder, trains one epoch to warm
up and --epochs more, once from the cube through the feed and once with one batch that stays on the device; bf16 where
the device has it. Gives samples per second, their ratio, and the share of time that the loop waited for batches, with
page-locked and with ordinary buffers, as a table that replaces the one in docs/performance.md if there is a GPU.
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
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- table of benchmarks/gpu.py -->", "<!-- end of the table -->"


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
    """Print the table, and put it into its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "efficientnet_v2_s"])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2, help="measured, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--folder", help="where the cube is written; a temporary folder if not given")
    parser.add_argument("--write", type=Path, help="page whose table is replaced; with a GPU docs/performance.md")
    options = parser.parse_args()
    device = configure_torch(options.threads, deterministic=False)
    is_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_gpu else f"CPU, {platform.machine()}"
    numbers = "bf16" if is_gpu and torch.cuda.is_bf16_supported() else "float32"
    shape = f"batches of {options.batch_size}, {SIZE_PX} px, {len(BANDS)} bands"
    lines = [
        f"{name}, torch {torch.__version__}: {shape}, {numbers}{', compiled' * options.compile}.",
        "",
        "| network | batches in | on the device /s | from the cube /s | ratio | waiting |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        cube = write_cube(Path(folder), options.rows)
        for network in options.networks:
            for pinned in (True, False) if is_gpu else (False,):
                lines.append(measured(cube, network, pinned, options, device))
                print(lines[-1], flush=True)
    page = options.write or (PAGE if is_gpu else None)
    if page is not None:
        page.write_text(with_table(page.read_text(encoding="utf-8"), lines), encoding="utf-8")


def measured(cube: PublishedCube, network: str, pinned: bool, options: argparse.Namespace, device: torch.device) -> str:
    """A line of the table."""
    section = TrainingSection.model_validate(
        {
            "epochs": 1 + options.epochs,
            "batch_size": options.batch_size,
            "network": {"name": network},
            "deterministic": False,
            "compile": options.compile,
            "feed": {"order": "global", "pinned": pinned},
        }
    )
    feeds = open_feed(cube, section.feed)
    standing = {"train": StandingFeed(feeds["train"], options.batch_size, device), "val": feeds["val"]}
    fed, free = (train(given, section, 1, World(device)).history[1:] for given in (feeds, standing))
    rates = [float(np.median([record.samples_per_s for record in history])) for history in (fed, free)]
    waiting = float(np.median([record.data_wait_fraction for record in fed]))
    memory = "page-locked memory" if pinned else "ordinary memory"
    return f"| {network} | {memory} | {rates[1]:.0f} | {rates[0]:.0f} | {rates[0] / rates[1]:.3f} | {waiting:.3f} |"


def with_table(text: str, lines: list[str]) -> str:
    """A page with these lines between its two marks."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after


def write_cube(folder: Path, n_rows: int) -> PublishedCube:
    """A published training cube of pairs of noise, in which a few rows are for validation and test."""
    sizes = {"sample": n_rows, "band": len(BANDS), "y": SIZE_PX, "x": SIZE_PX}
    shape, location = CubeShape(sizes, SHARD_ROWS, 16), Location(str(folder / "cube"))
    create_cube(location, TRAINING, shape)
    generator, period = np.random.default_rng(0), min(100, n_rows // 10)
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
            [rows % period == 0, rows % period == 1], [SPLITS.index("val"), SPLITS.index("test")], SPLITS.index("train")
        )
        write_cube_shard(location, TRAINING, shape, shard, xr.Dataset(part))
    publish_cube(location, cube_attributes(TRAINING, shape, {"bands": list(BANDS), "plan_sha256": "p"}))
    return open_cube(location)


if __name__ == "__main__":
    main()
