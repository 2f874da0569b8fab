"""Rendered arcs: positions, symmetries, surface brightness, and rendering in batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import (
    GAMMA1,
    GAMMA2,
    LENS_PHI,
    LENS_X,
    LENS_Y,
    PHI,
    RE,
    SRC_X,
    SRC_Y,
    THETA_E,
    ArcDraws,
    Q,
    sersic_arcs,
)
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor
from pipeline.kernels.psf import StampPsf, psf_fwhm_arcsec, round_psf
from pipeline.kernels.render import ACCURACY_MAX, ACCURACY_MIN, StampGrid, render_arcs

SIZE = 64
GRID = StampGrid(SIZE, PIXEL_SCALE_ARCSEC)
Arcs = Callable[..., ArcDraws]
Psfs = Callable[..., StampPsf]


def _centroids(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(sample, 2) x, y of the light of (sample, y, x) stamps. [px]"""
    values, axis = images.astype(np.float64), np.arange(images.shape[-1]) - SIZE // 2
    total = values.sum(axis=(1, 2))
    moments = np.stack([values.sum(axis=1) @ axis, values.sum(axis=2) @ axis], axis=1)
    return np.asarray(moments / total[:, None])


@pytest.mark.parametrize("psfsize_arcsec", [0.9, 1.1, 1.3, 1.6])
@pytest.mark.parametrize("lensed", [False, True])
def test_centroid_follows_a_quarter_pixel(psfsize_arcsec: float, lensed: bool, make_arcs: Arcs, make_psf: Psfs) -> None:
    """A compact source, or its lensed images, moved by a quarter pixel in x or y moves so to 0.01 px, at any phase."""
    phase = np.array([[0.0, 0.0], [0.125, -0.2], [-0.31, 0.25], [0.44, 0.49], [-0.5, -0.13]])
    step = np.array([[0.0, 0.0], [0.25, 0.0], [0.0, 0.25]])
    place = (phase[:, None] + step).reshape(-1, 2) * PIXEL_SCALE_ARCSEC
    source = {"src_re_arcsec": 0.05, "src_n": 1.0}
    if lensed:
        draws = make_arcs(
            theta_e_arcsec=1.1, lens_q=0.8, lens_phi_rad=0.4, src_x_arcsec=0.5, src_y_arcsec=0.3,
            lens_x_arcsec=place[:, 0], lens_y_arcsec=place[:, 1], **source,
        )  # fmt: skip
    else:
        draws = make_arcs(src_x_arcsec=place[:, 0], src_y_arcsec=place[:, 1], **source)
    centroid = _centroids(render_arcs(draws, make_psf([psfsize_arcsec]), GRID)[:, 0]).reshape(-1, 3, 2)
    moved = centroid[:, 1:] - centroid[:, :1]
    assert moved == pytest.approx(np.broadcast_to(step[1:], moved.shape), abs=0.01)
    if not lensed:
        assert centroid[:, 0] == pytest.approx(phase, abs=0.01)


