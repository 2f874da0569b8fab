"""What `render.py` renders: draws, PSFs, a galaxy image, and the converged images that errors are taken from.

Conventions are those of `pipeline.kernels`: a stamp's pixel size // 2 is at (0, 0), Re lies along the major axis,
b_n is exact, shear is centred on the lens, the source has unit flux. Peers get the same light in their own words.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import COMPONENT_COLUMNS, MIRROR, PHI, PROFILE, ArcDraws, sersic_arcs
from pipeline.kernels.light import IMAGE
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor
from pipeline.kernels.psf import psf_fwhm_arcsec, psf_kernel

SIZE = 64
BANDS = ("g", "r", "z")
FWHM_ARCSEC = (1.3, 1.2, 1.1)
MOFFAT_BETA = 3.5
# Kernels of 33x33 px for the peers: 99.9 % of the light, and what keeps their convolutions cheap.
KERNEL_HALF_WIDTH_PX = 16
# Draws that peers are timed on, and that vectorised ones take in one call: more of them leave the caches.
PEER_BATCH = 64
GALAXY_SIZE, GALAXY_SCALE_ARCSEC = 128, 0.03
REFERENCE_ARCS = Path(__file__).parents[1] / "tests" / "data" / "reference_arcs.npz"
_REFERENCE_PEAK = 65000.0
# Cells and samples a pixel of the brute-force images of galaxies.
_CELLS, _SAMPLES = 16, 3

Draw = dict[str, float]
Images = NDArray[np.float32]
PARAMETERS = (
    "theta_e_arcsec", "lens_q", "lens_phi_rad", "gamma1", "gamma2", "lens_x_arcsec", "lens_y_arcsec", "src_x_arcsec",
    "src_y_arcsec", "src_re_arcsec", "src_n", "src_q", "src_phi_rad",
)  # fmt: skip


class Reference(NamedTuple):
    """Draws with their converged images through a Moffat PSF each.

    draws: parameters. psfsize_arcsec: (n,) of each PSF. images: (n, y, x) float64.
    regular: (n,) bool, n <= 4 and Re >= 0.08 arcsec.
    """

    draws: list[Draw]
    psfsize_arcsec: NDArray[np.float64]
    images: NDArray[np.float64]
    regular: NDArray[np.bool_]


def common_draws(count: int, seed: int) -> list[Draw]:
    """Galaxy-scale lenses and faint blue sources, as the published timings of the peers draw them."""
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(count):
        theta_e_arcsec = generator.uniform(0.75, 2.5)
        shear, shear_rad = generator.uniform(0.0, 0.08), generator.uniform(0.0, math.pi)
        offset = 0.45 * theta_e_arcsec * math.sqrt(generator.uniform())
        azimuth = generator.uniform(0.0, 2.0 * math.pi)
        values = (
            theta_e_arcsec,
            generator.uniform(0.5, 0.98),
            generator.uniform(0.0, math.pi),
            shear * math.cos(2.0 * shear_rad),
            shear * math.sin(2.0 * shear_rad),
            *generator.uniform(-0.1, 0.1, 2).tolist(),
            offset * math.cos(azimuth),
            offset * math.sin(azimuth),
            math.exp(generator.uniform(math.log(0.08), math.log(0.5))),
            generator.uniform(0.7, 3.0),
            generator.uniform(0.4, 1.0),
            generator.uniform(0.0, math.pi),
        )
        draws.append(dict(zip(PARAMETERS, values, strict=True)))
    return draws


def load_reference(count: int) -> Reference:
    """The first `count` of the reference arcs of the tests."""
    with np.load(REFERENCE_ARCS) as stored:
        columns = {name: stored[name][:count] for name in (*PARAMETERS, "psfsize_arcsec", "peak")}
        images = stored["image"][:count] * (columns["peak"] / _REFERENCE_PEAK)[:, None, None]
    draws = [{name: float(columns[name][k]) for name in PARAMETERS} for k in range(len(images))]
    regular = (columns["src_n"] <= 4.0) & (columns["src_re_arcsec"] >= 0.08)
    return Reference(draws, columns["psfsize_arcsec"], images, regular)


def arc_table(draws: list[Draw], bands: int) -> ArcDraws:
    """The draws as `render_arcs` takes them."""
    columns = {name: np.array([draw[name] for draw in draws]) for name in PARAMETERS}
    return sersic_arcs(bands, **columns)


def galaxy_table(draws: list[Draw], bands: int) -> ArcDraws:
    """The same lenses before `galaxy_image`, turned by each source's position angle."""
    lens = arc_table(draws, bands).lens
    components = np.zeros((len(draws), 1, COMPONENT_COLUMNS))
    components[:, 0, PROFILE], components[:, 0, MIRROR] = IMAGE, 1.0
    components[:, 0, PHI] = [draw["src_phi_rad"] for draw in draws]
    template = galaxy_image().astype(np.float32)[None]
    return ArcDraws(lens, components, np.ones((len(draws), 1, bands)), template, GALAXY_SCALE_ARCSEC)


@cache
def galaxy_image() -> NDArray[np.float64]:
    """A disc with a bulge and two arms of star-forming clumps: (GALAXY_SIZE, GALAXY_SIZE), of unit sum, edges 0."""
    generator = np.random.default_rng(7)
    axis = np.arange(GALAXY_SIZE) - 0.5 * (GALAXY_SIZE - 1)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    inclined = np.hypot(x, y / 0.6)
    image = np.exp(-inclined / 12.0) + 6.0 * np.exp(-(np.hypot(x, y / 0.8) ** 2) / (2.0 * 2.5**2))
    for clump in range(16):
        radius, arm = generator.uniform(6.0, 36.0), math.pi * (clump % 2)
        turn = arm + 0.09 * radius + generator.normal(0.0, 0.15)
        clump_x, clump_y = radius * math.cos(turn), 0.6 * radius * math.sin(turn)
        width = generator.uniform(1.2, 2.5)
        squared = (x - clump_x) ** 2 + (y - clump_y) ** 2
        image += generator.uniform(0.2, 1.0) * np.exp(-0.5 * squared / width**2)
    image *= np.clip((0.5 * GALAXY_SIZE - 1.0 - np.hypot(x, y)) / 8.0, 0.0, 1.0)
    return np.asarray(image / image.sum())


