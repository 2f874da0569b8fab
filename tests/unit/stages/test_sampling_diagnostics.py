"""What the sampler did, in numbers with known answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS, ROLES
from pipeline.contracts.priors import Prior
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.sampling import Pilot, PilotDraws, SnrTarget, estimate_pilot
from pipeline.stages.sampling_diagnostics import COLUMNS, effective_size, naive_acceptance, sampling_document

N_PAIRS, N_CONTROLS, N_EXHAUSTED, N_MASKED = 600, 200, 40, 10
N = N_PAIRS + N_CONTROLS + N_EXHAUSTED + N_MASKED
MakeConfig = Callable[..., RunConfig]


def columns_of(config: RunConfig) -> xr.Dataset:
    """Pairs, controls, exhausted and masked rows; exhausted hosts are two magnitudes fainter and shallower."""
    rng = np.random.default_rng(4)
    role = np.repeat([ROLES.index("pair"), ROLES.index("control"), 0], [N_PAIRS, N_CONTROLS, N_EXHAUSTED + N_MASKED])
    reason = np.zeros(N, np.uint8)
    reason[N_PAIRS + N_CONTROLS :] = REJECT_REASONS.index("sampler_exhausted")
    reason[N - N_MASKED :] = REJECT_REASONS.index("arc_masked")
    target = SnrTarget.of(config.sampling.target)
    snr = np.array([target.quantile(u) for u in rng.uniform(size=N)])
    sky = np.exp(rng.normal(-4.6, 0.2, (N, 3)))
    sky[:N_PAIRS] = 0.01 * np.exp(-0.1 * np.log(snr[:N_PAIRS]))[:, None]
    values = {
        "role": role.astype(np.uint8),
        "reject_reason": reason,
        "attempts": np.where(np.arange(N) < N_PAIRS, 1 + np.arange(N) % 4, 200).astype(np.int32),
        "weight_prior": np.where(np.arange(N) < 300, 1.0, 3.0),
        "mag_outside_prior": (np.arange(N) < 60).astype(np.uint8),
        "theta_e_arcsec": np.full(N, 1.2, np.float32),
        "mag_r": rng.normal(19, 0.5, N) + 2.0 * (reason > 0),
        "psfdepth_r_mag": np.full(N, np.nan),
        "arc_snr": snr,
    }
    variables = {name: ("sample", value) for name, value in values.items()}
    mags = np.tile(np.linspace(20.0, 26.0, N)[:, None], (1, 3))
    for name, value in (("src_mag", mags), ("psfsize_arcsec", rng.normal(1.3, 0.1, (N, 3))), ("sky_sigma_nmgy", sky)):
        variables[name] = (("sample", "band"), value)
    return xr.Dataset(variables)[list(COLUMNS)]


def pilot_of(config: RunConfig) -> Pilot:
    """A pilot that reaches the target."""
    rng = np.random.default_rng(5)
    draws = PilotDraws(rng.lognormal(3.0, 1.0, 2000), rng.uniform(20, 27, 2000), np.arange(2000))
    prior = MagnitudePrior(Prior(kind="uniform", low=20, high=27))
    return estimate_pilot(draws, SnrTarget.of(config.sampling.target), config.sampling, prior)


WORK = {
    "renders": 3000.0, "attempts": 1500.0, "proposals": 1500.0, "clipped": 3.0, "hosts_enveloped": 100.0,
    "envelopes": 250.0, "hosts_unreachable": 2.0, "target_bin_00_attempts": 900.0, "target_bin_00_accepted": 300.0,
    "target_bin_01_attempts": 600.0, "target_bin_01_accepted": 300.0, "target_bin_01_exhausted": 40.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> RunConfig:
    """The demo's target."""
    return make_config()


@pytest.fixture(scope="module")
def document(config: RunConfig) -> dict:
    """The numbers of these columns."""
    return sampling_document(columns_of(config), WORK, config, pilot_of(config))


def test_document_is_json_that_reads_back(document: dict) -> None:
    """No NaN, no numpy types."""
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_rows_attempts_and_cost(document: dict) -> None:
    """Rows asked are pairs, exhausted and masked; cost is per pair."""
    assert document["rows"] == {"asked": 650, "accepted": 600, "sampler_exhausted": 40, "arc_masked": 10}
    assert document["attempts"]["mean"] == pytest.approx(2.5)
    assert [entry["pairs"] for entry in document["attempts"]["histogram"]] == [150, 150, 150, 150]
    assert document["cost"]["renders_per_accepted"] == pytest.approx(5.0)
    assert document["cost"]["cutout_reads_per_accepted"] == pytest.approx(650 / 600)


