"""Shards of the training cube: pairs, controls, unusable rows, and independence of everything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import HOST_COLUMNS, REJECT_REASONS, ROLES, TRAINING
from pipeline.contracts.errors import ContractError
from pipeline.contracts.schema import validate
from pipeline.contracts.source_bank import SourceBank
from pipeline.contracts.survey import mask_value
from pipeline.kernels.arc_noise import SKY_NMGY, arc_shot_noise
from pipeline.kernels.random import task_keys
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.injection import Accepted, Exposure, Host, Injector, expose
from pipeline.stages.pairs import make_pairs

MakeConfig = Callable[..., RunConfig]
MakeCutouts = Callable[..., xr.Dataset]
MakeRows = Callable[..., xr.Dataset]

SIZE = 24
CHEAP = (
    f"survey.stamp_size_px={SIZE}",
    "injection.accuracy=0.02",
    "sampling.target={kind: loguniform, low: 1.0, high: 8.0}",
    "training.preprocess={annulus_px: [8, 12]}",
)
FROZEN = ("injection.mode=frozen", "manifest.kind=emr", "sampling.method=none", "sampling.target=null")
N_ROWS = 10
UNUSABLE, CONTROLS, MASKED = 2, (4, 7), 5
ARC_COLUMNS = [
    variable.name
    for variable in TRAINING.variables
    if variable.name.startswith(("theta_e", "lens", "shear", "src_", "arc_", "snr_", "weight", "magnification"))
    and np.dtype(variable.dtype).kind == "f"
]
# Columns of every pair that are NaN unless something is configured.
OPTIONAL = ("src_redshift", "sky_nmgy")


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
    return make_pairs(cutouts, rows, 1000, config, plain(config))


def plain(config: RunConfig) -> Injector:
    """An injector that needs no files."""
    return Injector(config, None, InjectionAssets())


def names_of(dataset: xr.Dataset, name: str, meanings: tuple[str, ...]) -> list[str]:
    """Flag codes as words."""
    return [meanings[code] for code in dataset[name].to_numpy()]


def exposure_of(injector: Injector, cutouts: xr.Dataset, row: int, key: np.uint64) -> Exposure:
    """The arc of one row, made anew."""
    host = injector.host(cutouts, row, key)
    assert isinstance(host, Host)
    accepted = injector.accept(host)
    assert isinstance(accepted, Accepted)
    return expose(injector, host, accepted, cutouts["invvar"].to_numpy()[row])


def equal_bits(left: xr.Dataset, right: xr.Dataset) -> bool:
    """Same values and types in every variable, NaN equal to NaN."""
    return all(left[name].dtype == right[name].dtype and left[name].equals(right[name]) for name in left)


def test_shard_satisfies_the_schema(pairs: xr.Dataset) -> None:
    """The shard can be written as it is."""
    validate(pairs, TRAINING, {"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE})
    assert set(pairs["region_split_relabel"].to_numpy()) == {""}


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


def test_copies_of_a_host_share_their_split_though_the_emr_relabel_parts_them(
    make_cutouts: MakeCutouts, make_rows: MakeRows, config: RunConfig
) -> None:
    """Twelve rows of one host under twelve task ids, a last bit apart: one split, one cell, one host_id."""
    cutouts = make_cutouts(
        12,
        size=SIZE,
        is_control=np.ones(12, np.uint8),
        ra_deg=59.0 + np.spacing(59.0) * np.arange(-6, 6),
        region_split=np.array(["val"] * 12, dtype=object),
    )
    pairs = make_pairs(cutouts, make_rows(cutouts), 0, config, plain(config))
    for name in ("split", "split_healpix", "host_id"):
        assert np.unique(pairs[name]).size == 1
    assert set(pairs["region_split"].to_numpy()) == {"val"}
    assert set(pairs["region_split_relabel"].to_numpy()) == {"train", "val"}


def test_pair_is_host_plus_arc_to_the_last_bit(pairs: xr.Dataset, cutouts: xr.Dataset, config: RunConfig) -> None:
    """control is the cutout, and injected is the float32 sum of control and the arc, which the draw reproduces."""
    injector = plain(config)
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    for row in np.flatnonzero(pairs["role"].to_numpy() == ROLES.index("pair")).tolist():
        exposure = exposure_of(injector, cutouts, row, keys[row])
        assert not exposure.noise_nmgy.any()
        arc = exposure.arc_nmgy
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
        for name in set(ARC_COLUMNS) - {"theta_e_arcsec", "src_flux_nmgy", "arc_flux_nmgy"}:
            assert np.isnan(pairs[name].to_numpy()[row]).all(), name
        assert pairs["src_template"].to_numpy()[row] == -1


def test_rejected_rows_hold_nothing_but_their_reason(pairs: xr.Dataset, config: RunConfig) -> None:
    """Unusable and exhausted rows have NaN pixels and NaN arc columns: no last draw, no filled value."""
    for row in (UNUSABLE, MASKED):
        for name in ("injected", "control", *ARC_COLUMNS):
            assert np.isnan(pairs[name].to_numpy()[row]).all(), name
        assert [pairs[name].to_numpy()[row] for name in ("src_template", "src_mirror", "src_components")] == [-1, 0, 0]
    assert pairs["attempts"].to_numpy()[UNUSABLE] == 0
    assert pairs["attempts"].to_numpy()[MASKED] == config.sampling.max_attempts


def test_nothing_usable_is_nan(pairs: xr.Dataset) -> None:
    """Pairs and controls have finite pixels; pairs have every column."""
    role = pairs["role"].to_numpy()
    assert np.isfinite(pairs["injected"].to_numpy()[role > 0]).all()
    assert np.isfinite(pairs["control"].to_numpy()[role > 0]).all()
    for name in ARC_COLUMNS:
        values = pairs[name].to_numpy()[role == ROLES.index("pair")]
        assert np.isnan(values).all() if name in OPTIONAL else np.isfinite(values).all(), name


def test_host_columns_are_copied_unchanged(pairs: xr.Dataset, cutouts: xr.Dataset) -> None:
    """Every host column equals the cutouts cube's."""
    for column in HOST_COLUMNS:
        assert pairs[column.name].equals(cutouts[column.name]), column.name


