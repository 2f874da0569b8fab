"""Statistics of stamps in rings and annuli, on stamps whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.stages.gates.apertures import annulus_statistics, radial_profiles, stamp_radius_px


def test_radial_profile_of_a_round_stamp_is_its_profile():
    """Rings of a stamp that depends on the radius alone have the median of that function."""
    radius = stamp_radius_px(32)
    stamps = np.broadcast_to(np.floor(radius / 2.0), (2, 3, 32, 32)).astype(np.float32)
    profiles = radial_profiles(stamps, 8).reshape(2, 3, 8)
    np.testing.assert_array_equal(profiles, np.broadcast_to(np.arange(8.0), (2, 3, 8)))


def test_radial_profile_ignores_a_spot():
    """A bright pixel does not move a median."""
    stamps = np.zeros((1, 1, 32, 32), np.float32)
    stamps[0, 0, 20, 20] = 50.0
    assert (radial_profiles(stamps, 8) == 0).all()


def test_too_many_rings_and_nan_are_errors():
    """A ring without pixels has no median; a NaN in a ring is named."""
    with pytest.raises(ValueError, match="too many"):
        radial_profiles(np.zeros((1, 1, 16, 16), np.float32), 64)
    stamps = np.zeros((1, 1, 32, 32), np.float32)
    stamps[0, 0, 16, 16] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        radial_profiles(stamps, 8)


def test_annulus_clips_at_the_given_deviation():
    """The clipped share counts pixels at least `clip` MAD from the median."""
    stamps = np.random.default_rng(1).normal(size=(1, 1, 64, 64)).astype(np.float32)
    inside = (stamp_radius_px(64) >= 20.0) & (stamp_radius_px(64) < 32.0)
    rows, columns = np.nonzero(inside)
    stamps[0, 0, rows[:100], columns[:100]] = 1000.0
    found = annulus_statistics(stamps, (20.0, 32.0), 100.0)[0, 0]
    assert found[2] == pytest.approx(100 / inside.sum())
    with pytest.raises(ValueError, match="holds"):
        annulus_statistics(stamps, (31.9, 32.0), 10.0)
