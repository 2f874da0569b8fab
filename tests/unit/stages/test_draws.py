"""Draws: parameters of an arc from priors and from EMR rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.priors import Prior, Priors
from pipeline.kernels.random import PURPOSE_PRIOR, PURPOSE_WEIGHT, task_keys
from pipeline.stages.draws import (
    ArcDraw,
    draw_arc,
    frozen_arc,
    ln_flux_density,
    mag_density,
    mag_density_max,
    prior_table,
)
from pipeline.stages.manifest import emr_rows

N_DRAWS = 3000
KEYS = task_keys([f"host-{index}" for index in range(N_DRAWS)])
CENTRE_PX = (0.3, -0.4)
PRIORS = {
    "theta_e_arcsec": "kind: uniform, low: 0.7, high: 2.2",
    "lens_q": "kind: uniform, low: 0.5, high: 1.0",
    "shear": "kind: uniform, low: 0.0, high: 0.08",
    "lens_jitter_arcsec": "kind: disc, low: 0, high: 0.1",
    "beta_over_theta_e": "kind: disc, low: 0.05, high: 0.8",
    "src_re_arcsec": "kind: loguniform, low: 0.1, high: 0.5",
    "src_n": "kind: uniform, low: 0.7, high: 3.0",
    "src_q": "kind: uniform, low: 0.4, high: 1.0",
    "src_mag_r": "kind: normal, mean: 24, sigma: 1, low: 22.5, high: 25",
    "src_gr": "kind: normal, mean: 0.4, sigma: 0.3, low: -0.3, high: 1.5",
    "src_rz": "kind: normal, mean: 0.3, sigma: 0.25, low: -0.3, high: 1.2",
}
UNIFORM_MAG = Prior(kind="uniform", low=20.0, high=26.0)
NORMAL_MAG = Prior(kind="normal", mean=24.0, sigma=1.0, low=22.5, high=25.0)


@pytest.fixture(scope="module")
def priors(make_config: Callable[..., RunConfig]) -> Priors:
    """A different prior for every parameter."""
    config = make_config(*(f"injection.priors.{name}={{{prior}}}" for name, prior in PRIORS.items()))
    assert config.injection.priors is not None
    return config.injection.priors


@pytest.fixture(scope="module")
def draws(priors: Priors) -> dict[str, np.ndarray]:
    """Columns of many draws."""
    table = prior_table(priors)
    made = [draw_arc(table, 5, key, PURPOSE_PRIOR, 0, CENTRE_PX) for key in KEYS]
    return {name: np.array([getattr(draw, name) for draw in made]) for name in ArcDraw.__dataclass_fields__}


def ks(values: np.ndarray, distribution: object) -> float:
    """p-value of a Kolmogorov-Smirnov test."""
    return float(stats.kstest(values, distribution).pvalue)


def test_drawn_parameters_have_their_configured_priors(draws: dict[str, np.ndarray]) -> None:
    """Parameters that are passed on unchanged follow their own prior, not another parameter's."""
    assert ks(draws["theta_e_arcsec"], stats.uniform(0.7, 1.5).cdf) > 1e-3
    assert ks(draws["lens_q"], stats.uniform(0.5, 0.5).cdf) > 1e-3
    assert ks(draws["src_re_arcsec"], stats.loguniform(0.1, 0.5).cdf) > 1e-3
    assert ks(draws["src_n"], stats.uniform(0.7, 2.3).cdf) > 1e-3
    assert ks(draws["src_q"], stats.uniform(0.4, 0.6).cdf) > 1e-3
    assert ks(draws["src_gr"], stats.truncnorm(-0.7 / 0.3, 1.1 / 0.3, 0.4, 0.3).cdf) > 1e-3
    assert ks(draws["src_rz"], stats.truncnorm(-0.6 / 0.25, 0.9 / 0.25, 0.3, 0.25).cdf) > 1e-3
    assert ks(draws["src_mag_r"], stats.truncnorm(-1.5, 1.0, 24.0, 1.0).cdf) > 1e-3


