"""Injection: from a shard of cutouts to a shard of the training cube.

One unit-flux render per draw gives the SNR per unit flux in the metric band; the flux then follows
from the assigned SNR, and the accepted draw is convolved and added in every band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.priors import Prior
from pipeline.contracts.survey import BAD_PIXEL_MASK, PIXEL_SCALE_ARCSEC, flux_nmgy_from_mag, mw_transmission
from pipeline.kernels.arc_snr import arc_snr_columns
from pipeline.kernels.psf import convolve_psf, psf_fwhm_arcsec, psf_transfer
from pipeline.kernels.random import (
    PURPOSE_ACCEPT,
    PURPOSE_PILOT,
    PURPOSE_PRIOR,
    PURPOSE_TARGET,
    PURPOSE_WEIGHT,
    keyed_uniform,
)
from pipeline.kernels.render import render_unit_arc
from pipeline.stages.draws import (
    ArcDraw,
    draw_arc,
    frozen_arc,
    ln_flux_density,
    mag_density,
    mag_density_max,
    prior_table,
)
from pipeline.stages.sampling import Pilot, SnrTarget, rejection_probability

# Share of an arc's flux that a float32 convolution may leave in a pixel without any, with a margin.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Host:
    """One usable stamp and what rendering onto it needs."""

    invvar: NDArray[np.float32]
    maskbits: NDArray[np.int32]
    centre_px: tuple[float, float]
    transmission: NDArray[np.float64]
    transfers: tuple[NDArray[np.complex64], ...]
    task_key: np.uint64


@dataclass(frozen=True)
class Accepted:
    """An accepted draw: its flux scale is contained in the draw's magnitude."""

    draw: ArcDraw
    unit_arc: NDArray[np.float32]
    snr_target: float
    attempts: int
    weight_prior: float


@dataclass
class Work:
    """Counters of one shard, reported in its receipt."""

    attempts: int = 0
    renders: int = 0
    proposals: int = 0
    clipped: int = 0


