"""Survey constants against the DR10 documentation, and conversions against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.survey import (
    BAD_PIXEL_MASK,
    EXTINCTION_COEFFICIENT,
    FWHM_PER_SIGMA,
    MASKBITS,
    WISE_MASK,
    flux_nmgy_from_mag,
    mag_from_flux_nmgy,
    mask_value,
    mw_transmission,
)

DR10_BITS = [
    *("NPRIMARY", "BRIGHT", "SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R", "ALLMASK_Z"),
    *("WISEM1", "WISEM2", "BAILOUT", "MEDIUM", "GALAXY", "CLUSTER", "SATUR_I", "ALLMASK_I", "SUB_BLOB"),
]


@pytest.mark.parametrize(("mag", "flux"), [(20.0, 10.0), (22.5, 1.0), (23.9, 0.275423), (25.0, 0.1)])
def test_flux_of_known_magnitudes(mag: float, flux: float) -> None:
    """Magnitude 22.5 is one nanomaggy, and 2.5 mag are a factor of ten."""
    assert float(flux_nmgy_from_mag(np.array(mag))) == pytest.approx(flux, rel=1e-6)


@given(st.floats(5.0, 40.0))
def test_magnitude_survives_the_round_trip(mag: float) -> None:
    """Magnitude to flux and back agrees to 1e-12."""
    assert float(mag_from_flux_nmgy(flux_nmgy_from_mag(np.array(mag)))) == pytest.approx(mag, rel=1e-12)


def test_flux_without_magnitude_is_nan_without_warning() -> None:
    """Zero, negative and NaN fluxes have no magnitude."""
    assert np.isnan(mag_from_flux_nmgy(np.array([0.0, -1.0, np.nan]))).all()
    assert np.isnan(flux_nmgy_from_mag(np.array([np.nan]))).all()


def test_extinction_dims_by_the_listed_coefficients() -> None:
    """Transmission is 10**(-0.4 A) with A/E(B-V) = 3.214, 2.165, 1.592, 1.211 in g, r, i, z."""
    assert EXTINCTION_COEFFICIENT == {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}
    for band, coefficient in EXTINCTION_COEFFICIENT.items():
        assert float(mw_transmission(np.array(0.0), band)) == 1.0
        assert float(mw_transmission(np.array(0.1), band)) == pytest.approx(10 ** (-0.04 * coefficient), rel=1e-12)
        dimmed = flux_nmgy_from_mag(np.array(21.0)) * mw_transmission(np.array(0.1), band)
        assert float(mag_from_flux_nmgy(dimmed)) == pytest.approx(21.0 + 0.1 * coefficient, rel=1e-12)


def test_mask_bits_are_those_of_dr10() -> None:
    """Bit numbers follow the DR10 bitmask page; the EMR bad set is bits 0, 1, 3, 6, 10, 11 and WISE 8, 9."""
    assert [MASKBITS[name] for name in DR10_BITS] == list(range(17))
    assert sum(1 << bit for bit in (0, 1, 3, 6, 10, 11)) == BAD_PIXEL_MASK
    assert WISE_MASK == 256 + 512
    with pytest.raises(KeyError):
        mask_value("RESOLVED")


def test_gaussian_width() -> None:
    """FWHM of a unit Gaussian."""
    assert np.exp(-0.5 * (FWHM_PER_SIGMA / 2) ** 2) == pytest.approx(0.5, rel=1e-12)
