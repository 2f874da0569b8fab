"""A power-law lens with a Sersic source, from numbers: its curves, its magnification, its light before any PSF.

The planes are brightness at positions, not integrated over pixels: pictures for the eye, on which nothing is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from pipeline.contracts.errors import ContractError
from pipeline.kernels.arc_draws import KIND, LENS_X, LENS_Y, ArcDraws, sersic_arcs
from pipeline.kernels.critical_curves import CriticalCurves, critical_curves
from pipeline.kernels.fourier import MIN_KEPT
from pipeline.kernels.lensing import EPL_Q_MIN, epl_deflection
from pipeline.kernels.light import LIGHT_CONSTANTS, sersic_brightness, set_sersic
from pipeline.kernels.profiles import SERSIC_N_MAX, SERSIC_N_MIN, sersic_bn
from pipeline.kernels.rays import LENS_CONSTANTS, set_lens, shoot
from pipeline.kernels.render import render_spectrum, render_state

# Points of a plane along an axis; odd, so that one is the lens.
_PLANE_SAMPLES = 401
# Share of the flux inside the softened cusp of a picture.
_DISPLAY_CORE_SHARE = 1e-3
_MAGNIFICATION_SIZE_PX = 256
_MAGNIFICATION_ACCURACY = 1e-3
# Share of the source's flux that may lie beyond the area of the magnification.
_MAGNIFICATION_TAIL = 1e-4
_MAX_REACH_ARCSEC = 1e4
_ANGLES = 256
_NO_FIELD = np.zeros((2, 4, 4), np.float32)

# Name of a number of `LensSystem`: what it must be, in words and as limits (low, high, low is allowed).
_RANGES = {
    "theta_e_arcsec": ("> 0", 0.0, math.inf, False),
    "lens_q": (f"in [{EPL_Q_MIN}, 1]", EPL_Q_MIN, 1.0, True),
    "lens_slope": ("between 1 and 3", 1.0, math.nextafter(3.0, 0.0), False),
    "src_re_arcsec": ("> 0", 0.0, math.inf, False),
    "src_n": (f"in [{SERSIC_N_MIN}, {SERSIC_N_MAX}]", SERSIC_N_MIN, SERSIC_N_MAX, True),
    "src_q": ("in (0, 1]", 0.0, 1.0, False),
}


@dataclass(frozen=True)
class LensSystem:
    """A power-law lens in external shear and a single Sersic source.

    Lengths are arcsec, position angles run from +x to +y. The lens centre is relative to the centre of pixel
    size // 2 of the stamp, the source to the lens. Magnitudes are AB, unlensed, before Galactic extinction.

    Attributes:
        theta_e_arcsec: intermediate-axis Einstein radius, > 0. [arcsec]
        lens_q: axis ratio of the convergence, 0.05 to 1.
        lens_phi_rad: position angle of its major axis. [rad]
        lens_slope: density slope, between 1 and 3; 2 is isothermal.
        shear_gamma1, shear_gamma2: external shear, |gamma| < 1.
        src_re_arcsec: half-light radius along the major axis, > 0. [arcsec]
        src_n: Sersic index, 0.3 to 8.
        src_q: axis ratio, 0 < q <= 1.
        src_phi_rad: position angle of the source's major axis. [rad]
        mag_r, gr, rz: r magnitude and colours g - r, r - z. [mag]

    Raises:
        ContractError: a number outside its range, or not finite.
    """

    theta_e_arcsec: float
    lens_q: float
    lens_phi_rad: float
    lens_slope: float
    shear_gamma1: float
    shear_gamma2: float
    lens_x_arcsec: float
    lens_y_arcsec: float
    src_x_arcsec: float
    src_y_arcsec: float
    src_re_arcsec: float
    src_n: float
    src_q: float
    src_phi_rad: float
    mag_r: float
    gr: float
    rz: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            words, low, high, low_allowed = _RANGES.get(name, ("finite", -math.inf, math.inf, False))
            if not (math.isfinite(value) and low <= value <= high and (low_allowed or value > low)):
                raise ContractError(f"lens system: expected {name} {words}, got {value}")
        if not math.hypot(self.shear_gamma1, self.shear_gamma2) < 1.0:
            raise ContractError(
                f"lens system: expected |gamma| < 1, got gamma1 {self.shear_gamma1}, gamma2 {self.shear_gamma2}"
            )

    def draws(self, bands: int) -> ArcDraws:
        """The system as one row of draws for the renderer."""
        return sersic_arcs(
            bands,
            theta_e_arcsec=self.theta_e_arcsec,
            lens_q=self.lens_q,
            lens_phi_rad=self.lens_phi_rad,
            lens_slope=self.lens_slope,
            gamma1=self.shear_gamma1,
            gamma2=self.shear_gamma2,
            lens_x_arcsec=self.lens_x_arcsec,
            lens_y_arcsec=self.lens_y_arcsec,
            src_x_arcsec=self.src_x_arcsec,
            src_y_arcsec=self.src_y_arcsec,
            src_re_arcsec=self.src_re_arcsec,
            src_n=self.src_n,
            src_q=self.src_q,
            src_phi_rad=self.src_phi_rad,
        )

    def curves(self) -> CriticalCurves:
        """Critical curves and caustics relative to the lens centre. [arcsec]"""
        return critical_curves(
            self.theta_e_arcsec, self.lens_q, self.lens_phi_rad, self.lens_slope, self.shear_gamma1, self.shear_gamma2
        )


@dataclass(frozen=True)
class LensPlane:
    """Brightness at the points of a square grid about the lens.

    brightness: (y, x) float32, of a source of unit flux. [arcsec^-2]
    axis_arcsec: (sample,) float64 positions of the columns and of the rows, relative to the lens. [arcsec]
    """

    brightness: NDArray[np.float32]
    axis_arcsec: NDArray[np.float64]


def total_magnification(system: LensSystem) -> float:
    """Flux of all images over the flux of the source, on a grid that holds all but 1e-4 of the source's light.

    Raises:
        ContractError: images beyond 1e4 arcsec, as of a slope near 1 or a shear near 1.
    """
    half_width = _image_reach_arcsec(system)
    scale = 2.0 * half_width / (_MAGNIFICATION_SIZE_PX - 2)
    draws = system.draws(1)
    lens = draws.lens[0].copy()
    lens[LENS_X] = lens[LENS_Y] = 0.0
    spectra = np.empty((1, 2 * MIN_KEPT - 1, 2 * MIN_KEPT - 1), np.float32)
    state = render_state(_MAGNIFICATION_SIZE_PX)
    render_spectrum(
        lens, draws.components[0], draws.templates, draws.template_scale_arcsec, draws.fields[0], scale,
        _MAGNIFICATION_ACCURACY, MIN_KEPT, state, spectra,
    )  # fmt: skip
    return float(spectra[0, 0, 0])


def _image_reach_arcsec(system: LensSystem) -> float:
    """Radius, outside the critical curves, beyond which every ray misses the source."""
    tail = (
        system.src_re_arcsec
        * (float(gammaincinv(2.0 * system.src_n, 1.0 - _MAGNIFICATION_TAIL)) / sersic_bn(system.src_n)) ** system.src_n
    )
    edge = math.hypot(system.src_x_arcsec, system.src_y_arcsec) + tail
    angle = 2.0 * np.pi * np.arange(_ANGLES) / _ANGLES
    c, s = np.cos(angle), np.sin(angle)
    unit = np.array(
        [
            epl_deflection(x, y, system.theta_e_arcsec, system.lens_q, system.lens_phi_rad, system.lens_slope)
            for x, y in zip(c, s, strict=True)
        ]
    )
    g1, g2 = system.shear_gamma1, system.shear_gamma2
    reach = max(edge, float(np.hypot(*system.curves().tangential.T).max()))
    while reach < _MAX_REACH_ARCSEC:
        growth = reach ** (2.0 - system.lens_slope)
        x = reach * ((1.0 - g1) * c - g2 * s) - growth * unit[:, 0]
        y = reach * ((1.0 + g1) * s - g2 * c) - growth * unit[:, 1]
        if np.hypot(x, y).min() > edge:
            return float(reach)
        reach *= 1.05
    raise ContractError(
        f"magnification: expected images within {_MAX_REACH_ARCSEC:g} arcsec, got a lens with "
        f"lens_slope {system.lens_slope}, gamma1 {g1}, gamma2 {g2} that spreads them further"
    )


def image_plane(system: LensSystem, curves: CriticalCurves) -> LensPlane:
    """Brightness of the lensed source in a square that holds the critical curves and the main images."""
    extent = float(np.abs(curves.tangential).max())
    extent += math.hypot(system.src_x_arcsec, system.src_y_arcsec) + 3.0 * system.src_re_arcsec
    return _plane(system, extent, system.theta_e_arcsec, system.shear_gamma1, system.shear_gamma2)


def source_plane(system: LensSystem, curves: CriticalCurves) -> LensPlane:
    """Brightness of the unlensed source in a square that holds it and its caustics."""
    extent = math.hypot(system.src_x_arcsec, system.src_y_arcsec) + 2.0 * system.src_re_arcsec
    for caustic in (curves.tangential_caustic, curves.radial_caustic):
        extent = max(extent, 1.08 * float(np.abs(caustic).max(initial=0.0)))
    return _plane(system, extent, 0.0, 0.0, 0.0)


def _plane(
    system: LensSystem, half_width_arcsec: float, theta_e_arcsec: float, gamma1: float, gamma2: float
) -> LensPlane:
    kind = int(system.draws(1).lens[0, KIND])
    lens, light = np.zeros(LENS_CONSTANTS), np.zeros(LIGHT_CONSTANTS)
    set_lens(
        kind, theta_e_arcsec, system.lens_q, system.lens_phi_rad, system.lens_slope, gamma1, gamma2,
        system.src_x_arcsec, system.src_y_arcsec, lens,
    )  # fmt: skip
    set_sersic(
        system.src_re_arcsec, system.src_n, system.src_q, system.src_phi_rad, 0.0, 0.0, system.lens_phi_rad, 1.0,
        _DISPLAY_CORE_SHARE, light,
    )  # fmt: skip
    axis = np.linspace(-half_width_arcsec, half_width_arcsec, _PLANE_SAMPLES)
    x, y = (np.ascontiguousarray(positions.ravel(), np.float32) for positions in np.meshgrid(axis, axis))
    src_x, src_y, brightness = (np.empty(x.size, np.float32) for _ in range(3))
    shoot(kind, x, y, x.size, lens, _NO_FIELD, src_x, src_y)
    sersic_brightness(src_x, src_y, x.size, light, brightness)
    return LensPlane(brightness.reshape(axis.size, axis.size), axis)
