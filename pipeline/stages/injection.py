"""Injection: from a shard of cutouts to a shard of the training cube.

One unit-flux render per draw gives the SNR per unit flux in the metric band; the flux then follows
from the assigned SNR, and the accepted draw is convolved and added in every band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.survey import BAD_PIXEL_MASK, PIXEL_SCALE_ARCSEC, flux_nmgy_from_mag, mw_transmission
from pipeline.kernels.arc_noise import arc_shot_noise, default_sky_nmgy
from pipeline.kernels.arc_snr import (
    HostNoise,
    annulus_mask,
    arc_snr_linear,
    arc_snr_nonlinear,
    good_weight,
    host_noise,
    sigma_pix_from_depth,
)
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.random import (
    PURPOSE_ACCEPT,
    PURPOSE_PILOT,
    PURPOSE_PRIOR,
    PURPOSE_TARGET,
    keyed_uniform,
)
from pipeline.stages.arcs import ArcRenderer, InjectionAssets, UnitArc
from pipeline.stages.draws import ArcDraw, frozen_arc
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.samplers import ArcSampler, Refused, Trial
from pipeline.stages.sampling import Pilot

# Share of an arc's flux that its band limit may leave in a pixel without any, with a margin.
_ROUNDING = 1e-5
_HOST_INPUTS = (
    "brickname", "ebv_mag", "psfsize_arcsec", "psfdepth_r_mag", "centre_dx_px", "centre_dy_px", "invvar", "maskbits",
)  # fmt: skip


@dataclass(frozen=True)
class Host:
    """One usable stamp and what rendering onto it needs."""

    noise: HostNoise
    sharpest: float
    centre_px: tuple[float, float]
    transmission: NDArray[np.float64]
    psf: StampPsf
    psfsize_arcsec: float
    task_key: np.uint64


@dataclass(frozen=True)
class Accepted:
    """An accepted draw: its flux scale is contained in the draw's magnitude."""

    draw: ArcDraw
    unit_arc: UnitArc
    snr_target: float
    attempts: int
    weight_prior: float
    outside_prior: bool = False


