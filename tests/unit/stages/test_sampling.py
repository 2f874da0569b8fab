"""SNR targets, and the pilot that says what the priors reach."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from pipeline.contracts.errors import ContractError
from pipeline.contracts.priors import Prior
from pipeline.contracts.sampling import (
    BinsTarget,
    GridTarget,
    LogUniformTarget,
    SamplingSection,
    TableTarget,
    Target,
)
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.sampling import Pilot, PilotDraws, SnrTarget, estimate_pilot, snr_density, sup_ratio

BINS = BinsTarget(kind="bins", edges=(0.8, 2, 8, 20, 100), shares=(0.4, 0.4, 0.15, 0.05))
LOG = LogUniformTarget(kind="loguniform", low=2, high=50)
TABLE = TableTarget(kind="table", snr=(1.0, 3.0, 10.0, 60.0), density=(0.5, 2.0, 1.0, 0.0))
MAGNITUDES = MagnitudePrior(Prior(kind="uniform", low=21.0, high=26.0))


def section(target: Target, **values: object) -> SamplingSection:
    """A rejection section."""
    return SamplingSection(method="rejection", metric="arc_snr", target=target, **values)


def draws_of(n_draws: int, seed: int = 3) -> PilotDraws:
    """Draws of ln SNR per flux = ln 15 + 0.7 N(0, 1), one per host."""
    generator = np.random.default_rng(seed)
    kappa = 15 * np.exp(0.7 * generator.normal(size=n_draws))
    return PilotDraws(kappa, generator.uniform(21.0, 26.0, n_draws), np.arange(n_draws))


def proposal_density(snr: float) -> float:
    """Density of ln SNR of these draws: a normal smeared by a uniform, in closed form."""
    low, high = (0.4 * math.log(10) * (22.5 - mag) for mag in (26.0, 21.0))
    upper, lower = ((math.log(snr / 15) - edge) / 0.7 for edge in (low, high))
    return float(stats.norm.cdf(upper) - stats.norm.cdf(lower)) / (high - low)


def pairs() -> list[tuple[float, float]]:
    """Bins of the bins target."""
    return list(pairwise(BINS.edges))


def pilot_of(target: Target, n_draws: int = 4000, **values: object) -> Pilot:
    """A pilot of these draws."""
    return estimate_pilot(draws_of(n_draws), SnrTarget.of(target), section(target, **values), MAGNITUDES)


@pytest.mark.parametrize("config", [BINS, LOG, TABLE])
def test_density_integrates_to_one_with_its_shares(config: BinsTarget | LogUniformTarget | TableTarget) -> None:
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


@pytest.mark.parametrize("n_draws", [1024, 16_384])
def test_pilot_density_is_right_within_its_stated_error(n_draws: int) -> None:
    """Density and bin masses agree with the proposal's closed form within 5 of their own errors, which fall."""
    pilot = pilot_of(BINS, n_draws)
    truth = np.array([proposal_density(math.exp(ln)) for ln in pilot.ln_nodes])
    error = np.array(pilot.density_error)
    assert np.all(np.abs(np.array(pilot.density) - truth) < 5 * error + 1e-12)
    assert 0.1 < np.median(error * math.sqrt(n_draws) / truth) < 3
    mass = np.array([integrate.quad(lambda ln: proposal_density(math.exp(ln)), *np.log(pair))[0] for pair in pairs()])
    relative = np.array(pilot.target_error, dtype=float)
    assert np.all(np.abs(np.array(pilot.target_mass) / mass - 1) < 5 * relative)
    assert np.array(pilot.target_hits) / n_draws == pytest.approx(mass, abs=5 * math.sqrt(0.25 / n_draws))
    assert (pilot.n_draws, pilot.n_hosts, pilot.unreachable) == (n_draws, n_draws, ())


def test_draws_of_one_host_count_as_one() -> None:
    """The same draws are less certain where they come from few hosts that differ."""
    draws = draws_of(4096)
    order = np.argsort(draws.per_flux)
    few = PilotDraws(draws.per_flux[order], draws.mag_r[order], np.repeat(np.arange(16), 256))
    apart, together = (estimate_pilot(d, SnrTarget.of(BINS), section(BINS), MAGNITUDES) for d in (draws, few))
    assert together.density == pytest.approx(apart.density)
    assert together.n_hosts == 16
    assert np.median(np.array(together.density_error) / np.array(apart.density_error)) > 5


def test_pilot_nodes_subdivide_the_target() -> None:
    """Every target edge is a node, so no cell straddles a jump; the number is near what was asked."""
    pilot = pilot_of(BINS, pilot_bins=64)
    for edge in BINS.edges:
        assert np.min(np.abs(np.array(pilot.ln_nodes) - math.log(edge))) < 1e-12
    assert len(pilot.density) == pytest.approx(65, abs=4)
    assert np.all(np.diff(pilot.ln_nodes) > 0)


