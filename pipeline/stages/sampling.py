"""The target of the SNR and the pilot's estimate of what the priors give.

With rho the target metric, q(rho) its density under the prior and pi(rho) the target, both per unit ln rho: every
metric is linear in the source flux, rho = kappa F, so that one render of a draw gives its whole density
q(ln rho | draw) = p(ln F = ln rho - ln kappa), and q is the mean of that over draws (Rao & Blackwell), a smooth
estimate also where few draws fell. `pipeline/stages/samplers.py` holds the samplers that use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.sampling import GridTarget, LogUniformTarget, SamplingSection, TableTarget, Target
from pipeline.stages.linear_pieces import LinearPieces, locate_share
from pipeline.stages.mag_prior import MagnitudePrior, magnitude

# A target bin with fewer pilot draws than this counts as unreachable.
_MIN_PILOT_HITS = 1
# Share of a > 1 events above which the rejection sampler's result is not the target.
CLIPPED_SHARE_MAX = 1e-3
# Bins in which a target without bins of its own is compared, and half the ln width of a bin around a grid value.
_COMPARISON_BINS = 8
_GRID_HALF_WIDTH = 0.02


@dataclass(frozen=True)
class SnrTarget:
    """Density in ln SNR, linear between edges; or, with `values`, a share of samples at each of some values.

    Attributes:
        edges: (bin + 1,) increasing. [1]
        shares: (bin,) mass between edges, or at each value.
        tilts: (bin,) (right - left) / (right + left) of the density at the ends of a bin; empty for none.
        values: (bin,) SNR of a grid target, each inside its bin; empty for a density.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    tilts: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, section: Target) -> SnrTarget:
        """The target that a configuration section describes."""
        if isinstance(section, LogUniformTarget):
            return cls((section.low, section.high), (1.0,))
        if isinstance(section, TableTarget):
            pieces = LinearPieces.through([math.log(snr) for snr in section.snr], section.density)
            return cls(section.snr, pieces.shares, pieces.tilts)
        if isinstance(section, GridTarget):
            gaps = [math.sqrt(low * high) for low, high in pairwise(section.snr)]
            outer = math.exp(_GRID_HALF_WIDTH)
            return cls((section.snr[0] / outer, *gaps, section.snr[-1] * outer), section.shares, values=section.snr)
        return cls(section.edges, section.shares)

    def without(self, bins: Sequence[int]) -> SnrTarget:
        """The target restricted to the other bins; ValueError if no share is left."""
        kept = [0.0 if index in bins else share for index, share in enumerate(self.shares)]
        total = math.fsum(kept)
        if not total > 0:
            raise ValueError("no share of the target is left")
        return replace(self, shares=tuple(share / total for share in kept)) if bins else self

    def quantile(self, uniform: float) -> float:
        """SNR below which the share `uniform` in (0, 1) of the target lies."""
        found = locate_share(self.shares, self._tilts, uniform)
        if self.values:
            return self.values[-1 if found is None else found[0]]
        if found is None:
            return self.edges[-1]
        low, high = self.edges[found[0]], self.edges[found[0] + 1]
        return min(high, float(low * (high / low) ** found[1]))

    def ln_density(self, snr: float) -> float:
        """Density in ln SNR; 0 outside the support. Of a grid, the share at a value."""
        if self.values:
            return self.shares[self.values.index(snr)] if snr in self.values else 0.0
        if self.edges[0] <= snr <= self.edges[-1]:
            for index, (low, high) in enumerate(pairwise(self.edges)):
                if snr <= high:
                    width = math.log(high / low)
                    slope = 1.0 + self._tilts[index] * (2.0 * math.log(snr / low) / width - 1.0)
                    return self.shares[index] / width * slope
        return 0.0

    def bin_of(self, snr: float) -> int | None:
        """Bin that holds an SNR, an inner edge with the bin below it; None outside."""
        if not self.edges[0] <= snr <= self.edges[-1]:
            return None
        return next(index for index, high in enumerate(self.edges[1:]) if snr <= high)

    def cdf(self, snr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mass below each SNR, at or below it for a grid. [snr: (any,) > 0]"""
        below = np.concatenate([[0.0], np.cumsum(self.shares)])
        if self.values:
            return np.asarray(below[np.searchsorted(self.values, snr, side="right")], dtype=np.float64)
        ln_edges, ln_snr = np.log(self.edges), np.log(snr)
        index = np.clip(np.searchsorted(ln_edges, ln_snr, side="left") - 1, 0, len(self.shares) - 1)
        fraction = np.clip((ln_snr - ln_edges[index]) / np.diff(ln_edges)[index], 0.0, 1.0)
        tilt = np.array(self._tilts)[index]
        mass = np.array(self.shares)[index] * fraction * ((1.0 - tilt) + tilt * fraction)
        return np.asarray(below[index] + mass, dtype=np.float64)

    def comparison_bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bins in which achieved and requested shares are compared.

        Returns:
            (bin + 1,) edges and (bin,) shares: those of a bins or grid target, 8 equal ones in ln SNR otherwise.
        """
        if self.values or (len(self.shares) > 1 and not any(self._tilts)):
            return np.array(self.edges), np.array(self.shares) / sum(self.shares)
        edges = np.exp(np.linspace(math.log(self.edges[0]), math.log(self.edges[-1]), _COMPARISON_BINS + 1))
        edges[0], edges[-1] = self.edges[0], self.edges[-1]
        return edges, np.diff(self.cdf(edges))

    def cells(self, n_cells: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """About n_cells equal cells in ln SNR, every edge of the target between two of them.

        Returns:
            (cell + 1,) nodes in ln SNR; (cell,) target densities at the left and at the right end of each cell. Of a
            grid, (value,) nodes and twice the shares.
        """
        if self.values:
            return np.log(self.values), np.array(self.shares), np.array(self.shares)
        ln_edges = np.log(np.array(self.edges))
        width = (ln_edges[-1] - ln_edges[0]) / n_cells
        nodes, left, right = [ln_edges[:1]], [], []
        for index, (low, high) in enumerate(pairwise(ln_edges.tolist())):
            count = max(1, round((high - low) / width))
            share, tilt = self.shares[index] / (high - low), self._tilts[index]
            slope = share * (1.0 + tilt * (2.0 * np.arange(count + 1) / count - 1.0))
            nodes.append(np.linspace(low, high, count + 1)[1:])
            left.append(slope[:-1])
            right.append(slope[1:])
        return np.concatenate(nodes), np.concatenate(left), np.concatenate(right)

    @property
    def _tilts(self) -> tuple[float, ...]:
        return self.tilts or (0.0,) * len(self.shares)


@dataclass(frozen=True)
class PilotDraws:
    """Independent prior draws.

    Attributes:
        per_flux: (draw,) target metric per nanomaggy of source flux; 0 where nothing was seen.
        mag_r: (draw,) magnitude that was drawn with it. [mag]
        host: (draw,) number of the host.
    """

    per_flux: NDArray[np.float64]
    mag_r: NDArray[np.float64]
    host: NDArray[np.int64]

    def snr(self) -> NDArray[np.float64]:
        """(draw,) target metric of the draws as they fell."""
        return np.asarray(self.per_flux * 10.0 ** (-0.4 * (self.mag_r - 22.5)), dtype=np.float64)


@dataclass(frozen=True)
class Pilot:
    """The SNR density of the prior over the hosts of the run, within the target's support.

    Attributes:
        ln_nodes: (node,) in ln SNR; of a grid target, its values.
        density: (node,) density in ln SNR, of all draws, also those outside the support.
        density_error: (node,) standard error of the density, draws of one host taken together.
        n_draws, n_hosts: draws made, and on how many hosts.
        snr_range: 0.1 % and 99.9 % quantiles of the SNR as drawn.
        target_hits: draws that fell into each target bin; of a grid, draws that can have the value.
        target_mass: prior mass of each target bin; of a grid, the density at the value.
        target_error: relative standard error of that; None without mass.
        unreachable: target bins that were left out, because no draw fell there.
        envelope: M of the pooled rejection sampler, safety factor included; None where the density vanishes
            inside the target.
    """

    ln_nodes: tuple[float, ...]
    density: tuple[float, ...]
    density_error: tuple[float, ...]
    n_draws: int
    n_hosts: int
    snr_range: tuple[float, float]
    target_hits: tuple[int, ...]
    target_mass: tuple[float, ...]
    target_error: tuple[float | None, ...]
    unreachable: tuple[int, ...]
    envelope: float | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Pilot:
        """Rebuild a pilot from its stored document; KeyError for a field that is not there."""
        fields: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            fields[name] = tuple(content[name]) if isinstance(content[name], list) else content[name]
        return cls(**fields)

    def ln_density(self, snr: float) -> float:
        """Estimated q in ln SNR; 0 outside the target's support."""
        if not snr > 0:
            return 0.0
        return float(np.interp(math.log(snr), self.ln_nodes, self.density, left=0.0, right=0.0))


def snr_density(
    per_flux: Sequence[float], prior: MagnitudePrior, snr: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Density of ln SNR under the magnitude prior, draw by draw.

    Args:
        per_flux: (draw,) SNR per nanomaggy; 0 for a draw without signal, which has no density anywhere.
        snr: (value,) > 0.

    Returns:
        (draw, value) q(ln snr | draw); its mean over draws is unbiased.
    """
    values = [float(value) for value in snr]
    rows = [
        [prior.ln_flux_density(magnitude(value / kappa)) if kappa > 0 else 0.0 for value in values]
        for kappa in per_flux
    ]
    return np.array(rows, dtype=np.float64).reshape(len(per_flux), len(values))


def estimate_pilot(draws: PilotDraws, target: SnrTarget, section: SamplingSection, prior: MagnitudePrior) -> Pilot:
    """Estimate q(ln SNR) from pilot draws and the envelope M = safety * sup(pi / q).

    Raises:
        ContractError: a target bin with share > 0 that no draw reached, unless `allow_renormalise`; the message
            names the bin and the range that the prior reaches. With `hosts: pooled` also a bin whose mass is known
            worse than `pilot_error_max`, or within which the density vanishes.
    """
    snr = draws.snr()
    positive = snr[snr > 0]
    reach = tuple(np.quantile(positive, [0.001, 0.999]).tolist()) if positive.size else (0.0, 0.0)
    masses = _bin_masses(draws, target, prior)
    hits = (masses > 0).sum(axis=0) if target.values else np.histogram(snr, bins=np.asarray(target.edges))[0]
    wanted = [index for index, share in enumerate(target.shares) if share > 0]
    missed = tuple(index for index in wanted if hits[index] < _MIN_PILOT_HITS)
    if missed and (len(missed) == len(wanted) or not section.allow_renormalise):
        raise ContractError(
            f"sampling.target asks for {target.shares[missed[0]]:.0%} of samples with {section.metric} "
            f"{_bin_text(target, missed[0])}, but none of {snr.size} pilot draws fell there; the priors reach "
            f"{reach[0]:.3g}-{reach[1]:.3g} (0.1-99.9 %). Widen injection.priors.src_mag_r, change the target or the "
            "metric, or leave such bins out with sampling.allow_renormalise"
        )
    reduced = target.without(missed)
    ln_nodes, left, right = reduced.cells(section.pilot_bins)
    density, error = _clustered(snr_density(draws.per_flux.tolist(), prior, np.exp(ln_nodes)), draws.host)
    mass, mass_error = _clustered(masses, draws.host)
    relative = [float(e / m) if m > 0 else None for m, e in zip(mass, mass_error, strict=True)]
    bound = None if target.values else sup_ratio(density, left, right)
    if section.hosts == "pooled":
        _demand_precision(target, section, [index for index in wanted if index not in missed], relative)
        if (target.values and (density[np.array(reduced.shares) > 0] == 0).any()) or bound == math.inf:
            raise ContractError(
                f"hosts: pooled needs priors that reach the whole target, but the density of {section.metric} "
                f"vanishes within it; the priors reach {reach[0]:.3g}-{reach[1]:.3g} (0.1-99.9 %)"
            )
    return Pilot(
        ln_nodes=tuple(ln_nodes.tolist()),
        density=tuple(density.tolist()),
        density_error=tuple(error.tolist()),
        n_draws=int(snr.size),
        n_hosts=int(np.unique(draws.host).size),
        snr_range=(float(reach[0]), float(reach[1])),
        target_hits=tuple(int(count) for count in hits),
        target_mass=tuple(mass.tolist()),
        target_error=tuple(relative),
        unreachable=missed,
        envelope=None if bound is None or bound == math.inf else section.safety_factor * bound,
    )


def sup_ratio(density: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Largest pi / q at the nodes of `SnrTarget.cells`; infinite where q vanishes and pi does not.

    Args:
        density: (cell + 1,) q at the nodes.
        left, right: (cell,) pi at the ends of each cell.
    """
    wanted = np.concatenate([left, right])
    found = np.concatenate([density[:-1], density[1:]])[wanted > 0]
    return float((wanted[wanted > 0] / found).max()) if (found > 0).all() else math.inf


def _bin_masses(draws: PilotDraws, target: SnrTarget, prior: MagnitudePrior) -> NDArray[np.float64]:
    """(draw, bin) prior mass of each draw in each target bin; of a grid, its density at each value."""
    if target.values:
        return snr_density(draws.per_flux.tolist(), prior, target.values)
    rows = []
    for kappa in draws.per_flux.tolist():
        mags = [magnitude(edge / kappa) for edge in target.edges] if kappa > 0 else [math.inf] * len(target.edges)
        rows.append([prior.mass(faint, bright) for faint, bright in pairwise(mags)])
    return np.array(rows, dtype=np.float64).reshape(draws.per_flux.size, len(target.shares))


def _clustered(values: NDArray[np.float64], host: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(column,) means over draws and their standard errors, draws of one host being dependent."""
    n = max(values.shape[0], 1)
    mean = values.sum(axis=0) / n
    _, index = np.unique(host, return_inverse=True)
    sums = np.zeros((int(index.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, index, values - mean)
    return mean, np.sqrt((sums**2).sum(axis=0)) / n


def _demand_precision(
    target: SnrTarget, section: SamplingSection, bins: Sequence[int], relative: Sequence[float | None]
) -> None:
    for index in bins:
        error = relative[index]
        if error is None or error > section.pilot_error_max:
            raise ContractError(
                f"hosts: pooled: the prior's mass with {section.metric} {_bin_text(target, index)} is known to "
                f"{error or math.inf:.1%} only, sampling.pilot_error_max asks for {section.pilot_error_max:.1%}; "
                "raise sampling.pilot_draws"
            )


def _bin_text(target: SnrTarget, index: int) -> str:
    if target.values:
        return f"of {target.values[index]:g}"
    return f"in {target.edges[index]:g}-{target.edges[index + 1]:g}"