class Injector:
    """Draws, renders and accepts arcs for hosts, as a configuration says. Pure: keyed randomness only.

    Args:
        pilot: needed by `sampling.hosts: pooled`, and to leave out unreachable bins of the target.
        drawing_only: without a sampler, to make the draws that a pilot is estimated from.
    """

    def __init__(
        self, config: RunConfig, pilot: Pilot | None, assets: InjectionAssets, drawing_only: bool = False
    ) -> None:
        self.config = config
        self.run_seed = np.uint64(config.run.seed)
        self.renders = 0
        section, priors = config.sampling, config.injection.priors
        self._sampler = (
            None
            if section.method == "none" or priors is None or drawing_only
            else ArcSampler(section, MagnitudePrior(priors.src_mag_r), pilot)
        )
        self.bands = config.survey.bands
        self.metric_band = self.bands.index(section.band)
        self.metric = SNR_METRICS.index(section.metric)
        self.renderer = ArcRenderer(config, assets)
        noise = config.injection.arc_noise
        self.sky_nmgy = (
            None
            if noise is None
            else np.array(
                [noise.sky_nmgy[band] if band in noise.sky_nmgy else default_sky_nmgy(band) for band in self.bands]
            )
        )

    @property
    def sampler(self) -> ArcSampler:
        """The configured sampler; ValueError where there is none: method none has no SNR target."""
        if self._sampler is None:
            raise ValueError("sampling.method: none has no SNR target, and an injector for drawing no sampler")
        return self._sampler

    def work(self) -> dict[str, float]:
        """Counters since this injector was made; they add up over shards."""
        counts = {} if self._sampler is None else self._sampler.work.counts()
        return {"renders": float(self.renders), **counts}

    def host(self, cutouts: xr.Dataset, index: int, task_key: np.uint64) -> Host | str:
        """Prepare one row of a cutouts shard for rendering; the reject reason if it lacks a number it needs."""
        # Variables hold their arrays; to build a DataArray for every number of a row costs more than its arc.
        row = {name: cutouts.variables[name].values[index] for name in _HOST_INPUTS}
        ebv = float(row["ebv_mag"])
        dimmed = self.config.injection.extinction
        if dimmed and not math.isfinite(ebv):
            return "ebv_missing"
        psfsize_arcsec = row["psfsize_arcsec"]
        psf = self.renderer.psf(psfsize_arcsec, str(row["brickname"]))
        if isinstance(psf, str):
            return psf
        centre_px = (float(row["centre_dx_px"]), float(row["centre_dy_px"]))
        size = self.config.survey.stamp_size_px
        invvar = row["invvar"][self.metric_band]
        depth_mag = float(row["psfdepth_r_mag"])
        has_depth = self.bands[self.metric_band] == "r" and math.isfinite(depth_mag)
        sigma_pix_nmgy = (
            float(sigma_pix_from_depth(depth_mag, psfsize_arcsec[self.metric_band], PIXEL_SCALE_ARCSEC))
            if has_depth
            else math.nan
        )
        return Host(
            noise=host_noise(
                good_weight(invvar, row["maskbits"], BAD_PIXEL_MASK),
                annulus_mask(size, size // 2 + centre_px[0], size // 2 + centre_px[1]),
                sigma_pix_nmgy,
            ),
            sharpest=math.sqrt(max(float(np.nanmax(invvar, initial=0.0)), 0.0)),
            centre_px=centre_px,
            transmission=np.array(
                [float(mw_transmission(np.array(ebv), band)) if dimmed else 1.0 for band in self.bands]
            ),
            psf=psf,
            psfsize_arcsec=float(psfsize_arcsec[self.metric_band]),
            task_key=task_key,
        )

    def render(self, host: Host, draw: ArcDraw) -> UnitArc:
        """Lensed source of unit unlensed flux before the PSF."""
        self.renders += 1
        return self.renderer.render(draw, host.psf, host.psfsize_arcsec)

    def snr(self, host: Host, arc: NDArray[np.float32]) -> tuple[float, ...]:
        """The linear SNR columns, in the order of SNR_METRICS, of an arc (y, x) in the metric band. [arc: nmgy]"""
        return tuple(float(value) for value in arc_snr_linear(arc, host.noise))

    def snr_per_flux(self, host: Host, draw: ArcDraw, unit_arc: UnitArc) -> float:
        """Target metric per nanomaggy of unlensed, undimmed r-band flux of the draw.

        0 if the good pixels hold no more than the rounding of the convolution, or the metric is not known.
        """
        band = self.metric_band
        convolved = self.renderer.stamps(draw, unit_arc, host.psf, slice(band, band + 1))[0]
        band_over_r: float = 10.0 ** (-0.4 * (draw.magnitude(self.bands[band]) - draw.src_mag_r))
        value: float = self.snr(host, convolved)[self.metric]
        if not value > _ROUNDING * unit_arc.flux * host.sharpest:
            return 0.0
        return value * band_over_r * float(host.transmission[band])

    def pilot_trials(self, host: Host, attempts: range) -> list[Trial[tuple[ArcDraw, UnitArc]]]:
        """Prior draws on this host, one per attempt number, keyed for the pilot alone."""
        return [_HostTrials(self, host).trial(PURPOSE_PILOT, attempt) for attempt in attempts]

    def accept(self, host: Host) -> Accepted | Refused:
        """Sample one arc for the host, or say why none was accepted."""
        if self.config.sampling.method == "none":
            draw = self._draw(host, PURPOSE_PRIOR, 0)
            return Accepted(draw, self.render(host, draw), math.nan, 1, 1.0)
        found = self.sampler.sample(_HostTrials(self, host))
        if isinstance(found, Refused):
            return found
        draw, unit_arc = found.payload
        return Accepted(
            replace(draw, src_mag_r=found.mag_r),
            unit_arc,
            found.snr_target,
            found.attempts,
            found.weight_prior,
            found.outside_prior,
        )

    def freeze(self, rows: xr.Dataset, index: int, host: Host) -> Accepted | Refused:
        """The arc of an EMR row as it stands; refused if a number of the host or a usable template is missing."""
        draw = frozen_arc(rows, index, host.centre_px, self.renderer.source)
        if draw is None:
            return Refused("template_unusable", 0)
        if not math.isfinite(draw.src_mag_r):
            return Refused("host_mag_missing", 0)
        return Accepted(draw, self.render(host, draw), math.nan, 1, 1.0)

    def _draw(self, host: Host, purpose: int, attempt: int) -> ArcDraw:
        return self.renderer.drawer.draw(self.config.run.seed, host.task_key, purpose, attempt, host.centre_px)


@dataclass(frozen=True)
class _HostTrials:
    """The draws of one host, as samplers take them."""

    injector: Injector
    host: Host

    def trial(self, purpose: int, attempt: int) -> Trial[tuple[ArcDraw, UnitArc]]:
        draw = self.injector._draw(self.host, purpose, attempt)
        unit_arc = self.injector.render(self.host, draw)
        return Trial(self.injector.snr_per_flux(self.host, draw, unit_arc), draw.src_mag_r, (draw, unit_arc))

    def target_uniform(self) -> float:
        return float(keyed_uniform(self.injector.run_seed, self.host.task_key, PURPOSE_TARGET, 0, 0))

    def accept_uniform(self, attempt: int) -> float:
        return float(keyed_uniform(self.injector.run_seed, self.host.task_key, PURPOSE_ACCEPT, attempt, 0))


@dataclass(frozen=True)
class Exposure:
    """An accepted arc as the survey would see it.

    Attributes:
        arc_nmgy: (band, y, x) float32 noise-free arc. [nmgy]
        noise_nmgy: (band, y, x) float32 shot noise of the arc; zero if none is configured. [nmgy]
        src_mag: (band,) unlensed magnitudes before extinction. [mag]
        src_flux_nmgy: (band,) unlensed fluxes as injected. [nmgy]
        columns: what the cube records besides, by column name.
    """

    arc_nmgy: NDArray[np.float32]
    noise_nmgy: NDArray[np.float32]
    src_mag: NDArray[np.float64]
    src_flux_nmgy: NDArray[np.float64]
    columns: dict[str, float]


def expose(injector: Injector, host: Host, accepted: Accepted, invvar: NDArray[np.float32]) -> Exposure:
    """The accepted arc in every band. [invvar: (band, y, x) float32 nmgy^-2]"""
    draw = accepted.draw
    magnitudes = np.array([draw.magnitude(band) for band in injector.bands])
    fluxes = flux_nmgy_from_mag(magnitudes) * host.transmission
    unit = injector.renderer.stamps(draw, accepted.unit_arc, host.psf)
    arc = unit * fluxes.astype(np.float32)[:, None, None]
    noise = np.zeros_like(arc)
    if injector.sky_nmgy is not None:
        for band, sky in enumerate(injector.sky_nmgy.tolist()):
            light = np.maximum(arc[band], np.float32(0.0))
            noise[band] = arc_shot_noise(light, invvar[band], sky, injector.run_seed, host.task_key, band)
    measured = arc[injector.metric_band]
    region, cumulative = arc_snr_nonlinear(measured, host.noise.weight)
    columns = {
        **dict(zip(SNR_METRICS, injector.snr(host, measured), strict=True)),
        "arc_snr_region": float(region),
        "arc_snr_cumulative": float(cumulative),
        **injector.renderer.describe(draw, measured),
        "arc_suppressed_frac": injector.renderer.suppressed_fraction(
            draw, accepted.unit_arc, host.psf, injector.metric_band
        ),
    }
    return Exposure(arc, noise, magnitudes, fluxes, columns)
