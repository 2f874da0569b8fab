"""Sampling arcs onto hosts: exact SNR, the right distribution, honest failures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.survey import BAD_PIXEL_MASK, flux_nmgy_from_mag, mask_value
from pipeline.driver.pilot import pilot_of_draws
from pipeline.kernels.arc_snr import annulus_mask, good_weight, host_noise
from pipeline.kernels.random import PURPOSE_PRIOR, PURPOSE_TARGET, keyed_uniform, task_keys
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.draws import ArcDraw
from pipeline.stages.injection import Accepted, Exposure, Host, Injector, expose
from pipeline.stages.samplers import Refused
from pipeline.stages.sampling import PilotDraws, SnrTarget

MakeConfig = Callable[..., RunConfig]
MakeCutouts = Callable[..., xr.Dataset]

# A cheap stamp, and a magnitude prior so narrow that SNR and shape depend on each other.
CHEAP = (
    "survey.stamp_size_px=24",
    "injection.accuracy=0.02",
    "injection.priors.theta_e_arcsec={kind: uniform, low: 0.6, high: 1.6}",
    "injection.priors.src_mag_r={kind: uniform, low: 22.0, high: 24.0}",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "sampling.pilot_bins=16",
    "sampling.max_attempts=2000",
    "training.preprocess={annulus_px: [8, 12]}",
)
N_TASKS = 1500
SIZE = 24
INVVAR = np.full((3, SIZE, SIZE), 2500.0, np.float32)
# Numbers of a draw that can be compared; `components` holds arrays, and an unknown redshift is no number.
COMPARED = [name for name in ArcDraw.__dataclass_fields__ if name not in ("components", "src_redshift")]


def plain(config: RunConfig) -> Injector:
    """An injector that needs no files."""
    return Injector(config, None, InjectionAssets())


def host_of(injector: Injector, cutouts: xr.Dataset, index: int, key: np.uint64) -> Host:
    """A host that is not refused."""
    host = injector.host(cutouts, index, key)
    assert isinstance(host, Host)
    return host


def exposed(injector: Injector, host: Host, accepted: Accepted) -> Exposure:
    """The accepted arc on a host of even inverse variance."""
    return expose(injector, host, accepted, INVVAR)


def same_draw(left: ArcDraw, right: ArcDraw) -> bool:
    """Equal in every number, bit for bit."""
    return all(getattr(left, name) == getattr(right, name) for name in COMPARED) and np.array_equal(
        left.components.table, right.components.table
    )


def with_mask(host: Host, maskbits: NDArray[np.int32]) -> Host:
    """The host with bits in its mask."""
    weight = good_weight(INVVAR[1], maskbits, BAD_PIXEL_MASK)
    annulus = annulus_mask(SIZE, SIZE // 2 + host.centre_px[0], SIZE // 2 + host.centre_px[1])
    return dataclasses.replace(host, noise=host_noise(weight, annulus, np.nan))


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> RunConfig:
    """SNR-first on cheap stamps."""
    return make_config(*CHEAP)


@pytest.fixture(scope="module")
def keys() -> NDArray[np.uint64]:
    """Keys of many tasks."""
    return task_keys([f"row-{index}" for index in range(N_TASKS)])


@pytest.fixture(scope="module")
def host(config: RunConfig, make_cutouts: MakeCutouts) -> Host:
    """One host."""
    return host_of(plain(config), make_cutouts(1, size=SIZE), 0, np.uint64(0))


@pytest.fixture(scope="module")
def prior_draws(config: RunConfig, host: Host) -> PilotDraws:
    """8000 prior draws on the host, taken as one draw on each of 8000 hosts that are alike."""
    trials = plain(config).pilot_trials(host, range(8000))
    per_flux, mag_r = np.array([(trial.per_flux, trial.mag_r) for trial in trials]).T
    return PilotDraws(per_flux, mag_r, np.arange(per_flux.size))


@pytest.fixture(scope="module")
def prior_snr(prior_draws: PilotDraws) -> NDArray[np.float64]:
    """SNR of these draws."""
    return prior_draws.snr()


def accepted_by(injector: Injector, host: Host, keys: NDArray[np.uint64]) -> list[Accepted]:
    """One accepted arc per task, all on clones of one host."""
    results = [injector.accept(dataclasses.replace(host, task_key=key)) for key in keys]
    arcs = [result for result in results if isinstance(result, Accepted)]
    assert len(arcs) == len(results)
    return arcs


def snr_of(injector: Injector, host: Host, accepted: Accepted) -> tuple[float, ...]:
    """SNR columns of the exposed arc, as the cube stores them."""
    exposure = exposed(injector, host, accepted)
    columns = tuple(exposure.columns[name] for name in SNR_METRICS)
    np.testing.assert_array_equal(columns, injector.snr(host, exposure.arc_nmgy[injector.metric_band]))
    return columns


@pytest.fixture(scope="module")
def by_snr_first(config: RunConfig, host: Host, keys: NDArray[np.uint64]) -> list[Accepted]:
    """Arcs of the SNR-first sampler."""
    return accepted_by(plain(config), host, keys)


@pytest.fixture(scope="module")
def by_rejection(make_config: MakeConfig, host: Host, prior_draws: PilotDraws) -> list[Accepted]:
    """Arcs of the rejection sampler over many rows of one host, with another seed."""
    settings = [override for override in CHEAP if "max_attempts" not in override]
    config = make_config(*settings, "sampling.method=rejection", "sampling.hosts=pooled", "run.seed=77")
    injector = Injector(config, pilot_of_draws(config, prior_draws), InjectionAssets())
    keys = task_keys([f"pooled-{index}" for index in range(4 * N_TASKS)])
    results = [injector.accept(dataclasses.replace(host, task_key=key)) for key in keys]
    return [result for result in results if isinstance(result, Accepted)]


def columns_of(arcs: list[Accepted]) -> dict[str, NDArray[np.float64]]:
    """What is compared between samplers."""
    draws = [accepted.draw for accepted in arcs]
    names = ("theta_e_arcsec", "lens_q", "src_re_arcsec", "src_n", "src_q", "src_mag_r", "src_gr")
    columns = {name: np.array([getattr(draw, name) for draw in draws]) for name in names}
    columns["beta"] = np.array([math.hypot(d.src_x_arcsec, d.src_y_arcsec) / d.theta_e_arcsec for d in draws])
    return columns


@pytest.mark.parametrize(
    ("metric", "band"),
    [(metric, band) for metric in SNR_METRICS for band in "rz" if (metric, band) != ("arc_snr_annulus", "z")],
)
def test_snr_first_reaches_the_assigned_snr_exactly(
    make_config: MakeConfig, make_cutouts: MakeCutouts, metric: str, band: str
) -> None:
    """For every metric and band the SNR of the exposed arc is the task's own quantile of the target to 1e-5."""
    wide = "injection.priors.src_mag_r={kind: uniform, low: 12.0, high: 32.0}"
    injector = plain(make_config(*CHEAP, wide, f"sampling.metric={metric}", f"sampling.band={band}"))
    cutouts = make_cutouts(6, size=SIZE)
    for index, key in enumerate(task_keys(cutouts["task_id"].to_numpy().tolist())):
        host = host_of(injector, cutouts, index, key)
        accepted = injector.accept(host)
        assert isinstance(accepted, Accepted)
        uniform = keyed_uniform(injector.config.run.seed, key, PURPOSE_TARGET, 0, 0)
        assert accepted.snr_target == SnrTarget((1.0, 8.0), (1.0,)).quantile(float(uniform))
        assert snr_of(injector, host, accepted)[injector.metric] == pytest.approx(accepted.snr_target, rel=1e-5)


