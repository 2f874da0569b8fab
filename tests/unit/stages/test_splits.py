"""Sky splits: shares, guard, purity."""

from __future__ import annotations

from pathlib import Path

import healpy
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contracts.config import SplitSection
from pipeline.contracts.datasets import SPLITS, TRAINED_SPLITS
from pipeline.contracts.errors import ContractError
from pipeline.stages.manifest import host_ids
from pipeline.stages.splits import (
    assign_splits,
    largest_share_error,
    share_problem,
    split_of_cells,
    split_proportions,
)

GUARD = SPLITS.index("guard")
PINNED_SPLIT = [1, 0, 2, 0, 0, 0]
PINNED_CELL = [65962, 138895, 18475, 105512, 183439, 54300]


def sphere(n, seed):
    """Positions uniform on the sphere."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))


def separation_arcsec(ra1, dec1, ra2, dec2):
    """Great-circle distance. [arcsec]"""
    v1, v2 = healpy.ang2vec(ra1, dec1, lonlat=True), healpy.ang2vec(ra2, dec2, lonlat=True)
    return np.degrees(2.0 * np.arcsin(np.linalg.norm(v1 - v2, axis=-1) / 2.0)) * 3600.0


def split_of_own_cell(ra, dec, seed, section):
    """Split of the cell each position lies in."""
    return split_of_cells(healpy.ang2pix(section.nside, ra, dec, nest=True, lonlat=True), seed, section)


def neighbours_of(ra, dec, distance_arcsec, angle_rad):
    """Positions at a distance and position angle from others."""
    distance = np.radians(distance_arcsec / 3600.0)
    dec1 = np.radians(dec)
    dec2 = np.arcsin(np.sin(dec1) * np.cos(distance) + np.cos(dec1) * np.sin(distance) * np.cos(angle_rad))
    dra = np.arctan2(
        np.sin(angle_rad) * np.sin(distance) * np.cos(dec1), np.cos(distance) - np.sin(dec1) * np.sin(dec2)
    )
    return (ra + np.degrees(dra)) % 360.0, np.degrees(dec2)


@pytest.mark.parametrize("nside", [128, 512])
@pytest.mark.parametrize(("guard", "guard_arcsec"), [("drop", 0.0), ("drop", 30.0), ("drop", 60.0), ("assign", 60.0)])
def test_shares_over_the_whole_sky_are_the_requested_ones(nside, guard, guard_arcsec):
    """Over the sky the shares outside the guard lie within 1 % of 70/15/15, however wide the guard is."""
    ra, dec = sphere(40_000, 1)
    section = SplitSection(nside=nside, guard=guard, guard_arcsec=guard_arcsec)
    shares = split_proportions(assign_splits(ra, dec, 42, section)[0])
    assert shares["train"] == pytest.approx(0.70, abs=0.01)
    assert shares["val"] == pytest.approx(0.15, abs=0.01)
    assert shares["test"] == pytest.approx(0.15, abs=0.01)
    assert (shares["guard"] > 0.0) == (guard_arcsec > 0.0)


def test_equal_shares_stay_equal_under_the_guard():
    """Only unequal shares need a correction; shares of zero and one stay zero and one."""
    ra, dec = sphere(40_000, 12)
    thirds = SplitSection(train=1 / 3, val=1 / 3, test=1 / 3)
    shares = split_proportions(assign_splits(ra, dec, 5, thirds)[0])
    assert all(shares[name] == pytest.approx(1 / 3, abs=0.01) for name in ("train", "val", "test"))
    assert set(assign_splits(ra, dec, 5, SplitSection(train=1.0, val=0.0, test=0.0))[0]) == {0}
    everything_touches = SplitSection(train=0.0, val=0.0, test=1.0, guard_arcsec=3600.0)
    assert set(assign_splits(ra[:500], dec[:500], 5, everything_touches)[0]) == {2}


def test_cells_are_nested():
    """The returned cell is the NESTED pixel, known for the first base cell and different from RING."""
    split, cell = assign_splits(np.array([45.0, 10.0]), np.array([0.0, 30.0]), 1, SplitSection(nside=32))
    assert cell.tolist() == healpy.ang2pix(32, [45.0, 10.0], [0.0, 30.0], nest=True, lonlat=True).tolist()
    assert cell.tolist() != healpy.ang2pix(32, [45.0, 10.0], [0.0, 30.0], nest=False, lonlat=True).tolist()
    assert (split.dtype, cell.dtype) == (np.uint8, np.int64)


def test_split_is_pinned_for_a_seed():
    """Splits of a published run never change: these values are frozen."""
    ra, dec = np.array([0.5, 59.1, 121.9, 200.2, 310.7, 350.0]), np.array([-30.0, -30.5, 12.3, 2.2, -61.0, 33.0])
    split, cell = assign_splits(ra, dec, 42, SplitSection(guard_arcsec=0.0))
    assert split.tolist() == PINNED_SPLIT
    assert cell.tolist() == PINNED_CELL


def test_split_does_not_depend_on_other_rows():
    """Shuffling rows, taking a subset and repeating rows leave each row's split unchanged."""
    ra, dec = sphere(5000, 2)
    section = SplitSection(guard_arcsec=300.0)
    split, cell = assign_splits(ra, dec, 7, section)
    order = np.random.default_rng(3).permutation(5000)
    rows = np.concatenate([order[:700], order[:50]])
    subset_split, subset_cell = assign_splits(ra[rows], dec[rows], 7, section)
    np.testing.assert_array_equal(subset_split, split[rows])
    np.testing.assert_array_equal(subset_cell, cell[rows])


