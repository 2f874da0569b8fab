"""Lensed arcs per second and their errors: this package beside its peers, on one thread.

    python benchmarks/render.py [--rounds N] [--draws N] [--error-draws N] [--cold] [--json FILE] [--curve FILE]

A stamp is one source behind one lens (SIE and shear) in three bands of 64x64 px of 0.262 arcsec, a Moffat PSF of its
own in each. All renderers take turns in every round on the same draws; rates are per CPU second (user and system), the
figure is the median over rounds, and a ratio is the median of the ratios of single rounds, which survives a busy
machine. Peers are timed on the first draws. Freed memory is kept (`render_timing.keep_memory`), which nearly doubles
the speed of NumPy code; lenstronomy is also timed in a process of its own, without it.

Errors are those of single-band renders of the reference draws of tests/data/reference_arcs.npz with the PSF of each:
|sum / sum - 1| of the stamp, and the largest pixel difference over the peak; `plain` sources are those with n <= 4 and
Re >= 0.08 arcsec. Images of galaxies are compared with brute force in float64.

Optional peers are listed in PEERS and run where they are installed; herculens needs an older jax than jaxtronomy, so an
environment of its own (docs/performance.md). --cold also times the first arc with an empty compilation cache. --curve
measures accuracy settings against errors of all reference draws and time.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import numpy as np
from numpy.typing import NDArray
from render_lenstronomy import Renderer, built_per_stamp, classes_reused, galaxy_images, rays_shared
from render_scenes import (
    BANDS,
    FWHM_ARCSEC,
    MOFFAT_BETA,
    PEER_BATCH,
    SIZE,
    Draw,
    Reference,
    arc_table,
    common_draws,
    galaxy_reference,
    galaxy_table,
    load_reference,
    moffat_kernel,
    reference_kernels,
)
from render_stages import redraw_batch, rescale_batch, stage_times
from render_timing import Case, cold_start, keep_memory, measured_rates, rate_in_own_process

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.psf import psf_fwhm_arcsec, round_psf
from pipeline.kernels.render import DEFAULT_ACCURACY, StampGrid, render_arcs

ACCURACIES = (2e-3, 5e-3, 1e-2)
CURVE_ACCURACIES = (1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2, 2e-2, 3e-2, 5e-2)
SUPERSAMPLING = 4
ANCHOR = "lenstronomy, classes reused"
GALAXY_ANCHOR = "lenstronomy INTERPOL, classes reused"
HERCULENS = "herculens, compiled batch"
OURS = f"ours, {DEFAULT_ACCURACY:g}"
# Importable name of an optional peer: the module here that drives it, and what the table calls it.
PEERS = {
    "jaxtronomy": ("render_jaxtronomy", "jaxtronomy, compiled batch"),
    "caustics": ("render_caustics", "caustics, vectorised batch"),
    "herculens": ("render_herculens", HERCULENS),
}
EMR_S_PER_POSITIVE = 4.3e-3
GRID = StampGrid(SIZE, PIXEL_SCALE_ARCSEC)
_GALAXY_DRAWS = 6
_ERROR_TITLES = ("median", "worst", "median", "worst", "plain")
_GALAXY_PEER_DRAWS = 32


class Errors(NamedTuple):
    """Of single-band images against the reference, one an image."""

    flux: NDArray[np.float64]
    pixel: NDArray[np.float64]


def main() -> None:
    """Time, compare, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=256, help="draws that are timed")
    parser.add_argument("--error-draws", type=int, default=64, choices=range(1, 513), metavar="1..512")
    parser.add_argument("--cold", action="store_true", help="also compile everything anew, which takes a minute")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--curve", type=Path, help="where to write errors and time against the accuracy setting")
    arguments = parser.parse_args()

    keep_memory()
    draws, reference = common_draws(arguments.draws, seed=1), load_reference(arguments.error_draws)
    psfsize = np.array(FWHM_ARCSEC) / psf_fwhm_arcsec(1.0, "moffat", MOFFAT_BETA)
    print(
        f"{SIZE}x{SIZE} px, {''.join(BANDS)}; Moffat beta {MOFFAT_BETA} of half-maximum FWHM {FWHM_ARCSEC} arcsec,"
        f" that is psfsize {', '.join(f'{value:.2f}' for value in psfsize)} arcsec; one thread; {_versions()}"
    )
    results: dict[str, Any] = {
        "versions": _versions(),
        "rounds": arguments.rounds,
        "draws": len(draws),
        "error_draws": arguments.error_draws,
    }
    timed, errors = cases(draws), all_errors(reference)
    rates = measured_rates(timed, arguments.rounds)
    results["renderers"] = [_row(name, rates, ANCHOR, errors, reference.regular) for name in timed]
    _print_rows(f"Sersic sources; errors over {arguments.error_draws} reference draws", results["renderers"])
    results["anchor_in_own_process_per_s"] = rate_in_own_process("render_lenstronomy")
    print(f"{ANCHOR}, in a process of its own: {results['anchor_in_own_process_per_s']:.1f} stamps/s")
    timed, errors = galaxy_cases(draws), galaxy_errors(draws[:_GALAXY_DRAWS])
    rates = measured_rates(timed, arguments.rounds)
    results["galaxies"] = [_row(name, rates, GALAXY_ANCHOR, errors, None) for name in timed]
    _print_rows(f"galaxy images, 4x4 samples a pixel; errors over {_GALAXY_DRAWS} draws", results["galaxies"])
    results["sampling_us"] = sampling_times(draws, arguments.rounds)
    results["stages"] = _print_stages(draws)
    results["cold_start_s"] = cold_start(arguments.cold)
    results["targets"] = _print_targets(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.curve:
        curve = accuracy_curve(draws, load_reference(512), arguments.rounds)
        arguments.curve.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


def _versions() -> str:
    packages = ("numpy", "numba", "lenstronomy", *(peer for peer in PEERS if importlib.util.find_spec(peer)))
    return ", ".join(f"{package} {version(package)}" for package in packages)


def cases(draws: list[Draw]) -> dict[str, Case]:
    """Every renderer of Sersic sources: ours on all draws in one call, its peers on the first of them."""
    table, few = arc_table(draws, len(BANDS)), draws[:PEER_BATCH]
    moffat = round_psf(FWHM_ARCSEC, "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    gaussian = round_psf(FWHM_ARCSEC, "gaussian", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    kernels = [moffat_kernel(fwhm) for fwhm in FWHM_ARCSEC]
    found = {f"ours, {a:g}": Case(partial(render_arcs, table, moffat, GRID, a), len(draws)) for a in ACCURACIES}
    found[f"{OURS}, Gaussian PSF"] = Case(lambda: render_arcs(table, gaussian, GRID), len(draws))
    found["lenstronomy, built per stamp"] = _each(built_per_stamp(kernels, SUPERSAMPLING), few)
    found[ANCHOR] = _each(classes_reused(kernels, SUPERSAMPLING), few)
    found["lenstronomy, rays shared by hand"] = _each(rays_shared(kernels, SUPERSAMPLING), few)
    for peer, (driver, name) in PEERS.items():
        if importlib.util.find_spec(peer) is None:
            print(f"{peer}: not installed")
        else:
            found[name] = Case(importlib.import_module(driver).batch(few, kernels, SUPERSAMPLING), len(few))
    return found


def galaxy_cases(draws: list[Draw]) -> dict[str, Case]:
    """Renderers of galaxy images on the same draws."""
    table = galaxy_table(draws, len(BANDS))
    moffat = round_psf(FWHM_ARCSEC, "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    kernels = [moffat_kernel(fwhm) for fwhm in FWHM_ARCSEC]
    return {
        "ours, galaxy image": Case(lambda: render_arcs(table, moffat, GRID), len(draws)),
        GALAXY_ANCHOR: _each(galaxy_images(kernels, SUPERSAMPLING), draws[:_GALAXY_PEER_DRAWS]),
    }


def _each(render: Renderer, draws: list[Draw]) -> Case:
    return Case(lambda: [render(draw) for draw in draws], len(draws))


def all_errors(reference: Reference) -> dict[str, Errors]:
    """Errors of each renderer that the reference applies to; it has no images through a Gaussian PSF."""
    kernels, draws = reference_kernels(reference), reference.draws
    found = {f"ours, {accuracy:g}": _judge(ours(reference, accuracy), reference.images) for accuracy in ACCURACIES}
    for name, make in (
        ("lenstronomy, built per stamp", built_per_stamp),
        (ANCHOR, classes_reused),
        ("lenstronomy, rays shared by hand", rays_shared),
    ):
        images = [make([kernel], SUPERSAMPLING)(draw)[0] for draw, kernel in zip(draws, kernels, strict=True)]
        found[name] = _judge(np.array(images), reference.images)
    for peer, (driver, name) in PEERS.items():
        if importlib.util.find_spec(peer) is not None:
            images = importlib.import_module(driver).single_band(draws, kernels, SUPERSAMPLING)
            found[name] = _judge(images, reference.images)
    return found


def ours(reference: Reference, accuracy: float) -> NDArray[np.float32]:
    """Reference draws through their PSFs, (draw, y, x)."""
    fwhm_arcsec = psf_fwhm_arcsec(reference.psfsize_arcsec, "moffat", MOFFAT_BETA)
    psfs = [round_psf([fwhm], "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC) for fwhm in fwhm_arcsec]
    return render_arcs(arc_table(reference.draws, 1), psfs, GRID, accuracy)[:, 0]


def galaxy_errors(draws: list[Draw]) -> dict[str, Errors]:
    """Errors of the renderers of galaxy images, in the band in the middle."""
    fwhm = FWHM_ARCSEC[1]
    exact = np.array([galaxy_reference(draw, fwhm) for draw in draws])
    psf = round_psf([fwhm], "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    peer = galaxy_images([moffat_kernel(fwhm)], SUPERSAMPLING)
    return {
        "ours, galaxy image": _judge(render_arcs(galaxy_table(draws, 1), psf, GRID)[:, 0], exact),
        GALAXY_ANCHOR: _judge(np.array([peer(draw)[0] for draw in draws]), exact),
    }


def _judge(images: NDArray[np.float32], exact: NDArray[np.float64]) -> Errors:
    flux = np.abs(images.sum(axis=(1, 2), dtype=np.float64) / exact.sum(axis=(1, 2)) - 1.0)
    return Errors(flux, np.abs(images - exact).max(axis=(1, 2)) / exact.max(axis=(1, 2)))


def sampling_times(draws: list[Draw], rounds: int) -> dict[str, float]:
    """Microseconds of a render, of a redraw to its SNR in one band, and of a change of flux."""
    table = arc_table(draws, len(BANDS))
    psf = round_psf(FWHM_ARCSEC, "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    timed = {
        "render, three bands": Case(lambda: render_arcs(table, psf, GRID), len(draws)),
        "redraw to SNR, one band": Case(redraw_batch(table, psf, SIZE, DEFAULT_ACCURACY), len(draws)),
        "change of flux, three bands": Case(rescale_batch(render_arcs(table, psf, GRID)), len(draws)),
    }
    found = {name: 1e6 / float(np.median(rates)) for name, rates in measured_rates(timed, rounds).items()}
    print("\nsampling, us per draw: " + "; ".join(f"{name} {value:.1f}" for name, value in found.items()))
    return found


def accuracy_curve(draws: list[Draw], reference: Reference, rounds: int) -> dict[str, Any]:
    """Errors over the reference draws and time over the common ones, for each accuracy setting."""
    table = arc_table(draws, len(BANDS))
    psf = round_psf(FWHM_ARCSEC, "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    timed = {f"{a:g}": Case(partial(render_arcs, table, psf, GRID, a), len(draws)) for a in CURVE_ACCURACIES}
    rates = measured_rates(timed, rounds)
    points = []
    print(f"\n{'accuracy':>9} {'us/stamp':>9} {'pixel error/peak med, 95 %, worst, plain':>42} {'flux med, worst':>20}")
    for accuracy in CURVE_ACCURACIES:
        errors = _judge(ours(reference, accuracy), reference.images)
        point = {
            "accuracy": accuracy,
            "us_per_stamp": 1e6 / float(np.median(rates[f"{accuracy:g}"])),
            "pixel_median": float(np.median(errors.pixel)),
            "pixel_95": float(np.quantile(errors.pixel, 0.95)),
            "pixel_worst": float(errors.pixel.max()),
            "pixel_worst_plain": float(errors.pixel[reference.regular].max()),
            "flux_median": float(np.median(errors.flux)),
            "flux_worst": float(errors.flux.max()),
        }
        points.append(point)
        values = [point[name] for name in ("pixel_median", "pixel_95", "pixel_worst", "pixel_worst_plain")]
        print(
            f"{accuracy:9g} {point['us_per_stamp']:9.1f} {'':5}" + " ".join(f"{value:8.1e}" for value in values)
            + f" {point['flux_median']:11.1e} {point['flux_worst']:8.1e}"
        )  # fmt: skip
    return {"reference_draws": len(reference.draws), "points": points}


def _row(
    name: str,
    rates: dict[str, NDArray[np.float64]],
    anchor: str,
    errors: dict[str, Errors],
    plain: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"renderer": name, "stamps_per_s": float(np.median(rates[name]))}
    row["ratio"] = float(np.median(rates[name] / rates[anchor]))
    if name in errors:
        flux, pixel = errors[name]
        row |= {"flux_median": float(np.median(flux)), "flux_worst": float(flux.max())}
        row |= {"pixel_median": float(np.median(pixel)), "pixel_worst": float(pixel.max())}
        if plain is not None and plain.any():
            row["pixel_worst_plain"] = float(pixel[plain].max())
    return row


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    print(f"{'':37} {'':9} {'':7} {'flux error':>19} {'pixel error / peak':>29}")
    print(f"{'renderer':37} {'stamps/s':>9} {'ratio':>7} " + (" {:>9}" * 5).format(*_ERROR_TITLES))
    for row in rows:
        line = f"{row['renderer']:37} {row['stamps_per_s']:9.1f} {row['ratio']:7.2f}  "
        names = ("flux_median", "flux_worst", "pixel_median", "pixel_worst", "pixel_worst_plain")
        print(line + " ".join(f"{row[name]:9.1e}" if name in row else f"{'-':>9}" for name in names))


def _print_stages(draws: list[Draw]) -> dict[str, Any]:
    psf = round_psf(FWHM_ARCSEC, "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
    stages = stage_times(arc_table(draws, len(BANDS)), psf, SIZE, DEFAULT_ACCURACY, repeats=100)
    print("\nwhere the time goes, us per draw")
    for name, value in stages.microseconds.items():
        print(f"{name:20} {value:7.1f}")
    per_ray = 1e3 * (stages.microseconds["ray shooting"] + stages.microseconds["brightness"]) / stages.pixels
    print(
        f"{stages.pixels:.0f} pixels and {stages.evaluations:.0f} evaluations a draw, {per_ray:.2f} ns each on pixels;"
        f" {stages.frequencies} cosines an axis; {stages.matrix_mflop:.2f} Mflop of matrix products,"
        f" at {stages.matrix_gflops:.0f} GFlop/s {1e3 * stages.matrix_mflop / stages.matrix_gflops:.1f} us"
    )
    return stages._asdict()


def _print_targets(results: dict[str, Any]) -> dict[str, float]:
    rows = {row["renderer"]: row for row in results["renderers"]}
    ours_row = rows[OURS]
    galaxy = next(row for row in results["galaxies"] if row["renderer"] == "ours, galaxy image")
    sampling = results["sampling_us"]
    found = {
        "x lenstronomy, classes reused (target 100)": ours_row["ratio"],
        "the same, lenstronomy in a process of its own": ours_row["stamps_per_s"]
        / results["anchor_in_own_process_per_s"],
        "x the EMR code's 4.3 ms (target 30)": ours_row["stamps_per_s"] * EMR_S_PER_POSITIVE,
        "worst pixel error over peak, plain sources (at most 0.005)": ours_row["pixel_worst_plain"],
        "x lenstronomy on galaxy images (target 150)": galaxy["ratio"],
        "redraw over render (at most 1)": sampling["redraw to SNR, one band"] / sampling["render, three bands"],
        "seconds of a cold start (at most 3)": results["cold_start_s"]["process"],
    }
    if HERCULENS in rows:
        found["x herculens (target 12)"] = ours_row["ratio"] / rows[HERCULENS]["ratio"]
    print("\ntargets")
    for name, value in found.items():
        print(f"{value:9.4g} {name}")
    return found


if __name__ == "__main__":
    main()
