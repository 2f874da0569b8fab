"""Shards of the training cube: pairs, controls, unusable rows, and independence of everything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import HOST_COLUMNS, REJECT_REASONS, ROLES, SNR_METRICS, TRAINING
from pipeline.contracts.errors import ContractError
from pipeline.contracts.schema import validate
from pipeline.contracts.survey import mask_value
from pipeline.kernels.random import task_keys
from pipeline.stages.injection import Accepted, Injector, expose
from pipeline.stages.pairs import make_pairs

MakeConfig = Callable[..., RunConfig]
MakeCutouts = Callable[..., xr.Dataset]
MakeRows = Callable[..., xr.Dataset]

SIZE = 24
CHEAP = (
    f"survey.stamp_size_px={SIZE}",
    "injection.supersampling=1",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "training.preprocess={annulus_px: [8, 12]}",
)
FROZEN = ("injection.mode=frozen", "manifest.kind=emr", "sampling.method=none", "sampling.target=null")
N_ROWS = 10
UNUSABLE, CONTROLS, MASKED = 2, (4, 7), 5
ARC_COLUMNS = [
    variable.name
    for variable in TRAINING.variables
    if variable.name.startswith(("theta_e", "lens_", "shear", "src_", "arc_", "snr_", "weight"))
]


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> RunConfig:
    """SNR-first on cheap stamps."""
    return make_config(*CHEAP)


@pytest.fixture(scope="module")
def cutouts(make_cutouts: MakeCutouts) -> xr.Dataset:
    """Ten rows: one unusable, two controls, one whose r-band pixels are all masked, six ordinary hosts."""
    in_bounds = np.ones(N_ROWS, np.uint8)
    in_bounds[UNUSABLE] = 0
    is_control = np.zeros(N_ROWS, np.uint8)
    is_control[list(CONTROLS)] = 1
    maskbits = np.zeros((N_ROWS, SIZE, SIZE), np.int32)
    maskbits[MASKED] = mask_value("BRIGHT")
    return make_cutouts(N_ROWS, size=SIZE, in_bounds=in_bounds, is_control=is_control, maskbits=maskbits)


@pytest.fixture(scope="module")
def rows(cutouts: xr.Dataset, make_rows: MakeRows) -> xr.Dataset:
    """The manifest rows of the cutouts."""
    return make_rows(cutouts)


@pytest.fixture(scope="module")
def pairs(cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig) -> xr.Dataset:
    """The training shard of these rows, the 1000th and following of their manifest."""
    return make_pairs(cutouts, rows, 1000, config, Injector(config, None))


def names_of(dataset: xr.Dataset, name: str, meanings: tuple[str, ...]) -> list[str]:
    """Flag codes as words."""
    return [meanings[code] for code in dataset[name].to_numpy()]


def equal_bits(left: xr.Dataset, right: xr.Dataset) -> bool:
    """Same values and types in every variable, NaN equal to NaN."""
    return all(left[name].dtype == right[name].dtype and left[name].equals(right[name]) for name in left)


def test_shard_satisfies_the_schema(pairs: xr.Dataset) -> None:
    """The shard can be written as it is."""
    validate(pairs, TRAINING, {"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE})


def test_roles_and_reasons(pairs: xr.Dataset) -> None:
    """Each row has the role and the reason that its cutout and its arc give it."""
    roles, reasons = names_of(pairs, "role", ROLES), names_of(pairs, "reject_reason", REJECT_REASONS)
    for row in range(N_ROWS):
        expected = ("pair", "none")
        if row == UNUSABLE:
            expected = ("unused", "out_of_bounds")
        elif row == MASKED:
            expected = ("unused", "arc_masked")
        elif row in CONTROLS:
            expected = ("control", "none")
        assert (roles[row], reasons[row]) == expected
    assert pairs["pair_id"].to_numpy().tolist() == list(range(1000, 1000 + N_ROWS))


def test_pair_is_host_plus_arc_to_the_last_bit(pairs: xr.Dataset, cutouts: xr.Dataset, config: RunConfig) -> None:
    """control is the cutout, and injected is the float32 sum of control and the arc, which the draw reproduces."""
    injector = Injector(config, None)
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    for row in np.flatnonzero(pairs["role"].to_numpy() == ROLES.index("pair")).tolist():
        host = injector.host(cutouts, row, keys[row])
        accepted = injector.accept(host)
        assert isinstance(accepted, Accepted)
        arc = np.asarray(expose(injector, host, accepted)["arc"])
        control, injected = pairs["control"].to_numpy()[row], pairs["injected"].to_numpy()[row]
        assert control.tobytes() == cutouts["image"].to_numpy()[row].tobytes()
        assert injected.tobytes() == (control + arc).tobytes()
        assert np.max(np.abs((injected - control) - arc)) <= np.max(np.abs(injected)) * 2.0**-23
        assert arc.max() > 0
        assert pairs["arc_flux_nmgy"].to_numpy()[row] == pytest.approx(arc.sum(axis=(1, 2), dtype=np.float64), rel=1e-6)


def test_stored_metric_is_the_assigned_snr(pairs: xr.Dataset) -> None:
    """The stored column of the target metric equals snr_target to 1e-5, and lies in the target's range."""
    pair = pairs["role"].to_numpy() == ROLES.index("pair")
    snr, target = pairs["arc_snr"].to_numpy()[pair], pairs["snr_target"].to_numpy()[pair]
    assert snr == pytest.approx(target, rel=1e-5)
    assert target.min() >= 1.0
    assert target.max() <= 8.0
    assert np.unique(target).size == target.size


