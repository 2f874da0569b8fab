"""Arcs of every configured mass, source and PSF model, and what the cube records of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ContractError
from pipeline.contracts.source_bank import SourceBank
from pipeline.kernels.arc_draws import OFFSET_X
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.random import PURPOSE_PRIOR, task_keys
from pipeline.stages.arcs import CORE_RADIUS_PX, ArcRenderer, InjectionAssets
from pipeline.stages.draws import ArcDraw
from pipeline.stages.sources import Components, sersic_components
from pipeline.storage.psf_stamps import read_psf_stamps

MakeConfig = Callable[..., RunConfig]
MakeBank = Callable[..., SourceBank]

SCALE_ARCSEC = 0.262
SIZE = 48
MINI_BRICK = Path(__file__).parents[3] / "../shared/data/minibrick_0591m305"
SETTINGS = (
    f"survey.stamp_size_px={SIZE}",
    "injection.priors.theta_e_arcsec={kind: uniform, low: 0.8, high: 1.6}",
    "training.preprocess={annulus_px: [8, 12]}",
)
PSFSIZE_ARCSEC = np.array([1.4, 1.2, 1.1], np.float32)
KEYS = task_keys([f"arc-{index}" for index in range(6)])
CENTRE_PX = (0.2, -0.3)
SIE_AND_SHEAR = (
    "injection.lens={kind: lenstronomy, models: [SIE, SHEAR], parameters: ["
    "{theta_E: theta_e_arcsec, e1: lens_e1, e2: lens_e2}, {gamma1: shear_gamma1, gamma2: shear_gamma2}]}"
)
PERTURBED = (
    "injection.lens={kind: lenstronomy, models: [SIE, SIS, SHEAR], parameters: ["
    "{theta_E: theta_e_arcsec, e1: lens_e1, e2: lens_e2}, {theta_E: 0.1, center_x: 1.0, center_y: 0.0}, "
    "{gamma1: shear_gamma1, gamma2: shear_gamma2}]}"
)
NFW = (
    "injection.lens={kind: lenstronomy, models: [NFW_ELLIPSE_POTENTIAL], parameters: ["
    "{Rs: 4.0, alpha_Rs: theta_e_arcsec, e1: lens_e1, e2: lens_e2}]}"
)
BULGE = (
    "injection.source={kind: bulge_disc, bulge_share: {kind: fixed, value: 0.4}, bulge_gr: 0.5, bulge_rz: 0.3, "
    "bulge_re_over_re: {kind: fixed, value: 0.3}, bulge_n: {kind: fixed, value: 2.0}, "
    "bulge_q: {kind: fixed, value: 0.8}}"
)
CLUMPS = "injection.source={kind: clumpy, count: [2, 4], flux_share: [0.3, 0.6]}"


@pytest.fixture(scope="module")
def make_renderer(make_config: MakeConfig) -> Callable[..., ArcRenderer]:
    """A renderer of the cheap configuration with overrides."""

    def make(*overrides: str, assets: InjectionAssets | None = None) -> ArcRenderer:
        return ArcRenderer(make_config(*SETTINGS, *overrides), assets or InjectionAssets())

    return make


MakeRenderer = Callable[..., ArcRenderer]


def drawn(renderer: ArcRenderer, task: int = 0) -> ArcDraw:
    """One draw of the renderer's priors."""
    return renderer.drawer.draw(7, KEYS[task], PURPOSE_PRIOR, 0, CENTRE_PX)


def default_psf(renderer: ArcRenderer) -> StampPsf:
    """The PSF of the usual seeing."""
    psf = renderer.psf(PSFSIZE_ARCSEC, "0591m305")
    assert isinstance(psf, StampPsf)
    return psf


def arc_of(renderer: ArcRenderer, draw: ArcDraw) -> NDArray[np.float64]:
    """Arcs of unit unlensed flux in g, r, z."""
    psf = default_psf(renderer)
    return renderer.stamps(draw, renderer.render(draw, psf), psf).astype(np.float64)


