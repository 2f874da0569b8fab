"""Sky splits: HEALPix cells hashed into train, val and test, with a guard band between them.

The split of a position depends on nothing but the position to 1e-6 deg, the run seed and the split section,
so replicates of a host, its copies under other task ids and every subset of a run agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import healpy
import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.config import SplitSection
from pipeline.contracts.datasets import SPLITS, TRAINED_SPLITS
from pipeline.contracts.errors import ContractError
from pipeline.stages.manifest import host_position

_TRAIN, _VAL, _TEST, _GUARD = (SPLITS.index(name) for name in ("train", "val", "test", "guard"))

# The inclusive disc query works on sub-cells; the guard is wider than asked by less than two of them.
_SUBCELLS_PER_GUARD = 16
_NSIDE_MAX = 2**29
_CELL_ARCSEC_AT_NSIDE_1 = 3600.0 * math.degrees(math.sqrt(math.pi / 3.0))


def assign_splits(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], seed: int, section: SplitSection
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Split and HEALPix cell of every position, both of the position rounded to 1e-6 deg.

    A cell is train, val or test by a uniform number in [0, 1) hashed from the seed and the cell: train
    below the first threshold, val below the second. A position is guard if the disc of
    `section.guard_arcsec` around it overlaps a cell of a split that its own yields to. With `guard: drop`
    every split yields to every other, so positions kept in two different splits are more than two guards
    apart. With `guard: assign` a split yields to rarer ones only (equal shares: train to val to test), whose
    positions in the band stay in the split of their cell; two different splits are then more than one
    guard apart.

    The guard takes more from rare splits, whose cells have more foreign neighbours, or under `assign`
    from common ones. The thresholds make up for that, so the shares hold outside the guard; without
    guard they are `train` and `train + val`.

    Args:
        ra_deg: (sample,) ICRS right ascension, finite. [deg]
        dec_deg: (sample,) ICRS declination in [-90, 90]. [deg]
        seed: run seed in [0, 2**63).
        section: cell size, shares and guard.

    Returns:
        (sample,) uint8 index in SPLITS, and (sample,) int64 HEALPix cell (NESTED, `section.nside`).

    Raises:
        ContractError: shapes differ, or a position is not finite or not on the sphere.
    """
    ra, dec = _checked_positions(ra_deg, dec_deg)
    if ra.size == 0:
        return np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int64)
    positions, row_to_position = np.unique(ra + 1j * dec, return_inverse=True)
    rounded = [host_position(*pair) for pair in zip(positions.real.tolist(), positions.imag.tolist(), strict=True)]
    ra_unique, dec_unique = np.array(rounded).T
    cell = healpy.ang2pix(section.nside, ra_unique, dec_unique, nest=True, lonlat=True).astype(np.int64)
    split = split_of_cells(cell, seed, section)
    if section.guard_arcsec > 0.0:
        split[_yields_nearby(ra_unique, dec_unique, split, seed, section)] = _GUARD
    return split[row_to_position], cell[row_to_position]


def split_of_cells(cell: NDArray[np.int64], seed: int, section: SplitSection) -> NDArray[np.uint8]:
    """(cell,) uint8 index in SPLITS of HEALPix cells (NESTED, `section.nside`), the guard left aside."""
    cells, inverse = np.unique(cell, return_inverse=True)
    uniform = np.array([_uniform_of_cell(seed, number) for number in cells.tolist()])
    train_below, val_below = _thresholds(section)
    codes = np.full(cells.size, _TEST, dtype=np.uint8)
    codes[uniform < val_below] = _VAL
    codes[uniform < train_below] = _TRAIN
    return codes[inverse]


def split_proportions(split: NDArray[np.uint8]) -> dict[str, float]:
    """Achieved shares: train, val and test of the rows outside the guard, guard of all rows.

    Args:
        split: (sample,) uint8 index in SPLITS.

    Raises:
        ContractError: no row lies outside the guard, or a code is not in SPLITS.
    """
    codes = np.asarray(split)
    if codes.size and int(codes.max()) >= len(SPLITS):
        raise ContractError(f"split: expected codes below {len(SPLITS)} ({SPLITS}), got {int(codes.max())}")
    return proportions_of_counts(dict(zip(SPLITS, np.bincount(codes, minlength=len(SPLITS)).tolist(), strict=True)))


def proportions_of_counts(counts: Mapping[str, int]) -> dict[str, float]:
    """The same from the number of rows of every name in SPLITS.

    Raises:
        ContractError: no row lies outside the guard.
    """
    guard, total = counts[SPLITS[_GUARD]], sum(counts[name] for name in SPLITS)
    if total == guard:
        raise ContractError(f"split shares are undefined: none of {total} rows lies outside the guard")
    return {**{name: counts[name] / (total - guard) for name in TRAINED_SPLITS}, SPLITS[_GUARD]: guard / total}


