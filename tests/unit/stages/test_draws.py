"""Draws: parameters of an arc from priors and from EMR rows; random streams that new quantities leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.injection import BankSource, SersicSource
from pipeline.contracts.priors import Prior, Priors
from pipeline.contracts.source_bank import SourceBank
from pipeline.kernels.arc_draws import LENS_COLUMNS
from pipeline.kernels.random import PURPOSE_PRIOR, PURPOSE_WEIGHT, keyed_uniform, task_keys
from pipeline.kernels.rays import FIELD, ISOTHERMAL, POWER_LAW
from pipeline.stages.draws import (
    ArcDraw,
    Drawer,
    frozen_arc,
    lens_kind,
    prior_row,
)
from pipeline.stages.emr_templates import emr_template
from pipeline.stages.linear_pieces import LinearPieces
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.manifest import emr_rows
from pipeline.stages.sources import SourceModel

N_DRAWS = 3000
KEYS = task_keys([f"host-{index}" for index in range(N_DRAWS)])
CENTRE_PX = (0.3, -0.4)
PROFILES = SourceModel(SersicSource(), ("g", "r", "z"), None)
PRIORS = {
    "theta_e_arcsec": "kind: uniform, low: 0.7, high: 2.2",
    "lens_q": "kind: uniform, low: 0.5, high: 1.0",
    "shear": "kind: uniform, low: 0.0, high: 0.08",
    "lens_jitter_arcsec": "kind: disc, low: 0, high: 0.1",
    "beta_over_theta_e": "kind: disc, low: 0.05, high: 0.8",
    "src_re_arcsec": "kind: loguniform, low: 0.1, high: 0.5",
    "src_n": "kind: uniform, low: 0.7, high: 3.0",
    "src_q": "kind: uniform, low: 0.4, high: 1.0",
    "src_mag_r": "kind: normal, mean: 24, sigma: 1, low: 22.5, high: 25",
    "src_gr": "kind: normal, mean: 0.4, sigma: 0.3, low: -0.3, high: 1.5",
    "src_rz": "kind: normal, mean: 0.3, sigma: 0.25, low: -0.3, high: 1.2",
}
UNIFORM_MAG = Prior(kind="uniform", low=20.0, high=26.0)
NORMAL_MAG = Prior(kind="normal", mean=24.0, sigma=1.0, low=22.5, high=25.0)


SCALARS = [name for name in ArcDraw.__dataclass_fields__ if name != "components"]
SLOPE = "injection.lens={kind: epl, slope: {kind: uniform, low: 1.8, high: 2.3}}"
CLUMPS = "injection.source={kind: clumpy, count: [1, 4]}"
BULGE = (
    "injection.source={kind: bulge_disc, bulge_share: {kind: uniform, low: 0.1, high: 0.5}, "
    "bulge_re_over_re: {kind: fixed, value: 0.2}, bulge_n: {kind: fixed, value: 4.0}, "
    "bulge_q: {kind: fixed, value: 0.8}}"
)
COLOURS = (
    "injection.colours={src_redshift: {kind: uniform, low: 0.5, high: 3.0}, redshift: [0.5, 1.0, 3.0], "
    "gr: [0.9, 0.3, 0.5], rz: [0.2, 0.6, 0.1]}"
)
FIELD_LENS = "injection.lens={kind: lenstronomy, models: [SIS], parameters: [{theta_E: theta_e_arcsec}]}"
MakeDrawer = Callable[..., Drawer]


@pytest.fixture(scope="module")
def make_drawer(make_config: Callable[..., RunConfig], make_bank: Callable[..., SourceBank]) -> MakeDrawer:
    """Draws from a different prior for every parameter, with further overrides."""
    bank = make_bank()

    def make(*overrides: str, bands: tuple[str, ...] = ("g", "r", "z")) -> Drawer:
        priors = (f"injection.priors.{name}={{{prior}}}" for name, prior in PRIORS.items())
        section = make_config(*priors, *overrides).injection
        return Drawer(section, SourceModel(section.source, bands, bank if section.source.kind == "bank" else None))

    return make


@pytest.fixture(scope="module")
def bank_source(make_bank: Callable[..., SourceBank]) -> str:
    """Override that asks for the bank of the test suite."""
    return f"injection.source={{kind: bank, url: bank.h5, sha256: '{make_bank().digest}'}}"


def drawn_columns(drawer: Drawer, n_draws: int = N_DRAWS) -> dict[str, np.ndarray]:
    """Scalars of many draws by name."""
    made = [drawer.draw(5, key, PURPOSE_PRIOR, 0, CENTRE_PX) for key in KEYS[:n_draws]]
    return {name: np.array([getattr(draw, name) for draw in made]) for name in SCALARS}


def scalars(draw: ArcDraw) -> list[float]:
    """A draw as numbers that compare, NaN (no redshift) left out."""
    return [value for name in SCALARS if not math.isnan(value := float(getattr(draw, name)))]


@pytest.fixture(scope="module")
def draws(make_drawer: MakeDrawer) -> dict[str, np.ndarray]:
    """Columns of many draws."""
    return drawn_columns(make_drawer())


def ks(values: np.ndarray, distribution: object) -> float:
    """p-value of a Kolmogorov-Smirnov test."""
    return float(stats.kstest(values, distribution).pvalue)


def test_drawn_parameters_have_their_configured_priors(draws: dict[str, np.ndarray]) -> None:
    """Parameters that are passed on unchanged follow their own prior, not another parameter's."""
    assert ks(draws["theta_e_arcsec"], stats.uniform(0.7, 1.5).cdf) > 1e-3
    assert ks(draws["lens_q"], stats.uniform(0.5, 0.5).cdf) > 1e-3
    assert ks(draws["src_re_arcsec"], stats.loguniform(0.1, 0.5).cdf) > 1e-3
    assert ks(draws["src_n"], stats.uniform(0.7, 2.3).cdf) > 1e-3
    assert ks(draws["src_q"], stats.uniform(0.4, 0.6).cdf) > 1e-3
    assert ks(draws["src_gr"], stats.truncnorm(-0.7 / 0.3, 1.1 / 0.3, 0.4, 0.3).cdf) > 1e-3
    assert ks(draws["src_rz"], stats.truncnorm(-0.6 / 0.25, 0.9 / 0.25, 0.3, 0.25).cdf) > 1e-3
    assert ks(draws["src_mag_r"], stats.truncnorm(-1.5, 1.0, 24.0, 1.0).cdf) > 1e-3