def test_angles_are_uniform(draws: dict[str, np.ndarray]) -> None:
    """Axes cover half a turn, directions a whole one."""
    assert ks(draws["lens_phi_rad"], stats.uniform(0, math.pi).cdf) > 1e-3
    assert ks(draws["src_phi_rad"], stats.uniform(0, math.pi).cdf) > 1e-3
    direction = np.arctan2(draws["src_y_arcsec"], draws["src_x_arcsec"])
    assert ks(direction, stats.uniform(-math.pi, 2 * math.pi).cdf) > 1e-3
    spin = np.arctan2(draws["shear_gamma2"], draws["shear_gamma1"])
    assert ks(spin, stats.uniform(-math.pi, 2 * math.pi).cdf) > 1e-3


def test_shear_has_its_modulus(draws: dict[str, np.ndarray]) -> None:
    """|gamma| follows the shear prior."""
    modulus = np.hypot(draws["shear_gamma1"], draws["shear_gamma2"])
    assert ks(modulus, stats.uniform(0.0, 0.08).cdf) > 1e-3


def test_source_offset_is_area_weighted_in_einstein_radii(draws: dict[str, np.ndarray]) -> None:
    """beta / theta_E fills the annulus 0.05-0.8 evenly and is independent of theta_E."""
    beta = np.hypot(draws["src_x_arcsec"], draws["src_y_arcsec"]) / draws["theta_e_arcsec"]
    assert ks(beta, lambda r: (r**2 - 0.05**2) / (0.8**2 - 0.05**2)) > 1e-3
    assert abs(stats.spearmanr(beta, draws["theta_e_arcsec"]).statistic) < 5 / math.sqrt(N_DRAWS)


def test_lens_sits_on_the_host_within_its_jitter(draws: dict[str, np.ndarray]) -> None:
    """The lens centre is the host's sub-pixel position in arcsec plus an area-weighted jitter."""
    dx = draws["lens_x_arcsec"] - 0.3 * 0.262
    dy = draws["lens_y_arcsec"] + 0.4 * 0.262
    assert ks(np.hypot(dx, dy), lambda r: (r / 0.1) ** 2) > 1e-3
    assert ks(np.arctan2(dy, dx), stats.uniform(-math.pi, 2 * math.pi).cdf) > 1e-3


def test_draw_is_a_function_of_its_key(priors: Priors) -> None:
    """The same key gives the same draw; another seed, task, purpose or attempt gives another."""
    table = prior_table(priors)

    def draw(seed: int = 5, task: int = 0, purpose: int = PURPOSE_PRIOR, attempt: int = 0) -> ArcDraw:
        return draw_arc(table, seed, KEYS[task], purpose, attempt, CENTRE_PX)

    first = draw()
    others = [draw(seed=6), draw(task=1), draw(purpose=PURPOSE_WEIGHT), draw(attempt=1), draw(seed=2**63 - 1)]
    assert draw() == first
    assert len({other.theta_e_arcsec for other in (*others, first)}) == 6


def test_moving_the_host_moves_only_the_lens(priors: Priors) -> None:
    """The sub-pixel position shifts the lens and changes nothing else of a draw."""
    table = prior_table(priors)
    here = draw_arc(table, 5, KEYS[0], PURPOSE_PRIOR, 0, (0.0, 0.0))
    there = draw_arc(table, 5, KEYS[0], PURPOSE_PRIOR, 0, (0.5, -0.25))
    assert there.lens_x_arcsec - here.lens_x_arcsec == pytest.approx(0.5 * 0.262)
    assert there.lens_y_arcsec - here.lens_y_arcsec == pytest.approx(-0.25 * 0.262)
    same = set(ArcDraw.__dataclass_fields__) - {"lens_x_arcsec", "lens_y_arcsec"}
    assert all(getattr(here, name) == getattr(there, name) for name in same)


def test_frozen_row_is_mapped_as_written(
    make_cutouts: Callable[..., xr.Dataset], make_rows: Callable[..., xr.Dataset]
) -> None:
    """q = (1 - e) / (1 + e), gamma = g (cos, sin) 2 phi, magnitudes from host and colours, n = 1."""
    draw = frozen_arc(make_rows(make_cutouts(2, size=16)), 1, CENTRE_PX)
    assert draw.lens_q == pytest.approx(0.75 / 1.25)
    assert draw.src_q == pytest.approx(0.8 / 1.2)
    assert draw.shear_gamma1 == pytest.approx(0.05 * math.cos(2.2))
    assert draw.shear_gamma2 == pytest.approx(0.05 * math.sin(2.2))
    assert (draw.lens_x_arcsec, draw.lens_y_arcsec) == pytest.approx((0.3 * 0.262, -0.4 * 0.262))
    assert (draw.src_x_arcsec, draw.src_y_arcsec, draw.src_re_arcsec) == (0.2, -0.1, 0.25)
    assert (draw.theta_e_arcsec, draw.lens_phi_rad, draw.src_phi_rad, draw.src_n) == (1.2, 2.0, 0.7, 1.0)
    assert draw.magnitude("r") == pytest.approx(21.0)
    assert draw.magnitude("g") == pytest.approx(21.4)
    assert draw.magnitude("z") == pytest.approx(20.7)


