"""The samplers: which draw a task keeps, at what magnitude, and with what weight.

rho is the target metric, psi everything drawn but the flux, kappa = rho / flux, p_m the magnitude prior, pi the
target and q the prior's density, both per unit ln rho. Hosts conditional, every host gets p(psi | rho, host) pi(rho):
  snr_first   rho ~ pi is held while psi is redrawn, until a uniform number is below p_m(m) / max p_m at the
              magnitude m that gives rho;
  rejection   a draw with its own magnitude is kept with pi(rho) / (M q(rho | host)), M = safety * sup(pi / q). q is
              the mean of q(rho | psi) over a fixed batch of the host. psi given rho is exact; over many hosts the
              density of rho is off pi by the squared coefficient of variation of q(rho | psi) over host_draws.
Hosts pooled, rows follow p(psi, host | rho) pi(rho): one draw per row, taken or left with its host;
  rejection   as above, with q of all hosts from the pilot;
  snr_first   rho ~ pi / q instead of pi, then p_m(m) / max p_m: the host passes in proportion to q(rho | psi), which
              turns pi / q into pi. Its acceptance is the harmonic mean over pi of that of the held rho; thinning by
              Z_min / Z(rho) after rho ~ pi would reach the smallest only.
direct        rho ~ pi, the first draw is kept whatever magnitude it takes: p(psi) pi(rho).
Weights are the density under the prior over that of the sample, so that weighted rows follow the prior within the
target's support, also where q is only an estimate: the estimate that biases the sample divides the weight. They are
q / pi, and for direct q(rho | psi) / pi; at a grid value, q per unit ln rho over the share there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.sampling import SamplingSection
from pipeline.contracts.survey import flux_nmgy_from_mag
from pipeline.kernels.random import PURPOSE_PRIOR, PURPOSE_WEIGHT
from pipeline.stages.linear_pieces import LinearPieces
from pipeline.stages.mag_prior import MagnitudePrior, magnitude
from pipeline.stages.sampling import Pilot, SnrTarget, snr_density, sup_ratio

Payload = TypeVar("Payload")
Payload_co = TypeVar("Payload_co", covariant=True)

_BIN_PREFIX = "target_bin_"


@dataclass(frozen=True)
class Trial(Generic[Payload_co]):
    """One prior draw on a host.

    Attributes:
        per_flux: target metric per nanomaggy of source flux; 0 where no good pixel sees the arc.
        mag_r: the magnitude that was drawn. [mag]
        payload: the draw itself.
    """

    per_flux: float
    mag_r: float
    payload: Payload_co

    def snr(self) -> float:
        """Target metric at the magnitude that was drawn."""
        return self.per_flux * float(flux_nmgy_from_mag(np.array(self.mag_r)))


class Trials(Protocol[Payload_co]):
    """Where a task's draws come from; a pure function of the task, so that nothing depends on order or retries."""

    def trial(self, purpose: int, attempt: int) -> Trial[Payload_co]:
        """Prior draw number `attempt` of a purpose."""
        ...

    def target_uniform(self) -> float:
        """The task's number in (0, 1) that assigns its SNR."""
        ...

    def accept_uniform(self, attempt: int) -> float:
        """The number in (0, 1) that decides on an attempt."""
        ...


@dataclass(frozen=True)
class Selection(Generic[Payload]):
    """The draw a task keeps.

    Attributes:
        mag_r: magnitude at which it is injected. [mag]
        snr_target: SNR that was assigned; NaN where the draw's own is kept.
        attempts: draws tried.
        weight_prior: turns selections back into the prior within the target's support.
        outside_prior: the magnitude lies outside its prior; the weight is then 0.
    """

    payload: Payload
    mag_r: float
    snr_target: float
    attempts: int
    weight_prior: float
    outside_prior: bool = False


@dataclass(frozen=True)
class Refused:
    """No draw was kept.

    Attributes:
        reason: "sampler_exhausted", or "arc_masked" where no draw was seen by a good pixel.
        attempts: draws tried; 0 where the host's priors cannot reach the whole target.
    """

    reason: str
    attempts: int


@dataclass
class BinWork:
    """What was tried in one target bin: by assigned SNR, or by the SNR of the draw."""

    attempts: int = 0
    accepted: int = 0
    exhausted: int = 0


