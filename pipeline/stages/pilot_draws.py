"""Prior draws spread over the hosts of some cutouts: what a pilot is estimated from."""

from __future__ import annotations

import numpy as np
import xarray as xr

from pipeline.kernels.random import task_keys
from pipeline.stages.injection import Injector
from pipeline.stages.sampling import PilotDraws


def draw_on_hosts(cutouts: xr.Dataset, injector: Injector, n_draws: int, first_row: int) -> PilotDraws:
    """Draws on the usable rows that ask for an arc, as evenly as n_draws allows.

    Args:
        cutouts: the cutouts cube's variables of some rows.
        first_row: number of the first row in the manifest; numbers the hosts.

    Returns:
        Fewer than n_draws only if hosts lack a number they need, none if no row is usable.
    """
    candidates = np.flatnonzero((cutouts["usable"].to_numpy() == 1) & (cutouts["is_control"].to_numpy() == 0))
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    per_host, extra = divmod(n_draws, max(candidates.size, 1))
    rows: list[tuple[float, float, int]] = []
    for position, index in enumerate(candidates.tolist()):
        count = per_host + (position < extra)
        host = injector.host(cutouts, index, keys[index])
        if count and not isinstance(host, str):
            rows += [
                (trial.per_flux, trial.mag_r, first_row + index) for trial in injector.pilot_trials(host, range(count))
            ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return PilotDraws(table[:, 0], table[:, 1], table[:, 2].astype(np.int64))


def joined_draws(parts: list[PilotDraws]) -> PilotDraws:
    """The draws of several parts, in their order."""
    return PilotDraws(
        np.concatenate([part.per_flux for part in parts]),
        np.concatenate([part.mag_r for part in parts]),
        np.concatenate([part.host for part in parts]),
    )
