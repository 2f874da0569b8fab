"""Light components of the four kinds of source."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.contracts.errors import ContractError
from pipeline.contracts.injection import BankSource, BulgeDiscSource, ClumpySource, SersicSource
from pipeline.contracts.source_bank import SourceBank
from pipeline.kernels.arc_draws import MIRROR, OFFSET_X, OFFSET_Y, PHI, PROFILE, RE, TEMPLATE, N, Q
from pipeline.kernels.light import IMAGE, SERSIC
from pipeline.kernels.priors import draw_priors
from pipeline.kernels.random import PURPOSE_PRIOR, task_keys
from pipeline.stages.draws import prior_row
from pipeline.stages.sources import Components, SourceModel, sersic_components

BANDS = ("g", "r", "z")
MAIN = {"src_re_arcsec": 0.3, "src_n": 1.2, "src_q": 0.6, "src_phi_rad": 0.7}
N_DRAWS = 1500
CLUMPY = ClumpySource(kind="clumpy", count=(2, 5), flux_share=(0.1, 0.5), re_over_re=(0.05, 0.2), reach_re=1.5)
BULGE_DISC: dict[str, Any] = {
    "kind": "bulge_disc",
    "bulge_share": {"kind": "uniform", "low": 0.0, "high": 0.6},
    "bulge_re_over_re": {"kind": "uniform", "low": 0.1, "high": 0.5},
    "bulge_n": {"kind": "uniform", "low": 2.0, "high": 5.0},
    "bulge_q": {"kind": "uniform", "low": 0.6, "high": 1.0},
    "bulge_gr": 0.4,
    "bulge_rz": -0.2,
}
MakeBank = Callable[..., SourceBank]


def drawn_components(model: SourceModel, n_draws: int = N_DRAWS) -> list[Components]:
    """Components of many tasks, the main profile as in MAIN."""
    priors = model.priors()
    table = np.array([prior_row(prior) for prior in priors.values()]).reshape(-1, 6)
    values = np.empty(len(priors))
    made = []
    for key in task_keys([f"source-{index}" for index in range(n_draws)]):
        draw_priors(table, np.uint64(3), key, np.uint64(PURPOSE_PRIOR), np.uint64(0), values)
        made.append(model.components(MAIN | dict(zip(priors, values.tolist(), strict=True))))
    return made


def bank_section(bank: SourceBank, **changes: Any) -> BankSource:
    """A section that asks for this bank."""
    return BankSource.model_validate({"kind": "bank", "url": "bank.h5", "sha256": bank.digest, **changes})


@pytest.fixture(scope="module")
def clumpy() -> list[Components]:
    """Many clumpy sources."""
    return drawn_components(SourceModel(CLUMPY, BANDS, None))


@pytest.fixture(scope="module")
def bank(make_bank: MakeBank) -> SourceBank:
    """Five templates, of which the second is not usable."""
    return make_bank()


def test_sersic_source_is_one_component_of_one_colour() -> None:
    """The drawn profile, all of the flux in every band, no template."""
    model = SourceModel(SersicSource(), BANDS, None)
    made = model.components(MAIN)
    assert model.priors() == {}
    assert model.max_components == 1
    assert model.templates is None
    assert made.table[0, [PROFILE, OFFSET_X, OFFSET_Y, PHI, RE, N, Q]].tolist() == [SERSIC, 0, 0, 0.7, 0.3, 1.2, 0.6]
    assert made.shares.tolist() == [[1.0, 1.0, 1.0]]
    assert (made.re_arcsec, made.n, made.q, made.phi_rad) == (0.3, 1.2, 0.6, 0.7)
    assert (made.template, made.mirror) == (-1, 1)
    assert np.array_equal(made.table, sersic_components(0.3, 1.2, 0.6, 0.7, 3).table)


def test_clump_shares_sum_to_one_and_clumps_are_equal(clumpy: list[Components]) -> None:
    """In every band the shares sum to 1; the clumps divide theirs evenly and have the galaxy's colour."""
    clump_share = np.array([made.shares[1:, 1].sum() for made in clumpy])
    for made in clumpy:
        assert made.shares.sum(axis=0) == pytest.approx(1.0, abs=1e-14)
        assert np.ptp(made.shares[1:]) == 0.0
        assert np.ptp(made.shares, axis=1).max() == 0.0
    assert stats.kstest(clump_share, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3


def test_every_configured_number_of_clumps_occurs_equally_often(clumpy: list[Components]) -> None:
    """Counts 2 to 5, each about a quarter, never more than the renderer has room for."""
    counts = np.bincount([made.table.shape[0] - 1 for made in clumpy])
    assert counts[:2].sum() == 0
    assert counts.size == 6
    assert stats.chisquare(counts[2:]).pvalue > 1e-3
    assert SourceModel(CLUMPY, BANDS, None).max_components == 6


def test_clumps_lie_inside_their_reach(clumpy: list[Components]) -> None:
    """Elliptical radii, along the galaxy's axes, fill 0 to reach * Re by area; some come near the edge."""
    offsets = np.concatenate([made.table[1:, [OFFSET_X, OFFSET_Y]] for made in clumpy])
    along = offsets @ [math.cos(0.7), math.sin(0.7)]
    across = offsets @ [-math.sin(0.7), math.cos(0.7)]
    radius = np.hypot(along, across / 0.6) / 0.3
    assert radius.max() <= 1.5 * (1 + 1e-12)
    assert stats.kstest(radius, lambda r: (r / 1.5) ** 2).pvalue > 1e-3
    assert stats.kstest(np.arctan2(across / 0.6, along), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


def test_clumps_are_small_and_round(clumpy: list[Components]) -> None:
    """Clump sizes are log-uniform shares of the galaxy's Re, profiles round Gaussians; the galaxy is as drawn."""
    clumps = np.concatenate([made.table[1:] for made in clumpy])
    assert np.unique(clumps[:, [N, Q]], axis=0).tolist() == [[0.5, 1.0]]
    assert stats.kstest(clumps[:, RE] / 0.3, stats.loguniform(0.05, 0.2).cdf).pvalue > 1e-3
    for made in clumpy[:20]:
        assert made.table[0, [OFFSET_X, OFFSET_Y, PHI, RE, N, Q]].tolist() == [0, 0, 0.7, 0.3, 1.2, 0.6]
        assert (made.re_arcsec, made.n, made.q, made.phi_rad) == (0.3, 1.2, 0.6, 0.7)


@pytest.mark.parametrize("bands", [("g", "r", "z"), ("r", "z"), ("z", "g", "r")])
def test_bulge_and_disc_have_their_shares_and_colours(bands: tuple[str, ...]) -> None:
    """Shares sum to 1 in each band, that of r is the drawn one, and bulge minus disc colours are as configured."""
    model = SourceModel(BulgeDiscSource.model_validate(BULGE_DISC), bands, None)
    made = model.components(MAIN | {"bulge_share": 0.3, "bulge_re_over_re": 0.2, "bulge_n": 4.0, "bulge_q": 0.9})
    assert model.max_components == 2
    assert made.shares.sum(axis=0) == pytest.approx(1.0, abs=1e-14)
    disc, bulge = (dict(zip(bands, row, strict=True)) for row in made.shares.tolist())
    assert bulge["r"] == pytest.approx(0.3)

    def redder(blue: str, red: str) -> float:
        return -2.5 * math.log10(bulge[blue] / disc[blue] * disc[red] / bulge[red])

    assert redder("r", "z") == pytest.approx(-0.2)
    if "g" in bands:
        assert redder("g", "r") == pytest.approx(0.4)
        assert bulge["g"] < 0.3 < disc["g"]


def test_bulge_is_concentric_and_disc_is_exponential() -> None:
    """The disc has the drawn Re and axis ratio and n = 1, the bulge its own; both share centre and angle."""
    made = SourceModel(BulgeDiscSource.model_validate(BULGE_DISC), BANDS, None).components(
        MAIN | {"bulge_share": 0.3, "bulge_re_over_re": 0.2, "bulge_n": 4.0, "bulge_q": 0.9}
    )
    assert made.table[0, [OFFSET_X, OFFSET_Y, PHI, RE, N, Q]].tolist() == [0, 0, 0.7, 0.3, 1.0, 0.6]
    assert made.table[1, [OFFSET_X, OFFSET_Y, PHI, RE, N, Q]].tolist() == pytest.approx([0, 0, 0.7, 0.06, 4.0, 0.9])
    assert (made.re_arcsec, made.n, made.q, made.phi_rad) == (0.3, 1.0, 0.6, 0.7)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_galaxy_of_one_part_has_finite_shares(share: float) -> None:
    """No bulge, and nothing but a bulge, are possible sources."""
    made = SourceModel(BulgeDiscSource.model_validate(BULGE_DISC), BANDS, None).components(
        MAIN | {"bulge_share": share, "bulge_re_over_re": 0.2, "bulge_n": 4.0, "bulge_q": 0.9}
    )
    assert made.shares == pytest.approx(np.array([[1 - share] * 3, [share] * 3]), abs=1e-15)


def test_bulge_quantities_have_their_priors() -> None:
    """Each drawn quantity of the bulge follows its own prior."""
    made = drawn_components(SourceModel(BulgeDiscSource.model_validate(BULGE_DISC), BANDS, None))
    bulge = np.stack([one.table[1] for one in made])
    assert stats.kstest([one.shares[1, 1] for one in made], stats.uniform(0.0, 0.6).cdf).pvalue > 1e-3
    assert stats.kstest(bulge[:, RE] / 0.3, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(bulge[:, N], stats.uniform(2.0, 3.0).cdf).pvalue > 1e-3
    assert stats.kstest(bulge[:, Q], stats.uniform(0.6, 0.4).cdf).pvalue > 1e-3


def test_templates_are_uniform_over_the_usable_ones(bank: SourceBank) -> None:
    """Every usable template is as frequent as another, the unusable one never comes."""
    made = drawn_components(SourceModel(bank_section(bank), BANDS, bank))
    counts = np.bincount([one.template for one in made], minlength=5)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3, 4]]).pvalue > 1e-3
    assert {one.table[0, TEMPLATE] for one in made} == {0.0, 2.0, 3.0, 4.0}


