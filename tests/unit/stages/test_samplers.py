"""The samplers on hosts whose SNR per flux has a closed form, and the two wrong rules beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.priors import Prior
from pipeline.contracts.sampling import SamplingSection
from pipeline.kernels.random import (
    PURPOSE_ACCEPT,
    PURPOSE_PILOT,
    PURPOSE_PRIOR,
    PURPOSE_TARGET,
    keyed_normal,
    keyed_uniform,
    task_keys,
)
from pipeline.stages.mag_prior import MagnitudePrior, magnitude
from pipeline.stages.samplers import (
    ArcSampler,
    Refused,
    Selection,
    Trial,
    bin_counters,
    is_bin_counter,
)
from pipeline.stages.sampling import CLIPPED_SHARE_MAX, Pilot, PilotDraws, SnrTarget, estimate_pilot
from pipeline.stages.target_fit import fit_target

LOG = {"kind": "loguniform", "low": 2, "high": 50}
NARROW = Prior(kind="uniform", low=23.0, high=26.0)
WIDE = Prior(kind="normal", mean=24.0, sigma=1.6, low=18.0, high=30.0)
HOST_PURPOSE = 77
MODES = [(method, hosts) for hosts in ("conditional", "pooled") for method in ("snr_first", "rejection")]


@dataclass(frozen=True)
class Draw:
    """What is drawn: two numbers that decide the SNR per flux, and the host's."""

    size: float
    shape: float
    host: float


@dataclass(frozen=True)
class Host:
    """Draws of ln kappa = ln 20 + host + 0.6 N(0, 1), the normal being `shape`; `size` decides nothing.

    Hosts of `kinds` are unlike on purpose: their offset, and how much the shape matters, differ by kind.
    """

    key: np.uint64
    prior: Prior
    kinds: tuple[tuple[float, float], ...] = ()
    seed: int = 5
    ln_scale: float = math.log(20.0)

    def offset_and_spread(self) -> tuple[float, float]:
        """Of ln kappa on this host."""
        if self.kinds:
            return self.kinds[int(self.key) % len(self.kinds)]
        return 0.5 * float(keyed_normal(1, self.key, HOST_PURPOSE, 0, 0)), 0.6

    def trial(self, purpose: int, attempt: int) -> Trial[Draw]:
        """One draw."""
        uniform = float(keyed_uniform(self.seed, self.key, purpose, attempt, 0))
        shape = float(keyed_normal(self.seed, self.key, purpose, attempt, 1))
        size = float(keyed_uniform(self.seed, self.key, purpose, attempt, 2))
        offset, spread = self.offset_and_spread()
        kappa = math.exp(self.ln_scale + offset + spread * shape)
        return Trial(kappa, drawn_magnitude(self.prior, uniform), Draw(size, shape, offset))

    def target_uniform(self) -> float:
        """Assigns the SNR."""
        return float(keyed_uniform(self.seed, self.key, PURPOSE_TARGET, 0, 0))

    def accept_uniform(self, attempt: int) -> float:
        """Decides on an attempt."""
        return float(keyed_uniform(self.seed, self.key, PURPOSE_ACCEPT, attempt, 0))


def drawn_magnitude(prior: Prior, uniform: float) -> float:
    """Quantile of a uniform or truncated normal prior."""
    low, high = prior.bounds
    if prior.mean is None or prior.sigma is None:
        return low + (high - low) * uniform
    normal = NormalDist(prior.mean, prior.sigma)
    below, above = normal.cdf(low), normal.cdf(high)
    return normal.inv_cdf(below + uniform * (above - below))


UNLIKE = ((-0.9, 0.3), (0.0, 0.9), (0.8, 0.5))


@cache
def keys(n_tasks: int) -> NDArray[np.uint64]:
    """Keys of tasks."""
    return task_keys([f"toy-{index}" for index in range(n_tasks)])


def section(method: str, hosts: str = "conditional", **values: object) -> SamplingSection:
    """A section on the log-uniform target with a bound-free envelope."""
    defaults = {"target": LOG, "metric": "arc_snr", "pilot_bins": 24, "safety_factor": 1.0, "host_draws": 64}
    if hosts == "conditional":
        defaults["max_attempts"] = 2000
    return SamplingSection.model_validate({**defaults, "method": method, "hosts": hosts, **values})


