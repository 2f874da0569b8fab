"""Which brick a position belongs to, and whether the survey has that brick.

The grid is that of legacysurvey.org/dr10/files (survey-bricks): rows 0.25 deg apart with centres at multiples of
0.25 deg, each cut into an even number of equal columns no wider than 0.25 deg at its edge nearest to the equator.
It has 662,174 bricks.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import ContractError

BRICK_STEP_DEG = 0.25
_N_ROWS = 721
_CENTRE_TOLERANCE_DEG = 1e-4


def brick_columns() -> NDArray[np.int64]:
    """Number of bricks in each of the 721 rows from the south pole to the north pole."""
    edge_deg = np.abs(-90.0 + BRICK_STEP_DEG * np.arange(_N_ROWS)) - BRICK_STEP_DEG / 2
    pairs: NDArray[np.float64] = np.ceil(360.0 / BRICK_STEP_DEG * np.cos(np.radians(edge_deg)) / 2)
    columns = 2 * pairs.astype(np.int64)
    columns[[0, -1]] = 1
    return columns


def brick_centres(ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of the bricks that hold some positions.

    Args:
        ra_deg, dec_deg: (sample,) finite ICRS positions, 0 <= ra < 360. [deg]

    Returns:
        Right ascensions and declinations, each (sample,) float64. [deg]

    Raises:
        ContractError: a position is not finite or out of range.
    """
    ra, dec = np.asarray(ra_deg, dtype=np.float64), np.asarray(dec_deg, dtype=np.float64)
    if not (np.isfinite(ra) & np.isfinite(dec) & (ra >= 0) & (ra < 360) & (np.abs(dec) <= 90)).all():
        raise ContractError("brick of a position: expected 0 <= ra < 360 and -90 <= dec <= 90, got others")
    row = np.floor((dec + 90.0) / BRICK_STEP_DEG + 0.5).astype(np.int64)
    columns = brick_columns()[row]
    column = np.minimum(np.floor(ra * columns / 360.0), columns - 1)
    return (column + 0.5) * 360.0 / columns, (BRICK_STEP_DEG * row - 90.0).astype(np.float64)


def brick_names(ra_deg: ArrayLike, dec_deg: ArrayLike) -> NDArray[np.object_]:
    """Names such as 0591m305 of the bricks that hold some positions. (sample,)

    Raises:
        ContractError: as `brick_centres`.
    """
    names = [
        f"{int(10 * ra):04d}{'p' if dec >= 0 else 'm'}{int(10 * abs(dec)):03d}"
        for ra, dec in zip(*brick_centres(ra_deg, dec_deg), strict=True)
    ]
    return np.array(names, dtype=object)


def check_brick_table(bricks: pd.DataFrame) -> None:
    """Compare a table of bricks with the grid.

    Args:
        bricks: columns brickname, ra_deg, dec_deg (centre of the brick). [deg]

    Raises:
        ContractError: a name or a centre is not that of the grid: the table is of another survey.
    """
    ra, dec = brick_centres(bricks["ra_deg"].to_numpy(), bricks["dec_deg"].to_numpy())
    names = brick_names(ra, dec)
    # At the poles a brick spans all right ascensions, and tables differ in what they call its centre.
    off = np.abs(dec) < 89.9
    off &= (np.abs(ra - bricks["ra_deg"]) > _CENTRE_TOLERANCE_DEG).to_numpy()
    wrong = np.flatnonzero(off | (names != bricks["brickname"].to_numpy(dtype=object)))
    if wrong.size:
        first = bricks.iloc[int(wrong[0])]
        raise ContractError(
            f"{wrong.size} of {len(bricks)} bricks are not on the DR10 grid: expected {names[wrong[0]]} at "
            f"{first['ra_deg']}, {first['dec_deg']}, got {first['brickname']}"
        )


def footprint_states(
    brickname: ArrayLike, dec_deg: ArrayLike, bricks: Collection[str] | None, dec_range_deg: tuple[float, float]
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Say for positions whether the survey has them.

    Args:
        brickname: (sample,) brick of each position.
        dec_deg: (sample,) declinations. [deg]
        bricks: names of the bricks that exist; None if that is not known.
        dec_range_deg: declinations outside are rejected where `bricks` is None. [deg]

    Returns:
        FOOTPRINT_STATES and reject reasons, each (sample,). Without bricks no position is ever "inside".
    """
    names, dec = np.asarray(brickname, dtype=object), np.asarray(dec_deg, dtype=np.float64)
    if bricks is None:
        beyond = (dec < dec_range_deg[0]) | (dec > dec_range_deg[1])
        state = np.where(beyond, "outside", "unknown").astype(object)
        return state, np.where(beyond, "outside_dec_range", "none").astype(object)
    held = frozenset(bricks)
    inside = np.array([name in held for name in names.tolist()], dtype=bool)
    state = np.where(inside, "inside", "outside").astype(object)
    return state, np.where(inside, "none", "outside_footprint").astype(object)