def test_pilot_interpolates_in_ln_snr() -> None:
    """The density at a node is the node's, between two nodes their mean, and 0 outside."""
    pilot = pilot_of(LOG)
    nodes, density = np.array(pilot.ln_nodes), np.array(pilot.density)
    assert [pilot.ln_density(math.exp(node)) for node in nodes[1:-1]] == pytest.approx(density[1:-1].tolist())
    middle = math.exp(0.5 * (nodes[3] + nodes[4]))
    assert pilot.ln_density(middle) == pytest.approx(0.5 * (density[3] + density[4]))
    assert [pilot.ln_density(snr) for snr in (0.0, -1.0, math.nan, 1.99, 50.1)] == [0.0] * 5


def test_pilot_survives_json() -> None:
    """A stored pilot is the same pilot; one without a field is not read."""
    pilot = pilot_of(BINS)
    stored = json.loads(json.dumps(vars(pilot)))
    assert Pilot.from_json({"plan_sha256": "x", **stored}) == pilot
    del stored["envelope"]
    with pytest.raises(KeyError):
        Pilot.from_json(stored)


def linear_draws(low: float, high: float, n_draws: int = 1000) -> PilotDraws:
    """Draws at magnitude 22.5, so that the SNR is that per nanomaggy, evenly from low to high."""
    return PilotDraws(np.linspace(low, high, n_draws), np.full(n_draws, 22.5), np.arange(n_draws))


POINT_PRIOR = MagnitudePrior(Prior(kind="uniform", low=22.4, high=22.6))


@pytest.mark.parametrize("method", ["rejection", "snr_first", "direct"])
def test_unreachable_bin_names_bin_and_range(method: str) -> None:
    """A wanted bin without pilot draw is an error with the share, the bin, the metric and the reach."""
    spec = SamplingSection(method=method, metric="arc_snr", target=BINS)
    with pytest.raises(ContractError) as caught:
        estimate_pilot(linear_draws(1.0, 15.0), SnrTarget.of(BINS), spec, POINT_PRIOR)
    message = str(caught.value)
    assert "5% of samples with arc_snr in 20-100" in message
    assert "none of 1000 pilot draws" in message
    assert "the priors reach 1.01-15 (0.1-99.9 %)" in message
    assert "Widen injection.priors.src_mag_r" in message


def test_unreachable_grid_value_is_an_error() -> None:
    """A grid value that no draw can have within the magnitude prior is named."""
    grid = GridTarget(kind="grid", snr=(2.0, 200.0), shares=(0.5, 0.5))
    spec = SamplingSection(method="direct", metric="arc_snr", target=grid)
    with pytest.raises(ContractError, match="50% of samples with arc_snr of 200"):
        estimate_pilot(linear_draws(1.0, 15.0), SnrTarget.of(grid), spec, POINT_PRIOR)


def test_unreachable_bins_may_be_left_out() -> None:
    """allow_renormalise records the bin and bounds the rest; with nothing left it is an error still."""
    spec = section(BINS, allow_renormalise=True)
    pilot = estimate_pilot(linear_draws(0.5, 25.0, 4000), SnrTarget.of(BINS), spec, POINT_PRIOR)
    assert pilot.unreachable == ()
    short = estimate_pilot(linear_draws(0.5, 19.5, 4000), SnrTarget.of(BINS), spec, POINT_PRIOR)
    assert short.unreachable == (3,)
    kept = SnrTarget.of(BINS).without(short.unreachable)
    assert kept.shares == pytest.approx((0.4 / 0.95, 0.4 / 0.95, 0.15 / 0.95, 0.0))
    assert kept.edges == BINS.edges
    with pytest.raises(ContractError, match="none of"):
        estimate_pilot(linear_draws(200.0, 300.0), SnrTarget.of(BINS), spec, POINT_PRIOR)


def test_pooled_demands_precision_and_reach() -> None:
    """A bin known too badly, or a density that vanishes inside the target, stops a pooled run, not another."""
    draws, target = draws_of(300), SnrTarget.of(BINS)
    estimate_pilot(draws, target, section(BINS), MAGNITUDES)
    pooled = section(BINS, hosts="pooled", pilot_error_max=0.001)
    with pytest.raises(ContractError, match=r"arc_snr in 0\.8-2 is known to .*raise sampling\.pilot_draws"):
        estimate_pilot(draws, target, pooled, MAGNITUDES)
    half = linear_draws(0.1, 40.0, 2000)
    with pytest.raises(ContractError, match="vanishes within it"):
        estimate_pilot(half, target, section(BINS, hosts="pooled", pilot_error_max=0.5), POINT_PRIOR)
    assert estimate_pilot(half, target, section(BINS), POINT_PRIOR).envelope is None


def test_unwanted_bin_may_be_unreachable() -> None:
    """A bin with share 0 needs no draws."""
    target = BinsTarget(kind="bins", edges=(1, 10, 1000), shares=(1.0, 0.0))
    pilot = estimate_pilot(linear_draws(0.5, 12, 500), SnrTarget.of(target), section(target), POINT_PRIOR)
    assert pilot.target_hits[0] > 0
    assert pilot.unreachable == ()
    assert pilot.envelope is not None


