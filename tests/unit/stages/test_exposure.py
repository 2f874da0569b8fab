"""Accepted arcs as the survey would see them: colours, dust, seeing, shot noise and recorded columns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.source_bank import SourceBank
from pipeline.contracts.survey import flux_nmgy_from_mag, mw_transmission
from pipeline.kernels.arc_noise import SKY_NMGY, arc_shot_noise
from pipeline.kernels.arc_snr import sigma_pix_from_depth
from pipeline.kernels.random import task_keys
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.injection import Accepted, Exposure, Host, Injector, expose
from pipeline.stages.samplers import Refused

MakeConfig = Callable[..., RunConfig]
MakeCutouts = Callable[..., xr.Dataset]

# A cheap stamp.
CHEAP = (
    "survey.stamp_size_px=24",
    "injection.accuracy=0.02",
    "injection.priors.theta_e_arcsec={kind: uniform, low: 0.6, high: 1.6}",
    "injection.priors.src_mag_r={kind: uniform, low: 22.0, high: 24.0}",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "sampling.pilot_bins=16",
    "sampling.max_attempts=2000",
    "training.preprocess={annulus_px: [8, 12]}",
)
SIZE = 24
INVVAR = np.full((3, SIZE, SIZE), 2500.0, np.float32)
LENSES = {
    "sie": "{kind: sie}",
    "epl": "{kind: epl, slope: {kind: uniform, low: 1.8, high: 2.2}}",
    "lenstronomy": "{kind: lenstronomy, models: [SIE], parameters: ["
    "{theta_E: theta_e_arcsec, e1: lens_e1, e2: lens_e2}]}",
}
SOURCES = {
    "sersic": "{{kind: sersic}}",
    "clumpy": "{{kind: clumpy, count: [2, 2]}}",
    "bulge_disc": "{{kind: bulge_disc, bulge_share: {{kind: fixed, value: 0.3}}, "
    "bulge_re_over_re: {{kind: fixed, value: 0.3}}, bulge_n: {{kind: fixed, value: 3.0}}, "
    "bulge_q: {{kind: fixed, value: 0.8}}}}",
    "bank": "{{kind: bank, url: bank.h5, sha256: '{digest}'}}",
}


def plain(config: RunConfig) -> Injector:
    """An injector that needs no files."""
    return Injector(config, None, InjectionAssets())


def host_of(injector: Injector, cutouts: xr.Dataset, index: int, key: np.uint64) -> Host:
    """A host that is not refused."""
    host = injector.host(cutouts, index, key)
    assert isinstance(host, Host)
    return host


def exposed(injector: Injector, host: Host, accepted: Accepted) -> Exposure:
    """The accepted arc on a host of even inverse variance."""
    return expose(injector, host, accepted, INVVAR)


def snr_of(injector: Injector, host: Host, accepted: Accepted) -> tuple[float, ...]:
    """SNR columns of the exposed arc, as the cube stores them."""
    exposure = exposed(injector, host, accepted)
    columns = tuple(exposure.columns[name] for name in SNR_METRICS)
    np.testing.assert_array_equal(columns, injector.snr(host, exposure.arc_nmgy[injector.metric_band]))
    return columns


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> RunConfig:
    """SNR-first on cheap stamps."""
    return make_config(*CHEAP)


@pytest.fixture(scope="module")
def host(config: RunConfig, make_cutouts: MakeCutouts) -> Host:
    """One host."""
    return host_of(plain(config), make_cutouts(1, size=SIZE), 0, np.uint64(0))


@pytest.fixture(scope="module")
def keys() -> NDArray[np.uint64]:
    """Keys of many tasks."""
    return task_keys([f"row-{index}" for index in range(400)])


def test_exposed_bands_have_their_colours_extinction_and_seeing(
    make_config: MakeConfig, make_cutouts: MakeCutouts
) -> None:
    """Each band holds the source's magnitude, dimmed by its own extinction and blurred by its own seeing."""
    cutouts = make_cutouts(1, size=SIZE, ebv_mag=np.full(1, 0.5, np.float32))
    for extinction in (True, False):
        flag = f"injection.extinction={str(extinction).lower()}"
        injector = plain(make_config(*CHEAP, flag, "sampling.method=none", "sampling.target=null"))
        host = host_of(injector, cutouts, 0, np.uint64(3))
        accepted = injector.accept(host)
        assert isinstance(accepted, Accepted)
        exposure = exposed(injector, host, accepted)
        draw = accepted.draw
        assert exposure.src_mag == pytest.approx(
            [draw.src_mag_r + draw.src_gr, draw.src_mag_r, draw.src_mag_r - draw.src_rz]
        )
        dimming = [float(mw_transmission(np.array(0.5), band)) if extinction else 1.0 for band in "grz"]
        expected = flux_nmgy_from_mag(exposure.src_mag) * np.array(dimming)
        assert exposure.src_flux_nmgy == pytest.approx(expected, rel=1e-7)
        arc = exposure.arc_nmgy
        assert arc.dtype == np.float32
        assert arc.shape == (3, SIZE, SIZE)
        sharpness = [float((a**2).sum() / a.sum() ** 2) for a in arc.astype(np.float64)]
        assert sharpness == sorted(sharpness)
        lensed = accepted.unit_arc.flux * exposure.src_flux_nmgy
        assert np.all(arc.sum(axis=(1, 2), dtype=np.float64) < lensed * 1.0001)
        assert np.all(arc.sum(axis=(1, 2), dtype=np.float64) > 0.7 * lensed)


