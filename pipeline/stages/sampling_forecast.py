"""What each sampler would do, from prior draws on a few hosts: acceptance, reach, renders, cap failures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.sampling import GridTarget, SamplingSection
from pipeline.stages.mag_prior import LN10_OVER_2P5, MagnitudePrior
from pipeline.stages.sampling import PilotDraws, SnrTarget, snr_density, sup_ratio
from pipeline.stages.sampling_diagnostics import effective_size

# Attempts at which a cap is set where the configuration's own method needs none.
_USUAL_CAP = 200
# SNRs at which a target's distribution is followed.
_QUANTILES = 128


@dataclass(frozen=True)
class MethodForecast:
    """One method on one target.

    Attributes:
        acceptance: accepted draws over draws tried.
        accepted_share: rows that get an arc over rows that ask for one.
        attempts: draws tried per row that asks for an arc.
        renders: unit-flux renders per row that asks for an arc.
        renders_per_accepted: the same per accepted arc; None if none is expected.
        effective_share: effective over actual size of the weighted sample; None where it is not known.
        outside_prior: share of arcs at a magnitude outside its prior.
        bins: per target bin: share, attempts per row, cap_failures (share of rows); None entries where the method
            assigns no SNR.
        note: why the method cannot be used, or empty.
    """

    method: str
    hosts: str
    acceptance: float
    accepted_share: float
    attempts: float
    renders: float
    renders_per_accepted: float | None
    effective_share: float | None
    outside_prior: float
    bins: tuple[dict[str, Any], ...]
    note: str = ""


class Forecaster:
    """Predicts every method from draws on several hosts, several on each.

    Conditional predictions take the draws of a host for its prior: a host whose arcs are rarer than its draws can
    tell counts as unable, so that cap failures are upper estimates.

    Args:
        draws: of hosts that stand for all hosts.
        target: less the bins that the pilot left out.
        section: of the configuration; caps, batch sizes and the safety factor are taken from it.
    """

    def __init__(self, draws: PilotDraws, target: SnrTarget, section: SamplingSection, prior: MagnitudePrior) -> None:
        self.target, self.section, self.prior = target, section, prior
        self._cap = section.max_attempts if section.max_attempts > 1 else _USUAL_CAP
        self._ln_nodes, self._left, self._right = target.cells(section.pilot_bins)
        per_draw = snr_density(draws.per_flux.tolist(), prior, np.exp(self._ln_nodes))
        _, index = np.unique(draws.host, return_inverse=True)
        self._hosts = np.array([per_draw[index == host].mean(axis=0) for host in range(int(index.max()) + 1)])
        self._host_share = np.bincount(index) / index.size
        self._pooled = per_draw.mean(axis=0)
        self._kappa = draws.per_flux
        self._peak = prior.peak / LN10_OVER_2P5

    def methods(self) -> list[MethodForecast]:
        """Every method, conditional ones first."""
        found = [self._held(), self._rejected(), self._direct()]
        return [*found, self._held_pooled(), self._rejected_pooled()]

    def _node_mass(self) -> NDArray[np.float64]:
        """(node,) mass of the target that each node stands for."""
        if self.target.values:
            return self._left
        widths = np.diff(self._ln_nodes)
        mass = np.zeros(self._ln_nodes.size)
        mass[:-1] += 0.5 * widths * self._left
        mass[1:] += 0.5 * widths * self._right
        return np.asarray(mass / mass.sum(), dtype=np.float64)

    def _bin_mass(self, index: int) -> NDArray[np.float64]:
        """(node,) mass of one target bin over its nodes, normalised; zeros for a bin without share."""
        if self.target.values:
            return np.asarray(np.arange(len(self.target.values)) == index, dtype=np.float64)
        low, high = math.log(self.target.edges[index]), math.log(self.target.edges[index + 1])
        middle = 0.5 * (self._ln_nodes[:-1] + self._ln_nodes[1:])
        inside = (middle > low) & (middle < high)
        widths = np.diff(self._ln_nodes) * inside
        mass = np.zeros(self._ln_nodes.size)
        mass[:-1] += 0.5 * widths * self._left
        mass[1:] += 0.5 * widths * self._right
        return mass / mass.sum() if mass.sum() > 0 else mass

    def _held(self) -> MethodForecast:
        chance = self._hosts / self._peak
        failure = (1.0 - chance) ** self._cap
        with np.errstate(divide="ignore", invalid="ignore"):
            tries = np.where(chance > 0, (1.0 - failure) / chance, self._cap)
        bins = []
        for index, share in enumerate(self.target.shares):
            mass = self._bin_mass(index)
            per_bin = [float(self._host_share @ values @ mass) for values in (tries, failure)]
            bins.append(self._bin(index, share, *per_bin) if share > 0 else self._bin(index, share, None, None))
        mass = self._node_mass()
        attempts, failed = (float(self._host_share @ values @ mass) for values in (tries, failure))
        renders = attempts + (1.0 - failed) * self.section.weight_draws
        return self._forecast("snr_first", "conditional", attempts, 1.0 - failed, renders, tuple(bins))

    def _rejected(self) -> MethodForecast:
        if self.target.values:
            return self._impossible("conditional")
        bounds = np.array([sup_ratio(density, self._left, self._right) for density in self._hosts])
        chance = np.where(np.isfinite(bounds), 1.0 / (self.section.safety_factor * bounds), 0.0)
        failure = (1.0 - chance) ** self._cap
        with np.errstate(divide="ignore", invalid="ignore"):
            tries = np.where(chance > 0, (1.0 - failure) / chance, 0.0)
        attempts, failed = float(self._host_share @ tries), float(self._host_share @ failure)
        renders = attempts + self.section.host_draws
        return self._forecast("rejection", "conditional", attempts, 1.0 - failed, renders, self._no_bins())

    def _direct(self) -> MethodForecast:
        snr, wanted = self._quantiles()
        density = snr_density(self._kappa[self._kappa > 0].tolist(), self.prior, snr)
        weight = density / wanted
        second = float((weight**2).mean()) if weight.size else 0.0
        effective = float(weight.mean()) ** 2 / second if second > 0 else 0.0
        outside = float((density == 0).mean()) if weight.size else 1.0
        bins = tuple(self._bin(index, share, 1.0, 0.0) for index, share in enumerate(self.target.shares))
        seen = float((self._kappa > 0).mean())
        return self._forecast("direct", "conditional", 1.0, seen, 1.0, bins, effective, outside)

    def _quantiles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """SNRs at equal steps of the target's distribution, and the target's density there."""
        uniform = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        snr = [self.target.quantile(float(value)) for value in uniform]
        return np.array(snr), np.array([self.target.ln_density(value) for value in snr])

    def _held_pooled(self) -> MethodForecast:
        mass = self._node_mass()
        wanted = mass > 0
        if not (self._pooled[wanted] > 0).all():
            return self._impossible("pooled", "snr_first")
        accepted = 1.0 / float((mass[wanted] / (self._pooled[wanted] / self._peak)).sum())
        bins = tuple(self._bin(index, share, 1.0, None) for index, share in enumerate(self.target.shares))
        return self._forecast("snr_first", "pooled", 1.0, accepted, 1.0, bins, self._pooled_effective_share())

    def _rejected_pooled(self) -> MethodForecast:
        bound = math.inf if self.target.values else sup_ratio(self._pooled, self._left, self._right)
        if bound == math.inf:
            return self._impossible("pooled")
        accepted = 1.0 / (self.section.safety_factor * bound)
        effective = self._pooled_effective_share()
        return self._forecast("rejection", "pooled", 1.0, accepted, 1.0, self._no_bins(), effective)

    def _pooled_effective_share(self) -> float:
        """Of weights q / pi over the target."""
        snr, wanted = self._quantiles()
        weight = np.interp(np.log(snr), self._ln_nodes, self._pooled) / wanted
        return float(effective_size(weight) / weight.size)

    def _forecast(
        self,
        method: str,
        hosts: str,
        attempts: float,
        accepted: float,
        renders: float,
        bins: tuple[dict[str, Any], ...],
        effective_share: float | None = None,
        outside_prior: float = 0.0,
    ) -> MethodForecast:
        return MethodForecast(
            method=method,
            hosts=hosts,
            acceptance=accepted / attempts if attempts > 0 else 0.0,
            accepted_share=accepted,
            attempts=attempts,
            renders=renders,
            renders_per_accepted=renders / accepted if accepted > 0 else None,
            effective_share=effective_share,
            outside_prior=outside_prior,
            bins=bins,
        )

    def _impossible(self, hosts: str, method: str = "rejection") -> MethodForecast:
        grid = self.section.target is not None and isinstance(self.section.target, GridTarget)
        why = "no prior draw has exactly a given SNR" if grid else "the density of the prior vanishes inside the target"
        return MethodForecast(method, hosts, 0.0, 0.0, 0.0, 0.0, None, None, 0.0, (), why)

    def _bin(self, index: int, share: float, attempts: float | None, failures: float | None) -> dict[str, Any]:
        low, high = self.target.edges[index], self.target.edges[index + 1]
        where = {"value": self.target.values[index]} if self.target.values else {"low": low, "high": high}
        return {**where, "share": share, "attempts": attempts, "cap_failures": failures}

    def _no_bins(self) -> tuple[dict[str, Any], ...]:
        return tuple(self._bin(index, share, None, None) for index, share in enumerate(self.target.shares))
