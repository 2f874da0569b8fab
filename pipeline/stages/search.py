"""Searching positions for lenses: what is cut out in which order, the score of every stamp, and the best of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.schema import CubeSchema
from pipeline.contracts.search import (
    FEATURE_MISSING,
    NOT_NORMALISABLE,
    POSITION_INVALID,
    search_candidates,
    search_scores,
)
from pipeline.stages.footprint import brick_names
from pipeline.stages.manifest import host_ids
from pipeline.stages.network import StampNetwork, probability
from pipeline.stages.scored_rows import measured_depth_mag

PLACE_COLUMNS = {
    "task_id": "string",
    "brickname": "string",
    "ra_deg": "number",
    "dec_deg": "number",
    "ebv_mag": "number",
    "psfdepth_r_mag": "number",
}
_BRICK = re.compile(r"\d{4}[mp]\d{3}")
_POSITION_DIGITS = 6
_NOT_IN_INPUT = -1


def name_positions(positions: pd.DataFrame) -> pd.DataFrame:
    """Fill in what a table of positions leaves open: identities and bricks.

    Args:
        positions: the columns of POSITION_COLUMNS; texts may be "", numbers NaN.

    Returns:
        The same columns; brickname is "" where the position is not finite, or not within 0 <= ra < 360 and |dec| <= 90.

    Raises:
        ContractError: an identity that occurs twice, or a brickname that is none.
    """
    ra, dec = positions["ra_deg"].to_numpy(np.float64), positions["dec_deg"].to_numpy(np.float64)
    valid = np.isfinite(ra) & np.isfinite(dec) & (ra >= 0) & (ra < 360) & (np.abs(dec) <= 90)
    given = positions["position_id"].to_numpy(dtype=object)
    names = np.array([f"J{a:09.5f}{d:+09.5f}" for a, d in zip(ra, dec, strict=True)], dtype=object)
    names[~valid] = [f"row-{row}" for row in np.flatnonzero(~valid).tolist()]
    twice = pd.Series(given[given != ""]).duplicated()
    if twice.any():
        first = given[given != ""][twice.to_numpy()][0]
        raise ContractError(
            f"positions: {int(twice.sum())} rows with an identity that another row has, such as {first}"
        )
    bricks = positions["brickname"].to_numpy(dtype=object).copy()
    wrong = [name for name in set(bricks.tolist()) if name and not _BRICK.fullmatch(name)]
    if wrong:
        raise ContractError(f"positions: expected brick names of the form 0591m305, got {sorted(wrong)[:3]}")
    unknown = valid & (bricks == "")
    bricks[unknown] = brick_names(ra[unknown], dec[unknown])
    bricks[~valid] = ""
    named = np.where(given == "", names, given)
    return positions.assign(position_id=named, ra_deg=ra, dec_deg=dec, brickname=bricks)


def plan_places(positions: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The distinct valid positions, by brick, so that a brick is opened by as few tasks as possible.

    Args:
        positions: from `name_positions`.

    Returns:
        PLACE_COLUMNS of the places, sorted by brick, and (position) int64 place of each position; -1 if it is not
        valid. Positions of one brick that agree to 1e-6 deg are one place, with the numbers of the first.
    """
    valid = np.flatnonzero(positions["brickname"].to_numpy(dtype=object) != "")
    kept = positions.iloc[valid]
    key = pd.DataFrame(
        {
            "brickname": kept["brickname"].to_numpy(dtype=object),
            "ra": kept["ra_deg"].round(_POSITION_DIGITS).to_numpy(),
            "dec": kept["dec_deg"].round(_POSITION_DIGITS).to_numpy(),
        }
    )
    number = key.groupby(["brickname", "ra", "dec"], sort=True).ngroup().to_numpy()
    place = np.full(len(positions), _NOT_IN_INPUT, dtype=np.int64)
    place[valid] = number
    first = valid[np.unique(number, return_index=True)[1]]
    places = positions.iloc[first].rename(columns={"position_id": "task_id"}).reset_index(drop=True)
    return places[list(PLACE_COLUMNS)], place


def place_rows(places: pd.DataFrame) -> xr.Dataset:
    """Places as the rows that cutting needs: PLACE_COLUMNS and host_id."""
    columns: dict[str, NDArray[Any]] = {name: places[name].to_numpy(dtype=object) for name in ("task_id", "brickname")}
    numbers = {name: places[name].to_numpy(dtype=np.float64) for name in ("ra_deg", "dec_deg")}
    columns |= {name: places[name].to_numpy(dtype=np.float32) for name in ("ebv_mag", "psfdepth_r_mag")}
    host = host_ids(columns["brickname"].tolist(), numbers["ra_deg"].tolist(), numbers["dec_deg"].tolist())
    return xr.Dataset({name: ("sample", values) for name, values in {**columns, **numbers, "host_id": host}.items()})


