"""Bricks of positions, and what can be said about the footprint."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.anchors import ALL_SKY_BRICKS
from pipeline.contracts.errors import ContractError
from pipeline.stages.footprint import brick_centres, brick_columns, brick_names, check_brick_table, footprint_states

ANYWHERE = (-90.0, 90.0)


def test_the_grid_has_the_published_number_of_bricks() -> None:
    """survey-bricks.fits.gz has 662,174 rows."""
    assert brick_columns().sum() == ALL_SKY_BRICKS


@pytest.mark.parametrize(
    ("ra_deg", "dec_deg", "name"),
    [
        (59.107, -30.485, "0591m305"),  # centre of the mini-brick, whose files carry this name
        (112.6, 22.25, "1126p222"),
        (0.0, 0.0, "0001p000"),
        (359.999, -0.1, "3598p000"),
        (10.0, 90.0, "1800p900"),
    ],
)
def test_names_of_bricks(ra_deg: float, dec_deg: float, name: str) -> None:
    """Four digits of ten times the right ascension, the sign, three digits of ten times the declination."""
    assert brick_names([ra_deg], [dec_deg]).tolist() == [name]


def test_a_position_lies_in_its_brick() -> None:
    """No position is further from its brick's centre than half a brick."""
    generator = np.random.default_rng(4)
    ra, dec = generator.uniform(0, 360, 5000), np.degrees(np.arcsin(generator.uniform(-0.999, 0.999, 5000)))
    centre_ra, centre_dec = brick_centres(ra, dec)
    assert np.abs(dec - centre_dec).max() <= 0.125 + 1e-9
    # A brick is at most 0.25 deg wide where it is widest, at its edge nearest to the equator.
    nearest = np.maximum(np.abs(centre_dec) - 0.125, 0.0)
    assert (np.abs(ra - centre_ra) * np.cos(np.radians(nearest))).max() <= 0.125 + 1e-9


@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(np.nan, 0.0), (360.0, 0.0), (-1.0, 0.0), (10.0, 90.1)])
def test_impossible_positions_have_no_brick(ra_deg: float, dec_deg: float) -> None:
    """Right ascensions are not wrapped and declinations not clipped."""
    with pytest.raises(ContractError, match="expected 0 <= ra < 360"):
        brick_names([ra_deg], [dec_deg])


def test_a_table_of_another_grid_is_refused() -> None:
    """Names and centres must both be those of the grid."""
    ra, dec = brick_centres([59.1, 120.0], [-30.5, 10.0])
    table = pd.DataFrame({"brickname": brick_names(ra, dec), "ra_deg": ra, "dec_deg": dec})
    check_brick_table(table)
    with pytest.raises(ContractError, match="1 of 2 bricks"):
        check_brick_table(table.assign(brickname=["0591m305", "120p100"]))
    with pytest.raises(ContractError, match="2 of 2 bricks"):
        check_brick_table(table.assign(ra_deg=table["ra_deg"] + 0.01))


def test_only_a_list_of_bricks_puts_a_position_inside() -> None:
    """With bricks inside or outside; without them unknown, or outside of the declination range."""
    state, reason = footprint_states(["0591m305", "1126p222"], [-30.5, 22.2], {"0591m305"}, ANYWHERE)
    assert state.tolist() == ["inside", "outside"]
    assert reason.tolist() == ["none", "outside_footprint"]
    state, reason = footprint_states(["0591m305", "1126p222"], [-30.5, 22.2], None, (-18.0, 32.0))
    assert state.tolist() == ["outside", "unknown"]
    assert reason.tolist() == ["outside_dec_range", "none"]


def test_an_empty_survey_holds_nothing() -> None:
    """No bricks is not the same as unknown bricks."""
    assert footprint_states(["0591m305"], [-30.5], frozenset(), ANYWHERE)[0].tolist() == ["outside"]