def test_angles_are_uniform(draws: dict[str, np.ndarray]) -> None:
    """Axes cover half a turn, directions a whole one."""
    assert ks(draws["lens_phi_rad"], stats.uniform(0, math.pi).cdf) > 1e-3
    assert ks(draws["src_phi_rad"], stats.uniform(0, math.pi).cdf) > 1e-3
    direction = np.arctan2(draws["src_y_arcsec"], draws["src_x_arcsec"])
    assert ks(direction, stats.uniform(-math.pi, 2 * math.pi).cdf) > 1e-3
    spin = np.arctan2(draws["shear_gamma2"], draws["shear_gamma1"])
    assert ks(spin, stats.uniform(-math.pi, 2 * math.pi).cdf) > 1e-3


def test_shear_has_its_modulus(draws: dict[str, np.ndarray]) -> None:
    """|gamma| follows the shear prior."""
    modulus = np.hypot(draws["shear_gamma1"], draws["shear_gamma2"])
    assert ks(modulus, stats.uniform(0.0, 0.08).cdf) > 1e-3


def test_source_offset_is_area_weighted_in_einstein_radii(draws: dict[str, np.ndarray]) -> None:
    """beta / theta_E fills the annulus 0.05-0.8 evenly and is independent of theta_E."""
    beta = np.hypot(draws["src_x_arcsec"], draws["src_y_arcsec"]) / draws["theta_e_arcsec"]
    assert ks(beta, lambda r: (r**2 - 0.05**2) / (0.8**2 - 0.05**2)) > 1e-3
    assert abs(stats.spearmanr(beta, draws["theta_e_arcsec"]).statistic) < 5 / math.sqrt(N_DRAWS)


def test_lens_sits_on_the_host_within_its_jitter(draws: dict[str, np.ndarray]) -> None:
    """The lens centre is the host's sub-pixel position in arcsec plus an area-weighted jitter."""
    dx = draws["lens_x_arcsec"] - 0.3 * 0.262
    dy = draws["lens_y_arcsec"] + 0.4 * 0.262
    assert ks(np.hypot(dx, dy), lambda r: (r / 0.1) ** 2) > 1e-3
    assert ks(np.arctan2(dy, dx), stats.uniform(-math.pi, 2 * math.pi).cdf) > 1e-3