@dataclass
class SamplerWork:
    """Counters of one shard.

    Attributes:
        attempts: draws tried. proposals, clipped: acceptance probabilities pi / (M q), and those above 1.
        hosts_enveloped, envelopes: hosts with an M of their own, and its sum.
        hosts_unreachable: hosts that cannot reach the whole target.
        bins: one per target bin.
    """

    attempts: int = 0
    proposals: int = 0
    clipped: int = 0
    hosts_enveloped: int = 0
    envelopes: float = 0.0
    hosts_unreachable: int = 0
    bins: list[BinWork] = field(default_factory=list)

    def counts(self) -> dict[str, float]:
        """Flat counters, which add up over shards."""
        flat = {name: float(value) for name, value in vars(self).items() if name != "bins"}
        return flat | {
            f"{_BIN_PREFIX}{index:02d}_{name}": float(value)
            for index, work in enumerate(self.bins)
            for name, value in vars(work).items()
        }


def is_bin_counter(name: str) -> bool:
    """True for a counter of one target bin among those of `SamplerWork.counts`."""
    return name.startswith(_BIN_PREFIX)


def bin_counters(work: Mapping[str, float], n_bins: int) -> list[BinWork]:
    """What was tried in each target bin, from added-up counters."""
    return [
        BinWork(**{name: int(work.get(f"{_BIN_PREFIX}{index:02d}_{name}", 0)) for name in BinWork.__dataclass_fields__})
        for index in range(n_bins)
    ]


