"""Generated documentation: tables of docs/contracts.md, the chart's files, the README's picture, the accuracy figure.

python docs/build.py            docs/contracts.md; what chart_pages.py writes; docs/figures/accuracy.png from the
                                numbers in benchmarks/results; and docs/figures/data-flow.png if runs/demo is complete
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from chart_pages import write_chart_files
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS, ROLES, SPLITS, TRAINING
from pipeline.contracts.manifest import EMR_COLUMNS, PARENT_COLUMNS, PARENT_OPTIONAL_COLUMNS
from pipeline.contracts.schema import CubeSchema
from pipeline.kernels.render import DEFAULT_ACCURACY
from pipeline.report.stamps import Stretch, colour_channels, lupton_rgb, noise_stretch
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.runs import read_json

DOCS = Path(__file__).parent
DEMO = DOCS.parent / "runs" / "demo"
BANDS = ("g", "r", "z")
RESULTS = DOCS.parent / "benchmarks" / "results"
COADDS = DOCS.parent / "data" / "demo-survey" / "coadd"


def main() -> None:
    """Write what can be generated from what is here."""
    (DOCS / "contracts.md").write_text(contracts_page(), encoding="utf-8")
    write_chart_files()
    curve, peers = (json.loads((RESULTS / name).read_text("utf-8")) for name in ("render-curve.json", "render.json"))
    accuracy(curve, peers).savefig(DOCS / "figures" / "accuracy.png", dpi=110)
    if (DEMO / "_SUCCESS").exists():
        data_flow(RunLayout(Location(str(DEMO)))).savefig(DOCS / "figures" / "data-flow.png", dpi=110)


def contracts_page() -> str:
    """The cubes' variables and the input columns as Markdown."""
    parts = [
        "# Contracts\n\nGenerated from `pipeline/contracts` by `make docs`.",
        "Row i of both cubes is row i of the manifest.\n",
    ]
    parts += [_cube_table(schema) for schema in (CUTOUTS, TRAINING)]
    parts.append("## Flags\n")
    for name, meanings in (("reject_reason", REJECT_REASONS), ("split", SPLITS), ("role", ROLES)):
        parts.append(f"* `{name}`: " + ", ".join(f"{code} {meaning}" for code, meaning in enumerate(meanings)))
    parts.append("\n## Input tables\n\n| column | EMR manifest | parent catalogue |\n|---|---|---|")
    for column in dict.fromkeys((*PARENT_COLUMNS, *PARENT_OPTIONAL_COLUMNS, *EMR_COLUMNS)):
        optional = f"{PARENT_OPTIONAL_COLUMNS[column]}, optional" if column in PARENT_OPTIONAL_COLUMNS else ""
        parts.append(f"| `{column}` | {EMR_COLUMNS.get(column, '')} | {PARENT_COLUMNS.get(column, optional)} |")
    return "\n".join(parts) + "\n"


def _cube_table(schema: CubeSchema) -> str:
    lines = [
        f"## {schema.name} cube, version {schema.version}\n",
        "| variable | dims | type | unit | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{v.name}` | {', '.join(v.dims)} | {v.dtype} | {v.unit} | {v.description} |" for v in schema.variables
    ]
    return "\n".join(lines) + "\n"


