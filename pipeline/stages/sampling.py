"""Control of the SNR distribution: the target, the pilot's estimate of the proposal, acceptance.

With rho the target metric, q(rho) its density under the prior and pi(rho) the target:
  rejection   accept a prior draw with pi(rho) / (M q(rho)), M = safety * sup(pi / q); q is pooled over
              hosts, so this is exact where the hosts are alike or sampling.max_attempts is 1, and is the
              reference for snr_first, which needs neither;
  snr_first   assign rho ~ pi to the task, hold it while redrawing everything but the flux, solve the
              flux (every metric is linear in it) and accept with p_m(m) / max p_m.
Accepted rows carry w = q / pi, which turns them back into the prior restricted to the target's support.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.config import BinsTarget, LogUniformTarget, SamplingSection
from pipeline.contracts.errors import ContractError

# A target bin with fewer pilot draws than this counts as unreachable.
_MIN_PILOT_HITS = 1
# Share of a > 1 events above which the rejection sampler's result is not the target.
CLIPPED_SHARE_MAX = 1e-3


@dataclass(frozen=True)
class SnrTarget:
    """Piecewise log-uniform density: `shares[i]` of the mass between `edges[i]` and `edges[i + 1]`."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, section: BinsTarget | LogUniformTarget) -> SnrTarget:
        """The target that a configuration section describes."""
        if isinstance(section, LogUniformTarget):
            return cls((section.low, section.high), (1.0,))
        return cls(section.edges, section.shares)

    def quantile(self, uniform: float) -> float:
        """SNR below which the share `uniform` in (0, 1) of the target lies."""
        below = 0.0
        for (low, high), share in zip(pairwise(self.edges), self.shares, strict=True):
            if share > 0 and uniform <= below + share:
                return min(high, float(low * (high / low) ** ((uniform - below) / share)))
            below += share
        return self.edges[-1]

    def ln_density(self, snr: float) -> float:
        """Density in ln SNR; 0 outside the support."""
        if self.edges[0] <= snr <= self.edges[-1]:
            for (low, high), share in zip(pairwise(self.edges), self.shares, strict=True):
                if snr <= high:
                    return share / math.log(high / low)
        return 0.0


@dataclass(frozen=True)
class Pilot:
    """Histogram of ln SNR under the prior, over the hosts of the run, within the target's support.

    Attributes:
        ln_edges: (bin + 1,) edges in ln SNR.
        density: (bin,) density in ln SNR, normalised over all draws, also those outside the support.
        n_draws: draws made.
        snr_range: 0.1 % and 99.9 % quantiles of the proposal.
        target_hits: draws that fell between each pair of target edges.
        envelope: M of the rejection sampler, safety factor included.
    """

    ln_edges: tuple[float, ...]
    density: tuple[float, ...]
    n_draws: int
    snr_range: tuple[float, float]
    target_hits: tuple[int, ...]
    envelope: float

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Pilot:
        """Rebuild a pilot from its stored document."""
        low, high = content["snr_range"]
        return cls(
            ln_edges=tuple(content["ln_edges"]),
            density=tuple(content["density"]),
            n_draws=int(content["n_draws"]),
            snr_range=(low, high),
            target_hits=tuple(content["target_hits"]),
            envelope=float(content["envelope"]),
        )

    def ln_density(self, snr: float) -> float:
        """Estimated q in ln SNR; 0 outside the target's support."""
        position = np.searchsorted(self.ln_edges, math.log(snr), side="right") - 1 if snr > 0 else -1
        if snr > 0 and math.log(snr) == self.ln_edges[-1]:
            position = len(self.density) - 1
        return self.density[position] if 0 <= position < len(self.density) else 0.0


def estimate_pilot(snr: NDArray[np.float64], target: SnrTarget, section: SamplingSection) -> Pilot:
    """Estimate q(ln SNR) from pilot draws and the envelope M = safety * sup(pi / q).

    Bins subdivide each target interval, so that no bin straddles a jump of the target.

    Args:
        snr: (draw,) the metric of independent prior draws over the run's hosts.

    Raises:
        ContractError: a target bin with share > 0 that no pilot draw reached; the message names the
            bin and the range that the prior reaches.
    """
    counts, _ = np.histogram(snr, bins=np.asarray(target.edges))
    positive = snr[snr > 0]
    reach = tuple(np.quantile(positive, [0.001, 0.999]).tolist()) if positive.size else (0.0, 0.0)
    for count, (low, high), share in zip(counts, pairwise(target.edges), target.shares, strict=True):
        if share > 0 and count < _MIN_PILOT_HITS:
            raise ContractError(
                f"sampling.target asks for {share:.0%} of samples with {section.metric} in {low:g}-{high:g}, but none "
                f"of {snr.size} pilot draws fell there; the priors reach {reach[0]:.3g}-{reach[1]:.3g} "
                "(0.1-99.9 %). Widen injection.priors.src_mag_r, or change the target or the metric"
            )
    ln_edges = _subdivide(target.edges, section.pilot_bins)
    hits, _ = np.histogram(np.log(positive), bins=ln_edges)
    density = hits / (snr.size * np.diff(ln_edges))
    centres = np.exp(0.5 * (ln_edges[:-1] + ln_edges[1:]))
    wanted = np.array([target.ln_density(float(centre)) for centre in centres])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(wanted > 0, wanted / density, 0.0)
    finite = ratio[np.isfinite(ratio)]
    envelope = section.safety_factor * float(finite.max()) if finite.size else math.inf
    return Pilot(
        ln_edges=tuple(ln_edges.tolist()),
        density=tuple(density.tolist()),
        n_draws=int(snr.size),
        snr_range=(float(reach[0]), float(reach[1])),
        target_hits=tuple(int(count) for count in counts),
        envelope=envelope,
    )


def rejection_probability(snr: float, target: SnrTarget, pilot: Pilot) -> float:
    """pi / (M q), before clipping to 1; infinite where the pilot saw nothing but the target wants something."""
    wanted = target.ln_density(snr)
    if wanted == 0.0:
        return 0.0
    proposal = pilot.ln_density(snr)
    return wanted / (pilot.envelope * proposal) if proposal > 0 else math.inf


def _subdivide(edges: Sequence[float], n_bins: int) -> NDArray[np.float64]:
    ln_edges = np.log(np.asarray(edges, dtype=np.float64))
    width = (ln_edges[-1] - ln_edges[0]) / n_bins
    pieces = [np.linspace(low, high, max(1, round((high - low) / width)) + 1)[:-1] for low, high in pairwise(ln_edges)]
    return np.concatenate([*pieces, ln_edges[-1:]])
