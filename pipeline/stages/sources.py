"""Sources: the light components that the drawn quantities of one arc stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.injection import BankSource, BulgeDiscSource, ClumpySource, SersicSource
from pipeline.contracts.priors import Prior
from pipeline.contracts.source_bank import SourceBank
from pipeline.kernels.arc_draws import (
    COMPONENT_COLUMNS,
    MIRROR,
    OFFSET_X,
    OFFSET_Y,
    PHI,
    PROFILE,
    RE,
    TEMPLATE,
    N,
    Q,
)
from pipeline.kernels.light import IMAGE
from pipeline.stages.emr_templates import emr_template

# Index of a round Gaussian clump.
_GAUSSIAN_N = 0.5


@dataclass(frozen=True)
class Components:
    """Light of one source.

    Attributes:
        table: (component, COMPONENT_COLUMNS) float64, as `ArcDraws.components`.
        shares: (component, band) float64 of the unit flux in each band.
        re_arcsec, n, q, phi_rad: what the cube records of the source's main component.
        template: row of the bank, -1 if none. mirror: 1 or -1.
    """

    table: NDArray[np.float64]
    shares: NDArray[np.float64]
    re_arcsec: float
    n: float
    q: float
    phi_rad: float
    template: int = -1
    mirror: int = 1


class SourceModel:
    """Turns drawn quantities into components, as a configured kind of source says."""

    def __init__(
        self,
        section: SersicSource | ClumpySource | BulgeDiscSource | BankSource,
        bands: tuple[str, ...],
        bank: SourceBank | None,
    ) -> None:
        self._section = section
        self._bands = bands
        self._bank = bank
        self._usable = np.flatnonzero(bank.usable) if bank is not None else np.zeros(0, np.intp)
        if section.kind == "bank":
            if bank is None:
                raise ValueError("injection.source: bank needs the bank in memory")
            if bank.digest != section.sha256:
                raise ContractError(
                    f"injection.source.sha256: expected {section.sha256}, the bank {section.url} is {bank.digest}"
                )
            if not self._usable.size:
                raise ContractError(f"injection.source.url: the bank {section.url} has no usable template")

    @property
    def max_components(self) -> int:
        """Largest number of components of a source."""
        if self._section.kind == "clumpy":
            return 1 + self._section.count[1]
        return 2 if self._section.kind == "bulge_disc" else 1

    @property
    def templates(self) -> NDArray[np.float32] | None:
        """(template, S, S) images of the bank; None for sources of profiles."""
        return self._bank.images if self._bank is not None else None

    @property
    def template_scale_arcsec(self) -> float:
        """Pixel scale at which templates are lensed; 1 without a bank. [arcsec/px]"""
        if self._bank is None or self._section.kind != "bank":
            return 1.0
        return self._bank.pixel_scale_arcsec * self._section.size_factor

    def priors(self) -> dict[str, Prior]:
        """Further quantities that `components` needs drawn, by name."""
        section = self._section
        if section.kind == "clumpy":
            low, high = section.flux_share
            unit = Prior(kind="uniform", low=0.0, high=1.0)
            priors = {"clump_count": unit, "clump_share": Prior(kind="uniform", low=low, high=high)}
            for clump in range(section.count[1]):
                priors[f"clump_radius_{clump}"] = Prior(kind="disc", low=0.0, high=section.reach_re)
                priors[f"clump_phi_{clump}"] = Prior(kind="uniform", low=0.0, high=2 * math.pi)
                priors[f"clump_re_{clump}"] = Prior(
                    kind="loguniform", low=section.re_over_re[0], high=section.re_over_re[1]
                )
            return priors
        if section.kind == "bulge_disc":
            return {name: getattr(section, name) for name in ("bulge_share", "bulge_re_over_re", "bulge_n", "bulge_q")}
        if section.kind == "bank":
            unit = Prior(kind="uniform", low=0.0, high=1.0)
            return {"template": unit, "template_mirror": unit, "template_half_turn": unit}
        return {}

    def components(self, drawn: Mapping[str, float]) -> Components:
        """The components of one draw, from its drawn quantities by name."""
        section = self._section
        re_arcsec, n, q, phi_rad = (drawn[name] for name in ("src_re_arcsec", "src_n", "src_q", "src_phi_rad"))
        if section.kind == "clumpy":
            return _clumpy(section, drawn, len(self._bands))
        if section.kind == "bulge_disc":
            return _bulge_disc(section, drawn, self._bands)
        if section.kind == "bank" and self._bank is not None:
            template = int(self._usable[int(drawn["template"] * self._usable.size)])
            mirror = -1 if drawn["template_mirror"] < 0.5 else 1
            angle = phi_rad + (math.pi if drawn["template_half_turn"] < 0.5 else 0.0)
            hlr_arcsec = float(self._bank.hlr_arcsec[template]) * section.size_factor
            return _template_components(template, hlr_arcsec, angle, mirror, len(self._bands))
        return sersic_components(re_arcsec, n, q, phi_rad, len(self._bands))

    def frozen_components(self, task_id: str, re_arcsec: float, q: float, phi_rad: float) -> Components | None:
        """The source of an EMR row: its exponential profile or, with a bank, the template that EMR took, not turned.

        None if that template cannot be lensed. [re_arcsec: arcsec, phi_rad: rad]
        """
        if self._section.kind != "bank" or self._bank is None:
            return sersic_components(re_arcsec, 1.0, q, phi_rad, len(self._bands))
        if self._section.emr_salt is None:
            raise ValueError("injection.source.emr_salt: rows of a manifest need the salt of their EMR run")
        template = emr_template(task_id, self._section.emr_salt, self._bank.images.shape[0])
        if not self._bank.usable[template]:
            return None
        return _template_components(template, float(self._bank.hlr_arcsec[template]), 0.0, 1, len(self._bands))


def sersic_components(re_arcsec: float, n: float, q: float, phi_rad: float, n_bands: int) -> Components:
    """One Sersic profile of one colour. [re_arcsec: arcsec, phi_rad: rad]"""
    table = np.zeros((1, COMPONENT_COLUMNS))
    table[0, [PHI, RE, N, Q]] = phi_rad, re_arcsec, n, q
    return Components(table, np.ones((1, n_bands)), re_arcsec, n, q, phi_rad)


def _template_components(template: int, hlr_arcsec: float, phi_rad: float, mirror: int, n_bands: int) -> Components:
    table = np.zeros((1, COMPONENT_COLUMNS))
    table[0, [PROFILE, PHI, TEMPLATE, MIRROR]] = IMAGE, phi_rad, template, mirror
    return Components(table, np.ones((1, n_bands)), hlr_arcsec, math.nan, math.nan, phi_rad, template, mirror)


def _clumpy(section: ClumpySource, drawn: Mapping[str, float], n_bands: int) -> Components:
    low, high = section.count
    count = low + min(int(drawn["clump_count"] * (high - low + 1)), high - low)
    re_arcsec, n, q, phi_rad = (drawn[name] for name in ("src_re_arcsec", "src_n", "src_q", "src_phi_rad"))
    table = np.zeros((1 + count, COMPONENT_COLUMNS))
    table[0, [PHI, RE, N, Q]] = phi_rad, re_arcsec, n, q
    c, s = math.cos(phi_rad), math.sin(phi_rad)
    for clump in range(count):
        radius, angle = drawn[f"clump_radius_{clump}"] * re_arcsec, drawn[f"clump_phi_{clump}"]
        along, across = radius * math.cos(angle), radius * math.sin(angle) * q
        row = table[1 + clump]
        row[[OFFSET_X, OFFSET_Y]] = c * along - s * across, s * along + c * across
        row[[RE, N, Q]] = drawn[f"clump_re_{clump}"] * re_arcsec, _GAUSSIAN_N, 1.0
    shares = np.full((1 + count, n_bands), drawn["clump_share"] / count)
    shares[0] = 1.0 - drawn["clump_share"]
    return Components(table, shares, re_arcsec, n, q, phi_rad)


def _bulge_disc(section: BulgeDiscSource, drawn: Mapping[str, float], bands: tuple[str, ...]) -> Components:
    re_arcsec, q, phi_rad = (drawn[name] for name in ("src_re_arcsec", "src_q", "src_phi_rad"))
    table = np.zeros((2, COMPONENT_COLUMNS))
    table[0, [PHI, RE, N, Q]] = phi_rad, re_arcsec, 1.0, q
    bulge_re_arcsec = drawn["bulge_re_over_re"] * re_arcsec
    table[1, [PHI, RE, N, Q]] = phi_rad, bulge_re_arcsec, drawn["bulge_n"], drawn["bulge_q"]
    redder = {"g": -section.bulge_gr, "r": 0.0, "z": section.bulge_rz}
    bulge = np.array([drawn["bulge_share"] * 10.0 ** (0.4 * redder[band]) for band in bands])
    share = bulge / (bulge + 1.0 - drawn["bulge_share"])
    return Components(table, np.stack([1.0 - share, share]), re_arcsec, 1.0, q, phi_rad)
