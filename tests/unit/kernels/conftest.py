"""Draws, PSFs and magnifications that the tests of the renderer share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import LENS_COLUMNS, LENS_Q, MIRROR, PHI, PROFILE, ArcDraws, sersic_arcs
from pipeline.kernels.fourier import MIN_KEPT
from pipeline.kernels.light import IMAGE
from pipeline.kernels.psf import DEFAULT_NEGLECTED, StampPsf, psf_fwhm_arcsec, round_psf
from pipeline.kernels.render import render_spectrum, render_state

ROUND_SOURCE = {
    "theta_e_arcsec": 0.0,
    "lens_q": 1.0,
    "lens_phi_rad": 0.0,
    "gamma1": 0.0,
    "gamma2": 0.0,
    "lens_x_arcsec": 0.0,
    "lens_y_arcsec": 0.0,
    "src_x_arcsec": 0.0,
    "src_y_arcsec": 0.0,
    "src_re_arcsec": 0.3,
    "src_n": 1.0,
    "src_q": 1.0,
    "src_phi_rad": 0.0,
}


@pytest.fixture(scope="session")
def make_arcs() -> Callable[..., ArcDraws]:
    """A round unlensed exponential source of Re 0.3 arcsec; keyword arguments are those of `sersic_arcs`."""

    def make(bands: int = 1, **replaced: ArrayLike) -> ArcDraws:
        arguments: dict[str, Any] = {**ROUND_SOURCE, **replaced}
        return sersic_arcs(bands, **arguments)

    return make


@pytest.fixture(scope="session")
def random_arcs() -> Callable[[int, int], ArcDraws]:
    """(count, seed) draws in three bands over theta_E 0.3-3, q 0.3-1, shear to 0.1, Re 0.05-0.6, n 0.5-6."""

    def make(count: int, seed: int) -> ArcDraws:
        generator = np.random.default_rng(seed)
        theta_e = generator.uniform(0.3, 3.0, count)
        shear, shear_phi = generator.uniform(0.0, 0.1, count), generator.uniform(0.0, 2 * np.pi, count)
        offset, azimuth = theta_e * np.sqrt(generator.uniform(size=count)), generator.uniform(0.0, 2 * np.pi, count)
        return sersic_arcs(
            3,
            theta_e_arcsec=theta_e,
            lens_q=generator.uniform(0.3, 1.0, count),
            lens_phi_rad=generator.uniform(0.0, np.pi, count),
            gamma1=shear * np.cos(shear_phi),
            gamma2=shear * np.sin(shear_phi),
            lens_x_arcsec=generator.uniform(-0.131, 0.131, count),
            lens_y_arcsec=generator.uniform(-0.131, 0.131, count),
            src_x_arcsec=offset * np.cos(azimuth),
            src_y_arcsec=offset * np.sin(azimuth),
            src_re_arcsec=np.exp(generator.uniform(np.log(0.05), np.log(0.6), count)),
            src_n=generator.uniform(0.5, 6.0, count),
            src_q=generator.uniform(0.3, 1.0, count),
            src_phi_rad=generator.uniform(0.0, np.pi, count),
        )

    return make


@pytest.fixture(scope="session")
def make_image_arc() -> Callable[..., ArcDraws]:
    """An image source (template of unit sum, scale, angle, handedness); `lens` replaces columns of the lens table."""

    def make(
        template: NDArray[np.float64],
        scale_arcsec: float,
        phi_rad: float = 0.0,
        mirror: float = 1.0,
        lens: dict[int, float] | None = None,
    ) -> ArcDraws:
        row = np.zeros((1, LENS_COLUMNS))
        row[0, LENS_Q] = 1.0
        for column, value in (lens or {}).items():
            row[0, column] = value
        component = np.zeros((1, 1, 7))
        component[0, 0, PROFILE], component[0, 0, PHI], component[0, 0, MIRROR] = IMAGE, phi_rad, mirror
        unit = (template / template.sum()).astype(np.float32)[None]
        return ArcDraws(row, component, np.ones((1, 1, 1)), unit, scale_arcsec)

    return make


@pytest.fixture(scope="session")
def make_psf() -> Callable[..., StampPsf]:
    """PSFs of some psfsize values, one a band: Moffat of beta 3.5 unless said otherwise."""

    def make(
        psfsize_arcsec: Sequence[float],
        profile: str = "moffat",
        beta: float = 3.5,
        size: int = 64,
        pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
        neglected: float = DEFAULT_NEGLECTED,
    ) -> StampPsf:
        fwhm = psf_fwhm_arcsec(psfsize_arcsec, profile, beta)
        return round_psf(fwhm, profile, beta, size, pixel_scale_arcsec, neglected)

    return make


@pytest.fixture(scope="session")
def integrate() -> Callable[..., tuple[NDArray[np.float64], float]]:
    """Flux of each draw on a stamp before the PSF, and the number of brightness evaluations of all of them."""

    def run(
        draws: ArcDraws, size: int = 96, pixel_scale_arcsec: float = 0.1, accuracy: float = 1e-3
    ) -> tuple[NDArray[np.float64], float]:
        state = render_state(size, draws.components.shape[1])
        side = 2 * MIN_KEPT - 1
        spectra = np.empty((draws.components.shape[1], side, side), np.float32)
        flux, evaluations = np.empty(draws.lens.shape[0]), 0.0
        for sample in range(flux.size):
            evaluations += render_spectrum(
                draws.lens[sample], draws.components[sample], draws.templates, draws.template_scale_arcsec,
                draws.fields[min(sample, len(draws.fields) - 1)], pixel_scale_arcsec, accuracy, MIN_KEPT,
                state, spectra,
            )  # fmt: skip
            flux[sample] = draws.shares[sample, :, 0] @ spectra[:, 0, 0].astype(np.float64)
        return flux, evaluations

    return run
