"""Forecasts against what the samplers then do, on hosts with a closed form."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from pipeline.contracts.priors import Prior
from pipeline.contracts.sampling import SamplingSection
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.sampling import PilotDraws, SnrTarget
from pipeline.stages.sampling_forecast import Forecaster, MethodForecast

LOG = {"kind": "loguniform", "low": 2, "high": 50}
NARROW = MagnitudePrior(Prior(kind="uniform", low=23.0, high=26.0))
WIDE = MagnitudePrior(Prior(kind="uniform", low=21.0, high=27.0))


def draws_on(n_hosts: int, per_host: int) -> PilotDraws:
    """ln kappa = ln 20 + host N(0, 0.5) + N(0, 0.6), magnitudes as they fall."""
    rng = np.random.default_rng(2)
    offset = np.repeat(rng.normal(0, 0.5, n_hosts), per_host)
    kappa = np.exp(math.log(20) + offset + rng.normal(0, 0.6, offset.size))
    return PilotDraws(kappa, rng.uniform(21, 27, offset.size), np.repeat(np.arange(n_hosts), per_host))


@cache
def forecasts(narrow: bool, max_attempts: int = 400, kind: str = "loguniform") -> dict[tuple[str, str], MethodForecast]:
    """Every method, by method and hosts."""
    grid = {"kind": "grid", "snr": [3.0, 20.0], "shares": [0.5, 0.5]}
    section = SamplingSection.model_validate(
        {
            "method": "snr_first",
            "metric": "arc_snr",
            "target": LOG if kind == "loguniform" else grid,
            "safety_factor": 1.0,
            "max_attempts": max_attempts,
        }
    )
    assert section.target is not None
    target = SnrTarget.of(section.target)
    found = Forecaster(draws_on(150, 60), target, section, NARROW if narrow else WIDE).methods()
    return {(forecast.method, forecast.hosts): forecast for forecast in found}


@pytest.mark.parametrize(
    ("narrow", "method", "acceptance"),
    [(True, "rejection", 0.045), (True, "snr_first", 0.248), (False, "rejection", 0.422), (False, "snr_first", 0.953)],
)
def test_pooled_acceptance_is_the_known_one(narrow: bool, method: str, acceptance: float) -> None:
    """Acceptances that were integrated independently; one draw and one render per row."""
    found = forecasts(narrow)[method, "pooled"]
    assert found.accepted_share == pytest.approx(acceptance, rel=0.25 if acceptance < 0.3 else 0.1)
    assert (found.attempts, found.renders) == (1.0, 1.0)
    assert found.renders_per_accepted == pytest.approx(1 / found.accepted_share)


def test_direct_has_its_effective_share_and_its_magnitudes_outside() -> None:
    """0.556 and 0.958 of the sample count, as many arcs as draws."""
    for narrow, effective in ((True, 0.556), (False, 0.958)):
        found = forecasts(narrow)["direct", "conditional"]
        assert found.effective_share == pytest.approx(effective, abs=0.04)
        assert (found.acceptance, found.renders_per_accepted) == (1.0, 1.0)
        assert found.outside_prior == pytest.approx(1 - effective, abs=0.05)


def test_narrow_prior_fails_at_the_cap_where_arcs_are_out_of_reach() -> None:
    """Held SNRs: few per cent of the rows fail after 400 draws, mostly bright ones; a smaller cap fails more."""
    found = forecasts(True)["snr_first", "conditional"]
    assert 0.005 < 1 - found.accepted_share < 0.12
    assert found.attempts > 5
    assert found.bins[0]["cap_failures"] == pytest.approx(1 - found.accepted_share, abs=1e-6)
    assert forecasts(True, 20)["snr_first", "conditional"].accepted_share < found.accepted_share
    wide = forecasts(False)["snr_first", "conditional"]
    assert wide.accepted_share == pytest.approx(1.0, abs=0.01)
    assert wide.renders == pytest.approx(wide.attempts + 4, abs=0.05)
    assert wide.acceptance == pytest.approx(0.927, abs=0.05)


def test_host_that_cannot_reach_the_target_is_not_tried_by_rejection() -> None:
    """With a narrow prior many hosts do not have the whole target; with a wide one most do."""
    assert forecasts(True)["rejection", "conditional"].accepted_share < 0.7
    wide = forecasts(False)["rejection", "conditional"]
    assert wide.accepted_share > 0.8
    assert wide.renders == pytest.approx(wide.attempts + 64)


def test_grid_has_no_rejection() -> None:
    """A grid is assigned; the forecast says why rejection is not possible."""
    found = forecasts(False, kind="grid")
    for hosts in ("conditional", "pooled"):
        assert "exactly a given SNR" in found["rejection", hosts].note
        assert found["rejection", hosts].renders_per_accepted is None
    assert found["direct", "conditional"].accepted_share == 1.0
    assert [bin_["value"] for bin_ in found["snr_first", "conditional"].bins] == [3.0, 20.0]
    assert 0.5 < found["snr_first", "pooled"].accepted_share <= 1.0
