"""One galaxy under two names, and stamps that occur twice."""

from __future__ import annotations

import numpy as np
import pytest


def rows_of_splits(cube) -> tuple[int, int, int]:
    """Two pair rows of the train split and one of the test split."""
    split = cube.columns["split"].to_numpy()[:400]
    train = np.flatnonzero(split == 0)
    return int(train[0]), int(train[1]), int(np.flatnonzero(split == 2)[0])


@pytest.mark.parametrize(("shift_arcsec", "found"), [(0.5, 1), (2.0, 0)])
def test_one_galaxy_in_two_splits_under_two_ids_is_found(cube, shift_arcsec, found):
    """Two hosts half an arcsecond apart in train and test are one galaxy; two arcseconds apart they are two."""
    train, _, test = rows_of_splits(cube)
    cube.columns["ra_deg"][test] = cube.columns["ra_deg"][train]
    cube.columns["dec_deg"][test] = cube.columns["dec_deg"][train] + shift_arcsec / 3600.0
    result = cube.gate("duplicate_audit")
    assert result.detail["hosts_at_one_place_in_two_splits"] == found
    assert result.passed == (found == 0)


def test_one_galaxy_twice_in_one_split_is_counted_only(cube):
    """Brick overlap inside a split leaks nothing."""
    first, second, _ = rows_of_splits(cube)
    for name in ("ra_deg", "dec_deg"):
        cube.columns[name][second] = cube.columns[name][first]
    result = cube.gate("duplicate_audit")
    assert result.passed
    assert result.detail["hosts_at_one_place"] == 1


def test_equal_pixels_of_two_hosts_are_found_and_of_one_host_are_not(cube):
    """Two hosts with the same control pixels are a copy; a repeated host has them by design."""
    train, _, test = rows_of_splits(cube)
    cube.stamps["control"][test] = cube.stamps["control"][train]
    result = cube.gate("duplicate_audit")
    assert (result.passed, result.detail["hosts_with_equal_pixels"]) == (False, 1)
    assert result.detail["equal_pixels_in_two_splits"] == 1
    cube.stamps["host_id"][test] = cube.stamps["host_id"][train]
    result = cube.gate("duplicate_audit")
    assert result.passed
    assert result.detail["repeated_hosts"] == 1


def test_an_injected_stamp_that_occurs_twice_is_found(cube):
    """Two pairs with the same arc on the same pixels are one example counted twice."""
    cube.stamps["injected"][7] = cube.stamps["injected"][8]
    result = cube.gate("duplicate_audit")
    assert (result.passed, result.detail["injected_stamps_repeated"]) == (False, 1)


def test_a_position_that_is_not_finite_fails(cube):
    """Without a position a host cannot be compared."""
    cube.columns["dec_deg"][3] = np.nan
    assert "not finite" in cube.gate("duplicate_audit").message
