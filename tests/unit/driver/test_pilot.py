"""The pilot's rows and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.driver.pilot import magnitude_prior, pilot_of_draws, spread_evenly
from pipeline.stages.sampling import PilotDraws

MakeConfig = Callable[..., RunConfig]
NOTHING = PilotDraws(np.empty(0), np.empty(0), np.empty(0, np.int64))


def test_shards_are_spread_evenly() -> None:
    """First to last in equal steps; all of them where there are few."""
    assert spread_evenly(list(range(100)), 4) == [0, 25, 50, 75]  # type: ignore[comparison-overlap, arg-type]
    assert spread_evenly([3, 4], 16) == [3, 4]  # type: ignore[comparison-overlap, list-item]


def test_pilot_is_that_of_the_configured_target(make_config: MakeConfig) -> None:
    """Draws within the target make a pilot with one mass per target bin."""
    rng = np.random.default_rng(3)
    draws = PilotDraws(rng.lognormal(3, 1.5, 900), rng.uniform(20, 26, 900), np.arange(900))
    pilot = pilot_of_draws(make_config(), draws)
    assert (pilot.n_draws, len(pilot.target_mass)) == (900, 4)
    assert magnitude_prior(make_config()).low == 18.0


def test_pilot_without_rows_or_target_is_refused(make_config: MakeConfig) -> None:
    """No draws is a failed verification, no target or no priors a broken contract."""
    with pytest.raises(VerificationError, match="usable row"):
        pilot_of_draws(make_config(), NOTHING)
    none = make_config("sampling.method=none", "sampling.target=null")
    with pytest.raises(ContractError, match="got method none"):
        pilot_of_draws(none, PilotDraws(np.ones(1), np.ones(1), np.ones(1, np.int64)))
    frozen = make_config(
        "sampling.method=none",
        "sampling.target=null",
        "injection.mode=frozen",
        "manifest.kind=emr",
        "injection.priors=null",
    )
    with pytest.raises(ContractError, match=r"expected injection\.priors"):
        magnitude_prior(frozen)