@pytest.mark.parametrize("kappa", [np.zeros(300), np.array([]), np.full(300, np.nan), np.full(300, -1.0)])
def test_pilot_without_signal_is_an_error(kappa: np.ndarray) -> None:
    """Draws that are all zero, absent, NaN or negative reach no bin."""
    draws = PilotDraws(kappa, np.full(kappa.size, 23.0), np.arange(kappa.size))
    with pytest.raises(ContractError, match="none of"):
        estimate_pilot(draws, SnrTarget.of(LOG), section(LOG), MAGNITUDES)


def test_envelope_is_the_largest_ratio_times_the_safety_factor() -> None:
    """M is safety * max pi / q over the support, also for a target with jumps and for one that is tilted."""
    for config in (BINS, TABLE):
        for factor in (1.0, 3.0):
            pilot, target = pilot_of(config, safety_factor=factor), SnrTarget.of(config)
            snr = np.exp(np.linspace(math.log(target.edges[0]), math.log(target.edges[-1]), 4001))
            ratio = [target.ln_density(float(value)) / pilot.ln_density(float(value)) for value in snr[1:-1]]
            assert pilot.envelope == pytest.approx(factor * max(ratio), rel=0.01)
            assert pilot.envelope >= factor * max(ratio) * (1 - 1e-9)


def test_sup_ratio_is_infinite_where_the_density_vanishes() -> None:
    """A zero of q under a positive target is infinite, under a zero target it does not count."""
    density = np.array([1.0, 0.0, 2.0])
    assert sup_ratio(density, np.array([1.0, 0.0]), np.array([0.0, 4.0])) == 2.0
    assert sup_ratio(density, np.array([1.0, 1.0]), np.array([0.0, 4.0])) == math.inf


def test_snr_density_integrates_to_one_per_draw() -> None:
    """Each draw's density in ln SNR is its magnitude prior, moved; a draw without signal has none."""
    ln_snr = np.linspace(-8, 12, 4001)
    density = snr_density([0.3, 0.0, 40.0], MAGNITUDES, np.exp(ln_snr))
    assert integrate.trapezoid(density, ln_snr, axis=1) == pytest.approx([1.0, 0.0, 1.0], abs=2e-3)


def test_table_target_is_linear_in_ln_snr_and_scale_free() -> None:
    """The density passes through the table's values over one scale, and linearly between them in ln SNR."""
    target = SnrTarget.of(TABLE)
    ratio = [target.ln_density(snr) / density for snr, density in zip(TABLE.snr, TABLE.density, strict=True) if density]
    assert ratio == pytest.approx([ratio[0]] * len(ratio))
    middle = math.sqrt(TABLE.snr[1] * TABLE.snr[2])
    assert target.ln_density(middle) == pytest.approx(0.5 * ratio[0] * (TABLE.density[1] + TABLE.density[2]))
    doubled = TABLE.model_copy(update={"density": tuple(2 * value for value in TABLE.density)})
    assert SnrTarget.of(doubled) == target


def test_grid_target_is_its_values() -> None:
    """Quantiles are grid values in their shares; density and distribution are those of the values."""
    target = SnrTarget.of(GridTarget(kind="grid", snr=(2.0, 8.0, 20.0), shares=(0.5, 0.0, 0.5)))
    assert [target.quantile(u) for u in (1e-9, 0.5, 0.500001, 1 - 1e-12)] == [2.0, 2.0, 20.0, 20.0]
    assert [target.ln_density(snr) for snr in (2.0, 8.0, 20.0, 3.0)] == [0.5, 0.0, 0.5, 0.0]
    assert target.cdf(np.array([1.0, 2.0, 9.0, 20.0])) == pytest.approx([0.0, 0.5, 0.5, 1.0])
    edges, shares = target.comparison_bins()
    assert np.histogram(target.values, edges)[0].tolist() == [1, 1, 1]
    assert shares.tolist() == [0.5, 0.0, 0.5]
    assert [target.bin_of(snr) for snr in (*target.values, 1e3)] == [0, 1, 2, None]


@pytest.mark.parametrize("config", [BINS, LOG, TABLE])
def test_distribution_inverts_the_quantile(config: BinsTarget | LogUniformTarget | TableTarget) -> None:
    """cdf(quantile(u)) is u; the comparison bins hold their shares of it."""
    target = SnrTarget.of(config)
    uniform = np.linspace(0.001, 0.999, 173)
    snr = np.array([target.quantile(float(u)) for u in uniform])
    assert target.cdf(snr) == pytest.approx(uniform, abs=1e-9)
    edges, shares = target.comparison_bins()
    assert np.diff(target.cdf(edges)) == pytest.approx(shares, abs=1e-9)
    assert shares.sum() == pytest.approx(1.0)


def test_without_every_bin_nothing_is_left() -> None:
    """A target cannot lose all of its shares; one that loses none is itself."""
    target = SnrTarget.of(BINS)
    assert target.without(()) is target
    with pytest.raises(ValueError, match="no share"):
        target.without((0, 1, 2, 3))