def test_every_metric_is_linear_in_flux(config: RunConfig, host: Host) -> None:
    """Ten times the arc has ten times each SNR, and brighter by 2.5 mag is ten times the flux."""
    injector = plain(config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    brighter = dataclasses.replace(
        accepted, draw=dataclasses.replace(accepted.draw, src_mag_r=accepted.draw.src_mag_r - 2.5)
    )
    before, after = snr_of(injector, host, accepted), snr_of(injector, host, brighter)
    assert np.array(after) == pytest.approx(10 * np.array(before), rel=1e-5)
    per_flux = injector.snr_per_flux(host, accepted.draw, accepted.unit_arc)
    flux = float(flux_nmgy_from_mag(np.array(accepted.draw.src_mag_r)))
    assert per_flux * flux == pytest.approx(before[injector.metric], rel=1e-5)


def test_assigned_snr_has_the_target_distribution(by_snr_first: list[Accepted]) -> None:
    """The SNR of the accepted arcs is log-uniform on the target's range."""
    snr = np.log([accepted.snr_target for accepted in by_snr_first])
    assert stats.kstest(snr, stats.uniform(0, math.log(8)).cdf).pvalue > 1e-3


def test_rejected_proposals_leave_the_target_distribution(
    config: RunConfig, host: Host, by_rejection: list[Accepted]
) -> None:
    """The measured SNR of what rejection accepted is log-uniform on the target's range."""
    injector = plain(config)
    snr = np.log([snr_of(injector, host, accepted)[injector.metric] for accepted in by_rejection])
    assert np.all((snr >= -1e-6) & (snr <= math.log(8) + 1e-6))
    assert stats.kstest(snr, stats.uniform(0, math.log(8)).cdf).pvalue > 1e-3


def test_both_samplers_give_the_same_distribution(by_snr_first: list[Accepted], by_rejection: list[Accepted]) -> None:
    """On one host every drawn parameter has the same distribution under either sampler, within its prior."""
    first, second = columns_of(by_snr_first), columns_of(by_rejection)
    magnitude = np.concatenate([first["src_mag_r"], second["src_mag_r"]])
    assert magnitude.min() >= 22.0
    assert magnitude.max() <= 24.0
    p_values = {name: stats.ks_2samp(first[name], second[name]).pvalue for name in first}
    assert min(p_values.values()) > 1e-3, p_values


def test_scaling_without_acceptance_is_another_distribution(
    config: RunConfig, host: Host, keys: NDArray[np.uint64], by_rejection: list[Accepted]
) -> None:
    """The comparison of samplers has power: taking every first draw and scaling its flux is told apart."""
    injector = plain(config)
    scaled = []
    for key in keys:
        clone = dataclasses.replace(host, task_key=key)
        draw = injector._draw(clone, PURPOSE_PRIOR, 0)
        unit_arc = injector.render(clone, draw)
        snr = injector.sampler.target.quantile(float(keyed_uniform(config.run.seed, key, PURPOSE_TARGET, 0, 0)))
        mag = 22.5 - 2.5 * math.log10(snr / injector.snr_per_flux(clone, draw, unit_arc))
        scaled.append(Accepted(dataclasses.replace(draw, src_mag_r=mag), unit_arc, snr, 1, 1.0))
    first, second = columns_of(scaled), columns_of(by_rejection)
    p_values = {name: stats.ks_2samp(first[name], second[name]).pvalue for name in first}
    assert min(p_values.values()) < 1e-8, p_values


@pytest.mark.parametrize("sampler", ["by_snr_first", "by_rejection"])
def test_weights_give_the_prior_back(
    request: pytest.FixtureRequest, config: RunConfig, host: Host, prior_snr: NDArray[np.float64], sampler: str
) -> None:
    """The weighted mean of ln SNR is the prior's within the support, the unweighted one is not."""
    arcs: list[Accepted] = request.getfixturevalue(sampler)
    injector = plain(config)
    ln_snr = np.log([snr_of(injector, host, accepted)[injector.metric] for accepted in arcs])
    weight = np.array([accepted.weight_prior for accepted in arcs])
    inside = np.log(prior_snr[(prior_snr >= 1) & (prior_snr <= 8)])
    mean = np.average(ln_snr, weights=weight)
    error = math.sqrt(np.sum((weight * (ln_snr - mean)) ** 2) / weight.sum() ** 2 + inside.var() / inside.size)
    assert abs(mean - inside.mean()) < 4 * error
    assert abs(ln_snr.mean() - inside.mean()) > 4 * error
    mass = inside.size / prior_snr.size
    mass_error = math.hypot(weight.std() / math.sqrt(weight.size), math.sqrt(mass / prior_snr.size))
    assert abs(weight.mean() - mass) < 4 * mass_error


def test_normal_magnitude_prior_is_respected(make_config: MakeConfig, host: Host, keys: NDArray[np.uint64]) -> None:
    """Acceptance is p(m) / max p for a normal prior: the first attempt that passes is returned."""
    normal = "injection.priors.src_mag_r={kind: normal, mean: 23.5, sigma: 0.4, low: 21, high: 25}"
    injector = plain(make_config(*CHEAP, normal))
    prior = injector.sampler.prior
    for key in keys[:20]:
        clone = dataclasses.replace(host, task_key=key)
        accepted = injector.accept(clone)
        assert isinstance(accepted, Accepted)
        for attempt in range(accepted.attempts):
            draw = injector._draw(clone, PURPOSE_PRIOR, attempt)
            per_flux = injector.snr_per_flux(clone, draw, injector.render(clone, draw))
            mag = 22.5 - 2.5 * math.log10(accepted.snr_target / per_flux)
            threshold = float(keyed_uniform(injector.config.run.seed, key, 3, attempt, 0))
            passes = threshold < prior.acceptance(mag)
            assert passes == (attempt == accepted.attempts - 1)


def test_out_of_reach_is_exhaustion_and_not_a_fill(make_config: MakeConfig, host: Host) -> None:
    """When no draw can have the assigned SNR the reason is sampler_exhausted; no arc comes back."""
    faint = "injection.priors.src_mag_r={kind: uniform, low: 30.0, high: 31.0}"
    for method, attempts in (("snr_first", 7), ("rejection", 0)):
        overrides = (*CHEAP, faint, f"sampling.method={method}", "sampling.max_attempts=7")
        injector = plain(make_config(*overrides))
        assert injector.accept(host) == Refused("sampler_exhausted", attempts)
        assert injector.work()["attempts"] == attempts


def test_direct_takes_the_first_draw_and_flags_its_magnitude(make_config: MakeConfig, host: Host) -> None:
    """The first draw has the assigned SNR, far outside a faint prior."""
    faint = "injection.priors.src_mag_r={kind: uniform, low: 30.0, high: 31.0}"
    injector = plain(make_config(*CHEAP, faint, "sampling.method=direct"))
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    assert (accepted.attempts, accepted.weight_prior, accepted.outside_prior) == (1, 0.0, True)
    assert accepted.draw.src_mag_r < 30.0
    assert snr_of(injector, host, accepted)[injector.metric] == pytest.approx(accepted.snr_target, rel=1e-5)


@pytest.mark.parametrize("method", ["snr_first", "rejection", "direct"])
def test_arc_on_masked_pixels_only_is_arc_masked(make_config: MakeConfig, host: Host, method: str) -> None:
    """When no good pixel exists the reason is arc_masked."""
    injector = plain(make_config(*CHEAP, f"sampling.method={method}", "sampling.max_attempts=5"))
    masked = with_mask(host, np.full((SIZE, SIZE), mask_value("MEDIUM"), np.int32))
    refused = injector.accept(masked)
    assert isinstance(refused, Refused)
    assert refused.reason == "arc_masked"


def test_rounding_noise_is_no_signal(make_config: MakeConfig, make_cutouts: MakeCutouts) -> None:
    """With only a far corner pixel good, the arc's light there is rounding noise, so the reason is arc_masked."""
    compact = (
        "injection.psf.profile=gaussian",
        "injection.priors.theta_e_arcsec={kind: fixed, value: 0.5}",
        "injection.priors.src_re_arcsec={kind: fixed, value: 0.1}",
        "injection.priors.src_n={kind: fixed, value: 0.7}",
        "sampling.max_attempts=20",
    )
    injector = plain(make_config(*CHEAP, *compact))
    host = host_of(injector, make_cutouts(1, size=SIZE), 0, np.uint64(1))
    maskbits = np.full((SIZE, SIZE), mask_value("MEDIUM"), np.int32)
    maskbits[0, 0] = 0
    corner = with_mask(host, maskbits)
    assert corner.noise.weight[0, 0] == 2500.0
    assert injector.accept(corner) == Refused("arc_masked", 20)


def test_method_none_takes_the_first_prior_draw(make_config: MakeConfig, host: Host) -> None:
    """Without sampling the arc is prior draw number 0, with weight 1 and no target."""
    injector = plain(make_config(*CHEAP, "sampling.method=none", "sampling.target=null"))
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    assert same_draw(accepted.draw, injector._draw(host, PURPOSE_PRIOR, 0))
    assert math.isnan(accepted.snr_target)
    assert (accepted.attempts, accepted.weight_prior) == (1, 1.0)
    with pytest.raises(ValueError, match="no SNR target"):
        _ = injector.sampler


def test_pooled_without_pilot_is_refused(make_config: MakeConfig) -> None:
    """Pooled hosts need the density over all of them."""
    pooled = [override for override in CHEAP if "max_attempts" not in override]
    with pytest.raises(ValueError, match="needs a pilot"):
        plain(make_config(*pooled, "sampling.hosts=pooled"))


def test_acceptance_repeats_itself(config: RunConfig, host: Host, keys: NDArray[np.uint64]) -> None:
    """A second injector, in another order, accepts the same."""
    forward = [plain(config).accept(dataclasses.replace(host, task_key=key)) for key in keys[:15]]
    injector = plain(config)
    backward = [injector.accept(dataclasses.replace(host, task_key=key)) for key in keys[:15][::-1]][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert isinstance(one, Accepted)
        assert isinstance(other, Accepted)
        assert same_draw(one.draw, other.draw)
        assert (one.snr_target, one.attempts, one.weight_prior) == (
            other.snr_target,
            other.attempts,
            other.weight_prior,
        )
        assert np.array_equal(one.unit_arc.spectra, other.unit_arc.spectra)


def test_work_counts_what_was_done(config: RunConfig, host: Host) -> None:
    """Renders are attempts plus the fixed batch of weight draws of an accepted arc."""
    injector = plain(config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    assert injector.work()["attempts"] == accepted.attempts
    assert injector.work()["renders"] == accepted.attempts + config.sampling.weight_draws