def moffat_kernel(fwhm_arcsec: float) -> NDArray[np.float64]:
    """The kernel that peers convolve with."""
    return psf_kernel(fwhm_arcsec, "moffat", MOFFAT_BETA, KERNEL_HALF_WIDTH_PX, PIXEL_SCALE_ARCSEC)


def reference_kernels(reference: Reference) -> list[NDArray[np.float64]]:
    """That kernel for the PSF of every reference draw."""
    fwhm_arcsec = psf_fwhm_arcsec(reference.psfsize_arcsec, "moffat", MOFFAT_BETA)
    return [moffat_kernel(float(value)) for value in fwhm_arcsec]


def lenstronomy_lens(draw: Draw) -> list[dict[str, Any]]:
    """Arguments of SIE and SHEAR; jaxtronomy takes the same."""
    x, y = draw["lens_x_arcsec"], draw["lens_y_arcsec"]
    sie = {"theta_E": draw["theta_e_arcsec"], "center_x": x, "center_y": y}
    shear = {"gamma1": draw["gamma1"], "gamma2": draw["gamma2"], "ra_0": x, "dec_0": y}
    return [sie | _ellipticity(draw["lens_q"], draw["lens_phi_rad"]), shear]


def lenstronomy_sersic(draw: Draw) -> list[dict[str, Any]]:
    """Arguments of SERSIC_ELLIPSE: radius sqrt(a b), rescaled to its approximate b_n so that the light is the same."""
    n, b = draw["src_n"], 1.9992 * draw["src_n"] - 0.3271
    radius_arcsec = draw["src_re_arcsec"] * math.sqrt(draw["src_q"]) * (b / sersic_bn(n)) ** n
    amplitude = 1.0 / (sersic_flux_factor(n, b) * radius_arcsec**2)
    sersic = {"amp": amplitude, "R_sersic": radius_arcsec, "n_sersic": n} | source_centre(draw)
    return [sersic | _ellipticity(draw["src_q"], draw["src_phi_rad"])]


def lenstronomy_interpol(draw: Draw) -> list[dict[str, Any]]:
    """Arguments of INTERPOL for `galaxy_image`, which it takes per square arcsec."""
    interpol = {"image": galaxy_image(), "amp": GALAXY_SCALE_ARCSEC**-2, "scale": GALAXY_SCALE_ARCSEC}
    return [interpol | {"phi_G": draw["src_phi_rad"]} | source_centre(draw)]


def source_centre(draw: Draw) -> dict[str, float]:
    """Source position in the stamp, in lenstronomy's words. [arcsec]"""
    return {
        "center_x": draw["lens_x_arcsec"] + draw["src_x_arcsec"],
        "center_y": draw["lens_y_arcsec"] + draw["src_y_arcsec"],
    }


def galaxy_reference(draw: Draw, fwhm_arcsec: float) -> NDArray[np.float64]:
    """Brute force in float64: 48x48 samples a pixel, and the PSF on a grid of 16x16 cells a pixel."""
    fine = _CELLS * _SAMPLES
    step = PIXEL_SCALE_ARCSEC / fine
    axis = (np.arange(SIZE * fine) + 0.5) * step - (SIZE // 2 + 0.5) * PIXEL_SCALE_ARCSEC
    lens, source = LensModel(["SIE", "SHEAR"]), LightModel(["INTERPOL"])
    lens_arguments, source_arguments = lenstronomy_lens(draw), lenstronomy_interpol(draw)
    cells = np.empty((SIZE * _CELLS, SIZE * _CELLS))
    for k in range(SIZE):
        y, x = np.meshgrid(axis[k * fine : (k + 1) * fine], axis, indexing="ij")
        beta_x, beta_y = lens.ray_shooting(x.ravel(), y.ravel(), lens_arguments)
        light = source.surface_brightness(beta_x, beta_y, source_arguments) * step**2
        summed = light.reshape(_CELLS, _SAMPLES, SIZE * _CELLS, _SAMPLES).sum(axis=(1, 3))
        cells[k * _CELLS : (k + 1) * _CELLS] = summed
    alpha = fwhm_arcsec / (2.0 * math.sqrt(2.0 ** (1.0 / MOFFAT_BETA) - 1.0)) / PIXEL_SCALE_ARCSEC * _CELLS
    offset2 = ((np.arange(-SIZE * _CELLS // 2, SIZE * _CELLS // 2) + 0.5) / alpha) ** 2
    kernel = (1.0 + offset2[:, None] + offset2[None, :]) ** -MOFFAT_BETA
    convolved = fftconvolve(cells, kernel * (_CELLS**2 / kernel.sum()))
    # Pixel centres are corners of cells; entry t lies t - 511 cells from the stamp's edge.
    centres = slice(SIZE * _CELLS // 2 + _CELLS // 2 - 1, None, _CELLS)
    return np.asarray(convolved[centres, centres][:SIZE, :SIZE])


def _ellipticity(q: float, phi_rad: float) -> dict[str, float]:
    e = (1.0 - q) / (1.0 + q)
    return {"e1": e * math.cos(2.0 * phi_rad), "e2": e * math.sin(2.0 * phi_rad)}