class ArcSampler:
    """The configured sampler. Pure but for its counters.

    Args:
        section: any method but `none`.
        prior: of the source magnitude.
        pilot: needed by `hosts: pooled`; elsewhere only its unreachable bins are read.

    Raises:
        ValueError: no target, or `hosts: pooled` without a pilot.
    """

    def __init__(self, section: SamplingSection, prior: MagnitudePrior, pilot: Pilot | None) -> None:
        if section.target is None:
            raise ValueError("a sampler needs sampling.target")
        self.section, self.prior, self.pilot = section, prior, pilot
        self.target = SnrTarget.of(section.target).without(pilot.unreachable if pilot is not None else ())
        self.work = SamplerWork(bins=[BinWork() for _ in self.target.shares])
        self._tilted: LinearPieces | SnrTarget = self.target
        self._tilted_total = 1.0
        if section.hosts == "pooled":
            if pilot is None:
                raise ValueError(f"sampling.method: {section.method} with hosts: pooled needs a pilot")
            if section.method == "snr_first":
                self._tilt(np.array(pilot.density))

    def sample(self, trials: Trials[Payload]) -> Selection[Payload] | Refused:
        """Sample one task."""
        if self.section.method == "direct":
            return self._direct(trials)
        if self.section.method == "snr_first":
            return self._snr_first(trials)
        return self._rejection(trials)

    def assigned(self, uniform: float) -> tuple[float, float]:
        """SNR that a task's number assigns, and the density per unit ln SNR that it was drawn from."""
        tilted = self._tilted
        if isinstance(tilted, SnrTarget):
            snr = tilted.quantile(uniform)
            return snr, tilted.ln_density(snr)
        ln_snr = tilted.quantile(uniform)
        return min(max(math.exp(ln_snr), self.target.edges[0]), self.target.edges[-1]), tilted.density(ln_snr)

    def _snr_first(self, trials: Trials[Payload]) -> Selection[Payload] | Refused:
        snr, density = self.assigned(trials.target_uniform())
        counters = self._bin(snr)
        any_signal = False
        for attempt in range(self.section.max_attempts):
            self.work.attempts += 1
            counters.attempts += 1
            trial = trials.trial(PURPOSE_PRIOR, attempt)
            if trial.per_flux <= 0:
                continue
            any_signal = True
            mag = magnitude(snr / trial.per_flux)
            if trials.accept_uniform(attempt) < self.prior.acceptance(mag):
                counters.accepted += 1
                pooled = self.section.hosts == "pooled"
                found = 1.0 / self._tilted_total if pooled else self._host_density(trials, snr)
                return Selection(trial.payload, mag, snr, attempt + 1, found / density)
        counters.exhausted += any_signal
        return Refused("sampler_exhausted" if any_signal else "arc_masked", self.section.max_attempts)

    def _rejection(self, trials: Trials[Payload]) -> Selection[Payload] | Refused:
        batch: list[float] = []
        envelope = None if self.pilot is None else self.pilot.envelope
        if self.section.hosts == "conditional":
            batch = self._batch(trials, self.section.host_draws)
            if not any(kappa > 0 for kappa in batch):
                return Refused("arc_masked", 0)
            bound = self._host_bound(batch)
            if bound == math.inf:
                self.work.hosts_unreachable += 1
                return Refused("sampler_exhausted", 0)
            envelope = self.section.safety_factor * bound
            self.work.hosts_enveloped += 1
            self.work.envelopes += envelope
        if envelope is None:
            raise ValueError("rejection with hosts: pooled needs a pilot whose priors reach the whole target")
        any_signal = False
        for attempt in range(self.section.max_attempts):
            self.work.attempts += 1
            trial = trials.trial(PURPOSE_PRIOR, attempt)
            snr = trial.snr()
            any_signal = any_signal or snr > 0
            wanted = self.target.ln_density(snr)
            proposal = 0.0
            if wanted > 0:
                proposal = self._mean_density(batch, snr) if batch else self._pooled_density(snr)
                self._bin(snr).attempts += 1
            probability = wanted / (envelope * proposal) if proposal > 0 else (math.inf if wanted > 0 else 0.0)
            self.work.proposals += 1
            self.work.clipped += probability > 1.0
            if trials.accept_uniform(attempt) < probability:
                self._bin(snr).accepted += 1
                return Selection(trial.payload, trial.mag_r, math.nan, attempt + 1, proposal / wanted)
        return Refused("sampler_exhausted" if any_signal else "arc_masked", self.section.max_attempts)

    def _direct(self, trials: Trials[Payload]) -> Selection[Payload] | Refused:
        snr = self.target.quantile(trials.target_uniform())
        counters = self._bin(snr)
        self.work.attempts += 1
        counters.attempts += 1
        trial = trials.trial(PURPOSE_PRIOR, 0)
        if trial.per_flux <= 0:
            return Refused("arc_masked", 1)
        counters.accepted += 1
        mag = magnitude(snr / trial.per_flux)
        outside = not self.prior.low <= mag <= self.prior.high
        weight = self.prior.ln_flux_density(mag) / self.target.ln_density(snr)
        return Selection(trial.payload, mag, snr, 1, weight, outside)

    def _batch(self, trials: Trials[Payload], n_draws: int) -> list[float]:
        return [trials.trial(PURPOSE_WEIGHT, attempt).per_flux for attempt in range(n_draws)]

    def _host_density(self, trials: Trials[Payload], snr: float) -> float:
        """Unbiased estimate of q(ln snr | host) from a fixed batch of draws independent of acceptance."""
        return self._mean_density(self._batch(trials, self.section.weight_draws), snr)

    def _mean_density(self, batch: list[float], snr: float) -> float:
        total = 0.0
        for kappa in batch:
            total += self.prior.ln_flux_density(magnitude(snr / kappa)) if kappa > 0 else 0.0
        return total / len(batch)

    def _host_bound(self, batch: list[float]) -> float:
        ln_nodes, left, right = self.target.cells(self.section.pilot_bins)
        return sup_ratio(snr_density(batch, self.prior, np.exp(ln_nodes)).mean(axis=0), left, right)

    def _pooled_density(self, snr: float) -> float:
        return 0.0 if self.pilot is None else self.pilot.ln_density(snr)

    def _tilt(self, density: NDArray[np.float64]) -> None:
        """Prepare pi / q of the pilot, from which pooled snr_first assigns. [density: (node,)]"""
        ln_nodes, left, right = self.target.cells(self.section.pilot_bins)
        if self.target.values:
            ratio = np.array([w / q if w > 0 else 0.0 for w, q in zip(left, density, strict=True)])
            self._tilted_total = float(ratio.sum())
            self._tilted = replace(self.target, shares=tuple((ratio / ratio.sum()).tolist()))
            return
        left = np.array([w / q if w > 0 else 0.0 for w, q in zip(left, density[:-1], strict=True)])
        right = np.array([w / q if w > 0 else 0.0 for w, q in zip(right, density[1:], strict=True)])
        self._tilted_total = float((0.5 * (left + right) * np.diff(ln_nodes)).sum())
        self._tilted = LinearPieces.of(ln_nodes.tolist(), left.tolist(), right.tolist())

    def _bin(self, snr: float) -> BinWork:
        index = self.target.bin_of(snr)
        return BinWork() if index is None else self.work.bins[index]
