"""Shot noise of arcs against its moments and keys; fluxes against bisection."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from pipeline.contracts.errors import ContractError
from pipeline.kernels.arc_noise import (
    _CENTRAL,
    SKY_NMGY,
    _central_quantile,
    _tail_quantile,
    arc_shot_noise,
    default_sky_nmgy,
    effective_sky_nmgy,
    flux_for_snr_with_shot_noise,
    sky_nmgy_per_pixel,
)
from pipeline.kernels.arc_snr import HostNoise, annulus_mask, arc_snr_linear, host_noise
from pipeline.kernels.random import task_keys

SIZE = 64
SKY = 0.3
SEED = np.uint64(2**63 + 11)
KEY = task_keys(["a task"])[0]
METRICS = ("arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture", "arc_snr_annulus")


def _ring(seed: int) -> tuple[NDArray[np.float32], HostNoise]:
    """A ring of unit flux with rounding noise of both signs, and its host with bad pixels; all read-only."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - 32.0
    ring = np.exp(-((np.hypot(x, y) - 6.0) ** 2) / 8.0) * generator.uniform(0.2, 1.0, (SIZE, SIZE))
    arc = (ring / ring.sum() + 1e-8 * generator.normal(size=(SIZE, SIZE))).astype(np.float32)
    weight = generator.uniform(2e4, 2e5, (SIZE, SIZE)).astype(np.float32)
    weight.flat[generator.choice(SIZE * SIZE, 100, replace=False)] = 0.0
    arc.flags.writeable = weight.flags.writeable = False
    return arc, host_noise(weight, annulus_mask(SIZE, 32.0, 32.0), 0.004)


def test_quantile_is_that_of_the_normal_distribution() -> None:
    """Central and tail formulae agree with scipy to 2e-7 out to the last word, and are odd."""
    offsets = np.concatenate([np.linspace(-0.4999, 0.4999, 4001), 0.5 - np.logspace(-9.9, -0.4, 500)])
    for chosen, quantile in (
        (np.abs(offsets) <= _CENTRAL, _central_quantile),
        (np.abs(offsets) > _CENTRAL, _tail_quantile),
    ):
        ours = np.array([quantile(float(value)) for value in offsets[chosen]])
        np.testing.assert_allclose(ours, special.ndtri(offsets[chosen] + 0.5), rtol=2e-7, atol=1e-12)
        assert ours.tolist() == [-quantile(-float(value)) for value in offsets[chosen]]


def test_deviates_are_standard_normal() -> None:
    """Over 262144 pixels of variance 1: mean, variance, kurtosis, neighbours and distribution of a normal sample."""
    arc = np.full((512, 512), SKY, np.float32)
    noise = arc_shot_noise(arc, np.ones_like(arc), SKY, SEED, KEY, 0).astype(np.float64)
    count = noise.size
    assert abs(noise.mean()) < 4 / math.sqrt(count)
    assert abs(noise.var() - 1.0) < 4 * math.sqrt(2 / count)
    assert abs(stats.kurtosis(noise, axis=None)) < 4 * math.sqrt(24 / count)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for step in range(1, 6):
        assert abs((noise[:, step:] * noise[:, :-step]).mean()) < 4.5 / math.sqrt(count)
    assert abs((noise[1:] * noise[:-1]).mean()) < 4.5 / math.sqrt(count)


def test_shot_variance_is_to_that_of_the_sky_as_arc_is_to_sky() -> None:
    """Over tasks, the variance of a pixel is F / (S w) within its statistical error, and its mean zero."""
    generator = np.random.default_rng(3)
    arc = generator.uniform(0.01, 0.2, (8, 8)).astype(np.float32)
    invvar = generator.uniform(100.0, 1e4, (8, 8)).astype(np.float32)
    keys = task_keys([f"task {number}" for number in range(4000)])
    scaled = np.array([arc_shot_noise(arc, invvar, SKY, SEED, key, 1) * np.sqrt(invvar) for key in keys])
    ratio = scaled.var(axis=0) / (arc / SKY)
    assert np.abs(ratio - 1.0).max() < 5 * math.sqrt(2 / len(keys))
    assert abs(ratio.mean() - 1.0) < 4 * math.sqrt(2 / len(keys) / arc.size)
    assert np.abs(scaled.mean(axis=0) / np.sqrt(arc / SKY)).max() < 5 / math.sqrt(len(keys))


def test_noise_over_sky_noise_does_not_depend_on_exposure() -> None:
    """Four times the exposure is four times the invvar and half the noise, with the same deviates."""
    arc, noise = _ring(0)
    once = arc_shot_noise(arc, noise.weight, SKY, SEED, KEY, 2)
    fourfold = arc_shot_noise(arc, np.float32(4) * noise.weight, SKY, SEED, KEY, 2)
    assert once.any()
    np.testing.assert_array_equal(fourfold, once / np.float32(2))