def test_stored_snr_follows_from_stored_pixels(pairs: xr.Dataset, cutouts: xr.Dataset) -> None:
    """Recomputed from injected - control and invvar, arc_snr and arc_snr_matched agree to the pixels' rounding."""
    for row in np.flatnonzero(pairs["role"].to_numpy() == ROLES.index("pair")).tolist():
        arc = (pairs["injected"].to_numpy()[row, 1] - pairs["control"].to_numpy()[row, 1]).astype(np.float64)
        weight = cutouts["invvar"].to_numpy()[row, 1].astype(np.float64)
        assert np.max(arc * np.sqrt(weight)) == pytest.approx(pairs["arc_snr"].to_numpy()[row], rel=1e-4)
        matched = np.sqrt(np.sum(arc**2 * weight))
        assert matched == pytest.approx(pairs["arc_snr_matched"].to_numpy()[row], rel=1e-4)


def test_control_rows_are_equal_in_both_stamps_and_carry_no_arc(pairs: xr.Dataset, cutouts: xr.Dataset) -> None:
    """A control has its host's pixels twice, zero flux and Einstein radius, and no SNR or draw."""
    for row in CONTROLS:
        image = cutouts["image"].to_numpy()[row].tobytes()
        assert pairs["injected"].to_numpy()[row].tobytes() == image
        assert pairs["control"].to_numpy()[row].tobytes() == image
        for name in ("theta_e_arcsec", "src_flux_nmgy", "arc_flux_nmgy"):
            assert not pairs[name].to_numpy()[row].any()
        for name in (*SNR_METRICS, "snr_target", "weight_prior", "lens_q", "src_x_arcsec"):
            assert np.isnan(pairs[name].to_numpy()[row])


def test_rejected_rows_hold_nothing_but_their_reason(pairs: xr.Dataset, config: RunConfig) -> None:
    """Unusable and exhausted rows have NaN pixels and NaN arc columns: no last draw, no filled value."""
    for row in (UNUSABLE, MASKED):
        for name in ("injected", "control", *ARC_COLUMNS):
            assert np.isnan(pairs[name].to_numpy()[row]).all(), name
    assert pairs["attempts"].to_numpy()[UNUSABLE] == 0
    assert pairs["attempts"].to_numpy()[MASKED] == config.sampling.max_attempts


def test_nothing_usable_is_nan(pairs: xr.Dataset) -> None:
    """Pairs and controls have finite pixels; pairs have every column."""
    role = pairs["role"].to_numpy()
    assert np.isfinite(pairs["injected"].to_numpy()[role > 0]).all()
    assert np.isfinite(pairs["control"].to_numpy()[role > 0]).all()
    for name in ARC_COLUMNS:
        assert np.isfinite(pairs[name].to_numpy()[role == ROLES.index("pair")]).all(), name


def test_host_columns_are_copied_unchanged(pairs: xr.Dataset, cutouts: xr.Dataset) -> None:
    """Every host column equals the cutouts cube's."""
    for column in HOST_COLUMNS:
        assert pairs[column.name].equals(cutouts[column.name]), column.name


