"""Stamps as the EMR system made them, here and there: CPU time on its golden inputs, and the cost of its largest run.

    python benchmarks/emr.py [--golden FOLDER] [--rounds 5] [--stamps 1024] [--json benchmarks/results/emr.json]

Runs the two tasks of the production path, make_cutouts_shard and make_training_shard, in this process: manifest rows
in, brick opened and tiles decoded, stamps cut, measured and judged, arcs rendered as the rows stand (mode frozen), SNR
columns, whole shards encoded, written to disk, read back and digested, receipts. Three inputs take turns:

* positives, controls: the golden rows of the 256x256 px brick whose stamps are in bounds, repeated to --stamps rows
  under new task_ids. EMR's recorded times are of the same two kinds on the same brick, without reading the FITS files
  and without writing; ours include both.
* full bricks: 23 bricks of 3600x3600 px in all ten files, 88 rows each, half of them controls, as in the Gen5 run.
  EMR's time is its recorded time to read the seven files of such a brick, over 88, and the mean of its times a stamp.

Times are process CPU time (user and system, all threads), medians over rounds with the smallest and the largest; set
OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1. EMR's times were recorded on the same class of machine, by the README of
the golden data, over 1000 stamps, once or twice. It evaluated every stamp twice, for stamps and for metrics: that
factor is not in the times a stamp, but in the 2 h 25 min of the Gen5 run, beside which the last table sets the cost
model.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.contracts.prices import MeasuredRates, Prices
from pipeline.driver.cost import (
    GEN5_SHARD_SAMPLES,
    Site,
    as_document,
    cost_sources,
    cost_table,
    emr_gen5_cost,
    estimate_cost,
    gen5_workload,
)
from pipeline.driver.plan import make_plan
from pipeline.driver.provenance import code_version
from pipeline.driver.synthetic_survey import write_survey
from pipeline.driver.tasks import ShardTask, make_cutouts_shard, make_training_shard
from pipeline.kernels.warm_up import warm_up
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage import bricks
from pipeline.storage.cube import create_cube, cube_attributes, publish_cube
from pipeline.storage.locations import Location, RunLayout

REPOSITORY = Path(__file__).parents[1]
GOLDEN = REPOSITORY.parent / "shared" / "data" / "emr_golden"
BRICK = "0591m305"
ROWS_PER_BRICK = 88
N_BRICKS = 23
LATENCY_S = 0.06


class Case(NamedTuple):
    """A shard to make again and again: milliseconds per stamp by stage, counters of the first time."""

    task: ShardTask
    n_rows: int
    cutouts_ms: list[float]
    injection_ms: list[float]
    work: dict[str, float]


def main() -> None:
    """Make the inputs, run the rounds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=GOLDEN)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stamps", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warm_up()
    # Bricks on this disk are read with the ranges that they would be read with from S3.
    bricks.MAX_GAP_BYTES, bricks.MAX_WASTE_FRACTION = bricks.S3_GAP_BYTES, 1e9
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        coadds = arguments.golden / "inputs" / "coadds"
        positives, controls = golden_rows(arguments.golden)
        cases = {
            "positives": prepare(root / "positives", repeat(positives, arguments.stamps), coadds),
            "controls": prepare(root / "controls", repeat(controls, arguments.stamps), coadds),
            "full bricks": prepare(root / "full", *full_bricks(root / "sky", positives, controls)),
        }
        for _ in range(arguments.rounds):
            for case in cases.values():
                one_round(case)
    recorded = emr_times(arguments.golden / "timing")
    compared = compare(cases, recorded)
    show(compared, arguments.rounds)
    rates = measured_rates(cases["full bricks"], arguments.rounds)
    document = {"rates": rates.model_dump(), "per_stamp_ms": compared, "emr_recorded_ms": recorded}
    document |= gen5_table(rates)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def golden_rows(golden: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest rows of the real brick whose stamps the EMR code made in bounds: positives and controls."""
    manifest = pd.concat([pd.read_parquet(path) for path in (golden / "manifests/golden_all").glob("*.parquet")])
    made = pd.read_parquet(golden / "stage4c/sersic_moffat/rows.parquet", columns=["task_id", "cutout_ok"])
    good = manifest["task_id"].isin(made.loc[made["cutout_ok"] == 1, "task_id"]) & (manifest["brickname"] == BRICK)
    rows = manifest[good]
    return rows[rows["is_control"] == 0], rows[rows["is_control"] == 1]


def repeat(rows: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """The rows over and over, each under a task_id of its own."""
    chosen = rows.iloc[np.arange(n_rows) % len(rows)].reset_index(drop=True)
    return chosen.assign(task_id=[f"{task}-{k}" for k, task in enumerate(chosen["task_id"])])


def full_bricks(folder: Path, positives: pd.DataFrame, controls: pd.DataFrame) -> tuple[pd.DataFrame, Path]:
    """Bricks of full size with hosts at random positions, and rows there with the golden rows' arcs; half controls."""
    sky = SyntheticSky(seed=1, brick_size_px=3600, hosts_per_brick=ROWS_PER_BRICK)
    hosts = pd.read_parquet(write_survey(Location(str(folder)), sky, 1, "cache", 1).path)[:ROWS_PER_BRICK]
    source = folder / "coadd" / hosts["brickname"].iloc[0]
    halves = [repeat(rows, len(hosts)) for rows in (positives, controls)]
    mixed = pd.concat([half[k::2] for k, half in enumerate(halves)]).sort_index()
    places = {name: hosts[name].to_numpy() for name in ("ra", "dec")}
    frames = []
    for k in range(N_BRICKS):
        name = f"{k:04d}p000"
        (folder / "coadd" / name).mkdir()
        for path in source.glob("*.fits.fz"):
            (folder / "coadd" / name / path.name.replace(source.name, name)).symlink_to(path)
        ids = [f"{name}-{task}" for task in mixed["task_id"]]
        frames.append(mixed.assign(brickname=name, task_id=ids, **places))
    return pd.concat(frames, ignore_index=True), folder / "coadd"


def prepare(folder: Path, rows: pd.DataFrame, bricks: Path) -> Case:
    """A run of one shard over the rows, its cutouts cube published so that arcs can be injected."""
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "manifest.parquet", index=False)
    settings = [f"run.root={folder}", f"survey.bricks={bricks}", f"manifest.url={folder}/manifest.parquet"]
    config = load_config(REPOSITORY / "configs" / "demo-real.yaml", [*settings, f"shards.samples={GEN5_SHARD_SAMPLES}"])
    plan, layout = make_plan(config), RunLayout.of(config.run)
    for name, schema in (("cutouts", CUTOUTS), ("training", TRAINING)):
        create_cube(layout.cube(name), schema, plan.shape)
    task = ShardTask(config, layout, plan.shape, 0, tuple(plan.pieces(0)), plan.sha256, code_version())
    receipt = make_cutouts_shard(task)
    publish_cube(layout.cube("cutouts"), cube_attributes(CUTOUTS, plan.shape, {}))
    pairs = make_training_shard(task, None)
    usable = {receipt.cube: receipt.counts.get("none", 0), pairs.cube: pairs.counts.get("none", 0)}
    return Case(task, len(rows), [], [], {**receipt.work, **{f"usable_{name}": n for name, n in usable.items()}})