def test_unknown_extinction_has_its_reason_only_where_it_matters(
    make_config: MakeConfig, make_cutouts: MakeCutouts
) -> None:
    """A host without E(B-V) is refused as ebv_missing if sources are dimmed, and is an ordinary host if not."""
    cutouts = make_cutouts(1, size=SIZE, ebv_mag=np.full(1, np.nan, np.float32))
    assert plain(make_config(*CHEAP)).host(cutouts, 0, np.uint64(1)) == "ebv_missing"
    injector = plain(make_config(*CHEAP, "injection.extinction=false"))
    host = host_of(injector, cutouts, 0, np.uint64(1))
    assert host.transmission.tolist() == [1.0, 1.0, 1.0]
    assert isinstance(injector.accept(host), Accepted)


def test_dimming_changes_the_flux_and_not_the_assigned_snr(make_config: MakeConfig, make_cutouts: MakeCutouts) -> None:
    """Behind dust the same SNR needs an intrinsically brighter source; the arc that is added is the same."""
    cutouts = make_cutouts(1, size=SIZE, ebv_mag=np.full(1, 0.3, np.float32))
    wide = "injection.priors.src_mag_r={kind: uniform, low: 12.0, high: 32.0}"
    made = []
    for extinction in ("true", "false"):
        injector = plain(make_config(*CHEAP, wide, f"injection.extinction={extinction}"))
        accepted = injector.accept(host_of(injector, cutouts, 0, np.uint64(5)))
        assert isinstance(accepted, Accepted)
        made.append(accepted)
    dimmed, clear = made
    assert dimmed.snr_target == clear.snr_target
    magnitudes = -2.5 * math.log10(float(mw_transmission(np.array(0.3), "r")))
    assert clear.draw.src_mag_r - dimmed.draw.src_mag_r == pytest.approx(magnitudes, abs=1e-6)


def test_bands_have_the_colours_of_the_table(make_config: MakeConfig, host: Host) -> None:
    """With a table of colours the exposed magnitudes differ by table plus offset at the recorded redshift."""
    fixed = [
        f"injection.priors.{name}={{kind: fixed, value: {value}}}" for name, value in (("src_gr", 0.1), ("src_rz", 0))
    ]
    table = (
        "injection.colours={src_redshift: {kind: uniform, low: 1.0, high: 2.0}, redshift: [1.0, 2.0], "
        "gr: [0.2, 0.8], rz: [0.6, 0.2]}"
    )
    injector = plain(make_config(*CHEAP, *fixed, table))
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    exposure = exposed(injector, host, accepted)
    fraction = exposure.columns["src_redshift"] - 1.0
    assert 0 < fraction < 1
    g, r, z = exposure.src_mag
    assert g - r == pytest.approx(0.1 + 0.2 + 0.6 * fraction)
    assert r - z == pytest.approx(0.6 - 0.4 * fraction)


def test_annulus_metric_uses_the_depth_of_the_brick(make_config: MakeConfig, make_cutouts: MakeCutouts) -> None:
    """arc_snr_annulus is the annulus flux over sqrt(N) sigma of psfdepth_r, whatever invvar says."""
    injector = plain(make_config(*CHEAP, "sampling.metric=arc_snr_annulus"))
    cutouts = make_cutouts(1, size=SIZE, psfdepth_r_mag=np.full(1, 23.4, np.float32))
    host = host_of(injector, cutouts, 0, np.uint64(9))
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    exposure = exposed(injector, host, accepted)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    radius_px = np.hypot(x - host.centre_px[0], y - host.centre_px[1])
    annulus = (radius_px >= 4) & (radius_px <= 16)
    sigma_nmgy = float(sigma_pix_from_depth(np.float32(23.4), np.float32(1.2), 0.262))
    expected = exposure.arc_nmgy[1][annulus].sum(dtype=np.float64) / (math.sqrt(annulus.sum()) * sigma_nmgy)
    assert exposure.columns["arc_snr_annulus"] == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(accepted.snr_target, rel=1e-5)