def prior_draws(prior: Prior, kinds: tuple[tuple[float, float], ...], n_hosts: int) -> PilotDraws:
    """One pilot draw on each of many hosts."""
    trials = [Host(key, prior, kinds, seed=9).trial(PURPOSE_PILOT, 0) for key in keys(n_hosts)]
    return PilotDraws(
        np.array([trial.per_flux for trial in trials]),
        np.array([trial.mag_r for trial in trials]),
        np.arange(n_hosts),
    )


@cache
def pilot_of(prior: Prior, kinds: tuple[tuple[float, float], ...], n_hosts: int = 12_000) -> Pilot:
    """A pilot for the pooled methods."""
    spec = section("rejection", "pooled")
    return estimate_pilot(prior_draws(prior, kinds, n_hosts), SnrTarget((2, 50), (1.0,)), spec, MagnitudePrior(prior))


@dataclass
class Sample:
    """Accepted draws of many tasks, as columns."""

    selections: list[Selection[Draw]]
    refused: list[Refused]
    sampler: ArcSampler
    columns: dict[str, NDArray[np.float64]]

    @property
    def weight(self) -> NDArray[np.float64]:
        """(accepted,) weight_prior."""
        return np.array([selection.weight_prior for selection in self.selections])


def run(
    spec: SamplingSection, prior: Prior, kinds: tuple[tuple[float, float], ...], n_tasks: int, seed: int = 5
) -> Sample:
    """Sample every task; the SNR of what was kept is recomputed from its magnitude."""
    pilot = pilot_of(prior, kinds) if spec.hosts == "pooled" else None
    sampler = ArcSampler(spec, MagnitudePrior(prior), pilot)
    hosts = [Host(key, prior, kinds, seed) for key in keys(n_tasks)]
    results = [sampler.sample(host) for host in hosts]
    kept = [(host, result) for host, result in zip(hosts, results, strict=True) if isinstance(result, Selection)]
    ln_snr = [
        math.log(host.trial(PURPOSE_PRIOR, result.attempts - 1).per_flux) + 0.4 * math.log(10) * (22.5 - result.mag_r)
        for host, result in kept
    ]
    columns = {
        "ln_snr": np.array(ln_snr),
        "mag_r": np.array([result.mag_r for _, result in kept]),
        **{name: np.array([getattr(result.payload, name) for _, result in kept]) for name in Draw.__annotations__},
    }
    return Sample([result for _, result in kept], [r for r in results if isinstance(r, Refused)], sampler, columns)


def meets_target(snr: NDArray[np.float64]) -> bool:
    """The check of every rule: total variation within 4 sigma of an ideal sample, and KS."""
    fit = fit_target(snr, SnrTarget((2, 50), (1.0,)), np.random.default_rng(1))
    return fit.outside == 0 and fit.tv <= fit.tv_mean_ideal + 4 * fit.tv_std_ideal and fit.ks_p > 1e-3


@cache
def unlike(method: str, hosts: str) -> Sample:
    """Samples over hosts that are unlike, all of which reach the target."""
    n_tasks = {"conditional": 2000, "pooled": 16_000}[hosts]
    return run(section(method, hosts), WIDE, UNLIKE, n_tasks, seed=5 if method == "snr_first" else 6)


@pytest.mark.parametrize(("method", "hosts"), MODES)
def test_achieved_snr_meets_the_target(method: str, hosts: str) -> None:
    """Every sampler meets the target within the Monte-Carlo floor, over unlike hosts, and clips next to nothing."""
    sample = unlike(method, hosts)
    assert meets_target(np.exp(sample.columns["ln_snr"]))
    work = sample.sampler.work
    assert work.clipped <= CLIPPED_SHARE_MAX * max(work.proposals, 1)


@pytest.mark.parametrize("hosts", ["conditional", "pooled"])
def test_rejection_and_snr_first_give_one_distribution(hosts: str) -> None:
    """KS on every drawn parameter over unlike hosts; correlations with the host agree too."""
    first, second = unlike("snr_first", hosts).columns, unlike("rejection", hosts).columns
    p_values = {name: stats.ks_2samp(first[name], second[name]).pvalue for name in first}
    assert min(p_values.values()) > 1e-3, p_values
    for name in ("shape", "mag_r", "host"):
        r = [np.corrcoef(columns["ln_snr"], columns[name])[0, 1] for columns in (first, second)]
        assert r[0] == pytest.approx(r[1], abs=5 / math.sqrt(len(second["ln_snr"]))), name


def test_conditional_and_pooled_are_told_apart() -> None:
    """The comparison has power: hosts follow the SNR when pooled, and not when every host gets its arc."""
    conditional, pooled = unlike("snr_first", "conditional").columns, unlike("snr_first", "pooled").columns
    assert abs(np.corrcoef(conditional["ln_snr"], conditional["host"])[0, 1]) < 0.1
    assert np.corrcoef(pooled["ln_snr"], pooled["host"])[0, 1] > 0.2