def test_noise_scales_with_root_flux_over_root_sky() -> None:
    """Amplitude goes as sqrt(F / S) at fixed deviates."""
    arc, noise = _ring(0)
    once = arc_shot_noise(arc, noise.weight, SKY, SEED, KEY, 2)
    np.testing.assert_allclose(
        arc_shot_noise(np.float32(9) * arc, noise.weight, SKY, SEED, KEY, 2), 3 * once, rtol=1e-6
    )
    np.testing.assert_allclose(arc_shot_noise(arc, noise.weight, 4 * SKY, SEED, KEY, 2), once / 2, rtol=1e-6)


def test_no_arc_and_no_weight_have_no_noise() -> None:
    """Noise is exactly zero without positive arc and where invvar is no positive finite number."""
    arc = np.full((8, 9), 0.1, np.float32)
    invvar = np.full((8, 9), 50.0, np.float32)
    arc[0, :2] = 0.0, -0.1
    invvar[1, :4] = 0.0, -1.0, np.nan, np.inf
    noise = arc_shot_noise(arc, invvar, SKY, SEED, KEY, 0)
    silent = np.zeros((8, 9), np.bool_)
    silent[0, :2] = silent[1, :4] = True
    np.testing.assert_array_equal(noise == 0.0, silent)
    assert noise.dtype == np.float32
    assert not arc_shot_noise(np.zeros_like(arc), invvar, SKY, SEED, KEY, 0).any()


def test_noise_is_a_function_of_its_keys() -> None:
    """Equal keys give equal bits; another seed, task or band gives other deviates."""
    arc = np.full((16, 16), 0.1, np.float32)
    invvar = np.full((16, 16), 50.0, np.float32)
    first = arc_shot_noise(arc, invvar, SKY, SEED, KEY, 0)
    np.testing.assert_array_equal(first, arc_shot_noise(arc, invvar, SKY, SEED, KEY, 0))
    other = task_keys(["another task"])[0]
    for changed in ((SEED + np.uint64(1), KEY, 0), (SEED, other, 0), (SEED, KEY, 1)):
        second = arc_shot_noise(arc, invvar, SKY, *changed)
        assert not (first == second).any()
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3


def test_a_pixel_does_not_depend_on_its_neighbours_or_the_stamp() -> None:
    """A pixel has the same noise alone, in a larger stamp and with the rest of the stamp dark."""
    arc = np.full((12, 10), 0.1, np.float32)
    invvar = np.full((12, 10), 50.0, np.float32)
    whole = arc_shot_noise(arc, invvar, SKY, SEED, KEY, 0)
    np.testing.assert_array_equal(arc_shot_noise(arc[:5, :7], invvar[:5, :7], SKY, SEED, KEY, 0), whole[:5, :7])
    lone = np.zeros_like(arc)
    lone[7, 6] = arc[7, 6]
    np.testing.assert_array_equal(
        arc_shot_noise(lone, invvar, SKY, SEED, KEY, 0), np.where(lone > 0, whole, np.float32(0))
    )


def test_noise_refuses_what_it_cannot_use() -> None:
    """Shapes must agree and the sky be positive."""
    arc = np.ones((4, 4), np.float32)
    with pytest.raises(ContractError, match="equal shapes"):
        arc_shot_noise(arc, np.ones((4, 5), np.float32), SKY, SEED, KEY, 0)
    for sky in (0.0, -1.0, math.nan):
        with pytest.raises(ContractError, match="sky_nmgy > 0"):
            arc_shot_noise(arc, arc, sky, SEED, KEY, 0)


def test_sky_of_the_worked_example() -> None:
    """At zero point 25.04 a 22.5 mag source has 311.3 counts in 30 s; as much sky per pixel is 1 nmgy."""
    counts_per_s = 311.3 / 30.0
    assert float(sky_nmgy_per_pixel(counts_per_s, 25.04)) == pytest.approx(1.0, rel=2e-4)
    np.testing.assert_allclose(sky_nmgy_per_pixel([1.0, 2.0], [25.0, 22.5]), [0.1, 2.0])
    with pytest.raises(ContractError, match="positive finite"):
        sky_nmgy_per_pixel([1.0, 0.0], 25.0)


