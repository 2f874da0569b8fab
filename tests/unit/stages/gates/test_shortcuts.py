"""Gates on the core of the stamps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.datasets import ROLES


def with_stamps(cube, injected, control, host_id):
    """Put pairs of stamps (sample, band, y, x) in place of the cube's."""
    n = len(host_id)
    dims = ("sample", "band", "y", "x")
    cube.stamps = xr.Dataset(
        {
            "injected": (dims, injected.astype(np.float32)),
            "control": (dims, control.astype(np.float32)),
            "role": ("sample", np.full(n, ROLES.index("pair"), dtype=np.uint8)),
            "host_id": ("sample", np.asarray(host_id, dtype=np.int64)),
            "centre_dx_px": ("sample", np.zeros(n, dtype=np.float32)),
            "centre_dy_px": ("sample", np.zeros(n, dtype=np.float32)),
            "theta_e_arcsec": ("sample", np.full(n, 1.5, dtype=np.float32)),
            "psfsize_arcsec": (("sample", "band"), np.full((n, 3), 1.3, dtype=np.float32)),
        }
    )
    return cube


def brighten_core(cube, factor):
    """Multiply the pixels within 5 px of the centre of the injected pair stamps."""
    y, x = np.mgrid[:48, :48] - 24.0
    core = np.where(np.hypot(x, y) < 5.0, factor, 1.0)
    cube.stamps["injected"] = cube.stamps["injected"].copy()
    cube.stamps["injected"][:400] = cube.stamps["injected"][:400] * core.astype(np.float32)


def test_core_brightness_passes_arcs_outside_the_core(cube):
    """Rings outside the core leave the ratio at 1."""
    result = cube.gate("core_brightness_ratio")
    assert result.passed
    assert result.value == pytest.approx(1.0, abs=1e-3)
    assert (result.n_positive, result.n_control) == (400, 400)


def test_core_brightness_fails_bright_cores(cube):
    """Cores 1.64 times as bright, those of the unpaired EMR set, fail with ratio, interval and Cohen d."""
    brighten_core(cube, 1.64)
    result = cube.gate("core_brightness_ratio")
    assert not result.passed
    assert 1.4 < result.value < 1.64
    low, high = result.interval_95
    assert low < result.value < high
    assert result.detail["cohen_d"] > 0.5


def test_core_brightness_is_the_ratio_of_means_in_the_circle(cube):
    """On constant cores the ratio and the circle around the off-centre host follow from counting pixels."""
    rng = np.random.default_rng(1)
    control = np.ones((200, 3, 32, 32)) * rng.uniform(0.5, 1.5, 200)[:, None, None, None]
    injected = control.copy()
    y, x = np.mgrid[:32, :32] - 16.0
    injected[:, 1] += np.where(np.hypot(x - 0.5, y + 0.25) < 8.0, 0.1, 50.0)
    with_stamps(cube, injected, control, np.arange(200))
    cube.stamps["centre_dx_px"][:], cube.stamps["centre_dy_px"][:] = 0.5, -0.25
    result = cube.gate("core_brightness_ratio")
    assert result.value == pytest.approx(1.0 + 0.1 / control.mean(axis=0)[0, 0, 0], rel=1e-5)
    cube.stamps["centre_dx_px"][:] = 0.0
    assert cube.gate("core_brightness_ratio").value > 1.5


def test_core_brightness_interval_widens_with_repeated_hosts(cube):
    """A host repeated four times is one host: the interval is wider than that of as many single hosts."""
    rng = np.random.default_rng(2)
    flux = np.repeat(rng.lognormal(0.0, 1.0, 100), 4)
    extra = np.repeat(rng.lognormal(0.0, 1.0, 100), 4)
    control = np.ones((400, 3, 24, 24)) * flux[:, None, None, None]
    injected = control + extra[:, None, None, None]
    widths = []
    for host_id in (np.arange(400), np.repeat(np.arange(100), 4)):
        low, high = with_stamps(cube, injected, control, host_id).gate("core_brightness_ratio").interval_95
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_core_brightness_fails_without_flux(cube):
    """Cores of blank sky have no ratio."""
    cube.stamps["control"] = cube.stamps["control"] * 0.0
    result = cube.gate("core_brightness_ratio")
    assert (result.passed, result.value) == (False, None)
    assert "no flux" in result.message


@pytest.mark.parametrize("gate", ["core_brightness_ratio", "core_only_auc"])
def test_core_gates_fail_a_nan_pixel_in_the_core(cube, gate):
    """A NaN in a core makes the statistic undefined, which is a failure."""
    cube.stamps["control"][11, 1, 24, 24] = np.nan
    result = cube.gate(gate)
    assert (result.passed, result.value) == (False, None)
    assert "not finite" in result.message


@pytest.mark.parametrize("gate", ["core_brightness_ratio", "core_only_auc"])
@pytest.mark.parametrize("offset", [np.nan, 3.0])
def test_core_gates_fail_an_impossible_centre(cube, gate, offset):
    """A host centre that is NaN or pixels away from the stamp centre is refused."""
    cube.stamps["centre_dx_px"][3] = offset
    assert "within half a pixel" in cube.gate(gate).message


@pytest.mark.parametrize("gate", ["core_brightness_ratio", "core_only_auc"])
def test_core_gates_fail_a_core_larger_than_the_stamp(cube, gate):
    """A circle that leaves the stamp is not the circle that was configured."""
    cube.configure("gates", core_ratio_radius_px=23.5, core_auc_radius_px=23.5)
    result = cube.gate(gate)
    assert not result.passed
    assert "does not fit" in result.message