def test_annulus_metric_needs_a_depth(make_config: MakeConfig, make_cutouts: MakeCutouts) -> None:
    """Without psfdepth_r, or in another band, the column is NaN; as target the row is refused, the others are not."""
    cutouts = make_cutouts(1, size=SIZE, psfdepth_r_mag=np.full(1, np.nan, np.float32))
    for overrides, with_depth in (((), False), (("sampling.band=z",), True)):
        injector = plain(make_config(*CHEAP, *overrides))
        source = make_cutouts(1, size=SIZE) if with_depth else cutouts
        host = host_of(injector, source, 0, np.uint64(2))
        accepted = injector.accept(host)
        assert isinstance(accepted, Accepted)
        snr = dict(zip(SNR_METRICS, snr_of(injector, host, accepted), strict=True))
        assert math.isnan(snr.pop("arc_snr_annulus"))
        assert min(snr.values()) > 0
    injector = plain(make_config(*CHEAP, "sampling.metric=arc_snr_annulus", "sampling.max_attempts=3"))
    assert injector.accept(host_of(injector, cutouts, 0, np.uint64(2))) == Refused("arc_masked", 3)
    with pytest.raises(ConfigError, match="arc_snr_annulus needs"):
        make_config(*CHEAP, "sampling.metric=arc_snr_annulus", "sampling.band=z")