def point_like(draw: ArcDraw, theta_e_arcsec: float, beta_arcsec: float) -> ArcDraw:
    """The draw with a round lens without shear and a source of 0.02 arcsec at a distance along +x."""
    return dataclasses.replace(
        draw,
        theta_e_arcsec=theta_e_arcsec,
        lens_q=1.0,
        shear_gamma1=0.0,
        shear_gamma2=0.0,
        src_x_arcsec=beta_arcsec,
        src_y_arcsec=0.0,
        components=sersic_components(0.02, 0.5, 1.0, 0.0, 3),
    )


def unlensed(draw: ArcDraw) -> ArcDraw:
    """The source itself, at the middle of the stamp."""
    return dataclasses.replace(
        draw,
        theta_e_arcsec=0.0,
        shear_gamma1=0.0,
        shear_gamma2=0.0,
        lens_x_arcsec=0.0,
        lens_y_arcsec=0.0,
        src_x_arcsec=0.0,
        src_y_arcsec=0.0,
    )


def centroid_px(image: NDArray[np.float64]) -> tuple[float, float]:
    """Flux-weighted (x, y) from the stamp centre."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - image.shape[0] // 2
    return float((image * x).sum() / image.sum()), float((image * y).sum() / image.sum())


@pytest.mark.parametrize("task", range(6))
def test_lenstronomy_sie_is_the_fast_path(make_renderer: MakeRenderer, task: int) -> None:
    """SIE and SHEAR of lenstronomy through the sampled field give our own SIE's arc to 0.5 % of the peak."""
    fast, sampled = make_renderer("injection.accuracy=0.001"), make_renderer("injection.accuracy=0.001", SIE_AND_SHEAR)
    draw = drawn(fast, task)
    expected, found = arc_of(fast, draw), arc_of(sampled, draw)
    assert np.abs(found - expected).max() <= 5e-3 * expected.max()
    assert sampled.magnification(draw) == pytest.approx(fast.magnification(draw), rel=5e-3)


@pytest.mark.parametrize("task", range(3))
def test_power_law_of_slope_two_is_the_sie(make_renderer: MakeRenderer, task: int) -> None:
    """The isothermal power law is the SIE; a steeper one is another arc."""
    sie = make_renderer()
    epl = make_renderer("injection.lens={kind: epl, slope: {kind: fixed, value: 2.0}}")
    draw = drawn(sie, task)
    expected = arc_of(sie, draw)
    assert np.abs(arc_of(epl, draw) - expected).max() <= 5e-3 * expected.max()
    steeper = arc_of(epl, dataclasses.replace(draw, lens_slope=2.3))
    assert np.abs(steeper - expected).max() > 0.02 * expected.max()
    assert epl.describe(draw, expected[1].astype(np.float32))["lens_slope"] == 2.0


def test_perturber_changes_the_arc_where_it_is(make_renderer: MakeRenderer) -> None:
    """A second deflector of 0.1 arcsec changes the arc by more than the renderer's error."""
    smooth, perturbed = make_renderer(SIE_AND_SHEAR), make_renderer(PERTURBED)
    draw = drawn(smooth, 1)
    expected, found = arc_of(smooth, draw), arc_of(perturbed, draw)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() > 0.03 * expected.max()


def test_nfw_renders(make_renderer: MakeRenderer) -> None:
    """A lens without closed form here magnifies; its slope is not a number that could be recorded."""
    renderer = make_renderer(NFW)
    draw = drawn(renderer)
    arc = arc_of(renderer, draw)
    assert np.isfinite(arc).all()
    assert renderer.magnification(draw) > 1.5
    assert arc[1].sum() > 1.0
    assert math.isnan(renderer.describe(draw, arc[1].astype(np.float32))["lens_slope"])