def test_rows_do_not_depend_on_their_order(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig
) -> None:
    """Shuffled rows give the same rows, shuffled, bit for bit; only pair_id counts positions."""
    order = np.random.default_rng(2).permutation(N_ROWS)
    shuffled = make_pairs(cutouts.isel(sample=order), rows.isel(sample=order), 1000, config, plain(config))
    assert equal_bits(shuffled.drop_vars("pair_id"), pairs.isel(sample=order).drop_vars("pair_id"))


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_rows_do_not_depend_on_the_shard(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig, cut: int
) -> None:
    """Two shards made apart by one injector are the one shard cut in two, pair_id included."""
    injector = plain(config)
    parts = [
        make_pairs(cutouts.isel(sample=part), rows.isel(sample=part), 1000 + part.start, config, injector)
        for part in (slice(cut, N_ROWS), slice(0, cut))
    ]
    assert equal_bits(xr.concat(parts[::-1], dim="sample"), pairs)


def test_inputs_are_left_alone(cutouts: xr.Dataset, rows: xr.Dataset, config: RunConfig) -> None:
    """Making pairs changes neither the cutouts nor the rows."""
    before = cutouts.copy(deep=True), rows.copy(deep=True)
    make_pairs(cutouts, rows, 0, config, plain(config))
    xr.testing.assert_identical(cutouts, before[0])
    xr.testing.assert_identical(rows, before[1])


def test_another_seed_gives_other_arcs_on_the_same_hosts(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig
) -> None:
    """The run seed decides the arcs and leaves the controls' pixels alone."""
    other = make_config(*CHEAP, "run.seed=1")
    again = make_pairs(cutouts, rows, 1000, other, plain(other))
    pair = pairs["role"].to_numpy() == ROLES.index("pair")
    assert not np.isin(again["theta_e_arcsec"].to_numpy()[pair], pairs["theta_e_arcsec"].to_numpy()[pair]).any()
    assert again["control"].equals(pairs["control"])


