"""What sampling a manifest would take, from draws on a few of its rows: before a cluster is paid for.

The rows are spread over the manifest and go through the run's own code, from the bricks to the exposed arc, in this
process. Stamps come from the cutouts cube where the run, or the run it takes cutouts from, has published one.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.driver.injection_assets import read_assets
from pipeline.driver.pilot import magnitude_prior, pilot_of_draws
from pipeline.driver.plan import Plan, make_plan, read_rows
from pipeline.driver.tasks import StampSource, cut_stamps
from pipeline.kernels.random import task_keys
from pipeline.kernels.warm_up import warm_up
from pipeline.stages.injection import Accepted, Injector, expose
from pipeline.stages.pilot_draws import draw_on_hosts, joined_draws
from pipeline.stages.sampling import Pilot, PilotDraws, SnrTarget
from pipeline.stages.sampling_diagnostics import naive_acceptance
from pipeline.stages.sampling_forecast import Forecaster, MethodForecast
from pipeline.storage.cube import PublishedCube, is_published, open_cube
from pipeline.storage.locations import RunLayout
from pipeline.storage.tables import pieces_of

# Draws per host: enough to see how hosts differ. Places of the manifest that rows are taken from, and how many rows
# may be read there at most, as a multiple of the hosts wanted, for rows that turn out unusable.
_DRAWS_PER_HOST = 32
_PLACES = 8
_SPARE_ROWS = 2
# Arcs that are exposed to time it.
_TIMED_ARCS = 16


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Draws on some rows of a manifest, and what they took.

    Attributes:
        asking: share of the rows read that are usable and ask for an arc.
        rows: rows read. hosts: hosts drawn on.
        render_s: one unit-flux render with its SNR. expose_s: one accepted arc in every band. cut_s: one stamp; 0
            where stamps came from a cube.
    """

    draws: PilotDraws
    asking: float
    rows: int
    hosts: int
    render_s: float
    expose_s: float
    cut_s: float


def plan_sampling(config: RunConfig, n_draws: int | None = None) -> dict[str, Any]:
    """Predict every sampling method for a configuration. Reads some rows and bricks; writes nothing.

    Args:
        n_draws: pilot draws; sampling.pilot_draws if not given.

    Returns:
        JSON types: pilot, target bins, one forecast per method with its cost at the configured workers.

    Raises:
        ConfigError: no SNR target, or bricks that do not exist.
        ContractError: a target bin that the priors do not reach, or no usable row in the sample.
    """
    if config.sampling.target is None:
        raise ConfigError("dhs sample plan: sampling.method none has no target to plan for")
    StampSource.of(config).demand_root()
    plan = make_plan(config)
    drawn = _draw(config, plan, n_draws or config.sampling.pilot_draws)
    # The run draws on other, more hosts: what it demands of a pooled pilot is not to be asked of this one.
    sampling = config.sampling.model_copy(update={"hosts": "conditional"})
    pilot = pilot_of_draws(config.model_copy(update={"sampling": sampling}), drawn.draws)
    whole = SnrTarget.of(config.sampling.target)
    target = whole.without(pilot.unreachable)
    forecasts = Forecaster(drawn.draws, target, config.sampling, magnitude_prior(config)).methods()
    n_rows = plan.shape.sizes["sample"]
    return {
        "rows": n_rows,
        "rows_that_ask_for_an_arc": round(n_rows * drawn.asking),
        "metric": config.sampling.metric,
        "configured": {"method": config.sampling.method, "hosts": config.sampling.hosts},
        "workers": config.cluster.workers,
        "pilot": _pilot_summary(pilot, drawn),
        "naive_equivalent": naive_acceptance(whole, pilot, config.sampling.safety_factor),
        "target": [
            {
                **({"value": whole.values[index]} if whole.values else {"low": low, "high": high}),
                "share": whole.shares[index],
                "prior_mass": pilot.target_mass[index],
                "relative_error": pilot.target_error[index],
                "reachable": index not in pilot.unreachable,
            }
            for index, (low, high) in enumerate(zip(whole.edges[:-1], whole.edges[1:], strict=True))
        ],
        "measured_seconds": {
            "per_render": drawn.render_s,
            "per_exposed_arc": drawn.expose_s,
            "per_stamp_cut": drawn.cut_s,
        },
        "methods": [_costed(forecast, config, n_rows * drawn.asking, drawn) for forecast in forecasts],
    }


def _pilot_summary(pilot: Pilot, drawn: Drawn) -> dict[str, Any]:
    return {
        "draws": pilot.n_draws,
        "hosts": pilot.n_hosts,
        "rows_read": drawn.rows,
        "snr_range": list(pilot.snr_range),
        "envelope": pilot.envelope,
    }


