"""The magnitude prior as a density: normalised, bounded, the same in ln flux."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from pipeline.contracts.priors import Prior
from pipeline.stages.mag_prior import MagnitudePrior, magnitude

UNIFORM = Prior(kind="uniform", low=20.0, high=26.0)
NORMAL = Prior(kind="normal", mean=24.0, sigma=1.0, low=22.5, high=25.0)
TABLE = Prior(kind="table", points=(20.0, 23.0, 23.5, 26.0), density=(0.0, 4.0, 1.0, 2.0))
KINDS = pytest.mark.parametrize("prior", [UNIFORM, NORMAL, TABLE], ids=["uniform", "normal", "table"])


@KINDS
def test_density_is_normalised_and_bounded(prior: Prior) -> None:
    """The density integrates to 1, vanishes outside the range, and never exceeds its stated maximum."""
    density = MagnitudePrior(prior)
    low, high = prior.bounds
    mass, _ = integrate.quad(density.density, low, high, points=list(prior.points or ()) or None)
    assert mass == pytest.approx(1.0, abs=1e-8)
    assert density.density(low - 1e-9) == density.density(high + 1e-9) == density.density(math.nan) == 0.0
    grid = [density.density(mag) for mag in np.linspace(low, high, 601)]
    assert max(grid) <= density.peak * (1 + 1e-12)
    assert max(grid) == pytest.approx(density.peak, rel=1e-3)
    assert max(density.acceptance(mag) for mag in np.linspace(low, high, 601)) == pytest.approx(1.0, rel=1e-3)


@KINDS
def test_mass_is_the_integral(prior: Prior) -> None:
    """The share between two magnitudes is the integral of the density, also where they leave the range."""
    density = MagnitudePrior(prior)
    for bright, faint in ((22.7, 24.1), (15.0, 23.2), (24.0, 40.0), (10.0, 11.0)):
        grid = np.linspace(bright, faint, 20_001)
        expected = integrate.trapezoid([density.density(mag) for mag in grid], grid)
        assert density.mass(faint, bright) == pytest.approx(expected, abs=2e-3)
    assert density.mass(math.inf, -math.inf) == pytest.approx(1.0)
    assert density.mass(22.0, 24.0) == 0.0


@pytest.mark.parametrize("mean", [21.0, 27.0])
def test_peak_of_a_normal_centred_outside_its_range(mean: float) -> None:
    """The maximum lies on the edge next to the mean."""
    density = MagnitudePrior(Prior(kind="normal", mean=mean, sigma=2.0, low=22.0, high=25.0))
    grid = [density.density(mag) for mag in np.linspace(22.0, 25.0, 301)]
    assert density.peak == pytest.approx(max(grid), rel=1e-12)


def test_density_in_ln_flux_integrates_to_one() -> None:
    """ln F = -0.4 ln 10 (m - 22.5), so the density in ln F is that in m times 2.5 / ln 10."""
    density = MagnitudePrior(UNIFORM)
    ln_low, ln_high = (-0.4 * math.log(10) * (mag - 22.5) for mag in (26.0, 20.0))
    mass, _ = integrate.quad(lambda x: density.ln_flux_density(magnitude(math.exp(x))), ln_low, ln_high)
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_prior_without_density_is_refused() -> None:
    """A fixed magnitude has no density."""
    with pytest.raises(ValueError, match="no density"):
        MagnitudePrior(Prior(kind="fixed", value=0.0))