def test_draw_is_a_function_of_its_key(make_drawer: MakeDrawer) -> None:
    """The same key gives the same draw; another seed, task, purpose or attempt gives another."""
    drawer = make_drawer()

    def draw(seed: int = 5, task: int = 0, purpose: int = PURPOSE_PRIOR, attempt: int = 0) -> ArcDraw:
        return drawer.draw(seed, KEYS[task], purpose, attempt, CENTRE_PX)

    first = draw()
    others = [draw(seed=6), draw(task=1), draw(purpose=PURPOSE_WEIGHT), draw(attempt=1), draw(seed=2**63 - 1)]
    assert scalars(draw()) == scalars(first)
    assert scalars(make_drawer().draw(5, KEYS[0], PURPOSE_PRIOR, 0, CENTRE_PX)) == scalars(first)
    assert len({other.theta_e_arcsec for other in (*others, first)}) == 6


def test_moving_the_host_moves_only_the_lens(make_drawer: MakeDrawer) -> None:
    """The sub-pixel position shifts the lens and changes nothing else of a draw."""
    drawer = make_drawer(COLOURS)
    here = drawer.draw(5, KEYS[0], PURPOSE_PRIOR, 0, (0.0, 0.0))
    there = drawer.draw(5, KEYS[0], PURPOSE_PRIOR, 0, (0.5, -0.25))
    assert there.lens_x_arcsec - here.lens_x_arcsec == pytest.approx(0.5 * 0.262)
    assert there.lens_y_arcsec - here.lens_y_arcsec == pytest.approx(-0.25 * 0.262)
    same = set(SCALARS) - {"lens_x_arcsec", "lens_y_arcsec"}
    assert all(getattr(here, name) == getattr(there, name) for name in same)
    assert np.array_equal(here.components.table, there.components.table)


def test_each_quantity_keeps_its_slot(make_drawer: MakeDrawer) -> None:
    """Slots are the priors in their order, then the angles, so a run can be made again by another version."""
    order = (*PRIORS, "lens_phi_rad", "shear_phi_rad", "src_phi_rad", "beta_phi_rad", "jitter_phi_rad")
    assert tuple(PRIORS) == tuple(Priors.model_fields)
    for key in KEYS[:5]:
        slots = enumerate(order)
        u = {name: float(keyed_uniform(5, key, PURPOSE_PRIOR, 3, slot)) for slot, name in slots}
        draw = make_drawer().draw(5, key, PURPOSE_PRIOR, 3, CENTRE_PX)
        assert draw.theta_e_arcsec == pytest.approx(0.7 + 1.5 * u["theta_e_arcsec"], rel=1e-12)
        assert draw.lens_q == pytest.approx(0.5 + 0.5 * u["lens_q"], rel=1e-12)
        assert draw.src_re_arcsec == pytest.approx(0.1 * 5 ** u["src_re_arcsec"], rel=1e-12)
        assert draw.src_n == pytest.approx(0.7 + 2.3 * u["src_n"], rel=1e-12)
        assert draw.src_q == pytest.approx(0.4 + 0.6 * u["src_q"], rel=1e-12)
        assert draw.lens_phi_rad == pytest.approx(math.pi * u["lens_phi_rad"], rel=1e-12)
        assert draw.src_phi_rad == pytest.approx(math.pi * u["src_phi_rad"], rel=1e-12)
        shear = 0.08 * u["shear"]
        assert draw.shear_gamma1 == pytest.approx(shear * math.cos(2 * math.pi * u["shear_phi_rad"]), abs=1e-14)
        assert draw.shear_gamma2 == pytest.approx(shear * math.sin(2 * math.pi * u["shear_phi_rad"]), abs=1e-14)
        beta = draw.theta_e_arcsec * math.sqrt(0.05**2 + (0.8**2 - 0.05**2) * u["beta_over_theta_e"])
        assert draw.src_x_arcsec == pytest.approx(beta * math.cos(2 * math.pi * u["beta_phi_rad"]), abs=1e-12)
        jitter = 0.1 * math.sqrt(u["lens_jitter_arcsec"])
        lens_y_arcsec = -0.4 * 0.262 + jitter * math.sin(2 * math.pi * u["jitter_phi_rad"])
        assert draw.lens_y_arcsec == pytest.approx(lens_y_arcsec, abs=1e-12)


