"""A train manifest of a production's size: rows per second and memory.

    python benchmarks/manifest_build.py FOLDER [--hosts 19700000] [--per-split 166667] [--row-order brick]

Makes a synthetic phase 3 in FOLDER unless it is there (180,000 bricks, 811 regions of which four hold 97 % of them, 12
selection sets, parent catalogue in 29 part files), builds the train tier in this process and prints rows, seconds of
wall and CPU time, and the largest resident memory. 12 sets x 3 splits x 166,667 hosts x 2 replicates are 12.0 million
rows.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contracts.manifest_config import ManifestConfig
from pipeline.driver.manifest_builder import build_manifests
from pipeline.kernels.spark_hash import spark_xxhash64

N_BRICKS, N_REGIONS, N_PARTS = 180_000, 811, 29
# Split and share of the bricks of the four largest regions.
MEGA_REGIONS = {0: ("test", 0.45), 1: ("test", 0.35), 2: ("train", 0.11), 3: ("val", 0.06)}
MODES = ("density", "n_lrg", "area_weighted", "psf_weighted")


def main() -> None:
    """Make the tables if needed, build, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hosts", type=int, default=19_700_000)
    parser.add_argument("--per-split", type=int, default=166_667)
    parser.add_argument("--row-order", choices=["brick", "task_id"], default="brick")
    arguments = parser.parse_args()
    inputs = arguments.folder / f"phase3-{arguments.hosts}"
    if not (inputs / "parent" / "_SUCCESS").exists():
        write_tables(inputs, arguments.hosts)
        print("made", inputs)
    config = ManifestConfig.model_validate(
        {
            "variant": f"benchmark_{arguments.row_order}",
            "output": str(arguments.folder),
            "region": None,
            "inputs": {name: str(inputs / name) for name in ("parent", "bricks_with_region", "region_selections")},
            "tiers": {"train": {"grid": "grid_sota", "n_total_per_split": arguments.per_split}},
            "row_order": arguments.row_order,
        }
    )
    wall, cpu = time.perf_counter(), time.process_time()
    rows = build_manifests(config, force=True)["rows"]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{rows} rows, {wall:.0f} s wall, {cpu:.0f} s CPU, {rows / wall:.0f} rows/s, peak RSS {peak_gib:.2f} GiB")


def write_tables(folder: Path, n_hosts: int) -> None:
    """Bricks, selections and parent catalogue with random places and magnitudes, seeded."""
    rng = np.random.default_rng(0)
    shares = np.full(N_REGIONS, (1 - sum(share for _, share in MEGA_REGIONS.values())) / (N_REGIONS - 4))
    shares[: len(MEGA_REGIONS)] = [share for _, share in MEGA_REGIONS.values()]
    regions = rng.choice(N_REGIONS, N_BRICKS, p=shares)
    uniforms = np.abs(spark_xxhash64(np.arange(N_REGIONS, dtype=np.int32), 13)) % 1_000_000 / 1e6
    splits = np.where(uniforms < 0.2, "test", np.where(uniforms < 0.3, "val", "train")).astype(object)
    splits[: len(MEGA_REGIONS)] = [split for split, _ in MEGA_REGIONS.values()]
    names = np.array([f"{i // 1000:04d}{'mp'[i % 2]}{i % 1000:03d}" for i in range(N_BRICKS)], object)
    psfsize_r = rng.normal(1.3, 0.12, N_BRICKS)
    bricks = {"brickname": names, "psfsize_g": psfsize_r * 1.1, "psfsize_r": psfsize_r, "psfsize_z": psfsize_r * 0.95,
              "psfdepth_r": rng.normal(24.5, 0.4, N_BRICKS), "ebv": rng.uniform(0, 0.12, N_BRICKS)}  # fmt: skip
    store(folder / "bricks_with_region" / "part-00000.parquet", bricks)
    sets = [(f"{kind}_{mode}", kind, mode) for kind in ("topk", "strat_custom", "strat_balanced") for mode in MODES]
    rows = [(*named, region) for named in sets for region in range(N_REGIONS) if region < 4 or rng.random() < 0.1]
    selections = {name: np.array([row[i] for row in rows], object)
                  for i, name in enumerate(("selection_set_id", "selection_strategy", "ranking_mode"))}  # fmt: skip
    region = np.array([row[3] for row in rows], np.int32)
    store(folder / "region_selections" / "part-00000.parquet",
          {**selections, "region_id": region, "region_split": splits[region]})  # fmt: skip
    for part, count in enumerate(np.diff(np.linspace(0, n_hosts, N_PARTS + 1).astype(int))):
        brick = rng.integers(0, N_BRICKS, count)
        zmag = rng.normal(19.4, 0.6, count).astype(np.float32)
        parent = {
            "region_id": regions[brick].astype(np.int32),
            "region_split": splits[regions[brick]],
            "brickname": names[brick],
            "ra": rng.uniform(0, 360, count),
            "dec": rng.uniform(-89, 34, count),
            "zmag": zmag,
            "rmag": zmag + np.float32(0.7),
            "w1mag": zmag - np.float32(1.2),
            "rz": np.full(count, 0.7, np.float32),
            "zw1": np.full(count, 1.2, np.float32),
            "is_v3_color_relaxed": rng.random(count) < 0.97,
        }
        store(folder / "parent" / f"part-{part:05d}.parquet", parent)
    (folder / "parent" / "_SUCCESS").touch()


def store(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write a table as Spark would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="snappy", store_schema=False)


if __name__ == "__main__":
    main()