class Injector:
    """Draws, renders and accepts arcs for hosts, as a configuration says. Pure: keyed randomness only."""

    def __init__(self, config: RunConfig, pilot: Pilot | None) -> None:
        self.config = config
        self.pilot = pilot
        self.work = Work()
        section = config.sampling
        self.bands = config.survey.bands
        self.metric_band = self.bands.index(section.band)
        self.metric = SNR_METRICS.index(section.metric)
        self._target = SnrTarget.of(section.target) if section.target else None
        self.table = prior_table(config.injection.priors) if config.injection.priors else np.zeros((0, 6))

    @property
    def target(self) -> SnrTarget:
        """The configured target; ValueError for sampling.method none, which has no target."""
        if self._target is None:
            raise ValueError("sampling.method: none has no SNR target")
        return self._target

    def host(self, cutouts: xr.Dataset, index: int, task_key: np.uint64) -> Host:
        """Prepare one row of a cutouts shard for rendering."""
        psf = self.config.injection.psf
        size = self.config.survey.stamp_size_px
        fwhm = psf_fwhm_arcsec(cutouts["psfsize_arcsec"].to_numpy()[index], psf.profile, psf.moffat_beta)
        ebv = float(cutouts["ebv_mag"].to_numpy()[index])
        return Host(
            invvar=cutouts["invvar"].to_numpy()[index, self.metric_band],
            maskbits=cutouts["maskbits"].to_numpy()[index],
            centre_px=(
                float(cutouts["centre_dx_px"].to_numpy()[index]),
                float(cutouts["centre_dy_px"].to_numpy()[index]),
            ),
            transmission=np.array(
                [float(mw_transmission(np.array(ebv), band)) for band in self.bands]
                if self.config.injection.extinction
                else [1.0] * len(self.bands)
            ),
            transfers=tuple(
                psf_transfer(float(width), psf.profile, psf.moffat_beta, size, PIXEL_SCALE_ARCSEC) for width in fwhm
            ),
            task_key=task_key,
        )

    def render(self, draw: ArcDraw) -> NDArray[np.float32]:
        """Lensed source of unit unlensed flux before the PSF. Returns (y, x) float32."""
        self.work.renders += 1
        return np.asarray(
            render_unit_arc(
                draw.theta_e_arcsec,
                draw.lens_q,
                draw.lens_phi_rad,
                draw.shear_gamma1,
                draw.shear_gamma2,
                draw.lens_x_arcsec,
                draw.lens_y_arcsec,
                draw.src_x_arcsec,
                draw.src_y_arcsec,
                draw.src_re_arcsec,
                draw.src_n,
                draw.src_q,
                draw.src_phi_rad,
                self.config.survey.stamp_size_px,
                PIXEL_SCALE_ARCSEC,
                self.config.injection.supersampling,
            )
        )

    def snr(self, host: Host, arc: NDArray[np.float32]) -> tuple[float, float, float, float]:
        """The SNR columns, in the order of SNR_METRICS, of an arc in the metric band. [arc: (y, x) nmgy]"""
        centre = self.config.survey.stamp_size_px // 2
        x_px, y_px = centre + host.centre_px[0], centre + host.centre_px[1]
        columns = arc_snr_columns(arc, host.invvar, host.maskbits, BAD_PIXEL_MASK, x_px, y_px)
        peak, total, matched, aperture = (float(value) for value in columns)
        return peak, total, matched, aperture

    def snr_per_flux(self, host: Host, draw: ArcDraw, unit_arc: NDArray[np.float32]) -> float:
        """Target metric per nanomaggy of unlensed, undimmed r-band flux of the draw.

        0 if the good pixels hold no more than the rounding of the convolution.
        """
        convolved = convolve_psf(unit_arc, host.transfers[self.metric_band], unit_arc.shape[0])
        band_over_r: float = 10.0 ** (-0.4 * (draw.magnitude(self.bands[self.metric_band]) - draw.src_mag_r))
        value: float = self.snr(host, convolved)[self.metric]
        sharpest = math.sqrt(max(float(np.nanmax(host.invvar, initial=0.0)), 0.0))
        if value <= _ROUNDING * float(unit_arc.sum(dtype=np.float64)) * sharpest:
            return 0.0
        return value * band_over_r * float(host.transmission[self.metric_band])

    def pilot_snr(self, host: Host, attempts: range) -> list[float]:
        """Target metric of prior draws on this host, one per attempt number, keyed for the pilot alone."""
        values = []
        for attempt in attempts:
            draw = self._draw(host, PURPOSE_PILOT, attempt)
            values.append(self.snr_per_flux(host, draw, self.render(draw)) * _flux(draw.src_mag_r))
        return values

    def accept(self, host: Host) -> Accepted | str:
        """Sample one arc for the host; the reject reason if none was accepted."""
        if not np.isfinite(host.transmission).all():
            return "ebv_missing"
        method = self.config.sampling.method
        if method == "none":
            draw = self._draw(host, PURPOSE_PRIOR, 0)
            return Accepted(draw, self.render(draw), math.nan, 1, 1.0)
        return self._snr_first(host) if method == "snr_first" else self._rejection(host)

    def freeze(self, rows: xr.Dataset, index: int, host: Host) -> Accepted | str:
        """The arc of an EMR row as it stands; the reject reason if the host lacks a number it needs."""
        if not np.isfinite(host.transmission).all():
            return "ebv_missing"
        draw = frozen_arc(rows, index, host.centre_px)
        if not math.isfinite(draw.src_mag_r):
            return "host_mag_missing"
        return Accepted(draw, self.render(draw), math.nan, 1, 1.0)

    def _snr_first(self, host: Host) -> Accepted | str:
        prior = self._mag_prior()
        uniform = keyed_uniform(self.config.run.seed, host.task_key, PURPOSE_TARGET, 0, 0)
        snr = self.target.quantile(float(uniform))
        peak = mag_density_max(prior)
        any_signal = False
        for attempt in range(self.config.sampling.max_attempts):
            self.work.attempts += 1
            draw = self._draw(host, PURPOSE_PRIOR, attempt)
            unit_arc = self.render(draw)
            per_flux = self.snr_per_flux(host, draw, unit_arc)
            if per_flux <= 0:
                continue
            any_signal = True
            mag = _mag(snr / per_flux)
            threshold = keyed_uniform(self.config.run.seed, host.task_key, PURPOSE_ACCEPT, attempt, 0)
            if float(threshold) < mag_density(prior, mag) / peak:
                weight = self._snr_density(host, snr) / self.target.ln_density(snr)
                return Accepted(_with_magnitude(draw, mag), unit_arc, snr, attempt + 1, weight)
        return "sampler_exhausted" if any_signal else "arc_masked"

    def _snr_density(self, host: Host, snr: float) -> float:
        """Unbiased estimate of q(ln snr | host) from a fixed batch of draws independent of acceptance."""
        prior = self._mag_prior()
        total = 0.0
        for attempt in range(self.config.sampling.weight_draws):
            draw = self._draw(host, PURPOSE_WEIGHT, attempt)
            per_flux = self.snr_per_flux(host, draw, self.render(draw))
            total += ln_flux_density(prior, _mag(snr / per_flux)) if per_flux > 0 else 0.0
        return total / self.config.sampling.weight_draws

    def _rejection(self, host: Host) -> Accepted | str:
        if self.pilot is None:
            raise ValueError("sampling.method: rejection needs a pilot")
        any_signal = False
        for attempt in range(self.config.sampling.max_attempts):
            self.work.attempts += 1
            draw = self._draw(host, PURPOSE_PRIOR, attempt)
            unit_arc = self.render(draw)
            snr = self.snr_per_flux(host, draw, unit_arc) * _flux(draw.src_mag_r)
            any_signal = any_signal or snr > 0
            probability = rejection_probability(snr, self.target, self.pilot)
            self.work.proposals += 1
            self.work.clipped += probability > 1.0
            threshold = keyed_uniform(self.config.run.seed, host.task_key, PURPOSE_ACCEPT, attempt, 0)
            if float(threshold) < probability:
                weight = self.pilot.ln_density(snr) / self.target.ln_density(snr)
                return Accepted(draw, unit_arc, math.nan, attempt + 1, weight)
        return "sampler_exhausted" if any_signal else "arc_masked"

    def _draw(self, host: Host, purpose: int, attempt: int) -> ArcDraw:
        return draw_arc(self.table, self.config.run.seed, host.task_key, purpose, attempt, host.centre_px)

    def _mag_prior(self) -> Prior:
        if self.config.injection.priors is None:
            raise ValueError("injection.mode: sample needs injection.priors")
        return self.config.injection.priors.src_mag_r


def expose(injector: Injector, host: Host, accepted: Accepted) -> dict[str, NDArray[np.float64] | NDArray[np.float32]]:
    """The accepted arc in every band. Returns arc (band, y, x) float32, src_mag, src_flux_nmgy (band,)."""
    magnitudes = np.array([accepted.draw.magnitude(band) for band in injector.bands])
    fluxes = flux_nmgy_from_mag(magnitudes) * host.transmission
    size = accepted.unit_arc.shape[0]
    arc = np.stack(
        [
            convolve_psf(accepted.unit_arc, transfer, size) * np.float32(flux)
            for transfer, flux in zip(host.transfers, fluxes, strict=True)
        ]
    )
    return {"arc": arc.astype(np.float32), "src_mag": magnitudes, "src_flux_nmgy": fluxes}


def _flux(mag: float) -> float:
    return float(flux_nmgy_from_mag(np.array(mag)))


def _mag(flux_nmgy: float) -> float:
    return 22.5 - 2.5 * math.log10(flux_nmgy)


def _with_magnitude(draw: ArcDraw, mag: float) -> ArcDraw:
    return ArcDraw(**{**draw.__dict__, "src_mag_r": mag})