def test_templates_are_mirrored_and_turned_evenly(bank: SourceBank) -> None:
    """Both hands and both half turns occur equally often and independently; the angle is what is rendered."""
    made = drawn_components(SourceModel(bank_section(bank), BANDS, bank))
    turned = [one.phi_rad > math.pi for one in made]
    assert {round(one.phi_rad, 12) for one in made} == {0.7, round(0.7 + math.pi, 12)}
    assert {one.mirror for one in made} == {1, -1}
    counts = np.zeros((2, 2))
    for one, half_turn in zip(made, turned, strict=True):
        counts[int(one.mirror > 0), int(half_turn)] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    for one in made[:50]:
        assert one.table[0, [PROFILE, PHI, MIRROR]].tolist() == [IMAGE, one.phi_rad, one.mirror]


def test_template_has_its_own_size_and_no_profile(bank: SourceBank) -> None:
    """The recorded radius is the bank's times the factor, which also scales the pixels; n and q are unknown."""
    for factor in (1.0, 1.5):
        model = SourceModel(bank_section(bank, size_factor=factor), BANDS, bank)
        made = drawn_components(model, 20)
        assert model.template_scale_arcsec == pytest.approx(0.03 * factor)
        assert model.max_components == 1
        assert model.templates is bank.images
        for one in made:
            assert one.re_arcsec == pytest.approx(factor * float(bank.hlr_arcsec[one.template]))
            assert math.isnan(one.n) and math.isnan(one.q)
            assert one.shares.tolist() == [[1.0, 1.0, 1.0]]