@pytest.mark.parametrize(("method", "hosts"), [*MODES, ("direct", "conditional")])
def test_weights_recover_the_prior(method: str, hosts: str) -> None:
    """Weighted means of every parameter are those of prior draws inside the target; so is the mean weight."""
    sample = unlike(method, hosts) if method != "direct" else run(section("direct"), WIDE, UNLIKE, 3000)
    draws = [Host(key, WIDE, UNLIKE, seed=12).trial(PURPOSE_PRIOR, 0) for key in keys(12_000)]
    snr = np.array([draw.snr() for draw in draws])
    inside = (snr >= 2) & (snr <= 50)
    prior = {name: np.array([getattr(draw.payload, name) for draw in draws])[inside] for name in Draw.__annotations__}
    prior |= {"ln_snr": np.log(snr[inside]), "mag_r": np.array([draw.mag_r for draw in draws])[inside]}
    weight = sample.weight
    for name, values in prior.items():
        drawn = sample.columns[name]
        mean = np.average(drawn, weights=weight)
        error = math.hypot(
            math.sqrt(np.sum((weight * (drawn - mean)) ** 2)) / weight.sum(), values.std() / math.sqrt(values.size)
        )
        assert abs(mean - values.mean()) < 4.5 * error, name
    mass_error = math.hypot(weight.std() / math.sqrt(weight.size), math.sqrt(inside.mean() / snr.size))
    assert weight.mean() == pytest.approx(inside.mean(), abs=4.5 * mass_error + 0.01)
    assert abs(sample.columns["ln_snr"].mean() - prior["ln_snr"].mean()) > 0.1


@pytest.mark.parametrize(
    ("method", "acceptance", "correlation"), [("rejection", 0.045, 0.444), ("snr_first", 0.248, 0.441)]
)
def test_pooled_samplers_have_their_known_acceptance(method: str, acceptance: float, correlation: float) -> None:
    """A prior of three magnitudes: acceptance and correlation with the host as integrated independently."""
    sample = run(section(method, "pooled"), NARROW, (), 30_000)
    n = len(sample.selections)
    assert n / 30_000 == pytest.approx(acceptance, rel=0.12)
    assert np.corrcoef(sample.columns["ln_snr"], sample.columns["host"])[0, 1] == pytest.approx(
        correlation, abs=4 / math.sqrt(n)
    )
    assert sample.columns["ln_snr"].mean() == pytest.approx(0.5 * math.log(100), abs=4 * 0.93 / math.sqrt(n))
    assert len(sample.refused) == 30_000 - n
    assert {(refusal.reason, refusal.attempts) for refusal in sample.refused} == {("sampler_exhausted", 1)}


def test_direct_has_its_known_weights() -> None:
    """Every task gets an arc; the weights take it to the prior's mean 1.781 at an effective share of 0.556."""
    sample = run(section("direct"), NARROW, (), 20_000)
    assert not sample.refused
    weight = sample.weight
    assert np.average(sample.columns["ln_snr"], weights=weight) == pytest.approx(1.781, abs=0.03)
    assert weight.sum() ** 2 / (weight**2).sum() / weight.size == pytest.approx(0.556, abs=0.015)
    assert abs(np.corrcoef(sample.columns["ln_snr"], sample.columns["host"])[0, 1]) < 0.03
    outside = np.array([selection.outside_prior for selection in sample.selections])
    mags = sample.columns["mag_r"]
    np.testing.assert_array_equal(outside, (mags < 23.0) | (mags > 26.0))
    np.testing.assert_array_equal(outside, weight == 0.0)


def test_rejection_with_the_density_of_all_hosts_misses_the_target_of_each() -> None:
    """Why a host that is tried again needs its own q: with the pooled one, the faint hosts' SNRs stay low."""
    spec, prior, pilot = section("rejection", "pooled"), MagnitudePrior(WIDE), pilot_of(WIDE, UNLIKE)
    sampler = ArcSampler(spec.model_copy(update={"max_attempts": 2000}), prior, pilot)
    kept = [(host, sampler.sample(host)) for host in (Host(key, WIDE, UNLIKE) for key in keys(1500))]
    ln_snr, offset = np.array(
        [
            (math.log(host.trial(PURPOSE_PRIOR, found.attempts - 1).snr()), found.payload.host)
            for host, found in kept
            if isinstance(found, Selection)
        ]
    ).T
    assert len(ln_snr) == 1500
    assert abs(np.corrcoef(ln_snr, offset)[0, 1]) > 0.2


