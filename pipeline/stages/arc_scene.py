"""One lens system as a survey of some depth and seeing would show it: stamps, SNR, and planes for the eye.

The stamps come from `render_arcs`, as those of a training cube do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC, PSFSIZE_RANGE_ARCSEC, flux_nmgy_from_mag, mw_transmission
from pipeline.kernels.arc_properties import ArcShape, arc_shape
from pipeline.kernels.arc_snr import annulus_mask, arc_snr_linear, arc_snr_nonlinear, host_noise, sigma_pix_from_depth
from pipeline.kernels.critical_curves import CriticalCurves
from pipeline.kernels.psf import psf_fwhm_arcsec, round_psf
from pipeline.kernels.random import PURPOSE_NOISE, keyed_normal, task_keys
from pipeline.kernels.render import DEFAULT_ACCURACY, StampGrid, render_arcs
from pipeline.stages.lens_system import LensPlane, LensSystem, image_plane, source_plane, total_magnification

SCENE_BANDS = ("g", "r", "z")
SCENE_METRICS = (*SNR_METRICS, "arc_snr_region", "arc_snr_cumulative")
CORE_RADIUS_PX = 8.0
MAX_SIZE_PX = 256


@dataclass(frozen=True)
class Observation:
    """How the system is observed in g, r and z.

    Attributes:
        psfsize_arcsec: one per band, FWHM of the Gaussian of equal N_eff, 0.4 to 4. [arcsec]
        depth_mag: one per band, 5-sigma point-source depth, 15 to 30. [mag]
        ebv_mag: E(B-V) by which the source is dimmed, >= 0. [mag]
        size_px: side of the stamps, even, 16 to 256. [px]
        accuracy: as in `render_arcs`, which checks it.
        psf_profile: "moffat" or "gaussian". moffat_beta: > 1, read for the first only.

    Raises:
        ContractError: a number outside its range, or another count of bands.
    """

    psfsize_arcsec: tuple[float, ...]
    depth_mag: tuple[float, ...]
    ebv_mag: float = 0.0
    size_px: int = 64
    accuracy: float = DEFAULT_ACCURACY
    psf_profile: str = "moffat"
    moffat_beta: float = 3.5
    sigma_nmgy: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, values in (("psfsize_arcsec", self.psfsize_arcsec), ("depth_mag", self.depth_mag)):
            if len(values) != len(SCENE_BANDS) or not all(map(math.isfinite, values)):
                raise ContractError(f"observation: expected {name} of bands {', '.join(SCENE_BANDS)}, got {values}")
        low, high = PSFSIZE_RANGE_ARCSEC
        if not all(low <= value <= high for value in self.psfsize_arcsec):
            raise ContractError(f"observation: expected psfsize_arcsec in [{low}, {high}], got {self.psfsize_arcsec}")
        if not 0.0 <= self.ebv_mag < math.inf:
            raise ContractError(f"observation: expected ebv_mag >= 0, got {self.ebv_mag}")
        if not 16 <= self.size_px <= MAX_SIZE_PX or self.size_px % 2:
            raise ContractError(
                f"observation: expected an even size_px between 16 and {MAX_SIZE_PX}, got {self.size_px}"
            )
        sigma = sigma_pix_from_depth(self.depth_mag, self.psfsize_arcsec, PIXEL_SCALE_ARCSEC)
        object.__setattr__(self, "sigma_nmgy", sigma)


@dataclass(frozen=True)
class ArcScene:
    """A system as observed.

    Attributes:
        flux_nmgy: (band,) unlensed flux of the source, extinction applied. [nmgy]
        arcs_nmgy: (band, y, x) float32 arcs through the PSF, without noise. [nmgy/pixel]
        psf_fwhm_arcsec: (band,) half-maximum FWHM of the PSF. [arcsec]
        snr: metric -> (band,) values; the invvar is constant, 1 / sigma_nmgy**2.
        magnification: flux of all images over that of the source.
        shape: moments of the r arc about the lens, core radius CORE_RADIUS_PX.
        curves: relative to the lens centre. [arcsec]
        image_plane, source_plane: before the PSF, of a source of unit flux.
    """

    system: LensSystem
    observation: Observation
    flux_nmgy: NDArray[np.float64]
    arcs_nmgy: NDArray[np.float32]
    psf_fwhm_arcsec: NDArray[np.float64]
    snr: Mapping[str, NDArray[np.float64]]
    magnification: float
    shape: ArcShape
    curves: CriticalCurves
    image_plane: LensPlane
    source_plane: LensPlane


def make_scene(system: LensSystem, observation: Observation) -> ArcScene:
    """Render and measure one system.

    Raises:
        ContractError: an accuracy or PSF outside its range, or a lens that spreads its images beyond 1e4 arcsec.
    """
    size, bands = observation.size_px, len(SCENE_BANDS)
    profile, beta = observation.psf_profile, observation.moffat_beta
    fwhm = psf_fwhm_arcsec(observation.psfsize_arcsec, profile, beta)
    psf = round_psf(fwhm, profile, beta, size, PIXEL_SCALE_ARCSEC)
    unit = render_arcs(system.draws(bands), psf, StampGrid(size, PIXEL_SCALE_ARCSEC), observation.accuracy)[0]
    magnitudes = np.array([system.mag_r + system.gr, system.mag_r, system.mag_r - system.rz])
    transmission = [float(mw_transmission(np.array(observation.ebv_mag), band)) for band in SCENE_BANDS]
    flux = flux_nmgy_from_mag(magnitudes) * np.array(transmission)
    arcs = (unit * flux[:, None, None]).astype(np.float32)
    curves = system.curves()
    middle, red = size // 2, SCENE_BANDS.index("r")
    lens_px = (system.lens_x_arcsec / PIXEL_SCALE_ARCSEC, system.lens_y_arcsec / PIXEL_SCALE_ARCSEC)
    return ArcScene(
        system=system,
        observation=observation,
        flux_nmgy=flux,
        arcs_nmgy=arcs,
        psf_fwhm_arcsec=fwhm,
        snr=_measure_snr(arcs, observation.sigma_nmgy),
        magnification=total_magnification(system),
        shape=arc_shape(arcs[red], middle + lens_px[0], middle + lens_px[1], CORE_RADIUS_PX, PIXEL_SCALE_ARCSEC),
        curves=curves,
        image_plane=image_plane(system, curves),
        source_plane=source_plane(system, curves),
    )


def sky_noise_nmgy(observation: Observation, seed: int) -> NDArray[np.float32]:
    """Uncorrelated Gaussian sky noise of the depth, keyed by (seed, band, pixel). The arc's own is not in it.

    Returns:
        (band, y, x) float32. [nmgy/pixel]

    Raises:
        ContractError: a seed outside 0 to 2**63.
    """
    if not 0 <= seed < 2**63:
        raise ContractError(f"sky noise: expected a seed in [0, 2**63), got {seed}")
    key, size = task_keys(["sky of a drawn lens system"])[0], observation.size_px
    deviates = [
        keyed_normal(seed, key, PURPOSE_NOISE, pixel, band)
        for band in range(len(SCENE_BANDS))
        for pixel in range(size * size)
    ]
    noise = np.array(deviates).reshape(-1, size, size) * observation.sigma_nmgy[:, None, None]
    return noise.astype(np.float32)


def _measure_snr(arcs: NDArray[np.float32], sigma_nmgy: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    size = arcs.shape[-1]
    annulus = annulus_mask(size, size // 2, size // 2)
    values = []
    for arc, sigma in zip(arcs, sigma_nmgy, strict=True):
        noise = host_noise(np.full((size, size), sigma**-2, np.float32), annulus, sigma)
        values.append((*arc_snr_linear(arc, noise), *arc_snr_nonlinear(arc, noise.weight)))
    return dict(zip(SCENE_METRICS, np.array(values).T, strict=True))