def test_origin_is_the_centre_of_pixel_half_the_size(make_arcs: Arcs, make_psf: Psfs) -> None:
    """An unlensed source at the origin peaks in pixel (size // 2, size // 2); +x is along columns, +y along rows."""
    draws = make_arcs(src_x_arcsec=[0.0, 3 * PIXEL_SCALE_ARCSEC], src_y_arcsec=[0.0, -PIXEL_SCALE_ARCSEC])
    for size in (16, 50, 64):
        psf = make_psf([1.0], size=size)
        images = render_arcs(draws, psf, StampGrid(size, PIXEL_SCALE_ARCSEC))[:, 0]
        assert np.unravel_index(images[0].argmax(), images[0].shape) == (size // 2, size // 2)
        assert np.unravel_index(images[1].argmax(), images[1].shape) == (size // 2 - 1, size // 2 + 3)


def test_two_images_have_their_places_and_fluxes(make_arcs: Arcs, make_psf: Psfs) -> None:
    """Behind a sphere they lie at theta_E +- beta, with fluxes theta_E / beta +- 1."""
    theta_e, beta = 2.4, 0.9
    image = render_arcs(
        make_arcs(theta_e_arcsec=theta_e, src_x_arcsec=beta, src_re_arcsec=0.02), make_psf([0.9], "gaussian"), GRID
    )[0, 0].astype(np.float64)
    x = (np.arange(SIZE) - SIZE // 2) * PIXEL_SCALE_ARCSEC
    for side, place, flux in (
        (x > 0.6, theta_e + beta, theta_e / beta + 1),
        (x < 0, beta - theta_e, theta_e / beta - 1),
    ):
        half = image[:, side]
        assert half.sum() == pytest.approx(flux, rel=0.01)
        assert half.sum(axis=0) @ x[side] / half.sum() == pytest.approx(place, abs=0.02)


def test_surface_brightness_is_conserved(make_arcs: Arcs, make_psf: Psfs) -> None:
    """No pixel is brighter than the centre of the source, and a source much larger than the PSF reaches it."""
    b, re, q = sersic_bn(0.5), 1.5, 0.9
    centre = math.exp(b) / (sersic_flux_factor(0.5, b) * re**2 * q) * PIXEL_SCALE_ARCSEC**2
    draws = make_arcs(
        theta_e_arcsec=[0.0, 1.5, 2.5], lens_q=0.8, lens_phi_rad=0.3, gamma1=0.02, gamma2=-0.03, src_x_arcsec=0.1,
        src_re_arcsec=re, src_n=0.5, src_q=q,
    )  # fmt: skip
    peaks = render_arcs(draws, make_psf([0.9], "gaussian"), GRID).max(axis=(1, 2, 3))
    assert (peaks <= centre * (1 + 1e-3)).all()
    assert (peaks > 0.9 * centre).all()


def _relative_difference(result: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    peak = expected.max(axis=(1, 2, 3), keepdims=True)
    return float((np.abs(result - expected) / peak).max())


def test_quarter_turn_equals_rot90(random_arcs: Callable[[int, int], ArcDraws], make_psf: Psfs) -> None:
    """Turning lens, shear, source and positions by 90 degrees turns the stamp about pixel (size // 2, size // 2)."""
    draws, psf = random_arcs(24, 7), make_psf([1.3, 1.2, 1.1])
    lens, parts = draws.lens.copy(), draws.components.copy()
    lens[:, LENS_PHI] += np.pi / 2
    parts[..., PHI] += np.pi / 2
    lens[:, [GAMMA1, GAMMA2]] *= -1
    for x, y in ((LENS_X, LENS_Y), (SRC_X, SRC_Y)):
        lens[:, x], lens[:, y] = -draws.lens[:, y], draws.lens[:, x]
    original = render_arcs(draws, psf, GRID)[..., 1:, 1:]
    turned = render_arcs(draws._replace(lens=lens, components=parts), psf, GRID)[..., 1:, 1:]
    # Light of row and column 0 has no counterpart, and the PSF brings a little of it inside.
    assert _relative_difference(turned, np.rot90(original, -1, axes=(2, 3))) < 1e-3


def test_mirror_image_of_a_draw_is_the_mirrored_stamp(
    random_arcs: Callable[[int, int], ArcDraws], make_psf: Psfs
) -> None:
    """Reflecting y in every position and angle reflects the stamp about its central row."""
    draws, psf = random_arcs(24, 8), make_psf([1.3, 1.2, 1.1])
    lens, parts = draws.lens.copy(), draws.components.copy()
    lens[:, [LENS_PHI, GAMMA2, LENS_Y, SRC_Y]] *= -1
    parts[..., PHI] *= -1
    original = render_arcs(draws, psf, GRID)[:, :, 1:]
    mirrored = render_arcs(draws._replace(lens=lens, components=parts), psf, GRID)[:, :, 1:]
    assert _relative_difference(mirrored, original[:, :, ::-1]) < 1e-3


@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_image_is_scale_invariant(factor: float, random_arcs: Callable[[int, int], ArcDraws], make_psf: Psfs) -> None:
    """Scaling every length, the pixel and the PSF leaves the stamp as it is, to 1e-4 of the peak."""
    draws = random_arcs(24, 9)
    lens, parts = draws.lens.copy(), draws.components.copy()
    lens[:, [THETA_E, LENS_X, LENS_Y, SRC_X, SRC_Y]] *= factor
    parts[..., RE] *= factor
    scale = PIXEL_SCALE_ARCSEC * factor
    widths = psf_fwhm_arcsec([1.3, 1.2, 1.1], "moffat", 3.5) * factor
    scaled = draws._replace(lens=lens, components=parts)
    result = render_arcs(scaled, round_psf(widths, "moffat", 3.5, SIZE, scale), StampGrid(SIZE, scale))
    assert _relative_difference(result, render_arcs(draws, make_psf([1.3, 1.2, 1.1]), GRID)) < 1e-4


def test_lens_moved_by_whole_pixels_moves_the_stamp(make_arcs: Arcs, make_psf: Psfs) -> None:
    """(+1, -2) px of the lens moves everything by as much, which fixes axis order and sign."""
    arguments = {"theta_e_arcsec": 1.2, "lens_q": 0.7, "lens_phi_rad": 0.5, "src_x_arcsec": 0.3, "src_re_arcsec": 0.2}
    psf = make_psf([1.2])
    expected = render_arcs(make_arcs(**arguments), psf, GRID)[0, 0]
    moved = make_arcs(lens_x_arcsec=PIXEL_SCALE_ARCSEC, lens_y_arcsec=-2 * PIXEL_SCALE_ARCSEC, **arguments)
    result = render_arcs(moved, psf, GRID)[0, 0]
    assert np.abs(result[:-2, 1:] - expected[2:, :-1]).max() < 1e-3 * expected.max()


def test_far_source_leaves_zeros(make_arcs: Arcs, make_psf: Psfs) -> None:
    """A source, or a whole lens, far outside the stamp gives exact zeros, between others that are not."""
    draws = make_arcs(
        theta_e_arcsec=1.0, src_x_arcsec=[0.2, 500.0, 0.2, 0.2], lens_x_arcsec=[0.0, 0.0, 300.0, 0.0],
        lens_y_arcsec=[0.0, 0.0, -90.0, 0.0],
    )  # fmt: skip
    arcs = render_arcs(draws, make_psf([1.2]), GRID)
    assert (arcs[1:3] == 0.0).all()
    assert arcs[0].max() > 0.01
    assert np.array_equal(arcs[0], arcs[3])


def _rows(draws: ArcDraws, rows: NDArray[np.int64]) -> ArcDraws:
    return ArcDraws(draws.lens[rows], draws.components[rows], draws.shares[rows])


def test_rows_do_not_depend_on_each_other(random_arcs: Callable[[int, int], ArcDraws], make_psf: Psfs) -> None:
    """One by one, reversed, or repeated, each row is the same to the bit; nothing is left behind in the state."""
    draws, psf = random_arcs(16, 10), make_psf([1.3, 1.2, 1.1])
    batch = render_arcs(draws, psf, GRID)
    assert batch.dtype == np.float32
    assert batch.shape == (16, 3, SIZE, SIZE)
    for row in range(16):
        assert np.array_equal(render_arcs(_rows(draws, np.array([row])), psf, GRID)[0], batch[row])
    order = np.concatenate([np.arange(16)[::-1], [3, 3, 3]])
    again = render_arcs(_rows(draws, order), psf, GRID)
    assert np.array_equal(again, batch[order])


def test_psf_of_each_sample(random_arcs: Callable[[int, int], ArcDraws], make_psf: Psfs) -> None:
    """A PSF for every draw gives what each draw gets from its own PSF alone."""
    draws = random_arcs(3, 11)
    psfs = [make_psf([width, width, 1.2]) for width in (0.9, 1.2, 1.6)]
    each = render_arcs(draws, psfs, GRID)
    for row, psf in enumerate(psfs):
        assert np.array_equal(render_arcs(draws, psf, GRID)[row], each[row])


def test_read_only_tables_are_accepted(random_arcs: Callable[[int, int], ArcDraws], make_psf: Psfs) -> None:
    """Draws that may not be written, as storage hands them out, render the same."""
    draws, psf = random_arcs(3, 12), make_psf([1.3, 1.2, 1.1])
    expected = render_arcs(draws, psf, GRID)
    for table in (draws.lens, draws.components, draws.shares, psf.transfer):
        table.flags.writeable = False
    assert np.array_equal(render_arcs(draws, psf, GRID), expected)


def test_no_draws_give_no_arcs(make_psf: Psfs) -> None:
    """An empty batch is an empty array of the right shape."""
    draws = ArcDraws(np.zeros((0, 14)), np.zeros((0, 1, 7)), np.zeros((0, 1, 3)))
    assert render_arcs(draws, make_psf([1.3, 1.2, 1.1]), GRID).shape == (0, 3, SIZE, SIZE)
    assert render_arcs(draws, [], GRID).shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize("accuracy", [0.5 * ACCURACY_MIN, 2 * ACCURACY_MAX, 0.0, -1.0, math.nan])
def test_accuracy_outside_its_range_is_refused(accuracy: float, make_arcs: Arcs, make_psf: Psfs) -> None:
    """The message says the range and what came."""
    with pytest.raises(ContractError, match="accuracy in"):
        render_arcs(make_arcs(), make_psf([1.2]), GRID, accuracy=accuracy)


@pytest.mark.parametrize(
    "grid", [StampGrid(14, 0.262), StampGrid(33, 0.262), StampGrid(64, 0.0), StampGrid(64, math.nan)]
)
def test_grid_outside_its_range_is_refused(grid: StampGrid, make_arcs: Arcs, make_psf: Psfs) -> None:
    """Odd and small stamps, and pixels without size, are ContractErrors."""
    with pytest.raises(ContractError, match="even size >= 16"):
        render_arcs(make_arcs(), make_psf([1.2]), grid)


def test_counts_that_do_not_agree_are_refused(make_arcs: Arcs, make_psf: Psfs) -> None:
    """Of PSFs and draws, of bands, and of rows in the tables."""
    draws, psf = make_arcs(2, theta_e_arcsec=[1.0, 1.1]), make_psf([1.2, 1.1])
    with pytest.raises(ContractError, match="one for each of 2 draws, got 3"):
        render_arcs(draws, [psf] * 3, GRID)
    with pytest.raises(ContractError, match="PSFs of 2 bands for 64 px, got 1"):
        render_arcs(draws, make_psf([1.2]), GRID)
    with pytest.raises(ContractError, match="do not agree"):
        render_arcs(draws._replace(lens=draws.lens[:1]), psf, GRID)
    with pytest.raises(ContractError, match="do not agree"):
        render_arcs(draws._replace(components=draws.components[:, :0]), psf, GRID)


@settings(deadline=None, max_examples=80)
@given(
    theta_e=st.floats(0.0, 3.0), lens_q=st.floats(0.3, 1.0), angle=st.floats(0.0, 3.14), shear=st.floats(-0.1, 0.1),
    x=st.floats(-2.0, 2.0), y=st.floats(-2.0, 2.0), re=st.floats(0.03, 0.8), n=st.floats(0.3, 6.0),
    q=st.floats(0.2, 1.0), slope=st.sampled_from([2.0, 1.7, 2.2]), width=st.sampled_from([0.9, 1.3, 1.6]),
)  # fmt: skip
def test_arcs_are_finite_and_positive(
    make_psf: Psfs, theta_e: float, lens_q: float, angle: float, shear: float, x: float, y: float, re: float, n: float,
    q: float, slope: float, width: float,
) -> None:  # fmt: skip
    """Any valid draw: finite, of positive flux, never below zero by more than 1e-3 of the peak, 3e-3 at 0.9 arcsec."""
    draws = sersic_arcs(
        1, theta_e_arcsec=theta_e, lens_q=lens_q, lens_phi_rad=angle, gamma1=shear, gamma2=0.5 * shear,
        lens_x_arcsec=0.1 * x, lens_y_arcsec=0.1 * y, src_x_arcsec=x, src_y_arcsec=y, src_re_arcsec=re, src_n=n,
        src_q=q, src_phi_rad=2 * angle, lens_slope=slope,
    )  # fmt: skip
    arc = render_arcs(draws, make_psf([width]), GRID)
    assert np.isfinite(arc).all()
    assert arc.sum(dtype=np.float64) > 0.5
    assert arc.min() >= -(3e-3 if width < 1.0 else 1e-3) * arc.max()
    assert draws.components[0, 0, Q] == q