def test_frozen_rows_are_rendered_as_they_stand(cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig) -> None:
    """Frozen mode stores the manifest's numbers, one attempt, weight 1 and no target."""
    config = make_config(*CHEAP, *FROZEN)
    frozen = make_pairs(cutouts, rows, 0, config, plain(config))
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
    frozen = make_pairs(cutouts.assign(unknown), rows.assign(unknown), 0, config, plain(config))
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
    frozen = make_pairs(cutouts.assign(unknown), rows.assign(unknown), 0, config, plain(config))
    pair = frozen["role"].to_numpy() == ROLES.index("pair")
    assert np.isfinite(frozen["injected"].to_numpy()[pair]).all()


def test_frozen_rows_are_what_they_were(cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig) -> None:
    """New columns of a frozen row: an isothermal lens, one profile, no template, no redshift, finite measurements."""
    config = make_config(*CHEAP, *FROZEN)
    frozen = make_pairs(cutouts, rows, 0, config, plain(config))
    pair = frozen["role"].to_numpy() == ROLES.index("pair")
    described = {"lens_slope": 2.0, "src_template": -1, "src_mirror": 1, "src_components": 1}
    for name, value in described.items():
        assert np.unique(frozen[name].to_numpy()[pair]).tolist() == [value], name
    assert np.isnan(frozen["src_redshift"].to_numpy()).all()
    for name in ("magnification", "arc_radius_arcsec", "arc_core_frac", "lensed_hlr_arcsec", "arc_snr_annulus"):
        assert np.isfinite(frozen[name].to_numpy()[pair]).all(), name
    magnification = frozen["magnification"].to_numpy()[pair]
    assert np.ptp(magnification) < config.injection.accuracy * magnification.mean()


def test_row_without_extinction_is_lost_only_where_sources_are_dimmed(
    pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig
) -> None:
    """An unknown E(B-V) has its reason if extinction is on, and none if it is off; other rows do not change."""
    ebv = cutouts["ebv_mag"].to_numpy().copy()
    ebv[[0, *CONTROLS]] = np.nan
    unknown = {"ebv_mag": ("sample", ebv)}
    for extinction, reason in (("true", "ebv_missing"), ("false", "none")):
        config = make_config(*CHEAP, f"injection.extinction={extinction}")
        made = make_pairs(cutouts.assign(unknown), rows.assign(unknown), 1000, config, plain(config))
        reasons = names_of(made, "reject_reason", REJECT_REASONS)
        assert reasons[0] == reason
        assert [reasons[row] for row in CONTROLS] == ["none", "none"]
        assert (made["attempts"].to_numpy()[0] == 0) == (reason == "ebv_missing")
        if extinction == "true":
            others = slice(1, None)
            left, right = made.drop_vars("ebv_mag").isel(sample=others), pairs.drop_vars("ebv_mag").isel(sample=others)
            assert equal_bits(left, right)


@pytest.fixture(scope="module")
def noisy_config(make_config: MakeConfig) -> RunConfig:
    """Bright arcs with their own shot noise."""
    bright = "sampling.target={kind: loguniform, low: 20.0, high: 80.0}"
    wide = "injection.priors.src_mag_r={kind: uniform, low: 16.0, high: 26.0}"
    return make_config(*CHEAP, bright, wide, "injection.arc_noise.sky_nmgy={g: 0.2}")


@pytest.fixture(scope="module")
def noisy_pairs(cutouts: xr.Dataset, rows: xr.Dataset, noisy_config: RunConfig) -> xr.Dataset:
    """The shard of these rows with shot noise."""
    return make_pairs(cutouts, rows, 1000, noisy_config, plain(noisy_config))


