"""Positions to places, scores of stamps, and the ranking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.search import search_candidates, search_scores
from pipeline.stages.footprint import brick_names
from pipeline.stages.network import StampNetwork
from pipeline.stages.search import (
    name_positions,
    place_rows,
    plan_places,
    rank_candidates,
    score_stamps,
    spread_over_positions,
)

BANDS = ("g", "r", "z")


def positions(**columns: list[object]) -> pd.DataFrame:
    """Four positions: two equal to 1e-6 deg, one that cannot be, one elsewhere."""
    content: dict[str, list[object]] = {
        "position_id": ["", "", "", "mine"],
        "ra_deg": [40.0, 40.0000002, 370.0, 10.0],
        "dec_deg": [-20.0, -20.0, 5.0, 3.0],
        "brickname": ["", "", "", "0100p030"],
        "ebv_mag": [0.1, 0.2, 0.3, 0.4],
        "psfdepth_r_mag": [np.nan] * 4,
    }
    return pd.DataFrame(content | columns)


def test_missing_identities_and_bricks_are_filled_in() -> None:
    """A brick that is given stays; an impossible position has none."""
    named = name_positions(positions())
    assert named["position_id"].tolist() == ["J040.00000-20.00000", "J040.00000-20.00000", "row-2", "mine"]
    assert named["brickname"].tolist() == [brick_names([40.0], [-20.0])[0]] * 2 + ["", "0100p030"]


def test_repeated_identities_and_malformed_bricks_are_refused() -> None:
    """The first of them is named."""
    with pytest.raises(ContractError, match="1 rows with an identity that another row has, such as a"):
        name_positions(positions(position_id=["a", "b", "a", ""]))
    with pytest.raises(ContractError, match=r"form 0591m305, got \['brick'\]"):
        name_positions(positions(brickname=["brick", "", "", ""]))


def test_places_are_distinct_and_sorted_by_brick() -> None:
    """Rows of one position share a place; an impossible one has none."""
    places, place = plan_places(name_positions(positions()))
    assert places["brickname"].tolist() == sorted(places["brickname"])
    assert len(places) == 2
    assert place[0] == place[1] != place[3]
    assert place[2] == -1
    rows = place_rows(places)
    assert rows["ra_deg"].to_numpy()[place[3]] == 10.0
    assert rows["ebv_mag"].to_numpy().tolist() == [np.float32(places["ebv_mag"][row]) for row in range(2)]
    assert len(set(rows["host_id"].to_numpy().tolist())) == 2


def cutouts(n: int = 6) -> xr.Dataset:
    """Stamps with the mean 0, 1, 2 ...; row 1 is not usable, row 2 holds a NaN that the limits did not see."""
    image = np.tile(np.arange(n, dtype=np.float32)[:, None, None, None], (1, 3, 32, 32))
    image[2, 0, 0, 0] = np.nan
    usable, reason = np.ones(n, np.uint8), np.zeros(n, np.uint8)
    usable[1], reason[1] = 0, 3
    columns = {
        "task_id": np.array([f"p{row}" for row in range(n)], object),
        "ra_deg": np.linspace(10.0, 11.0, n),
        "dec_deg": np.zeros(n),
        "brickname": np.full(n, "0100p000", object),
        "usable": usable,
        "reject_reason": reason,
        "bad_pixel_frac": np.zeros(n, np.float32),
        "wise_brightmask_frac": np.zeros(n, np.float32),
        "ebv_mag": np.full(n, 0.1, np.float32),
        "psfdepth_r_mag": np.full(n, np.nan, np.float32),
    }
    dataset = xr.Dataset({name: ("sample", values) for name, values in columns.items()})
    per_band = np.tile(np.float32([1.5, 1.3, 1.2]), (n, 1))
    return dataset.assign(
        image=(("sample", "band", "y", "x"), image),
        psfsize_arcsec=(("sample", "band"), per_band),
        sky_sigma_nmgy=(("sample", "band"), per_band / 100),
    )


@pytest.fixture
def network(make_network: Callable[..., bytes]) -> StampNetwork:
    """The logit is the mean of the pixels."""
    return StampNetwork(make_network())


def test_scores_keep_every_row_with_its_reason(network: StampNetwork) -> None:
    """What is kept out has no score; what the preprocessing refuses says so."""
    scores = score_stamps(cutouts(), network)
    assert scores.columns.tolist() == [variable.name for variable in search_scores(BANDS).variables]
    np.testing.assert_array_equal(scores["logit"], np.float32([0, np.nan, np.nan, 3, 4, 5]))
    assert scores["reject_reason"].tolist() == ["none", "out_of_bounds", "not_normalisable", "none", "none", "none"]
    assert scores["usable"].tolist() == [1, 0, 0, 1, 1, 1]
    assert (scores["depth_g_mag"] < scores["depth_z_mag"]).all()


def test_infinite_logits_end_the_search(network: StampNetwork) -> None:
    """A usable stamp never gets one."""
    dataset = cutouts()
    dataset["image"][4] = np.float32(np.inf)
    with pytest.raises(VerificationError, match="1 of 5 logits are infinite"):
        score_stamps(dataset, network)


def test_every_position_gets_its_place_s_score_and_each_place_ranks_once(network: StampNetwork) -> None:
    """Input order is kept; ties go to the earlier row; invalid positions have their reason."""
    listed = pd.DataFrame(
        {
            "position_id": [f"id{row}" for row in range(6)],
            "ra_deg": np.arange(6.0),
            "dec_deg": np.zeros(6),
            "brickname": ["0100p000"] * 5 + [""],
        }
    )
    place = np.array([3, 5, 3, 1, 4, -1])
    scores = spread_over_positions(score_stamps(cutouts(), network), listed, place)
    assert scores["position_id"].tolist() == listed["position_id"].tolist()
    assert scores["reject_reason"].tolist() == ["none", "none", "none", "out_of_bounds", "none", "position_invalid"]
    ranked = rank_candidates(scores, place, BANDS, 2)
    assert ranked.columns.tolist() == [variable.name for variable in search_candidates(BANDS).variables]
    assert ranked[["rank", "row", "n_rows"]].to_numpy().tolist() == [[1, 1, 1], [2, 4, 1]]
    ties = rank_candidates(scores.assign(logit=np.float32(1.0)), place, BANDS, 9)
    assert ties["row"].tolist() == [0, 1, 4]
    assert ties["n_rows"].tolist() == [2, 1, 1]
    assert rank_candidates(scores.assign(usable=0), place, BANDS, 9).empty


def test_a_stamp_without_a_feature_that_the_network_sees_is_kept_out(make_network: Callable[..., bytes]) -> None:
    """The reason says so; the other stamps are scored with theirs."""
    network = StampNetwork(make_network(features=("ebv_mag", "psfsize_arcsec")))
    dataset = cutouts()
    dataset["ebv_mag"][4] = np.nan
    scores = score_stamps(dataset, network)
    assert scores["reject_reason"].tolist()[3:] == ["none", "feature_missing", "none"]
    np.testing.assert_allclose(scores["logit"][3], 3 + np.float32(0.1 + 1.5 + 1.3 + 1.2), rtol=1e-6)
    with pytest.raises(ContractError, match="expected features"):
        network.logits(dataset["image"].to_numpy())