def test_snr_of_selected_pixels_follows_the_arc(config: RunConfig, host: Host) -> None:
    """The cumulative SNR is linear and at least the peak's; the region's is 0 for an arc below its threshold."""
    injector = plain(config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    columns = {}
    for magnitudes in (-4.0, 0.0, 12.0):
        draw = dataclasses.replace(accepted.draw, src_mag_r=accepted.draw.src_mag_r + magnitudes)
        columns[magnitudes] = exposed(injector, host, dataclasses.replace(accepted, draw=draw)).columns
    bright, usual, faint = columns.values()
    assert usual["arc_snr_cumulative"] >= usual["arc_snr"]
    assert bright["arc_snr_cumulative"] == pytest.approx(10**1.6 * usual["arc_snr_cumulative"], rel=1e-4)
    assert faint["arc_snr_region"] == 0.0
    assert bright["arc_snr_region"] > 10**1.6 * faint["arc_snr_cumulative"]
    assert bright["magnification"] == usual["magnification"] == faint["magnification"]


def noisy(make_config: MakeConfig, *overrides: str) -> Injector:
    """An injector that adds the shot noise of bright arcs."""
    bright = "injection.priors.src_mag_r={kind: uniform, low: 17.0, high: 18.0}"
    unsampled = ("sampling.method=none", "sampling.target=null")
    return plain(make_config(*CHEAP, bright, *unsampled, "injection.arc_noise={}", *overrides))


def test_no_noise_is_added_unless_it_is_configured(config: RunConfig, host: Host) -> None:
    """By default the arc is noise-free, and no sky level is known."""
    injector = plain(config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    assert not exposed(injector, host, accepted).noise_nmgy.any()
    assert injector.sky_nmgy is None


def test_sky_levels_are_the_default_or_the_configured(make_config: MakeConfig) -> None:
    """A band that is not named takes the kernel's default."""
    assert noisy(make_config).sky_nmgy == pytest.approx([SKY_NMGY[band] for band in "grz"])
    changed = noisy(make_config, "injection.arc_noise.sky_nmgy={r: 0.5}")
    assert changed.sky_nmgy == pytest.approx([SKY_NMGY["g"], 0.5, SKY_NMGY["z"]])


def test_noise_is_keyed_by_seed_task_and_band(make_config: MakeConfig, host: Host) -> None:
    """The noise is the kernel's for the task, seed and band; the noise-free arc does not change."""
    injector = noisy(make_config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    exposure = exposed(injector, host, accepted)
    for band, name in enumerate("grz"):
        light = np.maximum(exposure.arc_nmgy[band], np.float32(0))
        seed = injector.config.run.seed
        expected = arc_shot_noise(light, INVVAR[band], SKY_NMGY[name], seed, host.task_key, band)
        assert expected.any()
        assert np.array_equal(exposure.noise_nmgy[band], expected)
    quiet = plain(make_config(*CHEAP, "sampling.method=none", "sampling.target=null"))
    assert np.array_equal(exposed(quiet, host, accepted).arc_nmgy, exposure.arc_nmgy)
    other = exposed(injector, dataclasses.replace(host, task_key=np.uint64(8)), accepted)
    assert not np.array_equal(other.noise_nmgy, exposure.noise_nmgy)
    deviates = exposure.noise_nmgy[:, exposure.arc_nmgy.min(axis=0) > 0]
    assert abs(np.corrcoef(deviates[0], deviates[1])[0, 1]) < 0.3


def test_noise_has_the_variance_of_the_arc(make_config: MakeConfig, host: Host, keys: NDArray[np.uint64]) -> None:
    """Over many tasks each pixel's noise has mean 0 and variance arc / (sky invvar), band by band."""
    injector = noisy(make_config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    n_tasks = 400
    stack = []
    for key in keys[:n_tasks]:
        clone = dataclasses.replace(host, task_key=key)
        exposure = exposed(injector, clone, accepted)
        stack.append(exposure.noise_nmgy)
    arc = exposed(injector, host, accepted).arc_nmgy
    for band, name in enumerate("grz"):
        bright = arc[band] > 0.01 * arc[band].max()
        assert bright.sum() > 50
        variance = arc[band][bright] / (SKY_NMGY[name] * 2500.0)
        scaled = np.array([noise[band][bright] for noise in stack]) / np.sqrt(variance)
        n_values = scaled.size
        assert abs(scaled.mean()) < 5 / math.sqrt(n_values)
        assert abs(scaled.var() - 1) < 5 * math.sqrt(2 / n_values)


def test_noise_stays_off_pixels_without_weight(make_config: MakeConfig, host: Host) -> None:
    """A pixel whose inverse variance is 0 gets the arc and no noise; nothing becomes NaN."""
    injector = noisy(make_config)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    invvar = INVVAR.copy()
    invvar[:, :, : SIZE // 2] = 0
    exposure = expose(injector, host, accepted, invvar)
    assert not exposure.noise_nmgy[:, :, : SIZE // 2].any()
    assert exposure.noise_nmgy[:, :, SIZE // 2 :].any()
    assert np.isfinite(exposure.noise_nmgy).all()


@pytest.mark.parametrize("lens", ["sie", "epl", "lenstronomy"])
@pytest.mark.parametrize("source", ["sersic", "clumpy", "bulge_disc", "bank"])
def test_every_model_reaches_its_snr(
    make_config: MakeConfig,
    make_cutouts: MakeCutouts,
    make_bank: Callable[..., SourceBank],
    lens: str,
    source: str,
) -> None:
    """Each lens with each source gives arcs of the assigned SNR, finite columns, and the same on a second pass."""
    bank = make_bank()
    sections = (f"injection.lens={LENSES[lens]}", f"injection.source={SOURCES[source].format(digest=bank.digest)}")
    overrides = (*CHEAP, *sections, "sampling.weight_draws=1")
    assets = InjectionAssets(bank if source == "bank" else None)
    cutouts = make_cutouts(2, size=SIZE)
    made = []
    for order in ((0, 1), (1, 0)):
        injector = Injector(make_config(*overrides), None, assets)
        exposures = {}
        for index in order:
            host = host_of(injector, cutouts, index, np.uint64(20 + index))
            accepted = injector.accept(host)
            assert isinstance(accepted, Accepted)
            exposures[index] = exposed(injector, host, accepted)
            assert exposures[index].columns["arc_snr"] == pytest.approx(accepted.snr_target, rel=1e-5)
        made.append(exposures)
    for index in (0, 1):
        first, second = made[0][index], made[1][index]
        assert np.array_equal(first.arc_nmgy, second.arc_nmgy)
        np.testing.assert_equal(first.columns, second.columns)
        unknown = {name for name, value in first.columns.items() if math.isnan(value)}
        assert unknown == {"src_redshift"} | ({"lens_slope"} if lens == "lenstronomy" else set())
        assert (first.columns["src_template"] >= 0) == (source == "bank")
        assert first.columns["src_components"] == {"sersic": 1, "clumpy": 3, "bulge_disc": 2, "bank": 1}[source]