def accept_two_over_snr(host: Host) -> float:
    """Wrong: accepts with 2 / SNR, right for a uniform proposal only."""
    for attempt in range(2000):
        snr = host.trial(PURPOSE_PRIOR, attempt).snr()
        if 2 <= snr <= 50 and host.accept_uniform(attempt) < 2 / snr:
            return snr
    return math.nan


def redraw_snr_on_failure(host: Host) -> float:
    """Wrong: assigns another SNR at every attempt."""
    prior, target = MagnitudePrior(host.prior), SnrTarget((2, 50), (1.0,))
    for attempt in range(2000):
        snr = target.quantile(float(keyed_uniform(host.seed, host.key, PURPOSE_TARGET, attempt, 0)))
        mag = magnitude(snr / host.trial(PURPOSE_PRIOR, attempt).per_flux)
        if host.accept_uniform(attempt) < prior.acceptance(mag):
            return snr
    return math.nan


@pytest.mark.parametrize("rule", [accept_two_over_snr, redraw_snr_on_failure])
def test_wrong_rules_fail_the_check_that_ours_pass(rule: Callable[[Host], float]) -> None:
    """On the hosts and draws on which ours pass, accepting with 2 / SNR and redrawing the SNR miss the target."""
    snr = np.array([rule(Host(key, WIDE, UNLIKE)) for key in keys(1500)])
    assert np.isfinite(snr).all()
    assert not meets_target(snr)


@pytest.mark.parametrize(("method", "hosts"), [*MODES, ("direct", "conditional")])
def test_tasks_do_not_depend_on_each_other(method: str, hosts: str) -> None:
    """In another order, in parts, and asked twice, every task gets the same, and the counters add up the same."""
    spec = section(method, hosts)
    pilot = pilot_of(WIDE, UNLIKE) if hosts == "pooled" else None
    tasks = [Host(key, WIDE, UNLIKE) for key in keys(60)]

    def sampler() -> ArcSampler:
        return ArcSampler(spec, MagnitudePrior(WIDE), pilot)

    whole = sampler()
    expected = [whole.sample(task) for task in tasks]
    parts = [sampler() for _ in range(4)]
    backward = {task.key: parts[index % 4].sample(task) for index, task in reversed(list(enumerate(tasks)))}
    assert [repr(backward[task.key]) for task in tasks] == [repr(result) for result in expected]
    assert [repr(whole.sample(task)) for task in tasks[:9]] == [repr(result) for result in expected[:9]]
    totals = {name: sum(part.work.counts()[name] for part in parts) for name in parts[0].work.counts()}
    again = sampler()
    for task in tasks:
        again.sample(task)
    assert totals == pytest.approx(again.work.counts())


def out_of_reach(method: str, hosts: str) -> tuple[ArcSampler, list[Selection[Draw] | Refused]]:
    """Ten tasks whose arcs are a million times too faint."""
    sampler = ArcSampler(
        section(method, hosts, max_attempts=7 if hosts == "conditional" else 1),
        MagnitudePrior(NARROW),
        pilot_of(NARROW, ()) if hosts == "pooled" else None,
    )
    return sampler, [sampler.sample(Host(key, NARROW, ln_scale=math.log(2e-5))) for key in keys(10)]


@pytest.mark.parametrize(
    ("method", "hosts", "attempts"),
    [
        ("snr_first", "conditional", 7),
        ("rejection", "conditional", 0),
        ("snr_first", "pooled", 1),
        ("rejection", "pooled", 1),
    ],
)
def test_out_of_reach_is_recorded_and_never_filled(method: str, hosts: str, attempts: int) -> None:
    """No draw comes back; the reason and the attempts do. A host that cannot reach the target is not tried."""
    sampler, results = out_of_reach(method, hosts)
    assert results == [Refused("sampler_exhausted", attempts)] * 10
    work = sampler.work
    assert work.attempts == 10 * attempts
    assert sum(counter.accepted for counter in work.bins) == 0
    assert work.hosts_unreachable == (10 if attempts == 0 else 0)
    if method == "snr_first":
        assert sum(counter.exhausted for counter in work.bins) == 10


def test_direct_keeps_and_flags_what_is_out_of_reach() -> None:
    """The SNR is met at a magnitude outside the prior; flag and weight say so."""
    _, results = out_of_reach("direct", "conditional")
    for result in results:
        assert isinstance(result, Selection)
        assert result.outside_prior
        assert result.weight_prior == 0.0


