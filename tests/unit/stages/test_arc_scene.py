"""Facts about a lens system as observed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.psf import psf_fwhm_arcsec, round_psf
from pipeline.kernels.render import StampGrid, render_arcs
from pipeline.stages.arc_scene import SCENE_METRICS, Observation, make_scene, sky_noise_nmgy
from pipeline.stages.lens_system import LensSystem


@pytest.fixture(scope="module")
def steep_system(lens_system: LensSystem) -> LensSystem:
    """The system with a lens that no isothermal shortcut serves."""
    return dataclasses.replace(lens_system, lens_slope=2.1)


def test_arcs_are_those_of_the_batch_renderer(steep_system: LensSystem, observation: Observation) -> None:
    """Stamps are unit arcs of `render_arcs` times the flux of each band."""
    scene = make_scene(steep_system, observation)
    fwhm = psf_fwhm_arcsec([1.3, 1.2, 1.1], "moffat", 3.5)
    unit = render_arcs(
        steep_system.draws(3), round_psf(fwhm, "moffat", 3.5, 64, PIXEL_SCALE_ARCSEC), StampGrid(64, PIXEL_SCALE_ARCSEC)
    )[0]
    flux = 10 ** (0.4 * (22.5 - np.array([22.3, 22.0, 21.8])))
    assert scene.flux_nmgy == pytest.approx(flux)
    assert scene.arcs_nmgy.dtype == np.float32
    assert scene.arcs_nmgy == pytest.approx(unit * flux[:, None, None], rel=1e-6)
    in_stamp = scene.arcs_nmgy.sum(axis=(1, 2), dtype=np.float64) / flux
    assert in_stamp == pytest.approx(np.full(3, scene.magnification), rel=5e-3)


def test_noise_follows_from_depth_and_seeing(observation: Observation) -> None:
    """A depth of 23.9 at 1.2 arcsec: a point source of 5 sigma, so sigma_F = 0.055085 nmgy over sqrt(N_eff)."""
    n_eff = 4.0 * math.pi * (1.2 / 2.3548 / PIXEL_SCALE_ARCSEC) ** 2
    assert observation.sigma_nmgy[1] == pytest.approx(0.055085 / math.sqrt(n_eff), rel=1e-4)


def test_snr_is_measured_at_constant_invvar(steep_system: LensSystem, observation: Observation) -> None:
    """Peak, matched and aperture SNR follow from arc and sigma; all metrics are there and obey their order."""
    scene = make_scene(steep_system, observation)
    assert tuple(scene.snr) == SCENE_METRICS
    arcs, sigma = scene.arcs_nmgy.astype(np.float64), observation.sigma_nmgy
    assert scene.snr["arc_snr"] == pytest.approx(arcs.max(axis=(1, 2)) / sigma, rel=1e-5)
    assert scene.snr["arc_snr_matched"] == pytest.approx(np.sqrt((arcs**2).sum(axis=(1, 2))) / sigma, rel=1e-5)
    assert scene.snr["arc_snr_sum"] == pytest.approx(arcs.sum(axis=(1, 2)) / (64 * sigma), rel=1e-5)
    assert scene.snr["arc_snr_annulus"] == pytest.approx(scene.snr["arc_snr_aperture"], rel=1e-5)
    for metric in SCENE_METRICS:
        assert (scene.snr[metric] <= scene.snr["arc_snr_matched"] * (1 + 1e-6)).all()


def test_linear_snr_is_proportional_to_flux(steep_system: LensSystem, observation: Observation) -> None:
    """2.5 mag fainter is a tenth of every linear SNR."""
    bright, faint = (make_scene(dataclasses.replace(steep_system, mag_r=mag), observation) for mag in (21.0, 23.5))
    for metric in SNR_METRICS:
        assert bright.snr[metric] == pytest.approx(10.0 * faint.snr[metric], rel=1e-5)


def test_extinction_dims_the_source(steep_system: LensSystem, observation: Observation) -> None:
    """E(B-V) 0.1 dims g by 0.3214 mag and z by 0.1211 mag."""
    clear = make_scene(steep_system, observation).flux_nmgy
    dimmed = make_scene(steep_system, dataclasses.replace(observation, ebv_mag=0.1)).flux_nmgy
    assert -2.5 * np.log10(dimmed / clear) == pytest.approx([0.3214, 0.2165, 0.1211])


def test_sky_noise_is_keyed_and_of_the_depth(observation: Observation) -> None:
    """The same seed gives the same noise, another seed or band another one; its scatter is sigma."""
    noise = sky_noise_nmgy(observation, 7)
    assert noise.shape == (3, 64, 64)
    assert noise.dtype == np.float32
    assert (noise == sky_noise_nmgy(observation, 7)).all()
    scaled = noise / observation.sigma_nmgy[:, None, None]
    assert scaled.std(axis=(1, 2)) == pytest.approx(np.ones(3), abs=0.04)
    assert abs(np.corrcoef(scaled[0].ravel(), scaled[1].ravel())[0, 1]) < 0.06
    other = sky_noise_nmgy(observation, 8)
    assert abs(np.corrcoef(noise[0].ravel(), other[0].ravel())[0, 1]) < 0.06
    with pytest.raises(ContractError, match="seed"):
        sky_noise_nmgy(observation, -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psfsize_arcsec": (1.3, 1.2)}, "psfsize_arcsec of bands g, r, z"),
        ({"psfsize_arcsec": (1.3, 1.2, 5.0)}, r"psfsize_arcsec in \[0.4, 4.0\]"),
        ({"depth_mag": (24.7, 23.9, math.nan)}, "depth_mag of bands"),
        ({"depth_mag": (24.7, 23.9, 400.0)}, "depth in magnitudes"),
        ({"ebv_mag": -0.1}, "ebv_mag >= 0"),
        ({"size_px": 63}, "even size_px"),
        ({"size_px": 258}, "even size_px"),
    ],
)
def test_observation_outside_its_range_is_an_error(
    change: dict[str, object], message: str, observation: Observation
) -> None:
    """Every number of an observation is checked."""
    with pytest.raises(ContractError, match=message):
        dataclasses.replace(observation, **change)