def test_core_auc_passes_arcs_outside_the_core(cube):
    """Rings outside the core leave nothing to see in it."""
    result = cube.gate("core_only_auc")
    assert result.passed
    assert (result.n_positive, result.n_control) == (400, 520)
    assert result.detail["hosts"] == 520


def test_core_auc_fails_bright_cores(cube):
    """Cores 1.64 times as bright are found by the linear classifier and lie far above the null."""
    brighten_core(cube, 1.64)
    result = cube.gate("core_only_auc")
    assert not result.passed
    assert result.value > 0.8
    assert result.value > result.detail["null_max"]
    assert result.null_p == pytest.approx(1 / 21)


def test_core_auc_is_not_fooled_by_noise(cube):
    """On 2048 stamps of pure noise the out-of-fold AUC is 0.5; a score on the training rows would exceed 0.55."""
    rng = np.random.default_rng(4)
    injected, control = rng.standard_normal((2, 1024, 3, 24, 24))
    result = with_stamps(cube, injected, control, np.arange(1024)).gate("core_only_auc")
    assert (result.n_positive, result.n_control) == (1024, 1024)
    assert result.value == pytest.approx(0.5, abs=0.03)
    assert result.detail["null_mean"] == pytest.approx(0.5, abs=0.01)
    assert 0.002 < result.detail["null_std"] < 0.03


def test_core_auc_never_trains_on_the_hosts_it_scores(cube):
    """Ten repeated hosts are learnt by heart if each row passes for a host, and say nothing across hosts."""
    rng = np.random.default_rng(6)
    host = np.repeat(np.arange(10), 40)
    pattern = rng.standard_normal((2, 10, 3, 24, 24))
    injected, control = pattern[:, host] + 0.001 * rng.standard_normal((2, 400, 3, 24, 24))
    order = rng.permutation(400)
    injected, control, host = injected[order], control[order], host[order]
    assert with_stamps(cube, injected, control, np.arange(400)).gate("core_only_auc").value > 0.9
    assert with_stamps(cube, injected, control, host).gate("core_only_auc").value < 0.7


def test_core_auc_null_reveals_controls_of_other_hosts(cube):
    """If control rows are brighter galaxies than the pairs', swapped labels still separate: the null says so."""
    cube.stamps["control"][400:] = 3.0 * cube.stamps["control"][400:]
    cube.stamps["injected"][400:] = cube.stamps["control"][400:]
    result = cube.gate("core_only_auc")
    assert result.detail["null_mean"] > 0.55


def test_core_auc_fails_with_fewer_hosts_than_folds(cube):
    """Three hosts cannot be grouped into five folds."""
    rng = np.random.default_rng(8)
    injected, control = rng.standard_normal((2, 300, 3, 24, 24))
    result = with_stamps(cube, injected, control, np.arange(300) % 3).gate("core_only_auc")
    assert (result.passed, result.value) == (False, None)
    assert "ValueError" in result.message


def test_core_auc_uses_order_statistics_of_the_circle(cube):
    """A median that differs at equal mean and noise is seen: the features are seven, not the mean alone."""
    rng = np.random.default_rng(3)
    control = rng.standard_normal((300, 3, 24, 24))
    injected = (rng.standard_normal((300, 3, 24, 24)) ** 2 - 1.0) / np.sqrt(2.0)
    assert with_stamps(cube, injected, control, np.arange(300)).gate("core_only_auc").value > 0.95


def test_core_radius_follows_the_einstein_radius(cube):
    """With theta_e the core of an unresolved arc shrinks to 2 px and light outside of it no longer counts."""
    brighten_core(cube, 1.64)
    y, x = np.mgrid[:48, :48] - 24.0
    cube.stamps["injected"][:400] = cube.stamps["control"][:400] + (np.hypot(x, y) > 4.0).astype(np.float32)
    assert cube.gate("core_brightness_ratio").value > 1.5
    cube.configure("gates", core_radius="theta_e")
    result = cube.gate("core_brightness_ratio")
    assert result.detail["median_radius_px"] == 2.0
    assert result.value == pytest.approx(1.0, abs=1e-3)
    assert cube.gate("core_only_auc").value == pytest.approx(0.5, abs=0.03)


def test_core_ratio_is_given_by_resolution(cube):
    """Strata of theta_E over FWHM hold every pair once."""
    strata = cube.gate("core_brightness_ratio").detail["ratio_by_theta_e_over_fwhm"]
    assert sum(stratum["n"] for stratum in strata) == 400
    assert [stratum["low"] for stratum in strata] == [0.0, 0.8, 1.0]


def test_metadata_of_pairs_alone_say_nothing(cube):
    """Without control rows every negative has the metadata of a positive: nothing is judged, and that is said."""
    cube.keep("pair")
    result = cube.gate("metadata_only_auc")
    assert (result.passed, result.applicable, result.value) == (True, False, None)
    assert "there are no control rows" in result.message


def test_metadata_against_few_control_rows_fail(cube):
    """Control rows that are too few for a verdict fail the gate, as too few samples do everywhere."""
    rows = np.flatnonzero(cube.columns["role"].to_numpy() == 2)
    cube.columns = cube.columns.isel(sample=np.setdiff1d(np.arange(cube.columns.sizes["sample"]), rows[30:]))
    result = cube.gate("metadata_only_auc")
    assert (result.passed, result.value, result.n_control) == (False, None, 30)
    assert "too few samples" in result.message


def test_metadata_baseline_reads_no_column_of_the_arc(cube):
    """Only columns of the host are features."""
    features = cube.gate("metadata_only_auc").detail["features"]
    assert "psfdepth_r_mag" in features
    assert not [name for name in features if name.startswith(("arc", "snr", "theta", "src", "lens", "weight"))]