@pytest.mark.parametrize(
    ("overrides", "decided"),
    [
        ((SLOPE,), {"lens_slope"}),
        ((FIELD_LENS,), set()),
        ((COLOURS,), {"src_gr", "src_rz", "src_redshift"}),
        ((CLUMPS,), set()),
        ((BULGE,), {"src_n"}),
        (("bank",), {"src_re_arcsec", "src_n", "src_q", "src_phi_rad"}),
        ((SLOPE, COLOURS, CLUMPS), {"lens_slope", "src_gr", "src_rz", "src_redshift"}),
    ],
    ids=["slope", "field", "colours", "clumps", "bulge", "bank", "all"],
)
def test_further_quantities_leave_the_others_alone(
    make_drawer: MakeDrawer,
    bank_source: str,
    draws: dict[str, np.ndarray],
    overrides: tuple[str, ...],
    decided: set[str],
) -> None:
    """A drawn slope, colour, clump, bulge or template changes what it is about, and no other number, bit for bit."""
    made = drawn_columns(make_drawer(*(bank_source if one == "bank" else one for one in overrides)), 200)
    changed = {name for name in SCALARS if not np.array_equal(made[name], draws[name][:200], equal_nan=True)}
    assert changed == decided


def test_slope_has_its_prior_and_is_recorded(make_drawer: MakeDrawer, draws: dict[str, np.ndarray]) -> None:
    """The power law's slope follows its prior, independent of the Einstein radius; an SIE's is 2."""
    made = drawn_columns(make_drawer(SLOPE))
    assert ks(made["lens_slope"], stats.uniform(1.8, 0.5).cdf) > 1e-3
    assert abs(stats.spearmanr(made["lens_slope"], made["theta_e_arcsec"]).statistic) < 5 / math.sqrt(N_DRAWS)
    assert np.unique(draws["lens_slope"]).tolist() == [2.0]


def test_colours_follow_from_the_redshift(make_drawer: MakeDrawer, draws: dict[str, np.ndarray]) -> None:
    """Colours are linear in redshift between the table's rows plus the drawn offsets; without table no redshift."""
    made = drawn_columns(make_drawer(COLOURS))
    assert ks(made["src_redshift"], stats.uniform(0.5, 2.5).cdf) > 1e-3
    low = made["src_redshift"] < 1.0
    gr = np.where(low, 0.9 - 1.2 * (made["src_redshift"] - 0.5), 0.3 + 0.1 * (made["src_redshift"] - 1.0))
    rz = np.where(low, 0.2 + 0.8 * (made["src_redshift"] - 0.5), 0.6 - 0.25 * (made["src_redshift"] - 1.0))
    assert made["src_gr"] - draws["src_gr"] == pytest.approx(gr, abs=1e-12)
    assert made["src_rz"] - draws["src_rz"] == pytest.approx(rz, abs=1e-12)
    assert np.isnan(draws["src_redshift"]).all()


def test_magnitudes_have_the_colours(make_drawer: MakeDrawer) -> None:
    """g - r and r - z are the draw's colours, those of the table included."""
    for overrides in ((), (COLOURS,)):
        draw = make_drawer(*overrides).draw(5, KEYS[0], PURPOSE_PRIOR, 0, CENTRE_PX)
        assert draw.magnitude("r") == draw.src_mag_r
        assert draw.magnitude("g") - draw.magnitude("r") == pytest.approx(draw.src_gr)
        assert draw.magnitude("r") - draw.magnitude("z") == pytest.approx(draw.src_rz)


def test_components_are_those_of_the_source(make_drawer: MakeDrawer, bank_source: str) -> None:
    """What is recorded of a source is what its main component says, for every kind."""
    for override, most in ((CLUMPS, 5), (BULGE, 2), (bank_source, 1), ("injection.source.kind=sersic", 1)):
        for key in KEYS[:30]:
            draw = make_drawer(override).draw(5, key, PURPOSE_PRIOR, 0, CENTRE_PX)
            made = draw.components
            recorded = [draw.src_re_arcsec, draw.src_n, draw.src_q, draw.src_phi_rad]
            np.testing.assert_array_equal(recorded, [made.re_arcsec, made.n, made.q, made.phi_rad])
            assert made.shares.shape == (made.table.shape[0], 3)
            assert made.table.shape[0] <= most


