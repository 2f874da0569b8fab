"""Core suppression: the radius, the taper, and what it does to arcs, their SNR and the record of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.injection import CoreSuppression
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.random import task_keys
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.core_suppression import core_radius_arcsec, core_weight
from pipeline.stages.draws import ArcDraw
from pipeline.stages.injection import Accepted, Exposure, Host, Injector, expose
from pipeline.stages.samplers import Refused

MakeConfig = Callable[..., RunConfig]
SIZE = 32
CHEAP = (
    f"survey.stamp_size_px={SIZE}",
    "injection.accuracy=0.02",
    "injection.priors.theta_e_arcsec={kind: uniform, low: 1.0, high: 1.6}",
    "injection.priors.src_mag_r={kind: uniform, low: 12.0, high: 32.0}",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "training={epochs: 1, preprocess: {annulus_px: [8, 12]}}",
)
SUPPRESSED = "injection.core_suppression={radius_px: 6, radius_theta_e: 0.8}"
INVVAR = np.full((3, SIZE, SIZE), 2500.0, np.float32)


@pytest.fixture(scope="module")
def cutouts(make_cutouts: Callable[..., xr.Dataset]) -> xr.Dataset:
    """A few hosts."""
    return make_cutouts(4, size=SIZE)


def exposed(config: RunConfig, cutouts: xr.Dataset, index: int, mag_offset: float = 0.0) -> tuple[Accepted, Exposure]:
    """The arc that a configuration puts on a host."""
    injector = Injector(config, None, InjectionAssets())
    host = injector.host(cutouts, index, task_keys(cutouts["task_id"].to_numpy().tolist())[index])
    assert isinstance(host, Host)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    draw = dataclasses.replace(accepted.draw, src_mag_r=accepted.draw.src_mag_r + mag_offset)
    accepted = dataclasses.replace(accepted, draw=draw)
    return accepted, expose(injector, host, accepted, INVVAR)


def radius_px(draw: ArcDraw) -> np.ndarray:
    """(y, x) distance from the lens. [px]"""
    offset = np.arange(SIZE) - SIZE // 2
    x, y = offset - draw.lens_x_arcsec / PIXEL_SCALE_ARCSEC, offset - draw.lens_y_arcsec / PIXEL_SCALE_ARCSEC
    return np.hypot(y[:, None], x[None, :])


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"radius_px": 4}, 4 * PIXEL_SCALE_ARCSEC),
        ({"radius_arcsec": 1.1}, 1.1),
        ({"radius_theta_e": 0.5}, 0.7),
        ({"radius_psf_fwhm": 1.5}, 1.8),
        ({"radius_arcsec": 1.1, "radius_theta_e": 0.5, "radius_psf_fwhm": 1.5}, 0.7),
    ],
)
def test_smallest_radius_applies(section: dict[str, float], expected: float) -> None:
    """Each unit, and the smallest of several, for theta_E 1.4 and psfsize 1.2 arcsec."""
    found = core_radius_arcsec(CoreSuppression.model_validate(section), 1.4, 1.2)
    assert found == pytest.approx(expected)


def test_unknown_seeing_is_an_error_only_where_it_is_needed() -> None:
    """radius_psf_fwhm without psfsize is refused; radius_px does not ask for it."""
    assert core_radius_arcsec(CoreSuppression(radius_px=4), 1.4, math.nan) == pytest.approx(4 * PIXEL_SCALE_ARCSEC)
    with pytest.raises(ValueError, match="psfsize_arcsec"):
        core_radius_arcsec(CoreSuppression(radius_psf_fwhm=1.0), 1.4, math.nan)


@pytest.mark.parametrize("taper", [0.25, 1.0])
def test_weight_rises_smoothly_from_zero_to_one(make_config: MakeConfig, cutouts: xr.Dataset, taper: float) -> None:
    """0 within (1 - taper) R of the lens, 1 beyond R, a squared sine between."""
    draw = exposed(make_config(*CHEAP), cutouts, 0)[0].draw
    weight = core_weight(CoreSuppression(radius_px=8, taper=taper), draw, math.nan, SIZE)
    radius, inner = radius_px(draw), 8 * (1 - taper)
    assert weight.dtype == np.float32
    assert (weight[radius <= inner] == 0).all()
    assert (weight[radius >= 8] == 1).all()
    between = (radius > inner) & (radius < 8)
    expected = np.sin(math.pi / 2 * (radius[between] - inner) / (8 - inner)) ** 2
    np.testing.assert_allclose(weight[between], expected, atol=1e-6)


def test_arc_is_the_unsuppressed_one_times_the_weight_and_the_loss_is_recorded(
    make_config: MakeConfig, cutouts: xr.Dataset
) -> None:
    """Same draw, same flux: each band is multiplied by the same weight; the column is the share that went."""
    fixed = ("sampling.method=none", "sampling.target=null")
    for index in range(4):
        accepted, whole = exposed(make_config(*CHEAP, *fixed), cutouts, index)
        _, less = exposed(make_config(*CHEAP, *fixed, SUPPRESSED), cutouts, index)
        section = CoreSuppression(radius_px=6, radius_theta_e=0.8)
        weight = core_weight(section, accepted.draw, math.nan, SIZE)
        np.testing.assert_allclose(less.arc_nmgy, whole.arc_nmgy * weight, rtol=1e-5, atol=1e-7 * whole.arc_nmgy.max())
        lost = 1.0 - less.arc_nmgy[1].sum(dtype=float) / whole.arc_nmgy[1].sum(dtype=float)
        assert less.columns["arc_suppressed_frac"] == pytest.approx(lost, abs=1e-5)
        assert 0.0 < lost < 1.0
        assert whole.columns["arc_suppressed_frac"] == 0.0
        assert less.columns["arc_core_frac"] < whole.columns["arc_core_frac"]
        assert less.columns["magnification"] == whole.columns["magnification"]


@pytest.mark.parametrize("metric", ["arc_snr", "arc_snr_matched"])
def test_snr_first_reaches_its_target_with_what_is_injected(
    make_config: MakeConfig, cutouts: xr.Dataset, metric: str
) -> None:
    """The assigned SNR is that of the suppressed arc, and every linear SNR and flux stays linear in the flux."""
    config = make_config(*CHEAP, SUPPRESSED, f"sampling.metric={metric}")
    for index in range(4):
        accepted, exposure = exposed(config, cutouts, index)
        assert exposure.columns[metric] == pytest.approx(accepted.snr_target, rel=1e-5)
        _, brighter = exposed(config, cutouts, index, mag_offset=-2.5)
        np.testing.assert_allclose(brighter.arc_nmgy, 10 * exposure.arc_nmgy, rtol=2e-5)
        for name in SNR_METRICS:
            assert brighter.columns[name] == pytest.approx(10 * exposure.columns[name], rel=2e-5)
        assert brighter.columns["arc_suppressed_frac"] == pytest.approx(exposure.columns["arc_suppressed_frac"])


def test_the_same_row_gives_the_same_bits(make_config: MakeConfig, cutouts: xr.Dataset) -> None:
    """Another injector, which did other rows before, gives the same arc."""
    config = make_config(*CHEAP, SUPPRESSED)
    injector = Injector(config, None, InjectionAssets())
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    for index in (3, 1):
        host = injector.host(cutouts, index, keys[index])
        assert isinstance(host, Host)
        accepted = injector.accept(host)
        assert isinstance(accepted, Accepted)
    assert np.array_equal(expose(injector, host, accepted, INVVAR).arc_nmgy, exposed(config, cutouts, 1)[1].arc_nmgy)


def test_arc_that_lies_in_the_core_alone_is_refused(make_config: MakeConfig, cutouts: xr.Dataset) -> None:
    """Where nothing but rounding is left the row says arc_masked instead of holding an arc without light."""
    compact = (
        "injection.priors.theta_e_arcsec={kind: fixed, value: 0.5}",
        "injection.psf.profile=gaussian",
        "injection.priors.src_re_arcsec={kind: fixed, value: 0.1}",
        "injection.priors.src_n={kind: fixed, value: 0.7}",
        "injection.core_suppression={radius_px: 40, taper: 0.5}",
        "sampling.max_attempts=4",
    )
    injector = Injector(make_config(*CHEAP, *compact), None, InjectionAssets())
    host = injector.host(cutouts, 0, np.uint64(1))
    assert isinstance(host, Host)
    assert injector.accept(host) == Refused("arc_masked", 4)
