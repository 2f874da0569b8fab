"""How often field galaxies are taken for lenses with a visible arc, and how often injected arcs are seen.

    python benchmarks/anchor_visibility.py FOLDER [--arcs N] [--places N]

FOLDER holds the coadds of one brick (legacysurvey-<brick>-image-<band>.fits.fz, psfsize alike). None of its galaxies
may be a lens. Three tables: galaxies detected in r, measured in every band; Sersic galaxies of r = 18 to 21.5 put at
random places of the r image, real neighbours included; and arcs of this renderer on the detected galaxies at a given
annulus SNR (arc flux at 4 <= r < 16 px / (sigma sqrt(N))). Shares are those of tier A, with Wilson's 95 % interval.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from pipeline.contracts.anchors import VisibilityLimits
from pipeline.contracts.survey import FWHM_PER_SIGMA, PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import sersic_arcs
from pipeline.kernels.psf import psf_fwhm_arcsec, round_psf
from pipeline.kernels.render import StampGrid, render_arcs
from pipeline.stages.anchor_visibility import measure_visibility
from pipeline.stages.gates.result import wilson_interval

SIZE, HALF = 64, 32
LIMITS = VisibilityLimits()
SNR_LEVELS = (1, 2, 3, 5, 7, 10)
DETECTION_SIGMA = 8.0
SEED = 4


def main() -> None:
    """Read the brick, print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arcs", type=int, default=120)
    parser.add_argument("--places", type=int, default=400)
    arguments = parser.parse_args()
    bands = {band: read_band(arguments.folder, band) for band in ("g", "r", "z")}
    image, seeing_px = bands["r"]
    places = detected(image, seeing_px)
    rows = []
    for band, (pixels, width_px) in bands.items():
        found = [measured(stamp(pixels, place), width_px) for place in places]
        rows += [{"sample": f"field galaxies, {band}", **row} for row in found if row["centre_snr"] >= 5.0]
    rng = np.random.default_rng(SEED)
    for _ in range(arguments.places):
        place = rng.integers(HALF, np.array(image.shape) - HALF)
        found = measured(stamp(image, place) + galaxy(rng, seeing_px), seeing_px)
        rows += [{"sample": "galaxies at random places, r", **found}]
    rows += injected(image, seeing_px, places, arguments.arcs, rng)
    report(pd.DataFrame(rows))


def read_band(folder: Path, band: str) -> tuple[NDArray[np.float64], float]:
    """Image [nmgy] and median seeing [pixel] of a band."""
    arrays = []
    for kind in ("image", "psfsize"):
        path = next(folder.glob(f"legacysurvey-*-{kind}-{band}.fits.fz"))
        with fits.open(path) as file:
            arrays.append(np.array(file[1].data, dtype=np.float64))
    return arrays[0], float(np.median(arrays[1])) / PIXEL_SCALE_ARCSEC


def detected(image: NDArray[np.float64], seeing_px: float) -> list[NDArray[np.int64]]:
    """(y, x) of local maxima of the smoothed image, away from its border."""
    smooth = gaussian_filter(image, seeing_px / FWHM_PER_SIGMA)
    middle = np.median(smooth)
    noise = 1.4826 * np.median(np.abs(smooth - middle))
    peaks = np.argwhere((smooth == maximum_filter(smooth, 9)) & (smooth - middle > DETECTION_SIGMA * noise))
    inside = ((peaks >= HALF) & (peaks < np.array(image.shape) - HALF)).all(axis=1)
    return list(peaks[inside])