def test_lens_on_a_sample_of_the_field_renders(make_renderer: MakeRenderer) -> None:
    """A lens exactly at the stamp centre, where a sample falls on the centre of the mass, is finite."""
    for override in (SIE_AND_SHEAR, NFW):
        renderer = make_renderer(override)
        draw = dataclasses.replace(drawn(renderer), lens_x_arcsec=0.0, lens_y_arcsec=0.0)
        assert np.isfinite(arc_of(renderer, draw)).all()


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_magnification_of_a_small_source_is_that_of_a_point(make_renderer: MakeRenderer, ratio: float) -> None:
    """A singular isothermal sphere magnifies a point at beta < theta_E by 2 theta_E / beta."""
    renderer = make_renderer("injection.accuracy=0.001")
    draw = point_like(drawn(renderer), 1.2, 1.2 * ratio)
    assert renderer.magnification(draw) == pytest.approx(2 / ratio, rel=0.02)


def test_magnification_counts_light_beyond_the_stamp(make_renderer: MakeRenderer) -> None:
    """An image outside the stamp is missing from the unit arc's flux, not from the magnification."""
    renderer = make_renderer("injection.accuracy=0.001")
    draw = point_like(drawn(renderer), 5.0, 4.0)
    flux = renderer.render(draw, default_psf(renderer)).flux
    # The images lie at 9 and 1 arcsec, magnified 9/4 and 1/4; the stamp ends at 6.3.
    assert renderer.magnification(draw) == pytest.approx(2.5, rel=0.02)
    assert flux == pytest.approx(0.25, rel=0.02)