def _costed(forecast: MethodForecast, config: RunConfig, n_asking: float, drawn: Drawn) -> dict[str, Any]:
    """The forecast with core-seconds of injection over the whole manifest, and wall-clock time at the workers."""
    per_row = forecast.renders * drawn.render_s + forecast.accepted_share * drawn.expose_s
    core_seconds = n_asking * per_row
    return {
        **{name: _plain(value) for name, value in vars(forecast).items()},
        "accepted_arcs": round(n_asking * forecast.accepted_share),
        "core_seconds": core_seconds,
        "hours_at_workers": core_seconds / config.cluster.workers / 3600.0,
        "configured": (forecast.method, forecast.hosts) == (config.sampling.method, config.sampling.hosts),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _draw(config: RunConfig, plan: Plan, n_draws: int) -> Drawn:
    warm_up()
    n_hosts = max(1, n_draws // _DRAWS_PER_HOST)
    n_rows = plan.shape.sizes["sample"]
    places = min(_PLACES, n_rows)
    length = min(-(-n_hosts * _SPARE_ROWS // places), n_rows // places)
    parts: list[PilotDraws] = []
    asking = read = renders = 0
    seconds = {"render": 0.0, "expose": 0.0, "cut": 0.0}
    exposed = 0
    for place in range(places):
        first = (place * n_rows) // places
        started = time.process_time()
        cutouts, cut = _stamps(config, plan, first, first + length)
        seconds["cut"] += (time.process_time() - started) * cut
        candidates = np.flatnonzero((cutouts["usable"].to_numpy() == 1) & (cutouts["is_control"].to_numpy() == 0))
        read, asking = read + length, asking + candidates.size
        chosen = cutouts.isel(sample=candidates[: -(-n_hosts // places)])
        if not chosen.sizes["sample"]:
            continue
        assets, _ = read_assets(config, chosen["brickname"].to_numpy().tolist())
        injector = Injector(config, None, assets, drawing_only=True)
        started = time.process_time()
        parts.append(draw_on_hosts(chosen, injector, -(-n_draws // places), first))
        seconds["render"] += time.process_time() - started
        renders += injector.renders
        timed = min(chosen.sizes["sample"], -(-_TIMED_ARCS // places))
        started = time.process_time()
        exposed += _expose_some(injector, chosen.isel(sample=slice(0, timed)))
        seconds["expose"] += time.process_time() - started
    if not sum(part.per_flux.size for part in parts):
        raise ContractError(f"none of {read} rows spread over the manifest has a usable stamp and asks for an arc")
    draws = joined_draws(parts)
    return Drawn(
        draws=draws,
        asking=asking / read,
        rows=read,
        hosts=int(np.unique(draws.host).size),
        render_s=seconds["render"] / renders,
        expose_s=seconds["expose"] / exposed,
        cut_s=seconds["cut"] / read,
    )


def _expose_some(injector: Injector, cutouts: xr.Dataset) -> int:
    """Draw, render and expose one arc per row; how many there were."""
    count = 0
    for index, key in enumerate(task_keys(cutouts["task_id"].to_numpy().tolist())):
        host = injector.host(cutouts, index, key)
        if not isinstance(host, str):
            draw, unit_arc = injector.pilot_trials(host, range(1))[0].payload
            expose(injector, host, Accepted(draw, unit_arc, 0.0, 1, 1.0), cutouts["invvar"].to_numpy()[index])
            count += 1
    return count


def _stamps(config: RunConfig, plan: Plan, first: int, stop: int) -> tuple[xr.Dataset, bool]:
    """Cutouts of some rows, from a published cube where there is one of this plan; and whether they were cut."""
    location = RunLayout.of(config.run).cube("cutouts")
    if is_published(location):
        cube = open_cube(location)
        if cube.attrs.get("cutouts_sha256") == plan.cutouts_sha256:
            return _rows_of_cube(cube, first, stop), False
    rows = read_rows(config, pieces_of(plan.parts, first, stop))
    return cut_stamps(StampSource.of(config), rows)[0], True


def _rows_of_cube(cube: PublishedCube, first: int, stop: int) -> xr.Dataset:
    names = [variable.name for variable in CUTOUTS.variables]
    pieces = []
    for shard in range(first // cube.shard_samples, (stop - 1) // cube.shard_samples + 1):
        start, _ = cube.shard_range(shard)
        pieces.append(cube.read_shard(shard, names).isel(sample=slice(max(first - start, 0), stop - start)))
    return xr.concat(pieces, dim="sample") if len(pieces) > 1 else pieces[0]
