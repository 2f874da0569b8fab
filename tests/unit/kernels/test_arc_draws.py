"""Tables of draws: layout, ranges, and the shares of components in bands."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import (
    COMPONENT_COLUMNS,
    FIELD_STEP,
    GAMMA1,
    GAMMA2,
    KIND,
    LENS_COLUMNS,
    LENS_PHI,
    LENS_Q,
    LENS_X,
    LENS_Y,
    MIRROR,
    OFFSET_X,
    OFFSET_Y,
    PHI,
    PROFILE,
    RE,
    SLOPE,
    SRC_X,
    SRC_Y,
    TEMPLATE,
    THETA_E,
    ArcDraws,
    N,
    Q,
    check_draw,
    sersic_arcs,
)
from pipeline.kernels.light import IMAGE, SERSIC
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.rays import FIELD, ISOTHERMAL, POWER_LAW
from pipeline.kernels.render import StampGrid, render_arcs

GRID = StampGrid(64, PIXEL_SCALE_ARCSEC)


def test_arguments_reach_their_columns() -> None:
    """Each argument of `sersic_arcs` fills the column of its name; single numbers are broadcast."""
    draws = sersic_arcs(
        2, theta_e_arcsec=[1.0, 2.0, 3.0], lens_q=0.8, lens_phi_rad=0.1, gamma1=0.02, gamma2=0.03, lens_x_arcsec=0.04,
        lens_y_arcsec=0.05, src_x_arcsec=0.06, src_y_arcsec=[0.07, 0.08, 0.09], src_re_arcsec=0.1, src_n=1.1,
        src_q=0.5, src_phi_rad=0.6, lens_slope=[2.0, 1.9, 2.0],
    )  # fmt: skip
    assert draws.lens.shape == (3, LENS_COLUMNS)
    assert draws.components.shape == (3, 1, COMPONENT_COLUMNS)
    assert np.array_equal(draws.shares, np.ones((3, 1, 2)))
    assert draws.lens[:, KIND].tolist() == [ISOTHERMAL, POWER_LAW, ISOTHERMAL]
    assert draws.lens[:, THETA_E].tolist() == [1.0, 2.0, 3.0]
    assert draws.lens[:, SRC_Y].tolist() == [0.07, 0.08, 0.09]
    row = draws.lens[1]
    columns = [LENS_Q, LENS_PHI, SLOPE, GAMMA1, GAMMA2, LENS_X, LENS_Y, SRC_X]
    assert row[columns].tolist() == [0.8, 0.1, 1.9, 0.02, 0.03, 0.04, 0.05, 0.06]
    part = draws.components[2, 0]
    assert part[[PROFILE, OFFSET_X, OFFSET_Y, PHI, RE, N, Q]].tolist() == [SERSIC, 0.0, 0.0, 0.6, 0.1, 1.1, 0.5]
    assert {draws.lens.dtype, draws.components.dtype, draws.shares.dtype} == {np.dtype("f8")}


def test_lengths_that_do_not_agree_are_refused(make_arcs: Callable[..., ArcDraws]) -> None:
    """Two and three draws cannot be broadcast together."""
    with pytest.raises(ValueError, match="broadcast"):
        make_arcs(theta_e_arcsec=[1.0, 2.0], src_n=[1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("theta_e_arcsec", -0.1, "theta_e_arcsec"),
        ("theta_e_arcsec", math.nan, "theta_e_arcsec"),
        ("theta_e_arcsec", math.inf, "theta_e_arcsec"),
        ("lens_q", 0.0, "lens axis ratio"),
        ("lens_q", 1.01, "lens axis ratio"),
        ("lens_q", math.nan, "lens axis ratio"),
        ("lens_slope", 1.0, "slope"),
        ("lens_slope", 3.0, "slope"),
        ("lens_slope", math.nan, "slope"),
        ("gamma1", 1.0, "gamma"),
        ("gamma2", math.nan, "gamma"),
        ("lens_x_arcsec", math.inf, "finite positions"),
        ("lens_y_arcsec", math.nan, "finite positions"),
        ("src_x_arcsec", math.nan, "finite positions"),
        ("src_y_arcsec", -math.inf, "finite positions"),
        ("lens_phi_rad", math.nan, "finite positions"),
        ("src_phi_rad", math.nan, "finite offset and angle"),
        ("src_re_arcsec", 0.0, "src_re_arcsec"),
        ("src_re_arcsec", math.nan, "src_re_arcsec"),
        ("src_re_arcsec", math.inf, "src_re_arcsec"),
        ("src_n", 0.29, "Sersic index"),
        ("src_n", 8.1, "Sersic index"),
        ("src_n", math.nan, "Sersic index"),
        ("src_q", 0.0, "source axis ratio"),
        ("src_q", 1.1, "source axis ratio"),
        ("src_q", math.nan, "source axis ratio"),
    ],
)
def test_arguments_outside_their_range_are_refused(
    argument: str, value: float, message: str, make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """Each is a ContractError that names it, from the check and from rendering a batch that holds it."""
    draws = make_arcs(**{"theta_e_arcsec": [1.0, 1.0], argument: [value, value]})
    with pytest.raises(ContractError, match=message):
        check_draw(draws.lens[0], draws.components[0], 1)
    with pytest.raises(ContractError, match=message):
        render_arcs(draws, make_psf([1.2]), GRID)


@pytest.mark.parametrize(
    ("profile", "column", "value", "message"),
    [
        (SERSIC, PROFILE, 2.0, "unknown source profile"),
        (SERSIC, PROFILE, math.nan, "unknown source profile"),
        (SERSIC, OFFSET_X, math.nan, "finite offset"),
        (SERSIC, OFFSET_Y, math.inf, "finite offset"),
        (IMAGE, TEMPLATE, 3.0, "no such template"),
        (IMAGE, TEMPLATE, -1.0, "no such template"),
        (IMAGE, TEMPLATE, math.nan, "no such template"),
        (IMAGE, MIRROR, 0.0, "handedness"),
        (IMAGE, MIRROR, math.nan, "handedness"),
    ],
)
def test_components_outside_their_range_are_refused(
    profile: int, column: int, value: float, message: str, make_arcs: Callable[..., ArcDraws]
) -> None:
    """The second component of a row is checked like the first; the valid row passes."""
    draws = make_arcs()
    parts = np.repeat(draws.components[0], 2, axis=0)
    if profile == IMAGE:
        parts[1, PROFILE], parts[1, TEMPLATE], parts[1, MIRROR] = IMAGE, 2, -1
    check_draw(draws.lens[0], parts, 3)
    parts[1, column] = value
    with pytest.raises(ContractError, match=message):
        check_draw(draws.lens[0], parts, 3)


@pytest.mark.parametrize("kind", [3.0, -1.0, math.nan])
def test_unknown_lens_is_refused(kind: float, make_arcs: Callable[..., ArcDraws]) -> None:
    """Only the three kinds of lens model exist; of them only POWER_LAW reads the slope."""
    draws = make_arcs()
    draws.lens[0, FIELD_STEP] = 0.1
    for known in (ISOTHERMAL, FIELD):
        draws.lens[0, KIND], draws.lens[0, SLOPE] = known, 9.0
        check_draw(draws.lens[0], draws.components[0], 1)
    draws.lens[0, KIND] = kind
    with pytest.raises(ContractError, match="lens kind"):
        check_draw(draws.lens[0], draws.components[0], 1)


def _two_components(make_arcs: Callable[..., ArcDraws]) -> ArcDraws:
    """A red bulge and a blue disc with an offset, lensed, in three bands."""
    draws = make_arcs(theta_e_arcsec=1.2, lens_q=0.7, lens_phi_rad=0.4, src_x_arcsec=0.2, src_y_arcsec=0.1)
    parts = np.repeat(draws.components, 2, axis=1)
    parts[0, 0, [RE, N, Q]] = 0.12, 3.0, 0.9
    parts[0, 1, [OFFSET_X, OFFSET_Y, PHI, RE, N, Q]] = 0.15, -0.1, 1.0, 0.4, 1.0, 0.4
    shares = np.array([[[0.1, 0.4, 0.75], [0.9, 0.6, 0.25]]])
    return draws._replace(components=parts, shares=shares)


def test_components_add_up_by_their_shares_in_each_band(
    make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """Two components equal the sum of each alone, weighted by its share of the band."""
    draws, psf = _two_components(make_arcs), make_psf([1.3, 1.2, 1.1])
    both = render_arcs(draws, psf, GRID)[0]
    alone = [
        render_arcs(draws._replace(components=draws.components[:, c : c + 1], shares=np.ones((1, 1, 3))), psf, GRID)[0]
        for c in (0, 1)
    ]
    for band in range(3):
        expected = draws.shares[0, 0, band] * alone[0][band] + draws.shares[0, 1, band] * alone[1][band]
        assert np.abs(both[band] - expected).max() < 1e-5 * expected.max()
    # The colour changes over the arc: the bulge dominates the last band.
    ratio = both[2] / both[0]
    bright = both[0] > 0.1 * both[0].max()
    assert ratio[bright].max() > 1.5 * ratio[bright].min()


def test_shares_scale_the_flux_of_a_band(make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]) -> None:
    """Doubling a band's shares doubles that band alone; no share, no light."""
    draws, psf = _two_components(make_arcs), make_psf([1.2, 1.2, 1.2])
    plain = render_arcs(draws, psf, GRID)[0]
    shares = draws.shares * np.array([1.0, 2.0, 0.0])
    scaled = render_arcs(draws._replace(shares=shares), psf, GRID)[0]
    assert np.array_equal(scaled[0], plain[0])
    assert scaled[1] == pytest.approx(2 * plain[1], rel=1e-5, abs=1e-8)
    assert (scaled[2] == 0.0).all()