def test_rows_do_not_depend_on_their_order(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig
) -> None:
    """Shuffled rows give the same rows, shuffled, bit for bit; only pair_id counts positions."""
    order = np.random.default_rng(2).permutation(N_ROWS)
    shuffled = make_pairs(cutouts.isel(sample=order), rows.isel(sample=order), 1000, config, Injector(config, None))
    assert equal_bits(shuffled.drop_vars("pair_id"), pairs.isel(sample=order).drop_vars("pair_id"))


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_rows_do_not_depend_on_the_shard(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig, cut: int
) -> None:
    """Two shards made apart by one injector are the one shard cut in two, pair_id included."""
    injector = Injector(config, None)
    parts = [
        make_pairs(cutouts.isel(sample=part), rows.isel(sample=part), 1000 + part.start, config, injector)
        for part in (slice(cut, N_ROWS), slice(0, cut))
    ]
    assert equal_bits(xr.concat(parts[::-1], dim="sample"), pairs)


def test_inputs_are_left_alone(cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig) -> None:
    """Making pairs changes neither the cutouts nor the rows."""
    before = cutouts.copy(deep=True), rows.copy(deep=True)
    make_pairs(cutouts, rows, 0, config, Injector(config, None))
    xr.testing.assert_identical(cutouts, before[0])
    xr.testing.assert_identical(rows, before[1])


def test_another_seed_gives_other_arcs_on_the_same_hosts(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig
) -> None:
    """The run seed decides the arcs and leaves the controls' pixels alone."""
    other = make_config(*CHEAP, "run.seed=1")
    again = make_pairs(cutouts, rows, 1000, other, Injector(other, None))
    pair = pairs["role"].to_numpy() == ROLES.index("pair")
    assert not np.isin(again["theta_e_arcsec"].to_numpy()[pair], pairs["theta_e_arcsec"].to_numpy()[pair]).any()
    assert again["control"].equals(pairs["control"])


def test_frozen_rows_are_rendered_as_they_stand(cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig) -> None:
    """Frozen mode stores the manifest's numbers, one attempt, weight 1 and no target."""
    config = make_config(*CHEAP, *FROZEN)
    frozen = make_pairs(cutouts, rows, 0, config, Injector(config, None))
    pair = frozen["role"].to_numpy() == ROLES.index("pair")
    assert pair.sum() == N_ROWS - 1 - len(CONTROLS)
    assert np.unique(frozen["theta_e_arcsec"].to_numpy()[pair]).tolist() == [np.float32(1.2)]
    assert frozen["src_mag"].to_numpy()[pair] == pytest.approx(np.tile([21.4, 21.0, 20.7], (pair.sum(), 1)))
    assert np.unique(frozen["attempts"].to_numpy()[pair]).tolist() == [1]
    assert np.unique(frozen["weight_prior"].to_numpy()[pair]).tolist() == [1.0]
    assert np.isnan(frozen["snr_target"].to_numpy()).all()
    assert frozen["arc_snr"].to_numpy()[MASKED] == 0.0


def test_frozen_row_without_host_magnitude_is_refused(
    cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig
) -> None:
    """A host without r magnitude has its own reason, and no attempt was made."""
    config = make_config(*CHEAP, *FROZEN)
    unknown = {"mag_r": ("sample", np.full(N_ROWS, np.nan, np.float32))}
    frozen = make_pairs(cutouts.assign(unknown), rows.assign(unknown), 0, config, Injector(config, None))
    assert names_of(frozen, "reject_reason", REJECT_REASONS)[0] == "host_mag_missing"
    assert np.isnan(frozen["injected"].to_numpy()[0]).all()
    assert frozen["attempts"].to_numpy()[0] == 0


@pytest.mark.parametrize("column", ["ebv_mag", "mag_r"])
def test_frozen_pair_never_has_nan_pixels(
    cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig, column: str
) -> None:
    """A number that is missing from a row or its host makes the row unused, not a pair of NaN."""
    config = make_config(*CHEAP, *FROZEN)
    unknown = {column: ("sample", np.full(N_ROWS, np.nan, np.float32))}
    frozen = make_pairs(cutouts.assign(unknown), rows.assign(unknown), 0, config, Injector(config, None))
    pair = frozen["role"].to_numpy() == ROLES.index("pair")
    assert np.isfinite(frozen["injected"].to_numpy()[pair]).all()


def test_rows_of_another_shard_are_refused(cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig) -> None:
    """Manifest rows that are not those of the cutouts are an error, not arcs on the wrong hosts."""
    config = make_config(*CHEAP, *FROZEN)
    shifted = rows.isel(sample=np.roll(np.arange(N_ROWS), 1))
    with pytest.raises(ContractError, match="task_id"):
        make_pairs(cutouts, shifted, 0, config, Injector(config, None))