def largest_share_error(shares: Mapping[str, float], section: SplitSection) -> float:
    """Largest |achieved - requested| share of train, val and test."""
    return max(abs(shares[name] - requested) for name, requested in _requested(section).items())


def share_problem(shares: Mapping[str, float], section: SplitSection) -> str:
    """What is wrong with achieved shares, with every number; empty if they are within `section.tolerance`."""
    error = largest_share_error(shares, section)
    if error <= section.tolerance:
        return ""
    both = ", ".join(f"{name} {shares[name]:.4f} for {wanted:.4f}" for name, wanted in _requested(section).items())
    return f"shares are off by {error:.4f}, tolerance {section.tolerance:g}: {both}; guard {shares['guard']:.4f} of all"


def _requested(section: SplitSection) -> dict[str, float]:
    return {"train": section.train, "val": section.val, "test": section.test}


def _checked_positions(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ra = np.asarray(ra_deg, dtype=np.float64)
    dec = np.asarray(dec_deg, dtype=np.float64)
    if ra.ndim != 1 or ra.shape != dec.shape:
        raise ContractError(
            f"positions: expected ra_deg and dec_deg of one shape (sample,), got {ra.shape}, {dec.shape}"
        )
    bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90.0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ContractError(
            f"positions: expected finite ra_deg and dec_deg in [-90, 90], got {int(bad.sum())} bad rows, "
            f"the first is row {row} with ra_deg={ra[row]}, dec_deg={dec[row]}"
        )
    return ra, dec


def _thresholds(section: SplitSection) -> tuple[float, float]:
    """Upper ends of train and val in the uniform number, such that the shares hold outside the guard.

    For a square cell and a guard of g cell sides, a position sees none, one, two or three other cells
    with probability (1 - 2g)^2, 4g (1 - 2g), (4 - pi) g^2 and pi g^2. It is kept if its split yields to
    none of them, which for a share s of cells that it does not yield to has probability 1, s, s^2 or s^3.
    Beyond g = 0.45, where almost every position sees others, the correction stays that of 0.45.
    """
    if section.guard_arcsec == 0.0:
        return section.train, section.train + section.val
    g = min(section.guard_arcsec * section.nside / _CELL_ARCSEC_AT_NSIDE_1, 0.45)
    seen = ((1.0 - 2.0 * g) ** 2, 4.0 * g * (1.0 - 2.0 * g), (4.0 - math.pi) * g * g, math.pi * g * g)
    wanted = tuple(_requested(section).values())
    stands = (~_yields(section)).tolist()
    share = wanted
    for _ in range(100):
        harmless = [sum(s for s, stand in zip(share, row, strict=True) if stand) for row in stands]
        kept = [sum(p * s**others for others, p in enumerate(seen)) for s in harmless]
        raw = [s**0.75 * (w / k) ** 0.25 for s, w, k in zip(share, wanted, kept, strict=True)]
        share = tuple(part / sum(raw) for part in raw)
    return share[0], 1.0 - share[2]


def _yields(section: SplitSection) -> NDArray[np.bool_]:
    """(own, other) True where a position near a cell of the other split is guard; False on the diagonal."""
    if section.guard == "drop":
        return ~np.eye(len(TRAINED_SPLITS), dtype=np.bool_)
    # Most common first; the sort is stable, so equal shares keep the order train, val, test.
    rank = np.empty(len(TRAINED_SPLITS), dtype=np.int64)
    rank[np.argsort([-share for share in _requested(section).values()], kind="stable")] = np.arange(rank.size)
    yields: NDArray[np.bool_] = rank[:, None] < rank[None, :]
    return yields


def _uniform_of_cell(seed: int, cell: int) -> float:
    digest = hashlib.blake2b(cell.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(8, "little"))
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


def _yields_nearby(
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    split: NDArray[np.uint8],
    seed: int,
    section: SplitSection,
) -> NDArray[np.bool_]:
    """True where the guard disc overlaps a cell whose split the position's own cell yields to."""
    radius_rad = math.radians(section.guard_arcsec / 3600.0)
    fact = _subcell_factor(section)
    touched = [
        healpy.query_disc(section.nside, vector, radius_rad, inclusive=True, fact=fact, nest=True)
        for vector in healpy.ang2vec(ra_deg, dec_deg, lonlat=True)
    ]
    lengths = np.array([cells.size for cells in touched])
    others = split_of_cells(np.concatenate(touched), seed, section)
    yielding = _yields(section)[np.repeat(split, lengths), others]
    near: NDArray[np.bool_] = np.logical_or.reduceat(yielding, np.cumsum(lengths) - lengths)
    return near


def _subcell_factor(section: SplitSection) -> int:
    """Power of two by which cells are refined so that sub-cells are guard / 16 across."""
    wanted_nside = _CELL_ARCSEC_AT_NSIDE_1 * _SUBCELLS_PER_GUARD / section.guard_arcsec
    exponent = max(0, math.ceil(math.log2(wanted_nside / section.nside)))
    return int(min(2**exponent, _NSIDE_MAX // section.nside))
