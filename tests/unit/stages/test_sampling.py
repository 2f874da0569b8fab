"""SNR targets, the pilot, and the acceptance rules with the two wrong rules beside them."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from pipeline.contracts.config import BinsTarget, LogUniformTarget, SamplingSection
from pipeline.contracts.errors import ContractError
from pipeline.contracts.priors import Prior
from pipeline.stages.draws import mag_density, mag_density_max
from pipeline.stages.sampling import CLIPPED_SHARE_MAX, Pilot, SnrTarget, estimate_pilot, rejection_probability

BINS = BinsTarget(kind="bins", edges=(0.8, 2, 8, 20, 100), shares=(0.4, 0.4, 0.15, 0.05))
LOG = LogUniformTarget(kind="loguniform", low=2, high=50)
# Lognormal that reproduces the EMR system's measured SNR: mean 8.51, median 4.67.
PROPOSAL = stats.lognorm(s=1.08, scale=4.67)


def section(target: BinsTarget | LogUniformTarget, **values: object) -> SamplingSection:
    """A rejection section."""
    return SamplingSection(method="rejection", metric="arc_snr", target=target, **values)


def pilot_of(target: BinsTarget | LogUniformTarget, n_draws: int = 200_000, seed: int = 3, **values: object) -> Pilot:
    """A pilot on the lognormal proposal."""
    draws = PROPOSAL.rvs(n_draws, random_state=seed)
    return estimate_pilot(draws, SnrTarget.of(target), section(target, **values))


def shares_of(snr: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Fractions between edges."""
    return np.histogram(snr, edges)[0] / len(snr)


@pytest.mark.parametrize("config", [BINS, LOG])
def test_density_integrates_to_one_with_its_shares(config: BinsTarget | LogUniformTarget) -> None:
    """The density in ln SNR integrates to 1, and over each bin to the bin's share."""
    target = SnrTarget.of(config)
    parts = [
        integrate.quad(lambda ln: target.ln_density(math.exp(ln)), math.log(low), math.log(high))[0]
        for low, high in pairwise(target.edges)
    ]
    assert parts == pytest.approx(list(target.shares), abs=1e-6)
    assert target.ln_density(target.edges[0] * 0.999) == target.ln_density(target.edges[-1] * 1.001) == 0.0
    assert target.ln_density(math.nan) == target.ln_density(0.0) == target.ln_density(-3.0) == 0.0


@st.composite
def targets(draw: st.DrawFn) -> SnrTarget:
    """Targets with any number of bins, some of them empty."""
    steps = draw(st.lists(st.floats(0.05, 2.0), min_size=1, max_size=6))
    edges = np.exp(np.cumsum([draw(st.floats(-2, 1)), *steps]))
    weights = np.array(draw(st.lists(st.integers(0, 5), min_size=len(steps), max_size=len(steps))), dtype=float)
    weights[0] += 1.0 if not weights.sum() else 0.0
    return SnrTarget(tuple(edges.tolist()), tuple((weights / weights.sum()).tolist()))


@settings(max_examples=200, deadline=None)
@given(target=targets(), uniform=st.floats(1e-6, 1 - 1e-6))
def test_quantile_inverts_the_distribution(target: SnrTarget, uniform: float) -> None:
    """The mass below quantile(u) is u, and the density there is positive."""
    snr = target.quantile(uniform)
    below = sum(
        share * min(1.0, max(0.0, math.log(snr / low) / math.log(high / low)))
        for (low, high), share in zip(pairwise(target.edges), target.shares, strict=True)
    )
    assert below == pytest.approx(uniform, abs=1e-9)
    assert target.ln_density(snr * (1 + 1e-12)) + target.ln_density(snr * (1 - 1e-12)) > 0


@settings(max_examples=200, deadline=None)
@given(target=targets(), last=st.integers(1, 50))
def test_extreme_quantiles_stay_in_the_support(target: SnrTarget, last: int) -> None:
    """The largest uniform numbers give an SNR whose density is positive, so that no weight divides by zero."""
    for uniform in (1.0 - last * 2.0**-53, last * 2.0**-53):
        snr = target.quantile(uniform)
        assert target.edges[0] <= snr <= target.edges[-1]


def test_quantiles_are_log_uniform_inside_bins() -> None:
    """The middle of a bin's share is the geometric middle of the bin."""
    target = SnrTarget.of(BINS)
    assert target.quantile(0.2) == pytest.approx(math.sqrt(0.8 * 2))
    assert target.quantile(0.4 + 0.2) == pytest.approx(math.sqrt(2 * 8))
    assert SnrTarget.of(LOG).quantile(0.5) == pytest.approx(10.0)


