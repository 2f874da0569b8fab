"""Speed and accuracy of the injection core against lenstronomy, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/injection.py --rounds 5

A stamp is one lensed source in three bands of 64x64 pixels, each with its Moffat PSF. Both renderers
take turns in every round, and rates are per CPU second, so that the ratio survives a busy machine.
Errors are those of the quadrature: the reference is the midpoint rule on 33x33 samples per pixel,
convolved, as both renderers do it, with the PSF at native resolution.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numpy.typing import NDArray

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.profiles import sersic_flux_factor
from pipeline.kernels.psf import convolve_psf, psf_fwhm_arcsec, psf_kernel, psf_transfer
from pipeline.kernels.render import render_unit_arc

SIZE = 64
PSFSIZE_ARCSEC = {"g": 1.3, "r": 1.2, "z": 1.1}
BAND_FLUX_NMGY = (0.5, 1.0, 1.4)
MOFFAT_BETA = 3.5
REFERENCE_SAMPLES = 33

Draw = dict[str, float]
Renderer = Callable[[Draw], NDArray[np.float32]]


def main() -> None:
    """Print one line per renderer: stamps per CPU second, ratio to lenstronomy, and errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stamps", type=int, default=60, help="stamps per round of our renderer")
    parser.add_argument("--lenstronomy-stamps", type=int, default=10, help="stamps per round of lenstronomy")
    parser.add_argument("--error-stamps", type=int, default=12, help="stamps compared with the reference")
    arguments = parser.parse_args()

    renderers: dict[str, Renderer] = {f"ours, supersampling {s}": _ours(s) for s in (1, 2, 4)}
    renderers["lenstronomy, supersampling 4"] = _lenstronomy(4)
    counts = {name: arguments.stamps if name.startswith("ours") else arguments.lenstronomy_stamps for name in renderers}
    draws = _draws(max(counts.values()), seed=1)
    for render in renderers.values():
        render(draws[0])

    rates: dict[str, list[float]] = {name: [] for name in renderers}
    for _ in range(arguments.rounds):
        for name, render in renderers.items():
            start = time.process_time()
            for draw in draws[: counts[name]]:
                render(draw)
            rates[name].append(counts[name] / (time.process_time() - start))

    error_draws = _draws(arguments.error_stamps, seed=2)
    references = [_reference(draw) for draw in error_draws]
    anchor = float(np.median(rates["lenstronomy, supersampling 4"]))
    print(f"{'renderer':30} {'stamps/s':>9} {'ratio':>7} {'flux err med/max':>18} {'pixel err/peak med/max':>23}")
    for name, render in renderers.items():
        rate = float(np.median(rates[name]))
        flux_error, pixel_error = _errors([render(draw) for draw in error_draws], references)
        print(
            f"{name:30} {rate:9.1f} {rate / anchor:7.1f} {np.median(flux_error):9.1e} {flux_error.max():8.1e} "
            f"{np.median(pixel_error):14.1e} {pixel_error.max():8.1e}"
        )
    unit_rate = _unit_render_rate(draws, arguments.rounds)
    print(f"render_unit_arc alone, supersampling 4: {unit_rate:.0f} unit renders per CPU second")


def _draws(count: int, seed: int) -> list[Draw]:
    """Lenses and sources as the survey priors draw them."""
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(count):
        theta_e_arcsec = generator.uniform(0.5, 2.5)
        shear, shear_rad = generator.uniform(0.0, 0.08), generator.uniform(0.0, math.pi)
        offset = theta_e_arcsec * math.sqrt(generator.uniform(0.01, 0.16))
        azimuth = generator.uniform(0.0, 2.0 * math.pi)
        draws.append(
            {
                "theta_e_arcsec": theta_e_arcsec,
                "lens_q": generator.uniform(0.5, 1.0),
                "lens_phi_rad": generator.uniform(0.0, math.pi),
                "gamma1": shear * math.cos(2.0 * shear_rad),
                "gamma2": shear * math.sin(2.0 * shear_rad),
                "lens_x_arcsec": generator.uniform(-0.13, 0.13),
                "lens_y_arcsec": generator.uniform(-0.13, 0.13),
                "src_x_arcsec": offset * math.cos(azimuth),
                "src_y_arcsec": offset * math.sin(azimuth),
                "src_re_arcsec": generator.uniform(0.15, 0.5),
                "src_n": generator.uniform(0.5, 2.0),
                "src_q": generator.uniform(0.3, 1.0),
                "src_phi_rad": generator.uniform(0.0, math.pi),
            }
        )
    return draws


def _unit_arc(draw: Draw, size: int, pixel_scale_arcsec: float, supersampling: int) -> NDArray[np.float32]:
    arguments: Any = (*draw.values(), size, pixel_scale_arcsec, supersampling)
    return render_unit_arc(*arguments)


def _ours(supersampling: int) -> Renderer:
    transfers = [
        psf_transfer(
            float(psf_fwhm_arcsec(psfsize, "moffat", MOFFAT_BETA)), "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC
        )
        for psfsize in PSFSIZE_ARCSEC.values()
    ]

    def render(draw: Draw) -> NDArray[np.float32]:
        unit = _unit_arc(draw, SIZE, PIXEL_SCALE_ARCSEC, supersampling)
        stamp = np.empty((len(transfers), SIZE, SIZE), np.float32)
        for band, transfer in enumerate(transfers):
            stamp[band] = convolve_psf(unit, transfer, SIZE) * np.float32(BAND_FLUX_NMGY[band])
        return stamp

    return render