def test_templates_repeat_themselves(bank: SourceBank) -> None:
    """The same keys choose the same templates, hands and turns."""
    first, second = (drawn_components(SourceModel(bank_section(bank), BANDS, bank), 50) for _ in range(2))
    assert [(one.template, one.mirror, one.phi_rad) for one in first] == [
        (one.template, one.mirror, one.phi_rad) for one in second
    ]


def test_another_bank_is_refused(make_bank: MakeBank, bank: SourceBank) -> None:
    """A bank whose digest is not the configured one is an error that names both."""
    other = make_bank(n_templates=4)
    assert other.digest != bank.digest
    with pytest.raises(ContractError, match=f"expected {bank.digest}, the bank bank.h5 is {other.digest}"):
        SourceModel(bank_section(bank), BANDS, other)


def test_bank_without_a_usable_template_is_refused(make_bank: MakeBank) -> None:
    """There is nothing to draw from."""
    empty = make_bank(n_templates=2, unusable=(0, 1))
    with pytest.raises(ContractError, match="has no usable template"):
        SourceModel(bank_section(empty), BANDS, empty)


def test_bank_source_needs_the_bank(bank: SourceBank) -> None:
    """A configuration that lenses templates cannot start without them."""
    with pytest.raises(ValueError, match="needs the bank in memory"):
        SourceModel(bank_section(bank), BANDS, None)


def test_usable_templates_alone_decide_the_choice(bank: SourceBank) -> None:
    """The extreme uniforms reach the first and the last usable template and nothing beyond."""
    last = dataclasses.replace(bank, columns={**bank.columns, "usable": np.array([0, 1, 1, 1, 0], np.uint8)})
    model = SourceModel(bank_section(last), BANDS, last)
    ends = [
        model.components(MAIN | {"template": u, "template_mirror": 0.5, "template_half_turn": 0.5}).template
        for u in (2.0**-53, 1 - 2.0**-53)
    ]
    assert ends == [1, 3]