def test_other_seed_gives_other_splits():
    """The seed keys the hash: about the chance share of cells agrees between seeds."""
    ra, dec = sphere(20_000, 4)
    section = SplitSection(guard_arcsec=0.0)
    agree = np.mean(assign_splits(ra, dec, 1, section)[0] == assign_splits(ra, dec, 2, section)[0])
    assert agree == pytest.approx(0.70**2 + 2 * 0.15**2, abs=0.02)


@pytest.mark.parametrize(("nside", "guard_arcsec"), [(128, 60.0), (512, 60.0), (512, 900.0), (32, 3600.0)])
@pytest.mark.parametrize("guard", ["drop", "assign"])
def test_hosts_within_the_guard_are_never_in_two_splits(nside, guard_arcsec, guard):
    """Two positions up to the guard apart share a split, or one is guard; under `drop` up to two guards apart."""
    section = SplitSection(nside=nside, guard_arcsec=guard_arcsec, guard=guard)
    rng = np.random.default_rng(5)
    edges = healpy.boundaries(nside, rng.integers(0, 12 * nside**2, 1500), step=2, nest=True)
    ra_edge, dec_edge = healpy.vec2ang(np.moveaxis(edges, 1, 2).reshape(-1, 3), lonlat=True)
    n = ra_edge.size
    ra1, dec1 = neighbours_of(ra_edge, dec_edge, guard_arcsec * 1.2 * rng.uniform(0, 1, n), rng.uniform(0, 6.3, n))
    distance = guard_arcsec * 2.0 * rng.uniform(0, 0.9999, n)
    ra2, dec2 = neighbours_of(ra1, dec1, distance, rng.uniform(0, 6.3, n))
    split1, cell1 = assign_splits(ra1, dec1, 11, section)
    split2, cell2 = assign_splits(ra2, dec2, 11, section)
    clash = (split1 != split2) & (split1 != GUARD) & (split2 != GUARD)
    near = separation_arcsec(ra1, dec1, ra2, dec2) < 0.9999 * guard_arcsec
    assert np.mean(cell1[near] != cell2[near]) > 0.1
    assert not clash[near].any()
    assert clash.any() == (guard == "assign")


@pytest.mark.parametrize("guard", ["drop", "assign"])
@pytest.mark.parametrize("guard_arcsec", [0.0, 60.0])
def test_copies_of_a_host_on_a_cell_border_stay_together(guard, guard_arcsec):
    """Twelve copies whose positions differ in the last bits, across a border of two splits, get one split."""
    section = SplitSection(guard=guard, guard_arcsec=guard_arcsec)
    rng = np.random.default_rng(21)
    dec = np.degrees(np.arcsin(rng.uniform(-0.98, 0.98, 1500)))
    low = rng.uniform(0.0, 359.0, dec.size)
    high, start = low + 0.6, healpy.ang2pix(128, low, dec, nest=True, lonlat=True)
    for _ in range(60):
        middle = (low + high) / 2
        same = healpy.ang2pix(128, middle, dec, nest=True, lonlat=True) == start
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    crossing = split_of_own_cell(low, dec, 3, section) != split_of_own_cell(high, dec, 3, section)
    low, dec = low[crossing], dec[crossing]
    assert low.size > 300
    ulps = np.arange(-6, 6)
    ra_copies = (low[:, None] + ulps * np.spacing(low)[:, None]).ravel()
    dec_copies = (dec[:, None] + ulps[::-1] * np.spacing(dec)[:, None]).ravel()
    own = split_of_own_cell(ra_copies, dec_copies, 3, section).reshape(-1, 12)
    assert np.mean(own != own[:, :1]) > 0.1
    split, cell = (values.reshape(-1, 12) for values in assign_splits(ra_copies, dec_copies, 3, section))
    host = host_ids(["0591m305"] * ra_copies.size, ra_copies.tolist(), dec_copies.tolist()).reshape(-1, 12)
    assert (host == host[:, :1]).all()
    assert (split == split[:, :1]).all()
    assert (cell == cell[:, :1]).all()