def stamp(image: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """The 64 px around a place."""
    y, x = place.tolist()
    return image[y - HALF : y + HALF, x - HALF : x + HALF]


def measured(pixels: NDArray[np.float64], seeing_px: float) -> dict[str, float]:
    """Measurement of one stamp, all of its pixels good."""
    good = np.ones(pixels.shape, bool)
    return asdict(measure_visibility(pixels.astype(np.float32), good, (HALF, HALF), seeing_px, LIMITS))


def galaxy(rng: np.random.Generator, seeing_px: float) -> NDArray[np.float64]:
    """A Sersic galaxy with seeing. [nmgy]"""
    magnitude, index, axis_ratio, angle, radius_px = rng.uniform((18, 1, 0.5, 0, 3), (21.5, 5, 1, np.pi, 8)).tolist()
    fine = (np.arange(4 * SIZE) + 0.5) / 4 - 0.5 - HALF
    x, y = fine[None, :], fine[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(along * np.sqrt(axis_ratio), across / np.sqrt(axis_ratio))
    light = np.exp(-(2 * index - 1 / 3) * (np.maximum(radius, 0.05) / radius_px) ** (1 / index))
    light = light.reshape(SIZE, 4, SIZE, 4).mean(axis=(1, 3))
    light = gaussian_filter(light, seeing_px / FWHM_PER_SIGMA, mode="constant")
    return 10 ** ((22.5 - magnitude) / 2.5) * light / light.sum()


def injected(
    image: NDArray[np.float64],
    seeing_px: float,
    places: list[NDArray[np.int64]],
    n_arcs: int,
    rng: np.random.Generator,
) -> list[dict[str, object]]:
    """Measurements of arcs of every level; theta_E 0.8 to 2.5 arcsec, sources within 0.8 theta_E."""
    theta = rng.uniform(0.8, 2.5, n_arcs)
    offset, angle = theta * np.sqrt(rng.uniform(0.0025, 0.64, n_arcs)), rng.uniform(0, 2 * np.pi, n_arcs)
    draws = sersic_arcs(
        1,
        theta_e_arcsec=theta,
        lens_q=rng.uniform(0.6, 1.0, n_arcs),
        lens_phi_rad=rng.uniform(0.0, np.pi, n_arcs),
        gamma1=rng.normal(0.0, 0.03, n_arcs),
        gamma2=rng.normal(0.0, 0.03, n_arcs),
        lens_x_arcsec=np.zeros(n_arcs),
        lens_y_arcsec=np.zeros(n_arcs),
        src_x_arcsec=offset * np.cos(angle),
        src_y_arcsec=offset * np.sin(angle),
        src_re_arcsec=np.exp(rng.uniform(np.log(0.1), np.log(0.5), n_arcs)),
        src_n=rng.uniform(0.7, 3.0, n_arcs),
        src_q=rng.uniform(0.4, 1.0, n_arcs),
        src_phi_rad=rng.uniform(0.0, np.pi, n_arcs),
    )
    fwhm = psf_fwhm_arcsec([seeing_px * PIXEL_SCALE_ARCSEC], "moffat", 3.5)
    psf = round_psf(fwhm, "moffat", 3.5, SIZE, PIXEL_SCALE_ARCSEC)
    arcs = render_arcs(draws, psf, StampGrid(SIZE, PIXEL_SCALE_ARCSEC))[:, 0].astype(np.float64)
    y, x = np.mgrid[:SIZE, :SIZE] - HALF
    radius = np.hypot(x, y)
    annulus = (radius >= LIMITS.inner_px) & (radius < LIMITS.outer_px)
    hosts = [place for place in places if measured(stamp(image, place), seeing_px)["arc_visibility_snr"] < 3.0]
    rows: list[dict[str, object]] = []
    for number, arc in enumerate(arcs):
        host = stamp(image, hosts[number % len(hosts)])
        sigma = measured(host, seeing_px)["sky_sigma_nmgy"]
        for level in SNR_LEVELS:
            light = arc * level * sigma * np.sqrt(annulus.sum()) / arc[annulus].sum()
            rows.append({"sample": f"arcs, annulus SNR {level}", **measured(host + light, seeing_px)})
    return rows


def report(rows: pd.DataFrame) -> None:
    """Shares of tier A by both rules, one line per sample."""
    rows["annulus_tier A"] = rows["arc_visibility_snr"] > LIMITS.threshold
    rows["significant"] = rows["arc_significance"] > LIMITS.significance_min
    rows["visibility_tier A"] = rows["annulus_tier A"] & rows["significant"]
    for sample, group in rows.groupby("sample", sort=False):
        shares = []
        for name in ("annulus_tier A", "significant", "visibility_tier A"):
            part = int(group[name].sum())
            low, high = wilson_interval(part, len(group))
            shares.append(f"{name} {part / len(group):.3f} ({low:.3f}-{high:.3f})")
        print(f"{sample:32s} n={len(group):4d}  " + "  ".join(shares))


if __name__ == "__main__":
    main()
