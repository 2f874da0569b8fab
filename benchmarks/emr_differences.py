"""How far the EMR system's results are from ours, measured on what its own code wrote.

python benchmarks/emr_differences.py DATA        DATA: the folder with manifests/, inputs/, stage4c/ and defects/

Prints the table of docs/emr-migration.md. The manifest golden_all is run through our pipeline as it stands
(injection.emr_compat), and its arcs are compared with those that the EMR code made of the same rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config_file import load_config
from pipeline.contracts.datasets import CUTOUTS, TRAINING
from pipeline.driver.plan import make_plan
from pipeline.driver.provenance import code_version
from pipeline.driver.tasks import ShardTask, make_cutouts_shard, make_training_shard
from pipeline.kernels.psf import psf_fwhm_arcsec
from pipeline.storage.cube import create_cube, cube_attributes, open_cube, publish_cube
from pipeline.storage.locations import RunLayout

CONFIG = Path(__file__).parents[1] / "configs" / "demo-real.yaml"
ARC_RUNS = ("arc_sersic_moffat", "arc_cosmos_moffat")
LENS_ELLIPTICITIES = (0.05, 0.2, 0.35, 0.5)
R = 1


def main() -> None:
    """Print one line per difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        ours = frozen_run(data, folder)
    print("| difference | measured |\n|---|---|")
    for name, text in (*from_tables(data), *from_arcs(data, ours)):
        print(f"| {name} | {text} |")


def frozen_run(data: Path, folder: str) -> xr.Dataset:
    """Our cube of golden_all, by task_id."""
    settings = [
        f"run.root={folder}",
        f"survey.bricks={data / 'inputs/coadds'}",
        f"manifest.url={data / 'manifests/golden_all'}",
        "injection.emr_compat=true",
        "shards.samples=96",
    ]
    config = load_config(CONFIG, settings)
    layout, plan = RunLayout.of(config.run), make_plan(config)
    task = ShardTask(config, layout, plan.shape, 0, tuple(plan.pieces(0)), plan.sha256, code_version())
    for schema in (CUTOUTS, TRAINING):
        place = layout.cube(schema.name)
        create_cube(place, schema, plan.shape)
        make_cutouts_shard(task) if schema is CUTOUTS else make_training_shard(task, None)
        publish_cube(place, cube_attributes(schema, plan.shape, {"bands": list(config.survey.bands)}))
    cube = open_cube(layout.cube("training"))
    rows = cube.read_shard(0, [*cube.column_names(), "injected", "control"])
    return rows.assign_coords(sample=rows["task_id"].to_numpy())


def from_tables(data: Path) -> list[tuple[str, str]]:
    """What the EMR tables say of themselves."""
    sizes = pd.read_parquet(data / "defects" / "sersic_defect_sizes.parquet")
    small = sizes[sizes["reff"] < 0.061]
    point = sizes["flux_point_nopsf"] / sizes["flux_os8_nopsf"]
    q = [(1 - e) / (1 + e) for e in LENS_ELLIPTICITIES]
    rows = {path.parent.name: pd.read_parquet(path) for path in sorted((data / "stage4c").glob("*/rows.parquet"))}
    every = pd.concat(rows.values())
    known = int(every[["magnification", "tangential_stretch", "radial_stretch"]].notna().to_numpy().sum())
    stored = np.load(data / "stage4c" / "sersic_moffat" / "stamps.npz")
    flags = rows["sersic_moffat"].set_index("task_id")["cutout_ok"]
    undefined = [task for task, stamp in zip(stored["task_id"], stored["image"], strict=True) if np.isnan(stamp).any()]
    errors = rows["sersic_moffat"][rows["sersic_moffat"]["npz_keys"] == "image_r"]
    fwhm = psf_fwhm_arcsec(np.array([1.25]), "moffat", 3.5)[0]
    return [
        ("sqrt(q): deflection too large by 1 / sqrt(q)",
         ", ".join(f"{value**-0.5:.3f} at e = {e}" for e, value in zip(LENS_ELLIPTICITIES, q, strict=True))),
        ("sqrt(q): arc flux over that with sqrt(q)", spread(sizes["flux"] / sizes["flux_sqrtq"])),
        ("sqrt(q): mean arc radius over that with sqrt(q)", spread(sizes["meanr"] / sizes["meanr_sqrtq"])),
        ("sqrt(q): peak over that with sqrt(q)", spread(sizes["peak"] / sizes["peak_sqrtq"])),
        ("no supersampling: lensed flux over that of 8 x 8 samples", spread(point)),
        ("no supersampling: the same, Re 0.06 arcsec", spread(point[small.index])),
        ("wrap-around of the convolution over peak",
         f"median {sizes['wrap_maxabs_over_peak'].median():.1e}, largest {sizes['wrap_maxabs_over_peak'].max():.1e}"),
        ("NULL magnification and stretches", f"{known} values in {len(every)} rows of {len(rows)} runs"),
        ("NaN pixels with cutout_ok = 1", f"{int(flags[undefined].sum())} of {int(flags.sum())} rows of sersic_moffat"),
        ("error rows", f"{len(errors)} of {len(flags)} rows of sersic_moffat; stamp of band r alone, zeros"),
        ("psfsize taken as half-maximum width, Moffat 3.5", f"{1.25 / fwhm:.3f} times ours at psfsize 1.25 arcsec"),
    ]  # fmt: skip