@pytest.mark.parametrize(("method", "hosts"), [*MODES, ("direct", "conditional")])
def test_arcs_on_bad_pixels_only_are_masked(method: str, hosts: str) -> None:
    """Without a good pixel under any arc the reason is arc_masked."""

    class Masked(Host):
        def trial(self, purpose: int, attempt: int) -> Trial[Draw]:
            return Trial(0.0, 24.0, super().trial(purpose, attempt).payload)

    spec = section(method, hosts, max_attempts=3 if hosts == "conditional" else 1)
    sampler = ArcSampler(spec, MagnitudePrior(WIDE), pilot_of(WIDE, UNLIKE) if hosts == "pooled" else None)
    result = sampler.sample(Masked(keys(1)[0], WIDE))
    assert isinstance(result, Refused)
    assert result.reason == "arc_masked"


GRID = {"kind": "grid", "snr": [3.0, 10.0, 30.0], "shares": [0.5, 0.3, 0.2]}


def on_grid(spec: SamplingSection, n_tasks: int) -> list[Selection[Draw]]:
    """Selections on a grid target."""
    target = SnrTarget.of(spec.target) if spec.target else None
    assert target is not None
    prior = MagnitudePrior(WIDE)
    pilot = estimate_pilot(prior_draws(WIDE, UNLIKE, 4000), target, spec, prior)
    sampler = ArcSampler(spec, prior, pilot)
    results = [sampler.sample(Host(key, WIDE, UNLIKE)) for key in keys(n_tasks)]
    return [result for result in results if isinstance(result, Selection)]


@pytest.mark.parametrize(
    ("method", "hosts", "n_tasks"),
    [("direct", "conditional", 2000), ("snr_first", "conditional", 1500), ("snr_first", "pooled", 8000)],
)
def test_grid_has_its_values_shares_and_weights(method: str, hosts: str, n_tasks: int) -> None:
    """SNRs are the grid's, in its shares; the weights of a value add up to the prior's density there."""
    kept = on_grid(section(method, hosts, target=GRID), n_tasks)
    snr = np.array([selection.snr_target for selection in kept])
    assert set(snr.tolist()) == set(GRID["snr"])
    reference = pilot_of(WIDE, UNLIKE)
    for value, share in zip(GRID["snr"], GRID["shares"], strict=True):
        at = snr == value
        assert at.mean() == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / len(kept)))
        weight = np.array([selection.weight_prior for selection in kept]) * at
        density = reference.ln_density(value)
        assert weight.mean() == pytest.approx(density, abs=5 * weight.std() / math.sqrt(weight.size) + 0.03 * density)


def test_unreachable_bins_of_the_pilot_are_left_out() -> None:
    """With a bin left out by the pilot no task is assigned an SNR in it."""
    prior = MagnitudePrior(NARROW)
    bins = {"kind": "bins", "edges": [2, 10, 1e6, 2e6], "shares": [0.4, 0.4, 0.2]}
    far = section("direct", target=bins, allow_renormalise=True)
    left_out = estimate_pilot(prior_draws(NARROW, (), 3000), SnrTarget.of(far.target), far, prior)  # type: ignore[arg-type]
    assert left_out.unreachable == (2,)
    sampler = ArcSampler(far, prior, left_out)
    assert sampler.target.shares == pytest.approx((0.5, 0.5, 0.0))
    results = [sampler.sample(Host(key, NARROW)) for key in keys(300)]
    assert max(result.snr_target for result in results if isinstance(result, Selection)) <= 1e6


def test_samplers_demand_what_they_need() -> None:
    """A sampler without target, or pooled without pilot, is an error."""
    prior = MagnitudePrior(WIDE)
    with pytest.raises(ValueError, match=r"needs sampling\.target"):
        ArcSampler(SamplingSection(method="none", metric="arc_snr"), prior, None)
    for method in ("snr_first", "rejection"):
        with pytest.raises(ValueError, match="needs a pilot"):
            ArcSampler(section(method, "pooled"), prior, None)


def test_counters_survive_flattening() -> None:
    """Bin counters are told from the others and come back from added-up counts."""
    sampler, _ = out_of_reach("snr_first", "conditional")
    counts = sampler.work.counts()
    assert bin_counters(counts, 1) == sampler.work.bins
    assert {name for name in counts if is_bin_counter(name)} == {
        "target_bin_00_attempts",
        "target_bin_00_accepted",
        "target_bin_00_exhausted",
    }
