"""Compile, or load from the cache, every kernel of the injection, so that no task waits for it."""

from __future__ import annotations

import time

import numpy as np

from pipeline.kernels.arc_draws import sersic_arcs
from pipeline.kernels.arc_noise import arc_shot_noise
from pipeline.kernels.arc_properties import arc_shape, lensed_half_light_radius_arcsec
from pipeline.kernels.arc_snr import annulus_mask, arc_snr_linear, arc_snr_nonlinear, good_weight, host_noise
from pipeline.kernels.compiled import compiling_alone
from pipeline.kernels.psf import psf_fwhm_arcsec, round_psf
from pipeline.kernels.random import PURPOSE_PRIOR, keyed_uniform
from pipeline.kernels.render import (
    DEFAULT_ACCURACY,
    StampGrid,
    render_arcs,
    render_spectrum,
    render_stamps,
    render_state,
)

_SIZE = 16
_SCALE_ARCSEC = 0.262


def warm_up() -> float:
    """Run every injection kernel once on a small stamp; one process of the machine at a time.

    To be called before any of them runs otherwise, so that all processes run the same machine code.

    Returns:
        Wall seconds it took: one or two from the cache, a minute when everything is compiled.
    """
    started = time.perf_counter()
    with compiling_alone():
        _run_kernels()
    return time.perf_counter() - started


def _run_kernels() -> None:
    draws = sersic_arcs(
        1, theta_e_arcsec=1.0, lens_q=0.8, lens_phi_rad=0.1, gamma1=0.01, gamma2=0.02, lens_x_arcsec=0.0,
        lens_y_arcsec=0.0, src_x_arcsec=0.1, src_y_arcsec=0.1, src_re_arcsec=0.2, src_n=1.0, src_q=0.7, src_phi_rad=0.3,
    )  # fmt: skip
    psf = round_psf(psf_fwhm_arcsec([1.3], "moffat", 3.5), "moffat", 3.5, _SIZE, _SCALE_ARCSEC)
    render_arcs(draws, psf, StampGrid(_SIZE, _SCALE_ARCSEC))
    state, side = render_state(_SIZE), psf.transfer.shape[2]
    spectra = np.empty((1, side, side), np.float32)
    stamps = np.empty((1, _SIZE, _SIZE), np.float32)
    render_spectrum(
        draws.lens[0], draws.components[0], draws.templates, 1.0, draws.fields[0], _SCALE_ARCSEC, DEFAULT_ACCURACY,
        (side + 1) // 2, state, spectra,
    )  # fmt: skip
    render_stamps(spectra, draws.shares[0], psf.transfer, psf.kept, state.basis, stamps)
    arc = stamps[0]
    invvar = np.ones_like(arc)
    weight = good_weight(invvar, np.zeros(arc.shape, np.int32), 0)
    centre = float(_SIZE // 2)
    noise = host_noise(weight, annulus_mask(_SIZE, centre, centre), 1.0)
    arc_snr_linear(arc, noise)
    arc_snr_nonlinear(arc, weight)
    light = np.maximum(arc, np.float32(0.0))
    arc_shot_noise(light, invvar, 1.0, np.uint64(0), np.uint64(1), 0)
    arc_shape(light, centre, centre, 4.0, _SCALE_ARCSEC)
    lensed_half_light_radius_arcsec(light, _SCALE_ARCSEC)
    keyed_uniform(np.uint64(0), np.uint64(1), PURPOSE_PRIOR, 0, 0)