def test_coadd_sky_weighs_exposures_by_inverse_variance() -> None:
    """The shot variance of the weighted mean of exposures is F / (S sum w)."""
    sky, invvar = np.array([0.2, 0.3, 0.9]), np.array([300.0, 200.0, 50.0])
    # Exposure j has a shot variance F / (S_j w_j) and enters the mean with w_j / sum w.
    shot_per_flux = ((invvar / invvar.sum()) ** 2 / (sky * invvar)).sum()
    assert 1.0 / (effective_sky_nmgy(sky, invvar) * invvar.sum()) == pytest.approx(shot_per_flux, rel=1e-12)
    assert effective_sky_nmgy([0.3, 0.3], [1.0, 9.0]) == pytest.approx(0.3, rel=1e-12)
    for skies, weights in (([], []), ([0.3], [1.0, 2.0]), ([0.3, 0.0], [1.0, 1.0])):
        with pytest.raises(ContractError, match="one per exposure"):
            effective_sky_nmgy(skies, weights)


def test_default_sky_is_known_in_the_measured_bands_only() -> None:
    """G, r and z have a default in rising order; i is refused rather than guessed."""
    assert default_sky_nmgy("g") < default_sky_nmgy("r") < default_sky_nmgy("z") == SKY_NMGY["z"]
    with pytest.raises(ContractError, match="got 'i'"):
        default_sky_nmgy("i")


def _snr_with_shot_noise(metric: str, arc: NDArray[np.float64], noise: HostNoise, sky: float) -> float:
    """The metrics with the arc's shot noise in the denominator, written out."""
    good = noise.weight > 0
    variance = np.full(arc.shape, np.inf)
    variance[good] = 1.0 / noise.weight[good].astype(np.float64)
    shot = np.where(good, np.maximum(arc, 0.0) / sky, 0.0)
    if metric == "arc_snr":
        return float(np.max(arc[good] / np.sqrt(variance[good] * (1.0 + shot[good]))))
    if metric == "arc_snr_matched":
        return float(np.sqrt(np.sum(arc[good] ** 2 / (variance[good] * (1.0 + shot[good])))))
    if metric == "arc_snr_annulus":
        variance = np.full(arc.shape, noise.annulus_noise_nmgy**2 / noise.aperture.sum())
    counted = good if metric == "arc_snr_sum" else noise.aperture
    return float(arc[counted].sum() / np.sqrt((variance * (1.0 + shot))[counted].sum()))


def _bisect(function: Callable[[float], float], wanted: float) -> float:
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return math.sqrt(low * high)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("snr", [0.05, 2.0, 40.0, 3000.0])
@pytest.mark.parametrize("sky", [1e-3, 0.3, 50.0])
def test_flux_agrees_with_bisection(metric: str, snr: float, sky: float) -> None:
    """The solved flux is the root of the metric with shot noise, from sky-limited to shot-limited."""
    arc, noise = _ring(5)
    unit = arc.astype(np.float64)
    expected = _bisect(lambda flux: _snr_with_shot_noise(metric, flux * unit, noise, sky), snr)
    assert flux_for_snr_with_shot_noise(metric, snr, arc, noise, sky) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), snr=st.floats(0.1, 100.0), metric=st.sampled_from(METRICS))
def test_flux_tends_to_the_linear_one_without_shot_noise(seed: int, snr: float, metric: str) -> None:
    """At infinite sky the flux is the SNR over the linear column per unit flux; at a finite sky it is larger."""
    arc, noise = _ring(seed)
    linear = snr / arc_snr_linear(arc, noise)[METRICS.index(metric)]
    assert flux_for_snr_with_shot_noise(metric, snr, arc, noise, math.inf) == pytest.approx(linear, rel=1e-9)
    assert flux_for_snr_with_shot_noise(metric, snr, arc, noise, SKY) > linear


@pytest.mark.parametrize("metric", METRICS)
def test_an_arc_without_good_light_needs_infinite_flux(metric: str) -> None:
    """A dark arc, and a host without good pixels, reach no SNR."""
    arc, noise = _ring(0)
    dark = np.zeros_like(noise.weight)
    assert flux_for_snr_with_shot_noise(metric, 3.0, dark, noise, SKY) == math.inf
    blind = host_noise(dark, annulus_mask(SIZE, 32.0, 32.0), 0.004)
    assert flux_for_snr_with_shot_noise(metric, 3.0, arc, blind, SKY) == math.inf


def test_flux_refuses_what_it_cannot_solve() -> None:
    """Unknown metrics, other shapes and numbers that are not positive are named."""
    arc, noise = _ring(0)
    with pytest.raises(ContractError, match="arc_snr_region"):
        flux_for_snr_with_shot_noise("arc_snr_region", 3.0, arc, noise, SKY)
    for wrong in ((arc[:4], 3.0, SKY), (arc, 0.0, SKY), (arc, 3.0, -1.0)):
        with pytest.raises(ContractError, match="snr > 0"):
            flux_for_snr_with_shot_noise("arc_snr_sum", wrong[1], wrong[0], noise, wrong[2])
