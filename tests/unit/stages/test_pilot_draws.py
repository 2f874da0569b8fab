"""Prior draws spread over hosts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.kernels.random import PURPOSE_PILOT, task_keys
from pipeline.stages.arcs import InjectionAssets
from pipeline.stages.injection import Host, Injector
from pipeline.stages.pilot_draws import draw_on_hosts, joined_draws

SMALL = ("survey.stamp_size_px=24", "injection.accuracy=0.02", "training.preprocess={annulus_px: [8, 12]}")


def test_draws_are_spread_over_usable_hosts_and_are_their_own(
    make_config: Callable[..., RunConfig], make_cutouts: Callable[..., xr.Dataset]
) -> None:
    """Controls and hosts without extinction get none; each draw is the host's pilot draw, whatever else is drawn."""
    cutouts = make_cutouts(
        6,
        size=24,
        is_control=np.array([0, 1, 0, 0, 0, 0], np.uint8),
        ebv_mag=np.array([0.1] * 5 + [np.nan], np.float32),
    )
    injector = Injector(make_config(*SMALL), None, InjectionAssets(), drawing_only=True)
    draws = draw_on_hosts(cutouts, injector, 12, first_row=100)
    assert draws.host.tolist() == [100] * 3 + [102] * 3 + [103] * 2 + [104] * 2
    assert injector.renders == 10
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    host = injector.host(cutouts, 3, keys[3])
    assert isinstance(host, Host)
    alone = injector.pilot_trials(host, range(2))
    assert draws.per_flux[6:8].tolist() == [trial.per_flux for trial in alone]
    assert draws.mag_r[6:8].tolist() == [trial.mag_r for trial in alone]
    expected = injector._draw(host, PURPOSE_PILOT, 1).src_mag_r
    assert draws.mag_r[7] == expected
    np.testing.assert_allclose(draws.snr(), draws.per_flux * 10 ** (0.4 * (22.5 - draws.mag_r)), rtol=1e-12)
    both = joined_draws([draws, draw_on_hosts(cutouts.isel(sample=[1]), injector, 12, 300)])
    assert both.host.tolist() == draws.host.tolist()