@pytest.mark.parametrize("n_draws", [4096, 100_000])
def test_pilot_density_is_right_within_its_poisson_error(n_draws: int) -> None:
    """Each bin agrees with the proposal within 5 sigma of its count; the sum is the mass in the support."""
    pilot = pilot_of(BINS, n_draws)
    edges = np.array(pilot.ln_edges)
    mass = np.diff(PROPOSAL.cdf(np.exp(edges)))
    error = np.sqrt(n_draws * mass) + 1
    assert np.all(np.abs(np.array(pilot.density) * np.diff(edges) * n_draws - n_draws * mass) < 5 * error)
    inside = PROPOSAL.cdf(100) - PROPOSAL.cdf(0.8)
    assert float(np.sum(np.array(pilot.density) * np.diff(edges))) == pytest.approx(inside, abs=5 / math.sqrt(n_draws))
    assert sum(pilot.target_hits) == pytest.approx(inside * n_draws, rel=0.05)
    assert pilot.n_draws == n_draws


def test_pilot_bins_subdivide_the_target() -> None:
    """Every target edge is a pilot edge, so no bin straddles a jump; the number is near what was asked."""
    pilot = pilot_of(BINS, pilot_bins=64)
    for edge in BINS.edges:
        assert np.min(np.abs(np.array(pilot.ln_edges) - math.log(edge))) < 1e-12
    assert len(pilot.density) == pytest.approx(64, abs=4)
    assert np.all(np.diff(pilot.ln_edges) > 0)


def test_pilot_looks_up_its_own_bins() -> None:
    """The density at a bin's centre is that bin's, at the ends the end bins', and 0 outside."""
    pilot = pilot_of(LOG)
    centres = 0.5 * (np.array(pilot.ln_edges)[1:] + np.array(pilot.ln_edges)[:-1])
    assert [pilot.ln_density(math.exp(centre)) for centre in centres] == list(pilot.density)
    assert pilot.ln_density(2.0) == pilot.density[0]
    assert pilot.ln_density(50.0) == pilot.density[-1]
    assert [pilot.ln_density(snr) for snr in (0.0, -1.0, 1.99, 50.1)] == [0.0] * 4


def test_pilot_survives_json() -> None:
    """A stored pilot is the same pilot."""
    pilot = pilot_of(BINS)
    assert Pilot.from_json({"plan_sha256": "x", **json.loads(json.dumps(vars(pilot)))}) == pilot


def test_unreachable_bin_names_bin_and_range() -> None:
    """A wanted bin without pilot draw is an error with the share, the bin, the metric and the reach."""
    draws = np.linspace(1.0, 15.0, 1000)
    with pytest.raises(ContractError) as caught:
        estimate_pilot(draws, SnrTarget.of(BINS), section(BINS))
    message = str(caught.value)
    assert "5% of samples with arc_snr in 20-100" in message
    assert "none of 1000 pilot draws" in message
    assert "the priors reach 1.01-15 (0.1-99.9 %)" in message
    assert "Widen injection.priors.src_mag_r" in message


def test_unwanted_bin_may_be_unreachable() -> None:
    """A bin with share 0 needs no draws."""
    target = BinsTarget(kind="bins", edges=(1, 10, 1000), shares=(1.0, 0.0))
    pilot = estimate_pilot(np.linspace(1, 12, 500), SnrTarget.of(target), section(target))
    assert pilot.target_hits[0] > 0
    assert rejection_probability(11.0, SnrTarget.of(target), pilot) == 0.0


@pytest.mark.parametrize("draws", [np.zeros(300), np.array([]), np.full(300, np.nan), np.full(300, -1.0)])
def test_pilot_without_signal_is_an_error(draws: np.ndarray) -> None:
    """Draws that are all zero, absent, NaN or negative reach no bin."""
    with pytest.raises(ContractError, match="none of"):
        estimate_pilot(draws, SnrTarget.of(LOG), section(LOG))


def test_envelope_bounds_the_ratio_by_the_safety_factor() -> None:
    """No pilot bin accepts with more than 1 / safety_factor, and one bin accepts with just that."""
    for factor in (1.0, 1.2, 3.0):
        pilot, target = pilot_of(BINS, safety_factor=factor), SnrTarget.of(BINS)
        centres = np.exp(0.5 * (np.array(pilot.ln_edges)[1:] + np.array(pilot.ln_edges)[:-1]))
        probabilities = [rejection_probability(float(snr), target, pilot) for snr in centres]
        assert max(probabilities) == pytest.approx(1 / factor)