@pytest.mark.parametrize(
    ("override", "kind"), [("injection.lens.kind=sie", ISOTHERMAL), (SLOPE, POWER_LAW), (FIELD_LENS, FIELD)]
)
def test_lens_kind_is_the_renderers(make_config: Callable[..., RunConfig], override: str, kind: int) -> None:
    """Each configured lens model has its number in the ray shooter."""
    assert lens_kind(make_config(override).injection) == kind


def test_lens_row_is_in_the_renderers_order(make_drawer: MakeDrawer) -> None:
    """Kind, mass, shear, lens and source position; what a sampled field needs is left at 0."""
    draw = make_drawer(SLOPE).draw(5, KEYS[0], PURPOSE_PRIOR, 0, CENTRE_PX)
    row = draw.lens_row(POWER_LAW)
    assert row.shape == (LENS_COLUMNS,)
    assert row[:5].tolist() == [POWER_LAW, draw.theta_e_arcsec, draw.lens_q, draw.lens_phi_rad, draw.lens_slope]
    assert row[5:7].tolist() == [draw.shear_gamma1, draw.shear_gamma2]
    assert row[7:9].tolist() == [draw.lens_x_arcsec, draw.lens_y_arcsec]
    assert row[9:11].tolist() == [draw.src_x_arcsec, draw.src_y_arcsec]
    assert not row[11:].any()


def test_prior_row_holds_the_numbers_of_a_kind() -> None:
    """Kind, low, high, mean, sigma, value; what a kind does not have is neutral."""
    assert prior_row(UNIFORM_MAG)[1:] == (20.0, 26.0, 0.0, 1.0, 0.0)
    assert prior_row(NORMAL_MAG)[1:] == (22.5, 25.0, 24.0, 1.0, 0.0)
    assert prior_row(Prior(kind="fixed", value=0.3))[1:] == (0.3, 0.3, 0.0, 1.0, 0.3)
    ranges = (Prior(kind="loguniform", low=1.0, high=2.0), Prior(kind="disc", low=1.0, high=2.0))
    every = (UNIFORM_MAG, NORMAL_MAG, Prior(kind="fixed", value=0.3), *ranges)
    assert len({prior_row(prior)[0] for prior in every}) == len(every)


def test_frozen_row_is_mapped_as_written(
    make_cutouts: Callable[..., xr.Dataset], make_rows: Callable[..., xr.Dataset]
) -> None:
    """q = (1 - e) / (1 + e), gamma = g (cos, sin) 2 phi, magnitudes from host and colours, n = 1."""
    draw = frozen_arc(make_rows(make_cutouts(2, size=16)), 1, CENTRE_PX, PROFILES)
    assert draw.lens_q == pytest.approx(0.75 / 1.25)
    assert draw.src_q == pytest.approx(0.8 / 1.2)
    assert draw.shear_gamma1 == pytest.approx(0.05 * math.cos(2.2))
    assert draw.shear_gamma2 == pytest.approx(0.05 * math.sin(2.2))
    assert (draw.lens_x_arcsec, draw.lens_y_arcsec) == pytest.approx((0.3 * 0.262, -0.4 * 0.262))
    assert (draw.src_x_arcsec, draw.src_y_arcsec, draw.src_re_arcsec) == (0.2, -0.1, 0.25)
    assert (draw.theta_e_arcsec, draw.lens_phi_rad, draw.src_phi_rad, draw.src_n) == (1.2, 2.0, 0.7, 1.0)
    assert draw.magnitude("r") == pytest.approx(21.0)
    assert draw.magnitude("g") == pytest.approx(21.4)
    assert draw.magnitude("z") == pytest.approx(20.7)


def test_frozen_row_is_an_isothermal_lens_and_one_profile(
    make_cutouts: Callable[..., xr.Dataset], make_rows: Callable[..., xr.Dataset]
) -> None:
    """Slope 2, no redshift, one component with all of the flux and the row's own shape."""
    draw = frozen_arc(make_rows(make_cutouts(2, size=16)), 0, CENTRE_PX, SourceModel(SersicSource(), ("g", "r"), None))
    assert draw.lens_slope == 2.0
    assert math.isnan(draw.src_redshift)
    assert draw.components.shares.tolist() == [[1.0, 1.0]]
    assert draw.components.table[0].tolist() == pytest.approx([0, 0, 0, 0.7, 0.25, 1.0, 0.8 / 1.2])
    assert draw.components.template == -1