def test_golden_rows_become_physical_arcs(golden_manifests: list[Path]) -> None:
    """Every arc of the EMR manifests maps to axis ratios in (0, 1] and finite magnitudes in g, r, z."""
    for path in golden_manifests:
        frame = pd.read_parquet(path).iloc[:100]
        rows = emr_rows(frame, ("g", "r", "z"), 64)
        for index in np.flatnonzero(frame["is_control"].to_numpy() == 0)[:40]:
            draw = frozen_arc(rows, int(index), CENTRE_PX)
            assert 0 < draw.lens_q <= 1
            assert 0 < draw.src_q <= 1
            row = frame.iloc[int(index)]
            assert draw.magnitude("r") == pytest.approx(float(row["rmag"]) + row["src_dmag"], rel=1e-6)
            assert draw.magnitude("g") - draw.magnitude("r") == pytest.approx(row["src_gr"])
            assert draw.magnitude("r") - draw.magnitude("z") == pytest.approx(row["src_rz"])
            assert math.hypot(draw.shear_gamma1, draw.shear_gamma2) == pytest.approx(row["shear"])


@pytest.mark.parametrize("prior", [UNIFORM_MAG, NORMAL_MAG], ids=["uniform", "normal"])
def test_magnitude_density_is_normalised_and_bounded(prior: Prior) -> None:
    """The density integrates to 1, vanishes outside the range, and never exceeds its stated maximum."""
    mass, _ = integrate.quad(lambda mag: mag_density(prior, mag), prior.low, prior.high)
    assert mass == pytest.approx(1.0, abs=1e-9)
    assert mag_density(prior, prior.low - 1e-9) == mag_density(prior, prior.high + 1e-9) == 0.0
    assert mag_density(prior, math.nan) == 0.0
    peak = mag_density_max(prior)
    grid = [mag_density(prior, mag) for mag in np.linspace(prior.low, prior.high, 501)]
    assert max(grid) <= peak * (1 + 1e-12)
    assert max(grid) == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize("mean", [21.0, 27.0])
def test_peak_of_a_normal_centred_outside_its_range(mean: float) -> None:
    """The maximum lies on the edge next to the mean."""
    prior = Prior(kind="normal", mean=mean, sigma=2.0, low=22.0, high=25.0)
    grid = [mag_density(prior, mag) for mag in np.linspace(22.0, 25.0, 301)]
    assert mag_density_max(prior) == pytest.approx(max(grid), rel=1e-12)


def test_magnitude_density_is_that_of_the_draws(draws: dict[str, np.ndarray]) -> None:
    """A histogram of drawn magnitudes agrees with the density within 5 sigma per bin."""
    edges = np.linspace(22.5, 25.0, 11)
    counts, _ = np.histogram(draws["src_mag_r"], edges)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        expected = N_DRAWS * integrate.quad(lambda mag: mag_density(NORMAL_MAG, mag), low, high)[0]
        assert abs(count - expected) < 5 * math.sqrt(expected)


def test_density_in_ln_flux_integrates_to_one() -> None:
    """ln F = -0.4 ln 10 (m - 22.5), so the density in ln F is that in m times 2.5 / ln 10."""
    ln_low, ln_high = (-0.4 * math.log(10) * (mag - 22.5) for mag in (26.0, 20.0))
    mass, _ = integrate.quad(lambda x: ln_flux_density(UNIFORM_MAG, 22.5 - 2.5 * x / math.log(10)), ln_low, ln_high)
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_prior_without_density_is_refused() -> None:
    """A fixed magnitude has no density."""
    with pytest.raises(ValueError, match="no density"):
        mag_density(Prior(kind="fixed", value=0.0), 0.0)