def score_stamps(cutouts: xr.Dataset, network: StampNetwork) -> pd.DataFrame:
    """Score the usable stamps of a cutouts dataset.

    Args:
        cutouts: image, usable, reject_reason and the columns that the table carries, as in the cutouts cube; bands are
            the network's.
        network: what scores.

    Returns:
        The columns of `search_scores`; position_id is task_id. A usable stamp that the network's preprocessing refuses
        gets the reason not_normalisable, one without a number that the network sees beside it feature_missing.

    Raises:
        VerificationError: the network gives a usable stamp an infinite logit.
    """
    bands = network.spec.bands
    usable = cutouts["usable"].to_numpy() == 1
    logit = np.full(usable.size, np.nan, dtype=np.float32)
    features = network.features(cutouts)
    logit[usable] = network.logits(cutouts["image"].to_numpy()[usable], features[usable])
    if np.isinf(logit).any():
        raise VerificationError(f"{int(np.isinf(logit).sum())} of {int(usable.sum())} logits are infinite")
    reason = np.array(REJECT_REASONS, dtype=object)[cutouts["reject_reason"].to_numpy()]
    incomplete = ~np.isfinite(features).all(axis=1)
    reason[usable & np.isnan(logit)] = NOT_NORMALISABLE
    reason[usable & incomplete] = FEATURE_MISSING
    psfsize, sky = cutouts["psfsize_arcsec"].to_numpy(), cutouts["sky_sigma_nmgy"].to_numpy()
    columns = {
        "position_id": cutouts["task_id"].to_numpy().astype(object),
        "ra_deg": cutouts["ra_deg"].to_numpy(),
        "dec_deg": cutouts["dec_deg"].to_numpy(),
        "brickname": cutouts["brickname"].to_numpy().astype(object),
        "score": probability(logit),
        "logit": logit,
        "usable": (~np.isnan(logit)).astype(np.uint8),
        "reject_reason": reason,
        **{f"psfsize_{band}_arcsec": psfsize[:, index] for index, band in enumerate(bands)},
        **{
            f"depth_{band}_mag": measured_depth_mag(sky[:, index], psfsize[:, index]).astype(np.float32)
            for index, band in enumerate(bands)
        },
        "ebv_mag": cutouts["ebv_mag"].to_numpy(),
        "psfdepth_r_mag": cutouts["psfdepth_r_mag"].to_numpy(),
        "bad_pixel_frac": cutouts["bad_pixel_frac"].to_numpy(),
        "wise_brightmask_frac": cutouts["wise_brightmask_frac"].to_numpy(),
    }
    return pd.DataFrame(columns)[_names(search_scores(bands))]


def spread_over_positions(scores: pd.DataFrame, positions: pd.DataFrame, place: NDArray[np.int64]) -> pd.DataFrame:
    """One row per position from one row per place; identity and coordinates are the position's.

    Args:
        scores: of the places, columns of `search_scores`.
        positions: from `name_positions`.
        place: from `plan_places`.

    Returns:
        Columns of `search_scores`; an invalid position has the reason position_invalid.
    """
    taken = scores.reindex(place).reset_index(drop=True)
    for name in ("position_id", "ra_deg", "dec_deg", "brickname"):
        taken[name] = positions[name].to_numpy()
    taken["usable"] = taken["usable"].fillna(0).astype(np.uint8)
    taken.loc[place < 0, "reject_reason"] = POSITION_INVALID
    return taken


def rank_candidates(scores: pd.DataFrame, place: NDArray[np.int64], bands: Sequence[str], top: int) -> pd.DataFrame:
    """The best ranked positions, each place once, highest logit first; equal logits in the order of the rows.

    Args:
        scores: columns of `search_scores`.
        place: (position) int64, equal for rows of one place.
        bands: of the network.
        top: at most so many.

    Returns:
        Columns of `search_candidates`.
    """
    usable = np.flatnonzero(scores["usable"].to_numpy() == 1)
    first = usable[np.unique(place[usable], return_index=True)[1]]
    order = first[np.lexsort((first, -scores["logit"].to_numpy()[first]))][:top]
    counted, count = np.unique(place[usable], return_counts=True)
    ranked = scores.iloc[order].reset_index(drop=True)
    return ranked.assign(
        rank=np.arange(1, order.size + 1),
        row=order,
        n_rows=count[np.searchsorted(counted, place[order])],
    )[_names(search_candidates(bands))]


def _names(schema: CubeSchema) -> list[str]:
    return [variable.name for variable in schema.variables]