def test_copies_on_both_sides_of_the_right_ascension_seam_stay_together():
    """A position just short of 360 deg is the host at 0 deg: one identity, one split."""
    ra, dec = np.array([np.nextafter(360.0, 0.0), 0.0, 360.0]), np.full(3, -12.3)
    split, cell = assign_splits(ra, dec, 1, SplitSection(guard_arcsec=0.0))
    assert len(set(split.tolist())) == len(set(cell.tolist())) == 1
    assert len(set(host_ids(["0591m305"] * 3, ra.tolist(), dec.tolist()).tolist())) == 1


@pytest.mark.parametrize("guard", ["drop", "assign"])
def test_replicates_and_selection_set_copies_of_real_manifests_stay_together(golden_manifests: list[Path], guard):
    """Every host of the EMR manifests, under hundreds of task ids and two selection sets, has one split and cell."""
    frame = pd.concat([pd.read_parquet(path) for path in golden_manifests], ignore_index=True)
    host = host_ids(frame["brickname"].tolist(), frame["ra"].tolist(), frame["dec"].tolist())
    assert frame.groupby(host)["selection_set_id"].nunique().max() == 2
    assert frame.groupby(host).size().max() > 100
    for seed in range(20):
        split, cell = assign_splits(
            frame["ra"].to_numpy(), frame["dec"].to_numpy(), seed, SplitSection(nside=512, guard=guard)
        )
        assert pd.DataFrame({"split": split, "cell": cell}).groupby(host).nunique().to_numpy().max() == 1


@settings(deadline=None, max_examples=60)
@given(st.floats(0.0, 360.0), st.floats(-89.9, 89.9), st.floats(0.0, 0.9999), st.floats(0.0, 6.28))
def test_close_pair_anywhere_shares_its_split_or_is_guarded(ra, dec, distance, angle):
    """The guard holds for any pair of positions, poles and the RA seam included."""
    section = SplitSection(nside=512, guard_arcsec=240.0)
    ra2, dec2 = neighbours_of(np.array([ra]), np.array([dec]), 240.0 * distance, angle)
    split, _ = assign_splits(np.array([ra, ra2[0]]), np.array([dec, dec2[0]]), 13, section)
    assert split[0] == split[1] or GUARD in split


def test_guard_is_a_band_along_borders_and_no_wider():
    """Every guard row sees another split on a circle 1.2 guards wide; every row that sees one at 0.99 is guard."""
    section = SplitSection(nside=256, guard_arcsec=60.0)
    ra, dec = sphere(6000, 6)
    own = split_of_own_cell(ra, dec, 17, section)
    guarded = assign_splits(ra, dec, 17, section)[0] == GUARD
    seen = {}
    for factor in (0.99, 1.2):
        rings = [neighbours_of(ra, dec, 60.0 * factor, angle) for angle in np.linspace(0, 2 * np.pi, 48, False)]
        seen[factor] = np.any([split_of_own_cell(r, d, 17, section) != own for r, d in rings], axis=0)
    assert guarded.sum() > 100
    assert not (seen[0.99] & ~guarded).any()
    assert not (guarded & ~seen[1.2]).any()
    np.testing.assert_array_equal(assign_splits(ra, dec, 17, section)[0][~guarded], own[~guarded])