def test_frozen_row_with_a_bank_has_a_template_and_no_profile(
    make_cutouts: Callable[..., xr.Dataset], make_rows: Callable[..., xr.Dataset], make_bank: Callable[..., SourceBank]
) -> None:
    """Lens, position and colours stay those of the row; a row whose template is unusable has no arc."""
    bank = make_bank()
    section = BankSource(kind="bank", url="bank.h5", sha256=bank.digest, emr_salt="s")
    rows = make_rows(make_cutouts(6, size=16))
    arcs = [frozen_arc(rows, k, CENTRE_PX, SourceModel(section, ("g", "r", "z"), bank)) for k in range(6)]
    plain = frozen_arc(rows, 0, CENTRE_PX, PROFILES)
    usable = [bank.usable[emr_template(str(task), "s", len(bank.images))] for task in rows["task_id"].to_numpy()]
    assert [arc is not None for arc in arcs] == usable
    made = next(arc for arc in arcs if arc is not None)
    assert plain is not None
    assert (made.src_x_arcsec, made.src_gr, made.lens_q) == (plain.src_x_arcsec, plain.src_gr, plain.lens_q)
    assert made.components.template >= 0
    assert (made.components.mirror, made.src_phi_rad, math.isnan(made.src_q)) == (1, 0.0, True)


def test_golden_rows_become_physical_arcs(golden_manifests: list[Path]) -> None:
    """Every arc of the EMR manifests maps to axis ratios in (0, 1] and finite magnitudes in g, r, z."""
    for path in golden_manifests:
        frame = pd.read_parquet(path).iloc[:100]
        rows = emr_rows(frame, ("g", "r", "z"), 64)
        for index in np.flatnonzero(frame["is_control"].to_numpy() == 0)[:40]:
            draw = frozen_arc(rows, int(index), CENTRE_PX, PROFILES)
            assert 0 < draw.lens_q <= 1
            assert 0 < draw.src_q <= 1
            row = frame.iloc[int(index)]
            assert draw.magnitude("r") == pytest.approx(float(row["rmag"]) + row["src_dmag"], rel=1e-6)
            assert draw.magnitude("g") - draw.magnitude("r") == pytest.approx(row["src_gr"])
            assert draw.magnitude("r") - draw.magnitude("z") == pytest.approx(row["src_rz"])
            assert math.hypot(draw.shear_gamma1, draw.shear_gamma2) == pytest.approx(row["shear"])


def test_magnitude_density_is_that_of_the_draws(draws: dict[str, np.ndarray]) -> None:
    """A histogram of drawn magnitudes agrees with the density within 5 sigma per bin."""
    edges = np.linspace(22.5, 25.0, 11)
    counts, _ = np.histogram(draws["src_mag_r"], edges)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        expected = N_DRAWS * integrate.quad(MagnitudePrior(NORMAL_MAG).density, low, high)[0]
        assert abs(count - expected) < 5 * math.sqrt(expected)


def test_tabulated_prior_is_drawn_as_tabulated(make_config: Callable[..., RunConfig]) -> None:
    """A table as prior leaves every other quantity alone and draws its own from the table."""
    table = "{kind: table, points: [21, 22, 24.5], density: [0, 3, 1]}"
    tabulated = make_config(f"injection.priors.src_mag_r={table}").injection
    plain = make_config().injection
    drawers = [Drawer(section, SourceModel(section.source, ("g", "r", "z"), None)) for section in (tabulated, plain)]
    drawn = [[drawer.draw(3, key, PURPOSE_PRIOR, 0, CENTRE_PX) for key in KEYS[:2000]] for drawer in drawers]
    assert [a.theta_e_arcsec for a in drawn[0]] == [b.theta_e_arcsec for b in drawn[1]]
    assert [a.src_gr for a in drawn[0]] == [b.src_gr for b in drawn[1]]
    prior = LinearPieces.through((21, 22, 24.5), (0, 3, 1))
    mags = [draw.src_mag_r for draw in drawn[0]]
    assert stats.kstest(mags, np.vectorize(prior.cdf)).pvalue > 1e-3
