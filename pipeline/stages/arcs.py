"""Arcs of one configuration: from a draw to unit arcs, SNR and what is recorded of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.source_bank import SourceBank
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_properties import arc_shape, lensed_half_light_radius_arcsec
from pipeline.kernels.fourier import MIN_KEPT
from pipeline.kernels.psf import StampPsf, measured_psf, psf_fwhm_arcsec, round_psf
from pipeline.kernels.render import RenderState, render_spectrum, render_stamps, render_state
from pipeline.stages.core_suppression import core_weight
from pipeline.stages.draws import ArcDraw, Drawer, lens_kind
from pipeline.stages.lens_models import DeflectionField, lens_quantities
from pipeline.stages.sources import SourceModel

CORE_RADIUS_PX = 8.0

# Side of the grid on which magnifications are measured, over the side of a stamp.
_WIDE = 3
_NO_TEMPLATES = np.zeros((1, 2, 2), np.float32)
_NO_FIELD = np.zeros((2, 4, 4), np.float32)


@dataclass(frozen=True)
class InjectionAssets:
    """What injection needs besides the configuration and the stamps; small enough to be read by every task.

    Attributes:
        bank: galaxies to lens; None for sources of profiles.
        psf_stamps: (band, s, s) measured PSFs by brick, or under "" if one serves all.
    """

    bank: SourceBank | None = None
    psf_stamps: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitArc:
    """A rendered draw before any PSF.

    Attributes:
        spectra: (component, 2K - 1, 2K - 1) float32, as `render_spectrum` leaves them.
        flux: lensed flux inside the stamp of a source of unit r flux, with nothing suppressed.
        kept: (y, x) float32 share of the light that core suppression leaves in each pixel; None without.
    """

    spectra: NDArray[np.float32]
    flux: float
    kept: NDArray[np.float32] | None = None


class ArcRenderer:
    """Renders draws with the mass, source and PSF models of a configuration. One per thread."""

    def __init__(self, config: RunConfig, assets: InjectionAssets) -> None:
        injection, bands = config.injection, config.survey.bands
        source = SourceModel(injection.source, bands, assets.bank)
        self.bands = bands
        self.source = source
        self.drawer = Drawer(injection, source)
        self._psf, self._psf_stamps = injection.psf, assets.psf_stamps
        self._suppression = injection.core_suppression
        self._size, self._accuracy = config.survey.stamp_size_px, injection.accuracy
        self._kind = lens_kind(injection)
        lens = injection.lens
        self._field = None if lens.kind != "lenstronomy" else DeflectionField(lens, self._size, PIXEL_SCALE_ARCSEC)
        self._wide_field = (
            None if lens.kind != "lenstronomy" else DeflectionField(lens, _WIDE * self._size, PIXEL_SCALE_ARCSEC)
        )
        templates = source.templates if source.templates is not None else _NO_TEMPLATES
        # A kernel compiled anew for arrays that may not be written would round otherwise.
        self._templates = np.require(templates, requirements=("C", "W"))
        self._template_scale_arcsec = source.template_scale_arcsec
        self._state = render_state(self._size, source.max_components)
        self._wide_state = render_state(_WIDE * self._size, source.max_components)
        self._reference = bands.index("r") if "r" in bands else 0

    def psf(self, psfsize_arcsec: NDArray[np.float32], brickname: str) -> StampPsf | str:
        """PSFs of one host from its psfsize (band,) and brick; the reject reason if a measured one is missing."""
        section = self._psf
        if section.profile == "measured":
            stamps = self._psf_stamps.get(brickname, self._psf_stamps.get(""))
            return "psf_unreadable" if stamps is None else measured_psf(stamps, self._size)
        fwhm = psf_fwhm_arcsec(psfsize_arcsec, section.profile, section.moffat_beta)
        return round_psf(fwhm, section.profile, section.moffat_beta, self._size, PIXEL_SCALE_ARCSEC)

    def render(self, draw: ArcDraw, psf: StampPsf, psfsize_arcsec: float = math.nan) -> UnitArc:
        """Integrate a draw to the frequencies that a PSF needs; psfsize is read for core suppression alone."""
        spectra = self._spectra(draw, (psf.transfer.shape[2] + 1) // 2, self._state, self._field)
        flux = float(spectra[:, 0, 0] @ draw.components.shares[:, self._reference])
        if self._suppression is None:
            return UnitArc(spectra, flux)
        return UnitArc(spectra, flux, core_weight(self._suppression, draw, psfsize_arcsec, self._size))

    def stamps(self, draw: ArcDraw, arc: UnitArc, psf: StampPsf, bands: slice = slice(None)) -> NDArray[np.float32]:
        """(band, y, x) float32 arcs of unit unlensed flux through the PSFs of some bands, the core suppressed."""
        transfer, kept, shares = (
            psf.transfer[bands],
            psf.kept[bands],
            np.ascontiguousarray(draw.components.shares[:, bands]),
        )
        stamps = np.empty((transfer.shape[0], self._size, self._size), np.float32)
        render_stamps(arc.spectra, shares, transfer, kept, self._state.basis, stamps)
        if arc.kept is not None:
            stamps *= arc.kept
        return stamps

    def suppressed_fraction(self, draw: ArcDraw, arc: UnitArc, psf: StampPsf, band: int) -> float:
        """Share of the arc's flux inside the stamp that core suppression takes away in a band; 0 without."""
        if arc.kept is None:
            return 0.0
        whole = self.stamps(draw, replace(arc, kept=None), psf, slice(band, band + 1))[0]
        return 1.0 - float((whole * arc.kept).sum(dtype=np.float64) / whole.sum(dtype=np.float64))

    def magnification(self, draw: ArcDraw) -> float:
        """Lensed over unlensed r flux, on a grid three stamps wide."""
        spectra = self._spectra(draw, MIN_KEPT, self._wide_state, self._wide_field)
        return float(spectra[:, 0, 0] @ draw.components.shares[:, self._reference])

    def describe(self, draw: ArcDraw, arc_nmgy: NDArray[np.float32]) -> dict[str, float]:
        """What the cube records of an arc (y, x) in the reference band, by column name. [arc_nmgy: nmgy]"""
        centre = self._size // 2
        x_px = centre + draw.lens_x_arcsec / PIXEL_SCALE_ARCSEC
        y_px = centre + draw.lens_y_arcsec / PIXEL_SCALE_ARCSEC
        # What the band limit leaves below zero, 1e-4 of the peak, is no light.
        light = np.maximum(arc_nmgy, np.float32(0.0))
        shape = arc_shape(light, x_px, y_px, CORE_RADIUS_PX, PIXEL_SCALE_ARCSEC)
        return {
            "magnification": self.magnification(draw),
            "arc_radius_arcsec": shape.mean_radius_arcsec,
            "arc_core_frac": shape.core_fraction,
            "arc_tangential_extent_rad": shape.tangential_extent_rad,
            "lensed_hlr_arcsec": lensed_half_light_radius_arcsec(light, PIXEL_SCALE_ARCSEC),
            "lens_slope": draw.lens_slope if self._field is None else math.nan,
            "src_template": draw.components.template,
            "src_mirror": draw.components.mirror,
            "src_components": draw.components.table.shape[0],
            "src_redshift": draw.src_redshift,
        }

    def _spectra(
        self, draw: ArcDraw, kept: int, state: RenderState, sampler: DeflectionField | None
    ) -> NDArray[np.float32]:
        row, samples = draw.lens_row(self._kind), _NO_FIELD
        if sampler is not None:
            samples = sampler.sample(
                row,
                lens_quantities(
                    draw.theta_e_arcsec, draw.lens_q, draw.lens_phi_rad, draw.shear_gamma1, draw.shear_gamma2
                ),
            )
        components = draw.components.table
        spectra = np.empty((components.shape[0], 2 * kept - 1, 2 * kept - 1), np.float32)
        render_spectrum(
            row, components, self._templates, self._template_scale_arcsec, samples, PIXEL_SCALE_ARCSEC,
            self._accuracy, kept, state, spectra,
        )  # fmt: skip
        return spectra