def test_noise_is_what_injected_has_beyond_control_and_arc(
    noisy_pairs: xr.Dataset, cutouts: xr.Dataset, noisy_config: RunConfig
) -> None:
    """injected - control - arc is the keyed noise to float32 rounding, and its sky level is recorded."""
    validate(noisy_pairs, TRAINING, {"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE})
    injector = plain(noisy_config)
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    sky = [0.2, SKY_NMGY["r"], SKY_NMGY["z"]]
    pair = noisy_pairs["role"].to_numpy() == ROLES.index("pair")
    for row in np.flatnonzero(pair).tolist():
        arc = exposure_of(injector, cutouts, row, keys[row]).arc_nmgy
        control, injected = (noisy_pairs[name].to_numpy()[row] for name in ("control", "injected"))
        for band in range(3):
            light, invvar = np.maximum(arc[band], np.float32(0)), cutouts["invvar"].to_numpy()[row, band]
            noise = arc_shot_noise(light, invvar, sky[band], noisy_config.run.seed, keys[row], band)
            difference = injected[band].astype(np.float64) - control[band] - arc[band]
            assert noise.std() > 0
            assert np.abs(difference - noise).max() <= 2.0**-22 * np.abs(injected[band]).max()
        assert noisy_pairs["sky_nmgy"].to_numpy()[row] == pytest.approx(sky)
    assert np.isnan(noisy_pairs["sky_nmgy"].to_numpy()[~pair]).all()
    assert np.isfinite(noisy_pairs["injected"].to_numpy()[pair]).all()


def test_noise_changes_the_pixels_and_nothing_else(
    noisy_pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, noisy_config: RunConfig
) -> None:
    """Every column but sky_nmgy, arc flux and SNR included, is that of the noise-free arc; so are control rows."""
    injection = noisy_config.injection.model_copy(update={"arc_noise": None})
    config = noisy_config.model_copy(update={"injection": injection})
    quiet = make_pairs(cutouts, rows, 1000, config, plain(config))
    changed = {str(name) for name in quiet if not quiet[name].equals(noisy_pairs[name])}
    assert changed == {"injected", "sky_nmgy"}
    unpaired = quiet["role"].to_numpy() != ROLES.index("pair")
    assert np.array_equal(
        quiet["injected"].to_numpy()[unpaired], noisy_pairs["injected"].to_numpy()[unpaired], equal_nan=True
    )


def test_noise_does_not_depend_on_the_order_of_rows(
    noisy_pairs: xr.Dataset, cutouts: xr.Dataset, rows: xr.Dataset, noisy_config: RunConfig
) -> None:
    """Shuffled rows have the same noise, bit for bit."""
    order = np.random.default_rng(6).permutation(N_ROWS)
    shuffled = make_pairs(cutouts.isel(sample=order), rows.isel(sample=order), 1000, noisy_config, plain(noisy_config))
    assert equal_bits(shuffled.drop_vars("pair_id"), noisy_pairs.isel(sample=order).drop_vars("pair_id"))


def test_rows_of_every_model_do_not_depend_on_their_order(
    cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig, make_bank: Callable[..., SourceBank]
) -> None:
    """With a drawn slope, a table of colours and templates the rows are the same in any order, and complete."""
    bank = make_bank()
    config = make_config(
        *CHEAP,
        "injection.lens={kind: epl, slope: {kind: uniform, low: 1.8, high: 2.2}}",
        f"injection.source={{kind: bank, url: bank.h5, sha256: '{bank.digest}'}}",
        "injection.colours={src_redshift: {kind: uniform, low: 1, high: 2}, redshift: [1, 2], gr: [0, 1], rz: [1, 0]}",
    )
    assets = InjectionAssets(bank)
    made = make_pairs(cutouts, rows, 1000, config, Injector(config, None, assets))
    order = np.random.default_rng(7).permutation(N_ROWS)
    shuffled = make_pairs(
        cutouts.isel(sample=order), rows.isel(sample=order), 1000, config, Injector(config, None, assets)
    )
    assert equal_bits(shuffled.drop_vars("pair_id"), made.isel(sample=order).drop_vars("pair_id"))
    validate(made, TRAINING, {"sample": N_ROWS, "band": 3, "y": SIZE, "x": SIZE})
    pair = made["role"].to_numpy() == ROLES.index("pair")
    template = made["src_template"].to_numpy()
    assert np.isin(template[pair], np.flatnonzero(bank.usable)).all()
    assert np.unique(template[~pair]).tolist() == [-1]
    assert np.isin(made["src_mirror"].to_numpy()[pair], (-1, 1)).all()
    assert made["src_re_arcsec"].to_numpy()[pair] == pytest.approx(bank.hlr_arcsec[template[pair]])
    unknown = {"src_n", "src_q", "sky_nmgy"}
    for name in ARC_COLUMNS:
        values = made[name].to_numpy()[pair]
        assert np.isnan(values).all() if name in unknown else np.isfinite(values).all(), name
    assert np.unique(made["lens_slope"].to_numpy()[pair]).size == pair.sum()


def test_brick_without_measured_psf_has_its_reason(
    cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig
) -> None:
    """Hosts of a brick whose PSF could not be read are psf_unreadable; other bricks, and controls, are complete."""
    y, x = np.mgrid[:21, :21] - 10
    stamps = np.tile(np.exp(-(x**2 + y**2) / (2 * 2.0**2)), (3, 1, 1))
    config = make_config(*CHEAP, "injection.psf={profile: measured, stamps: '{brickname}-{band}.fits'}")
    names = np.array(["0591m305"] * N_ROWS, dtype=object)
    names[[0, 1, CONTROLS[0]]] = "9999p999"
    named = {"brickname": ("sample", names)}
    injector = Injector(config, None, InjectionAssets(None, {"0591m305": stamps}))
    made = make_pairs(cutouts.assign(named), rows.assign(named), 0, config, injector)
    roles, reasons = names_of(made, "role", ROLES), names_of(made, "reject_reason", REJECT_REASONS)
    assert [(roles[row], reasons[row]) for row in (0, 1)] == [("unused", "psf_unreadable")] * 2
    assert [roles[row] for row in CONTROLS] == ["control", "control"]
    assert roles.count("pair") == N_ROWS - 2 - len(CONTROLS) - 2
    assert np.isnan(made["injected"].to_numpy()[0]).all()
    assert made["attempts"].to_numpy()[:2].tolist() == [0, 0]
    # A measured PSF is not described by a width.
    assert np.isnan(made["psf_fwhm_arcsec"].to_numpy()).all()


def test_rows_of_another_shard_are_refused(cutouts: xr.Dataset, rows: xr.Dataset, make_config: MakeConfig) -> None:
    """Manifest rows that are not those of the cutouts are an error, not arcs on the wrong hosts."""
    config = make_config(*CHEAP, *FROZEN)
    shifted = rows.isel(sample=np.roll(np.arange(N_ROWS), 1))
    with pytest.raises(ContractError, match="task_id"):
        make_pairs(cutouts, shifted, 0, config, plain(config))


def test_emr_compat_makes_the_stamps_of_rows_that_are_kept_out(
    make_cutouts: MakeCutouts, make_rows: MakeRows, make_config: MakeConfig
) -> None:
    """The same cube but for the stamps of unused rows that the EMR system made; role and reason stay."""
    image, invvar = (make_cutouts(6, size=SIZE)[name].to_numpy().copy() for name in ("image", "invvar"))
    image[1, :, 3, 4] = np.nan
    image[2] = invvar[2] = 0.0
    psfsize = np.tile(np.array([1.4, 1.2, 1.1], np.float32), (6, 1))
    psfsize[5] = 0.0
    reason = np.zeros(6, np.uint8)
    reason[3] = REJECT_REASONS.index("brick_missing")
    is_control = np.array([0, 1, 0, 0, 0, 0], np.uint8)
    in_bounds = np.array([1, 1, 0, 1, 0, 1], np.uint8)
    cutouts = make_cutouts(
        6,
        size=SIZE,
        image=image,
        invvar=invvar,
        psfsize_arcsec=psfsize,
        reject_reason=reason,
        is_control=is_control,
        in_bounds=in_bounds,
    )
    rows = make_rows(cutouts, psfsize_manifest_arcsec=np.tile(np.array([1.4, 1.2, 1.1], np.float32), (6, 1)))
    plainly, compat = (
        make_config(*CHEAP, *FROZEN, "injection.extinction=false", *more)
        for more in ((), ("injection.emr_compat=true",))
    )
    without, made = (make_pairs(cutouts, rows, 0, config, plain(config)) for config in (plainly, compat))
    for name in ("role", "reject_reason", "psfsize_arcsec"):
        assert made[name].to_numpy().tolist() == without[name].to_numpy().tolist()
    assert names_of(made, "role", ROLES) == ["pair", "unused", "unused", "unused", "unused", "unused"]
    filled = ~np.isnan(made["injected"].to_numpy()).all(axis=(1, 2, 3))
    assert filled.tolist() == [True, True, False, False, True, True]
    assert np.isnan(without["injected"].to_numpy()[1:]).all()
    np.testing.assert_array_equal(made["injected"].to_numpy()[1], image[1])
    arc = (made["injected"] - made["control"]).to_numpy()
    assert arc[4].max() > 0
    assert np.isfinite(made["arc_snr"].to_numpy()[[0, 4, 5]]).all()