@pytest.mark.parametrize(
    ("shares", "order"),
    [
        ({}, ("test", "val", "train")),
        ({"train": 0.2, "val": 0.3, "test": 0.5}, ("train", "val", "test")),
        ({"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}, ("test", "val", "train")),
    ],
)
def test_assigned_guard_stays_with_the_rarer_split(shares, order):
    """Under `assign` a row is guard if and only if it is near a cell of a rarer split; the rarest loses none."""
    section = SplitSection(nside=256, guard="assign", **shares)
    ra, dec = sphere(6000, 6)
    own = split_of_own_cell(ra, dec, 17, section)
    split = assign_splits(ra, dec, 17, section)[0]
    rank = np.array([order.index(name) for name in TRAINED_SPLITS])
    seen = {}
    for factor in (0.99, 1.2):
        rings = [neighbours_of(ra, dec, 60.0 * factor, angle) for angle in np.linspace(0, 2 * np.pi, 48, False)]
        seen[factor] = np.any([rank[split_of_own_cell(r, d, 17, section)] < rank[own] for r, d in rings], axis=0)
    guarded = split == GUARD
    assert guarded.sum() > 100
    assert not (seen[0.99] & ~guarded).any()
    assert not (guarded & ~seen[1.2]).any()
    assert not guarded[own == TRAINED_SPLITS.index(order[0])].any()
    np.testing.assert_array_equal(split[~guarded], own[~guarded])


def test_assigning_the_guard_keeps_more_rows():
    """For 70/15/15 `assign` loses about half of what `drop` loses."""
    ra, dec = sphere(20_000, 31)
    lost = {
        guard: split_proportions(assign_splits(ra, dec, 9, SplitSection(guard=guard))[0])["guard"]
        for guard in ("drop", "assign")
    }
    assert lost["assign"] == pytest.approx(lost["drop"] / 2, rel=0.15)


def test_guard_lies_on_both_sides_of_a_border():
    """Mirrored positions just across a border of two splits are both guard."""
    section = SplitSection(nside=64, guard_arcsec=30.0)
    ra, dec = sphere(3000, 8)
    ra2, dec2 = neighbours_of(ra, dec, 40.0, 1.0)
    own = split_of_own_cell(ra, dec, 3, section)
    crossing = own != split_of_own_cell(ra2, dec2, 3, section)
    low, high = np.zeros(3000), np.full(3000, 40.0)
    for _ in range(40):
        middle = (low + high) / 2
        same = split_of_own_cell(*neighbours_of(ra, dec, middle, 1.0), 3, section) == own
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    assert crossing.sum() >= 3
    for side in (low - 10.0, low + 10.0):
        near = neighbours_of(ra[crossing], dec[crossing], side[crossing], 1.0)
        assert (assign_splits(*near, 3, section)[0] == GUARD).all()


@pytest.mark.parametrize(("ra", "dec"), [(np.nan, 0.0), (0.0, np.nan), (np.inf, 0.0), (10.0, 90.5)])
def test_position_off_the_sphere_is_a_contract_error(ra, dec):
    """A NaN, infinite or out-of-range position is refused with its row."""
    with pytest.raises(ContractError, match="row 1"):
        assign_splits(np.array([1.0, ra]), np.array([1.0, dec]), 1, SplitSection())


def test_positions_of_different_length_are_a_contract_error():
    """ra_deg and dec_deg must have one shape."""
    with pytest.raises(ContractError, match=r"\(3,\), \(2,\)"):
        assign_splits(np.zeros(3), np.zeros(2), 1, SplitSection())


def test_no_positions_give_no_splits():
    """An empty shard is split into nothing."""
    split, cell = assign_splits(np.empty(0), np.empty(0), 1, SplitSection())
    assert split.shape == cell.shape == (0,)


def test_read_only_positions_are_accepted():
    """Positions that came over the wire are read-only arrays."""
    ra, dec = sphere(10, 9)
    ra.flags.writeable = dec.flags.writeable = False
    assert assign_splits(ra, dec, 1, SplitSection())[0].shape == (10,)


def test_split_proportions_leave_out_the_guard():
    """Shares of train, val and test are over the rows outside the guard; the guard's is over all rows."""
    shares = split_proportions(np.array([0, 0, 0, 1, 2, 3, 3, 3, 3, 3], dtype=np.uint8))
    assert shares == {"train": 0.6, "val": 0.2, "test": 0.2, "guard": 0.5}


@pytest.mark.parametrize("split", [[], [3, 3], [0, 4]])
def test_undefined_split_proportions_are_a_contract_error(split):
    """No row outside the guard, or an unknown code, is not a share of anything."""
    with pytest.raises(ContractError, match="split"):
        split_proportions(np.array(split, dtype=np.uint8))


def test_share_problem_names_every_number():
    """Outside the tolerance the text has the achieved and requested shares, the tolerance and the guard."""
    shares = {"train": 0.26, "val": 0.39, "test": 0.35, "guard": 0.05}
    section = SplitSection(tolerance=0.02)
    assert largest_share_error(shares, section) == pytest.approx(0.44)
    assert share_problem(shares, section) == (
        "shares are off by 0.4400, tolerance 0.02: train 0.2600 for 0.7000, val 0.3900 for 0.1500, "
        "test 0.3500 for 0.1500; guard 0.0500 of all"
    )
    assert share_problem({"train": 0.719, "val": 0.14, "test": 0.141, "guard": 0.0}, section) == ""