def one_round(case: Case) -> None:
    """Both tasks once."""
    for function, spent in ((make_cutouts_shard, case.cutouts_ms), (_inject, case.injection_ms)):
        start = time.process_time()
        function(case.task)
        spent.append((time.process_time() - start) / case.n_rows * 1e3)


def emr_times(folder: Path) -> dict[str, list[float]]:
    """Recorded CPU ms per stamp of the EMR code by mode and kind; `read` is per brick, `spark` in a worker."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob("timing_[cs]*.json")):
        mode = path.stem.removeprefix("timing_").removesuffix("_rep2").replace("_", " ")
        content = json.loads(path.read_text())
        for kind in ("positives", "controls"):
            found.setdefault(f"{mode} {kind}", []).append(content[kind]["cpu_per_stamp_ms"])
            if (spark := content.get(f"spark_local1_{kind}")) is not None:
                found.setdefault(f"{mode} {kind} spark", []).append(spark[2] / spark[0] * 1e3)
    passes = json.loads((folder / "timing_full2.json").read_text())
    found["read"] = [entry["original_cpu"] * 1e3 for entry in passes]
    found["read"].append(json.loads((folder / "timing_fullbrick.json").read_text())["total"]["read_original_cpu"] * 1e3)
    return found


def compare(cases: dict[str, Case], recorded: dict[str, list[float]]) -> dict[str, Any]:
    """Ours and EMR's milliseconds per stamp, and their ratios, by case and EMR mode."""
    compared: dict[str, Any] = {}
    for name, case in cases.items():
        total = [a + b for a, b in zip(case.cutouts_ms, case.injection_ms, strict=True)]
        entry: dict[str, Any] = {
            "rows": case.n_rows,
            "usable": case.work["usable_cutouts"],
            "cutouts": spread(case.cutouts_ms),
            "injection": spread(case.injection_ms),
            "ours": spread(total),
            "emr": {},
        }
        for mode in ("sersic moffat", "cosmos moffat"):
            if name == "full bricks":
                read = spread([value / ROWS_PER_BRICK for value in recorded["read"]])
                stamp = [spread(recorded[f"{mode} {kind}"]) for kind in ("positives", "controls")]
                emr = {key: read[key] + (stamp[0][key] + stamp[1][key]) / 2 for key in read}
            else:
                emr = spread(recorded[f"{mode} {name}"])
            ratio = emr["median"] / entry["ours"]["median"]
            bounds = [emr["min"] / entry["ours"]["max"], emr["max"] / entry["ours"]["min"]]
            entry["emr"][mode] = {**emr, "ratio": ratio, "ratio_range": bounds}
        compared[name] = entry
    return compared


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(compared: dict[str, Any], rounds: int) -> None:
    """The table of times per stamp."""
    print(f"\nCPU ms per stamp, {rounds} rounds: median (smallest - largest)")
    print(f"{'input':12s} {'cutouts':>20s} {'injection':>20s} {'ours':>20s}  {'EMR':>36s} {'EMR / ours':>22s}")
    for name, entry in compared.items():
        ours = " ".join(f"{_text(entry[key]):>20s}" for key in ("cutouts", "injection", "ours"))
        for mode, emr in entry["emr"].items():
            low, high = emr["ratio_range"]
            ratio = f"{emr['ratio']:.2f} ({low:.2f} - {high:.2f})"
            print(f"{name:12s} {ours}  {mode:>13s} {_text(emr):>22s} {ratio:>22s}")
    counts = (f"{name} {entry['rows']}, {entry['usable']:.0f}" for name, entry in compared.items())
    print("rows, and usable ones: " + "; ".join(counts))


