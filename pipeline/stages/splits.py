"""Sky splits: HEALPix cells hashed into train, val and test, with a guard band between them.

The split of a position depends on nothing but the position, the run seed and the split section, so
replicates of a host, its copies under other task ids and every subset of a run agree.
"""

from __future__ import annotations

import hashlib
import math

import healpy
import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.config import SplitSection
from pipeline.contracts.datasets import SPLITS
from pipeline.contracts.errors import ContractError

_TRAIN, _VAL, _TEST, _GUARD = (SPLITS.index(name) for name in ("train", "val", "test", "guard"))

# The inclusive disc query works on sub-cells; the guard is wider than asked by less than two of them.
_SUBCELLS_PER_GUARD = 16
_NSIDE_MAX = 2**29
_CELL_ARCSEC_AT_NSIDE_1 = 3600.0 * math.degrees(math.sqrt(math.pi / 3.0))


def assign_splits(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], seed: int, section: SplitSection
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Split and HEALPix cell of every position.

    A cell is train, val or test by a uniform number in [0, 1) hashed from the seed and the cell: train
    below the first threshold, val below the second. A position is guard if the disc of
    `section.guard_arcsec` around it overlaps a cell of another split; so two positions no farther
    apart than the guard are never in two different splits.

    The guard takes more from rare splits, whose cells have more foreign neighbours. The thresholds
    make up for that, so the shares hold outside the guard; without guard they are `train` and
    `train + val`.

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
    ra_unique, dec_unique = positions.real, positions.imag
    cell = healpy.ang2pix(section.nside, ra_unique, dec_unique, nest=True, lonlat=True).astype(np.int64)
    split = _split_of_cells(cell, seed, section)
    if section.guard_arcsec > 0.0:
        split[_near_other_split(ra_unique, dec_unique, split, seed, section)] = _GUARD
    return split[row_to_position], cell[row_to_position]


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
    counts = np.bincount(codes, minlength=len(SPLITS))
    outside_guard = int(codes.size - counts[_GUARD])
    if outside_guard == 0:
        raise ContractError(f"split shares are undefined: none of {codes.size} rows lies outside the guard")
    shares = {SPLITS[code]: float(counts[code] / outside_guard) for code in (_TRAIN, _VAL, _TEST)}
    return {**shares, SPLITS[_GUARD]: float(counts[_GUARD] / codes.size)}


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


def _split_of_cells(cell: NDArray[np.int64], seed: int, section: SplitSection) -> NDArray[np.uint8]:
    cells, inverse = np.unique(cell, return_inverse=True)
    uniform = np.array([_uniform_of_cell(seed, number) for number in cells.tolist()])
    train_below, val_below = _thresholds(section)
    codes = np.full(cells.size, _TEST, dtype=np.uint8)
    codes[uniform < val_below] = _VAL
    codes[uniform < train_below] = _TRAIN
    return codes[inverse]


def _thresholds(section: SplitSection) -> tuple[float, float]:
    """Upper ends of train and val in the uniform number, such that the shares hold outside the guard.

    For a square cell and a guard of g cell sides, a position sees none, one, two or three other cells
    with probability (1 - 2g)^2, 4g (1 - 2g), (4 - pi) g^2 and pi g^2. It is kept if all of them are of
    its own split, which for a share s of the cells has probability 1, s, s^2 or s^3. Beyond g = 0.45,
    where almost every position sees others, the correction stays that of 0.45.
    """
    if section.guard_arcsec == 0.0:
        return section.train, section.train + section.val
    g = min(section.guard_arcsec * section.nside / _CELL_ARCSEC_AT_NSIDE_1, 0.45)
    seen = ((1.0 - 2.0 * g) ** 2, 4.0 * g * (1.0 - 2.0 * g), (4.0 - math.pi) * g * g, math.pi * g * g)
    wanted = (section.train, section.val, section.test)
    share = wanted
    for _ in range(100):
        kept = [sum(p * s**others for others, p in enumerate(seen)) for s in share]
        raw = [s**0.75 * (w / k) ** 0.25 for s, w, k in zip(share, wanted, kept, strict=True)]
        share = (raw[0] / sum(raw), raw[1] / sum(raw), raw[2] / sum(raw))
    return share[0], 1.0 - share[2]


def _uniform_of_cell(seed: int, cell: int) -> float:
    digest = hashlib.blake2b(cell.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(8, "little"))
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


def _near_other_split(
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    split: NDArray[np.uint8],
    seed: int,
    section: SplitSection,
) -> NDArray[np.bool_]:
    """True where the guard disc overlaps a cell whose split is not that of the position's own cell."""
    radius_rad = math.radians(section.guard_arcsec / 3600.0)
    fact = _subcell_factor(section)
    touched = [
        healpy.query_disc(section.nside, vector, radius_rad, inclusive=True, fact=fact, nest=True)
        for vector in healpy.ang2vec(ra_deg, dec_deg, lonlat=True)
    ]
    lengths = np.array([cells.size for cells in touched])
    other = _split_of_cells(np.concatenate(touched), seed, section) != np.repeat(split, lengths)
    near: NDArray[np.bool_] = np.logical_or.reduceat(other, np.cumsum(lengths) - lengths)
    return near


def _subcell_factor(section: SplitSection) -> int:
    """Power of two by which cells are refined so that sub-cells are guard / 16 across."""
    wanted_nside = _CELL_ARCSEC_AT_NSIDE_1 * _SUBCELLS_PER_GUARD / section.guard_arcsec
    exponent = max(0, math.ceil(math.log2(wanted_nside / section.nside)))
    return int(min(2**exponent, _NSIDE_MAX // section.nside))