def data_flow(layout: RunLayout) -> Figure:
    """One row of real data of a run: brick, host, arc, pair, arc_snr distribution, ROC."""
    cube = open_cube(layout.cube("training"))
    columns = cube.columns(["role", "arc_snr", "brickname", "theta_e_arcsec", "ra_deg", "dec_deg", "sky_sigma_nmgy"])
    snr = columns["arc_snr"].to_numpy()
    order = np.argsort(
        np.where((columns["role"].to_numpy() == 1) & (snr > 12) & (snr < 40), -columns["theta_e_arcsec"], 0)
    )
    row = int(order[0])
    shard, offset = divmod(row, cube.shard_samples)
    stamps = cube.read_shard(shard, ["injected", "control"]).isel(sample=offset)
    control, injected = stamps["control"].to_numpy(), stamps["injected"].to_numpy()
    figure = Figure(figsize=(13.2, 2.9), layout="constrained")
    axes = figure.subplots(1, 6, width_ratios=[1.15, 1, 1, 1, 1.35, 1.2])
    position = (float(columns["ra_deg"][row]), float(columns["dec_deg"][row]))
    sky_sigma_nmgy = columns["sky_sigma_nmgy"].to_numpy()[row]
    stretch = noise_stretch(sky_sigma_nmgy, BANDS)
    _show_brick(axes[0], str(columns["brickname"].to_numpy()[row]), position, stretch)
    arc = injected - control
    for axis, image, title in (
        (axes[1], control, "cutout: host"),
        (axes[2], arc, f"arc, $\\theta_E$ {float(columns['theta_e_arcsec'][row]):.2f}″"),
        (axes[3], injected, f"pair, arc_snr {float(snr[row]):.1f}"),
    ):
        axis.imshow(lupton_rgb(colour_channels(image, BANDS), stretch), origin="lower", interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    _show_snr(axes[4], snr[columns["role"].to_numpy() == 1])
    _show_roc(axes[5], layout)
    for left, right in ((0, 1), (1, 2), (2, 3)):
        arrow = ConnectionPatch(
            (1.0, 0.5), (0.0, 0.5), "axes fraction", "axes fraction", axesA=axes[left], axesB=axes[right]
        )
        arrow.set_arrowstyle("->")
        figure.add_artist(arrow)
    return figure


def accuracy(curve: dict[str, Any], peers: dict[str, Any]) -> Figure:
    """Errors of the renderer against its accuracy setting, and speed against error beside its peers.

    Args:
        curve: what `benchmarks/render.py --curve` writes. peers: what its `--json` writes.

    Returns:
        The figure.
    """
    points = curve["points"]
    setting = [point["accuracy"] for point in points]
    figure = Figure(figsize=(11.0, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label, colour in (
        ("pixel_worst", "worst", "#D55E00"),
        ("pixel_95", "95 % of draws below", "#E69F00"),
        ("pixel_median", "median", "#0072B2"),
    ):
        left.loglog(setting, [point[name] for point in points], "o-", color=colour, label=label, markersize=4)
    left.loglog(setting, setting, ":", color="0.5", label="as asked for")
    left.axvline(DEFAULT_ACCURACY, color="0.85", linewidth=6, zorder=0)
    left.set_title(f"{curve['reference_draws']} reference arcs; default setting shaded", fontsize=10)
    left.set_xlabel("accuracy setting")
    left.set_ylabel("largest pixel error / peak")
    left.legend(fontsize=9)
    rate = [1e6 / point["us_per_stamp"] for point in points]
    for name, label, marker, colour in (
        ("pixel_median", "this package, median", "o-", "#0072B2"),
        ("pixel_worst", "this package, worst", "o-", "#D55E00"),
    ):
        right.loglog(rate, [point[name] for point in points], marker, color=colour, label=label, markersize=4)
    for row in peers["renderers"]:
        if row["renderer"].startswith("ours"):
            continue
        speed, median, worst = row["stamps_per_s"], row["pixel_median"], row["pixel_worst"]
        right.loglog([speed, speed], [median, worst], "-", color="0.7", linewidth=1, zorder=0)
        right.loglog(speed, median, "s", color="#0072B2", markersize=4)
        right.loglog(speed, worst, "s", color="#D55E00", markersize=4)
        package, variant = (text.strip() for text in row["renderer"].split(","))
        if package == "lenstronomy":
            right.annotate(variant, (speed, 1.4 * worst), fontsize=8, rotation=90, ha="center", va="bottom")
        else:
            right.annotate(package, (speed, 0.7 * median), fontsize=8, rotation=90, ha="center", va="top")
    right.set_xlim(8, 6e4)
    right.set_ylim(1e-4, 500)
    right.set_title("squares: peers at 4x4 samples a pixel (above: lenstronomy)", fontsize=10)
    right.set_xlabel("stamps of three bands per CPU second, one core")
    right.set_ylabel("largest pixel error / peak")
    right.legend(fontsize=9, loc="lower left")
    for axis in (left, right):
        axis.grid(visible=True, which="major", color="0.92")
        axis.tick_params(labelsize=8)
    return figure


def _show_brick(axis: Axes, brickname: str, position_deg: tuple[float, float], stretch: Stretch) -> None:
    planes = []
    for band in BANDS:
        with fits.open(COADDS / brickname / f"legacysurvey-{brickname}-image-{band}.fits.fz") as file:
            planes.append(np.nan_to_num(np.asarray(file[1].data)))
            wcs = WCS(file[1].header)
    image = np.stack(planes)
    x, y = wcs.world_to_pixel_values(*position_deg)
    axis.imshow(lupton_rgb(colour_channels(image, BANDS), stretch), origin="lower")
    axis.add_patch(Rectangle((x - 32, y - 32), 64, 64, fill=False, edgecolor="white", linewidth=1.2))
    axis.set_title(f"brick {brickname}", fontsize=10)
    axis.set_axis_off()


def _show_snr(axis: Axes, snr: np.ndarray) -> None:
    axis.hist(snr, bins=np.geomspace(0.8, 100, 25), color="#E69F00", alpha=0.8)
    axis.set_xscale("log")
    axis.set_title("controlled arc_snr", fontsize=10)
    axis.set_xlabel("arc_snr", fontsize=9)
    axis.set_ylabel("pairs", fontsize=9)
    axis.tick_params(labelsize=8)


def _show_roc(axis: Axes, layout: RunLayout) -> None:
    metrics = read_json(layout.training.join("metrics.json"))
    axis.plot(metrics["roc"]["fpr"], metrics["roc"]["tpr"], color="#0072B2")
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    axis.set_title(f"finder, AUC {metrics['auc']['value']:.2f}", fontsize=10)
    axis.set_xlabel("false-positive rate", fontsize=9)
    axis.set_ylabel("true-positive rate", fontsize=9)
    axis.tick_params(labelsize=8)


if __name__ == "__main__":
    main()