def test_unlensed_source_has_unit_flux_in_every_band(make_renderer: MakeRenderer) -> None:
    """Without mass each kind of source has magnification 1 and flux 1 in every band, whatever its parts."""
    for override in ("injection.source.kind=sersic", CLUMPS, BULGE):
        renderer = make_renderer(override, "injection.accuracy=0.001")
        for task in range(3):
            draw = unlensed(drawn(renderer, task))
            assert renderer.magnification(draw) == pytest.approx(1.0, abs=0.005)
            assert arc_of(renderer, draw).sum(axis=(1, 2)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("override", [CLUMPS, BULGE])
def test_arc_is_the_sum_of_its_components(make_renderer: MakeRenderer, override: str) -> None:
    """Each band is the sum of the components' own arcs, weighted with their shares in that band."""
    renderer = make_renderer(override)
    draw = drawn(renderer, 2)
    parts = draw.components
    expected = np.zeros((3, SIZE, SIZE))
    for row, share in zip(parts.table, parts.shares, strict=True):
        alone = Components(row[None], np.ones((1, 3)), parts.re_arcsec, parts.n, parts.q, parts.phi_rad)
        expected += share[:, None, None] * arc_of(renderer, dataclasses.replace(draw, components=alone))
    assert np.abs(arc_of(renderer, draw) - expected).max() < 1e-5 * expected.max()


def test_red_bulge_is_brighter_in_the_red(make_renderer: MakeRenderer) -> None:
    """The core of an unlensed galaxy with a red bulge gains from g to z, at equal seeing and equal total flux."""
    renderer = make_renderer(BULGE, "injection.priors.src_re_arcsec={kind: fixed, value: 1.0}")
    draw = unlensed(drawn(renderer))
    psf = renderer.psf(np.full(3, 1.0, np.float32), "0591m305")
    assert isinstance(psf, StampPsf)
    peaks = renderer.stamps(draw, renderer.render(draw, psf), psf).max(axis=(1, 2))
    assert peaks[0] < 0.97 * peaks[1] < 0.97 * peaks[2]


def test_clump_shows_where_it_was_drawn(make_renderer: MakeRenderer) -> None:
    """The centroid of an unlensed clumpy source is the mean offset of its clumps times their share."""
    renderer = make_renderer(CLUMPS, "injection.accuracy=0.001")
    for task in range(3):
        draw = unlensed(drawn(renderer, task))
        parts = draw.components
        expected = parts.shares[1:, 1] @ parts.table[1:, OFFSET_X : OFFSET_X + 2] / SCALE_ARCSEC
        assert np.hypot(*expected) > 0.01
        assert centroid_px(arc_of(renderer, draw)[1]) == pytest.approx(expected, abs=0.02)


def bank_renderer(make_renderer: MakeRenderer, bank: SourceBank, size_factor: float = 2.0) -> ArcRenderer:
    """A renderer of templates, twice as large as in the bank."""
    source = f"injection.source={{kind: bank, url: bank.h5, sha256: '{bank.digest}', size_factor: {size_factor}}}"
    return make_renderer(source, "injection.accuracy=0.001", assets=InjectionAssets(bank))


@pytest.mark.parametrize("task", range(6))
def test_template_is_turned_and_mirrored_as_recorded(
    make_renderer: MakeRenderer, make_bank: MakeBank, task: int
) -> None:
    """The unlensed image has unit flux, and its centroid is the template's, mirrored, scaled and turned."""
    bank = make_bank()
    renderer = bank_renderer(make_renderer, bank)
    draw = unlensed(drawn(renderer, task))
    image = arc_of(renderer, draw)[1]
    assert image.sum() == pytest.approx(1.0, abs=0.01)
    template = bank.images[draw.components.template].astype(np.float64)
    y, x = np.mgrid[:32, :32] - 15.5
    along, across = (template * x).sum(), (template * y).sum() * draw.components.mirror
    c, s = math.cos(draw.src_phi_rad), math.sin(draw.src_phi_rad)
    scale = 2.0 * 0.03 / SCALE_ARCSEC
    expected = (scale * (c * along - s * across), scale * (s * along + c * across))
    assert math.hypot(*expected) > 0.3
    assert centroid_px(image) == pytest.approx(expected, abs=0.02)


def test_description_of_a_template(make_renderer: MakeRenderer, make_bank: MakeBank) -> None:
    """The cube records which template was lensed and which hand it had."""
    renderer = bank_renderer(make_renderer, make_bank())
    draw = drawn(renderer)
    columns = renderer.describe(draw, arc_of(renderer, draw)[1].astype(np.float32))
    assert columns["src_template"] == draw.components.template != 1
    assert columns["src_mirror"] == draw.components.mirror
    assert columns["src_components"] == 1


def test_bank_that_was_not_configured_is_refused(make_renderer: MakeRenderer, make_bank: MakeBank) -> None:
    """Assets with another bank than the configuration's are an error."""
    source = f"injection.source={{kind: bank, url: bank.h5, sha256: '{'0' * 64}'}}"
    with pytest.raises(ContractError, match="injection.source.sha256"):
        make_renderer(source, assets=InjectionAssets(make_bank()))


def test_description_of_a_ring(make_renderer: MakeRenderer) -> None:
    """A source behind the lens is a ring: radius theta_E, all directions, its half-light radius theta_E too."""
    renderer = make_renderer()
    draw = dataclasses.replace(
        point_like(drawn(renderer), 2.8, 0.0),
        lens_x_arcsec=-SCALE_ARCSEC / 2,
        lens_y_arcsec=-SCALE_ARCSEC / 2,
        components=sersic_components(0.1, 0.5, 1.0, 0.0, 3),
    )
    columns = renderer.describe(draw, arc_of(renderer, draw)[1].astype(np.float32))
    assert columns["arc_radius_arcsec"] == pytest.approx(2.8, rel=0.03)
    assert columns["arc_tangential_extent_rad"] == pytest.approx(2 * math.pi, rel=0.01)
    assert columns["lensed_hlr_arcsec"] == pytest.approx(2.8, rel=0.05)
    assert columns["arc_core_frac"] < 0.2
    assert CORE_RADIUS_PX * SCALE_ARCSEC < 2.8
    assert (columns["src_template"], columns["src_mirror"], columns["src_components"]) == (-1, 1, 1)
    assert columns["lens_slope"] == 2.0
    assert columns["magnification"] == renderer.magnification(draw)
    assert math.isnan(columns["src_redshift"])


def test_single_image_covers_a_small_angle(make_renderer: MakeRenderer) -> None:
    """A source beyond theta_E has one image, at beta + theta_E, in one direction; most of it near the lens."""
    renderer = make_renderer()
    draw = point_like(drawn(renderer), 0.5, 0.9)
    columns = renderer.describe(draw, arc_of(renderer, draw)[1].astype(np.float32))
    assert columns["arc_radius_arcsec"] == pytest.approx(1.4, rel=0.15)
    assert columns["arc_tangential_extent_rad"] < math.pi / 2
    assert columns["arc_core_frac"] > 0.8


def test_description_does_not_depend_on_brightness(make_renderer: MakeRenderer) -> None:
    """A hundred times the arc has the same shape."""
    renderer = make_renderer()
    draw = drawn(renderer)
    arc = arc_of(renderer, draw)[1].astype(np.float32)
    faint, bright = renderer.describe(draw, arc), renderer.describe(draw, 100 * arc)
    names = [name for name in faint if not math.isnan(faint[name])]
    assert [bright[name] for name in names] == pytest.approx([faint[name] for name in names], rel=1e-5)


def test_draw_does_not_depend_on_what_was_rendered_before(make_renderer: MakeRenderer) -> None:
    """Scratch arrays carry nothing over: forwards, backwards and alone, the arc has the same bits."""
    for override in ("injection.source.kind=sersic", CLUMPS, BULGE, SIE_AND_SHEAR):
        renderer = make_renderer(override)
        forward = [arc_of(renderer, drawn(renderer, task)) for task in range(4)]
        backward = [arc_of(renderer, drawn(renderer, task)) for task in (3, 2, 1, 0)][::-1]
        alone = arc_of(make_renderer(override), drawn(renderer, 2))
        assert all(np.array_equal(one, other) for one, other in zip(forward, backward, strict=True))
        assert np.array_equal(alone, forward[2])


def measured(make_renderer: MakeRenderer, stamps: dict[str, NDArray[np.float64]]) -> ArcRenderer:
    """A renderer with measured PSFs."""
    psf = "injection.psf={profile: measured, stamps: '{brickname}-{band}.fits'}"
    return make_renderer(psf, "survey.stamp_size_px=64", assets=InjectionAssets(None, stamps))


def test_measured_psf_is_that_of_the_brick(make_renderer: MakeRenderer) -> None:
    """A brick's own stamps are used, "" serves every brick, and a brick without any has its reject reason."""
    y, x = np.mgrid[:21, :21] - 10
    sharp, broad = (np.tile(np.exp(-(x**2 + y**2) / (2 * sigma**2)), (3, 1, 1)) for sigma in (1.5, 3.0))
    renderer = measured(make_renderer, {"0591m305": sharp, "0001m001": broad})
    own, other = (renderer.psf(PSFSIZE_ARCSEC, brick) for brick in ("0591m305", "0001m001"))
    assert isinstance(own, StampPsf)
    assert isinstance(other, StampPsf)
    assert not np.array_equal(own.transfer[:, :, :4, :4], other.transfer[:, :, :4, :4])
    assert renderer.psf(PSFSIZE_ARCSEC, "9999p999") == "psf_unreadable"
    shared = measured(make_renderer, {"": sharp}).psf(PSFSIZE_ARCSEC, "9999p999")
    assert isinstance(shared, StampPsf)
    assert np.array_equal(shared.transfer, own.transfer)


@pytest.mark.skipif(not MINI_BRICK.is_dir(), reason=f"real imaging is not here: {MINI_BRICK}")
def test_point_seen_through_a_coadd_psf_is_the_coadd_psf(make_renderer: MakeRenderer) -> None:
    """An unlensed point at the middle of the stamp is the survey's own PSF stamp in each band, to 3 % of its peak."""
    stamps = read_psf_stamps(f"{MINI_BRICK}/coaddpsf-{{band}}.fits", None, None, "", ("g", "r", "z"))
    renderer = measured(make_renderer, {"": stamps})
    draw = unlensed(drawn(renderer))
    draw = dataclasses.replace(draw, components=sersic_components(0.01, 0.5, 1.0, 0.0, 3))
    seen = arc_of(renderer, draw)
    assert seen.sum(axis=(1, 2)) == pytest.approx(1.0, abs=0.01)
    for band in range(3):
        assert np.abs(seen[band, 1:, 1:] - stamps[band]).max() < 0.03 * stamps[band].max()