def measured_rates(case: Case, rounds: int) -> MeasuredRates:
    """What `dhs plan --cost` needs, from the full bricks."""
    source = (
        f"benchmarks/emr.py --rounds {rounds}, {dt.datetime.now(dt.UTC):%Y-%m-%d}, code {code_version()}, "
        f"{platform.machine()}, Python {platform.python_version()}, local disk"
    )
    return MeasuredRates(
        source=source,
        mode=case.task.config.injection.mode,
        rows_per_brick=ROWS_PER_BRICK,
        cutouts_core_s=statistics.median(case.cutouts_ms) / 1e3,
        injection_core_s=statistics.median(case.injection_ms) / 1e3,
        read_bytes_per_brick=case.work["bytes_fetched"] / case.work["brick_openings"],
        requests_per_brick=case.work["requests"] / case.work["brick_openings"],
    )


def gen5_table(rates: MeasuredRates) -> dict[str, Any]:
    """The Gen5 run by the cost model beside what EMR reported."""
    prices, work = Prices(), gen5_workload(GEN5_SHARD_SAMPLES)
    emr = emr_gen5_cost(prices)
    site = Site(emr.vcpu, LATENCY_S)
    columns = {"ours, estimated": estimate_cost(work, rates, site, prices), "EMR, reported": emr}
    sources = cost_sources(rates, site, prices, work, rates.mode)
    print("\nThe Gen5 run, 11.75 million stamps on 272 vCPU\n" + "\n".join([cost_table(columns), *sources]))
    return as_document(columns, sources)


def _inject(task: ShardTask) -> None:
    make_training_shard(task, None)


def _text(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} - {values['max']:.2f})"


if __name__ == "__main__":
    main()