def from_arcs(data: Path, ours: xr.Dataset) -> list[tuple[str, str]]:
    """What the EMR arcs say, and our arcs of the same rows."""
    manifest = pd.concat(pd.read_parquet(path) for path in (data / "manifests" / "golden_all").glob("*.parquet"))
    manifest = manifest.set_index("task_id")
    found: list[tuple[str, str]] = []
    dx, dy = ours["centre_dx_px"].to_numpy(), ours["centre_dy_px"].to_numpy()
    placed = np.isfinite(dx)
    found += [
        ("half-pixel grid: Sersic lens centre to host [px]", spread(np.hypot(dx[placed] + 0.5, dy[placed] + 0.5))),
        ("half-pixel grid: COSMOS lens centre to host [px]", spread(np.hypot(dx[placed], dy[placed]))),
    ]
    arc = (ours["injected"] - ours["control"]).to_numpy()
    row_of = {task: row for row, task in enumerate(ours["sample"].to_numpy().tolist())}
    for name in ARC_RUNS:
        stored = np.load(data / "stage4c" / name / "stamps.npz")
        emr = dict(zip(stored["task_id"].tolist(), stored["image"].astype(np.float64), strict=True))
        tasks = [task for task in emr if emr[task].any()]
        flux = np.array([emr[task].sum(axis=(1, 2)) for task in tasks])
        colour = -2.5 * np.log10(flux[:, :2] / flux[:, 1:])
        if name == "arc_cosmos_moffat":
            wanted = manifest.loc[tasks, ["src_gr", "src_rz"]].to_numpy()
            for column, label in enumerate(("g-r", "r-z")):
                given = f"manifest: {spread(wanted[:, column])}"
                found.append((f"COSMOS colours: {label} of the arcs [mag]", f"{spread(colour[:, column])}; {given}"))
            continue
        same = [task for task in tasks if np.isfinite(arc[row_of[task]]).all()]
        both = np.array([[emr[task][R].sum(), arc[row_of[task]][R].sum(dtype=np.float64)] for task in same])
        peak = np.array([[emr[task][R].max(), arc[row_of[task]][R].max()] for task in same])
        found += [
            (f"all of it: EMR r flux over ours, {len(same)} arcs", spread(both[:, 0] / both[:, 1])),
            (f"all of it: EMR r peak over ours, {len(same)} arcs", spread(peak[:, 0] / peak[:, 1])),
        ]
    return found


def spread(values: NDArray[np.float64] | pd.Series) -> str:
    """Median and the range of 90 %."""
    low, middle, high = np.quantile(np.asarray(values, dtype=np.float64), (0.05, 0.5, 0.95))
    return f"median {middle:.3f}, 5-95 % {low:.3f} to {high:.3f}"


if __name__ == "__main__":
    main()