def _lenstronomy(supersampling: int) -> Renderer:
    """All classes are built once per band and reused, the fastest way to use lenstronomy without changing it."""
    origin_arcsec = -(SIZE // 2) * PIXEL_SCALE_ARCSEC
    models = []
    for psfsize in PSFSIZE_ARCSEC.values():
        fwhm = float(psf_fwhm_arcsec(psfsize, "moffat", MOFFAT_BETA))
        kernel = psf_kernel(fwhm, "moffat", MOFFAT_BETA, SIZE // 2, PIXEL_SCALE_ARCSEC)
        image = ImageData(
            image_data=np.zeros((SIZE, SIZE)),
            ra_at_xy_0=origin_arcsec,
            dec_at_xy_0=origin_arcsec,
            transform_pix2angle=np.eye(2) * PIXEL_SCALE_ARCSEC,
        )
        models.append(
            ImageModel(
                image,
                PSF(psf_type="PIXEL", kernel_point_source=kernel),
                lens_model_class=LensModel(["SIE", "SHEAR"]),
                source_model_class=LightModel(["SERSIC_ELLIPSE"]),
                kwargs_numerics={"supersampling_factor": supersampling, "supersampling_convolution": False},
            )
        )

    def render(draw: Draw) -> NDArray[np.float32]:
        lens, source = _lenstronomy_arguments(draw)
        stamp = np.empty((len(models), SIZE, SIZE), np.float32)
        for band, model in enumerate(models):
            stamp[band] = model.image(lens, source) * BAND_FLUX_NMGY[band]
        return stamp

    return render


def _lenstronomy_arguments(draw: Draw) -> tuple[list[Draw], list[Draw]]:
    """Our conventions to lenstronomy's: Re as sqrt(a b), its own b_n at equal total flux, e = (1-q)/(1+q)."""
    lens_e = (1.0 - draw["lens_q"]) / (1.0 + draw["lens_q"])
    src_e = (1.0 - draw["src_q"]) / (1.0 + draw["src_q"])
    b = 1.9992 * draw["src_n"] - 0.3271
    radius_arcsec = draw["src_re_arcsec"] * math.sqrt(draw["src_q"])
    x, y = draw["lens_x_arcsec"], draw["lens_y_arcsec"]
    sie = {
        "theta_E": draw["theta_e_arcsec"],
        "e1": lens_e * math.cos(2.0 * draw["lens_phi_rad"]),
        "e2": lens_e * math.sin(2.0 * draw["lens_phi_rad"]),
        "center_x": x,
        "center_y": y,
    }
    sersic = {
        "amp": 1.0 / (sersic_flux_factor(draw["src_n"], b) * radius_arcsec**2),
        "R_sersic": radius_arcsec,
        "n_sersic": draw["src_n"],
        "e1": src_e * math.cos(2.0 * draw["src_phi_rad"]),
        "e2": src_e * math.sin(2.0 * draw["src_phi_rad"]),
        "center_x": x + draw["src_x_arcsec"],
        "center_y": y + draw["src_y_arcsec"],
    }
    return [sie, {"gamma1": draw["gamma1"], "gamma2": draw["gamma2"], "ra_0": x, "dec_0": y}], [sersic]


def _reference(draw: Draw) -> NDArray[np.float32]:
    """Brute force: one midpoint sample per fine pixel, summed, with the fine grid's origin moved to ours."""
    fine_scale_arcsec = PIXEL_SCALE_ARCSEC / REFERENCE_SAMPLES
    fine_size = SIZE * REFERENCE_SAMPLES
    shift_arcsec = (SIZE // 2 * REFERENCE_SAMPLES + REFERENCE_SAMPLES // 2 - fine_size // 2) * fine_scale_arcsec
    moved = draw | {
        "lens_x_arcsec": draw["lens_x_arcsec"] + shift_arcsec,
        "lens_y_arcsec": draw["lens_y_arcsec"] + shift_arcsec,
    }
    fine = _unit_arc(moved, fine_size, fine_scale_arcsec, 1)
    blocks = fine.reshape(SIZE, REFERENCE_SAMPLES, SIZE, REFERENCE_SAMPLES)
    unit = blocks.sum(axis=(1, 3), dtype=np.float64).astype(np.float32)
    stamp = np.empty((len(PSFSIZE_ARCSEC), SIZE, SIZE), np.float32)
    for band, psfsize in enumerate(PSFSIZE_ARCSEC.values()):
        fwhm = float(psf_fwhm_arcsec(psfsize, "moffat", MOFFAT_BETA))
        transfer = psf_transfer(fwhm, "moffat", MOFFAT_BETA, SIZE, PIXEL_SCALE_ARCSEC)
        stamp[band] = convolve_psf(unit, transfer, SIZE) * np.float32(BAND_FLUX_NMGY[band])
    return stamp


def _errors(
    stamps: list[NDArray[np.float32]], references: list[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = list(zip(stamps, references, strict=True))
    flux = [abs(float(stamp.sum(dtype=np.float64) / exact.sum(dtype=np.float64)) - 1.0) for stamp, exact in pairs]
    pixel = [float(np.abs(stamp - exact).max() / exact.max()) for stamp, exact in pairs]
    return np.array(flux), np.array(pixel)


def _unit_render_rate(draws: list[Draw], rounds: int) -> float:
    start = time.process_time()
    for _ in range(rounds):
        for draw in draws:
            _unit_arc(draw, SIZE, PIXEL_SCALE_ARCSEC, 4)
    return rounds * len(draws) / (time.process_time() - start)


if __name__ == "__main__":
    main()