@pytest.mark.parametrize("config", [BINS, LOG])
def test_rejection_reaches_the_target(config: BinsTarget | LogUniformTarget) -> None:
    """Accepted proposals have the target's shares and are log-uniform inside, almost nothing is clipped."""
    target, pilot = SnrTarget.of(config), pilot_of(config)
    generator = np.random.default_rng(11)
    snr = PROPOSAL.rvs(60_000, random_state=generator)
    probability = np.array([rejection_probability(float(value), target, pilot) for value in snr])
    accepted = snr[generator.uniform(size=snr.size) < probability]
    error = np.sqrt(np.array(target.shares) / accepted.size)
    assert np.all(np.abs(shares_of(accepted, target.edges) - target.shares) < 5 * error + 0.01)
    distance = stats.kstest(accepted, lambda x: np.array([_cdf(target, float(value)) for value in x])).statistic
    assert distance < 0.03
    assert np.mean(probability > 1) <= CLIPPED_SHARE_MAX


def test_weights_turn_accepted_proposals_back_into_the_prior() -> None:
    """The mean of ln SNR weighted by q / pi is the proposal's within the support; the mean weight is its mass."""
    target, pilot = SnrTarget.of(LOG), pilot_of(LOG)
    generator = np.random.default_rng(12)
    snr = PROPOSAL.rvs(60_000, random_state=generator)
    probability = np.array([rejection_probability(float(value), target, pilot) for value in snr])
    accepted = snr[generator.uniform(size=snr.size) < probability]
    weight = np.array([pilot.ln_density(float(value)) / target.ln_density(float(value)) for value in accepted])
    inside = snr[(snr >= 2) & (snr <= 50)]
    assert np.average(np.log(accepted), weights=weight) == pytest.approx(np.log(inside).mean(), abs=0.03)
    assert weight.mean() == pytest.approx(PROPOSAL.cdf(50) - PROPOSAL.cdf(2), abs=0.02)


def test_accepting_with_two_over_snr_misses_the_target() -> None:
    """The rule 2 / SNR, right for a uniform proposal only, gives 85 / 13 / 2 % where 43 / 28.5 / 28.5 % is wanted."""
    generator = np.random.default_rng(13)
    snr = PROPOSAL.rvs(200_000, random_state=generator)
    snr = snr[(snr >= 2) & (snr <= 50)]
    accepted = snr[generator.uniform(size=snr.size) < 2 / snr]
    assert shares_of(accepted, (2, 8, 20, 50)) == pytest.approx([0.852, 0.129, 0.018], abs=0.01)
    wanted = [math.log(b / a) / math.log(25) for a, b in pairwise((2, 8, 20, 50))]
    assert wanted == pytest.approx([0.431, 0.285, 0.285], abs=0.001)


def _solved(hold: bool, n_tasks: int = 12_000) -> tuple[np.ndarray, float]:
    """SNR-first on a toy whose ln SNR per flux is ln 20 + N(0, 0.78): accepted SNR, share of first tries accepted."""
    prior = Prior(kind="uniform", low=23.0, high=26.0)
    target, generator = SnrTarget.of(LOG), np.random.default_rng(14)
    snr = np.array([target.quantile(u) for u in generator.uniform(size=n_tasks)])
    accepted = np.full(n_tasks, np.nan)
    waiting = np.arange(n_tasks)
    first = math.nan
    while waiting.size:
        ln_per_flux = math.log(20) + generator.normal(0, math.hypot(0.5, 0.6), waiting.size)
        mag = 22.5 - 2.5 * (np.log(snr[waiting]) - ln_per_flux) / math.log(10)
        density = np.array([mag_density(prior, float(value)) for value in mag])
        ok = generator.uniform(size=waiting.size) < density / mag_density_max(prior)
        first = float(ok.mean()) if math.isnan(first) else first
        accepted[waiting[ok]] = snr[waiting[ok]]
        waiting = waiting[~ok]
        if not hold:
            snr[waiting] = [target.quantile(u) for u in generator.uniform(size=waiting.size)]
    return accepted, first


def test_holding_the_snr_reaches_the_target_and_redrawing_it_does_not() -> None:
    """Held: mean ln SNR is the target's 2.303. Redrawn on failure: it falls to the truncated prior's 1.781."""
    held, _ = _solved(hold=True)
    assert np.log(held).mean() == pytest.approx(0.5 * math.log(2 * 50), abs=0.035)
    redrawn, _ = _solved(hold=False)
    assert np.log(redrawn).mean() == pytest.approx(1.781, abs=0.035)


def _cdf(target: SnrTarget, snr: float) -> float:
    return sum(
        share * min(1.0, max(0.0, math.log(snr / low) / math.log(high / low)))
        for (low, high), share in zip(pairwise(target.edges), target.shares, strict=True)
    )
