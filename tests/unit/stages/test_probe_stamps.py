"""Changed stamps: each changes what its name says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.stages.probe_stamps import (
    aperture_flux_nmgy,
    arc_power_inside,
    in_noise_units,
    with_fixed_ring,
    with_resampled_annulus,
    with_ring_like_arc,
    without_arc,
)

N, SIZE = 3, 64
THETA_E = np.array([1.0, 1.5, 2.2])
PSFSIZE = np.tile([1.5, 1.3, 1.2], (N, 1))
CENTRE = (np.zeros(N), np.zeros(N))
Y, X = np.mgrid[:SIZE, :SIZE] - SIZE // 2
RADIUS = np.hypot(X, Y)


@pytest.fixture
def control() -> np.ndarray:
    """Noise about a galaxy."""
    noise = np.random.default_rng(1).normal(0.0, 0.01, (N, 3, SIZE, SIZE))
    return (noise + np.exp(-RADIUS / 3.0)).astype(np.float32)


@pytest.fixture
def injected(control: np.ndarray) -> np.ndarray:
    """The same with a blob at 6 px along +x, blue."""
    blob = np.exp(-((X - 6) ** 2 + Y**2) / 4.0) * np.array([0.3, 0.2, 0.1])[:, None, None]
    return (control + blob).astype(np.float32)


def test_noise_units_divide_by_sigma_pixel_by_pixel(control: np.ndarray) -> None:
    """Flux over sigma; no data gives 0; a negative inverse variance is an error."""
    invvar = np.full_like(control, 100.0)
    invvar[0, 0, 0, 0] = 0.0
    scaled = in_noise_units(control, invvar)
    assert scaled[0, 0, 0, 0] == 0.0
    np.testing.assert_allclose(scaled[1:], 10.0 * control[1:], rtol=1e-6)
    with pytest.raises(ContractError, match="inverse variances"):
        in_noise_units(control, -invvar)


def test_arc_is_gone_beyond_the_core_and_only_there(control: np.ndarray, injected: np.ndarray) -> None:
    """Pixels beyond half an Einstein radius are the control's, those within are kept; the core has at least 2 px."""
    bare = without_arc(injected, control, THETA_E, CENTRE, 0.5)
    core_px = np.maximum(0.5 * THETA_E / 0.262, 2.0)
    for row in range(N):
        inside = core_px[row] > RADIUS
        np.testing.assert_array_equal(bare[row][:, inside], injected[row][:, inside])
        np.testing.assert_array_equal(bare[row][:, ~inside], control[row][:, ~inside])
    shifted = without_arc(injected, control, THETA_E, (np.full(N, 6 * 0.262), np.zeros(N)), 1.0)
    assert shifted[2, 0, 32, 38] == injected[2, 0, 32, 38]


def test_annulus_is_drawn_from_the_sky_beyond_it(injected: np.ndarray) -> None:
    """Inside the annulus only values from beyond it occur, elsewhere nothing changes, and a row's draws are its own."""
    rows = np.array([7, 8, 9])
    drawn = with_resampled_annulus(injected, (10.0, 25.0), 1, rows)
    inside, sky = (RADIUS >= 10) & (RADIUS < 25), RADIUS >= 25
    np.testing.assert_array_equal(drawn[:, :, ~inside], injected[:, :, ~inside])
    assert np.isin(drawn[1, 2][inside], injected[1, 2][sky]).all()
    np.testing.assert_array_equal(with_resampled_annulus(injected[1:2], (10.0, 25.0), 1, rows[1:2])[0], drawn[1])
    assert not np.array_equal(with_resampled_annulus(injected, (10.0, 25.0), 2, rows), drawn)
    with pytest.raises(ConfigError, match="leaves 0 pixels"):
        with_resampled_annulus(injected[..., :32, :32], (10.0, 25.0), 1, rows)


def test_ring_has_radius_peak_and_colours_of_its_arc(control: np.ndarray, injected: np.ndarray) -> None:
    """The ring's brightest pixel in the band is the arc's, its fluxes relate like the arc's, it is even in angle."""
    ring = with_ring_like_arc(control, injected, THETA_E, CENTRE, PSFSIZE, band=1).astype(np.float64) - control
    arc = injected.astype(np.float64) - control
    np.testing.assert_allclose(ring[:, 1].max(axis=(1, 2)), arc[:, 1].max(axis=(1, 2)), rtol=1e-4)
    ratios = [light.sum(axis=(2, 3)) / light[:, 1].sum(axis=(1, 2))[:, None] for light in (ring, arc)]
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-3)
    np.testing.assert_allclose(ring[:, :, 32 + 20, 32], ring[:, :, 32, 32 + 20], atol=1e-6)
    brightest = RADIUS.ravel()[ring[2, 1].argmax()]
    assert brightest == pytest.approx(THETA_E[2] / 0.262, abs=0.8)


def test_ring_of_no_arc_is_refused(control: np.ndarray, injected: np.ndarray) -> None:
    """Without light in the band, radius or seeing there is no ring to make."""
    with pytest.raises(ContractError, match="3 arcs have no flux"):
        with_ring_like_arc(control, control, THETA_E, CENTRE, PSFSIZE, 1)
    with pytest.raises(ContractError, match="positive theta_e_arcsec"):
        with_ring_like_arc(control, injected, 0 * THETA_E, CENTRE, PSFSIZE, 1)


def test_fixed_ring_is_the_same_in_every_stamp(control: np.ndarray) -> None:
    """0.01 nmgy at 15 px, falling with exp(-(r - 15)**2 / 20)."""
    ring = with_fixed_ring(control).astype(np.float64) - control
    assert ring[0, 0, 32, 32 + 15] == pytest.approx(0.01, rel=1e-4)
    assert ring[2, 1, 32 + 10, 32] == pytest.approx(0.01 * np.exp(-25 / 20), rel=1e-3)


def test_power_and_flux_are_those_of_known_light(control: np.ndarray, injected: np.ndarray) -> None:
    """A blob at 6 px has no power within 1 px, half within 6.5 px, all within 15; the aperture holds the galaxy."""
    power = arc_power_inside(injected, control, (1.0, 6.5, 15.0))
    assert power.shape == (N, 3)
    np.testing.assert_allclose(power[0], [0.0, 0.55, 1.0], atol=0.15)
    flux = aperture_flux_nmgy(control[:, 1])
    truth = np.exp(-RADIUS / 3.0)[RADIUS < 8].sum()
    np.testing.assert_allclose(flux, truth, rtol=0.02)