def test_acceptance_overall_and_per_bin(document: dict, config: RunConfig) -> None:
    """From the counters; M, a > 1 and hosts out of reach beside them."""
    found = document["acceptance"]
    assert found["overall"] == pytest.approx(0.4)
    assert [bin_["acceptance"] for bin_ in found["bins"]] == [pytest.approx(1 / 3), 0.5, None, None]
    assert found["bins"][1]["exhausted"] == 40
    assert (found["above_one"], found["above_one_share"]) == (3, pytest.approx(0.002))
    assert found["envelope_of_hosts_mean"] == pytest.approx(2.5)
    assert found["hosts_that_cannot_reach_the_target"] == 2
    naive = found["naive_equivalent"]
    assert naive["by_density"] == pytest.approx(config.sampling.safety_factor / pilot_of(config).envelope)
    assert 0 < naive["by_density"] <= naive["by_bin"] <= 1


def test_naive_acceptance_by_bin_is_the_scarcest_bins(config: RunConfig) -> None:
    """Of bins wanted 40, 40, 15, 5 % the one with least mass per share decides."""
    pilot, target = pilot_of(config), SnrTarget.of(config.sampling.target)
    expected = min(mass / share for mass, share in zip(pilot.target_mass, target.shares, strict=True))
    assert naive_acceptance(target, pilot, 1.2)["by_bin"] == pytest.approx(expected)


def test_weights_and_magnitudes(document: dict) -> None:
    """Half of weight 1, half of weight 3; a tenth outside the prior."""
    weights = document["weights"]
    assert weights["mean"] == pytest.approx(2.0)
    assert weights["effective_share"] == pytest.approx(0.8)
    assert weights["largest_over_mean"] == pytest.approx(1.5)
    assert document["required_mag_r"]["outside_prior"] == pytest.approx(0.1)
    assert document["required_mag_r"]["quantiles"]["0.5"] == pytest.approx(
        20 + 6 * (N_PAIRS - 1) / 2 / (N - 1), abs=0.01
    )


def test_fit_is_that_of_the_target(document: dict) -> None:
    """Ideal draws lie near the floor."""
    fit = document["achieved"]
    assert abs(fit["tv"] - fit["tv_mean_ideal"]) < 4 * fit["tv_std_ideal"]
    assert fit["outside"] == 0
    assert fit["ks_p"] > 1e-3


def test_selection_of_hosts_shows(document: dict) -> None:
    """The planted correlation with the sky noise and the faint hosts without arc are found, others are not."""
    r = document["correlations_ln_snr"]
    assert r["ln_sky_sigma"]["r"] == pytest.approx(-1.0)
    assert abs(r["psfsize_arcsec"]["r"]) < 5 * r["psfsize_arcsec"]["error"]
    assert r["psfdepth_r_mag"] is None
    assert r["theta_e_arcsec"] is None
    assert document["selection"]["hosts_without_arc"]["mag_r"]["p"] < 1e-9
    assert document["selection"]["controls"]["mag_r"]["p"] > 1e-3
    assert document["selection"]["controls"]["psfdepth_r_mag"] is None


def test_identity_of_priors_and_seed(document: dict, make_config: MakeConfig) -> None:
    """Other priors have another hash."""
    other = make_config("injection.priors.theta_e_arcsec.high=2.1")
    changed = sampling_document(columns_of(other), WORK, other, pilot_of(other))
    assert changed["prior_sha256"] != document["prior_sha256"]
    assert (document["seed"], document["metric"]) == (20260101, "arc_snr")


def test_run_without_target_or_pairs(make_config: MakeConfig, config: RunConfig) -> None:
    """Method none has no acceptance; no pairs, no numbers, no error."""
    none = make_config("sampling.method=none", "sampling.target=null")
    found = sampling_document(columns_of(config), {"renders": 600.0}, none, None)
    assert "acceptance" not in found
    empty = columns_of(config).isel(sample=slice(N_PAIRS, None))
    bare = sampling_document(empty, WORK, config, pilot_of(config))
    assert bare["rows"]["accepted"] == 0
    assert bare["weights"]["mean"] is None
    assert bare["cost"]["renders_per_accepted"] is None


def test_effective_size_is_between_one_and_all() -> None:
    """Equal weights count fully, a single weight once, no weight not at all."""
    assert effective_size(np.full(7, 0.3)) == pytest.approx(7.0)
    assert effective_size(np.array([5.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_size(np.zeros(3)) == 0.0
    assert math.isclose(effective_size(np.array([1.0, 1.0, 0.0])), 2.0)
