"""The pilot of a run: prior draws on some shards of its cutouts, made once and stored."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.driver.cluster import Cluster, cluster_errors
from pipeline.driver.plan import Plan
from pipeline.driver.tasks import ShardTask, draw_pilot
from pipeline.stages.mag_prior import MagnitudePrior
from pipeline.stages.pilot_draws import joined_draws
from pipeline.stages.sampling import Pilot, PilotDraws, SnrTarget, estimate_pilot
from pipeline.storage.locations import RunLayout
from pipeline.storage.runs import read_json, write_json

# Shards that the pilot draws from, spread evenly over the run.
_PILOT_SHARDS = 16


def make_pilot(
    config: RunConfig, layout: RunLayout, plan: Plan, cluster: Cluster, tasks: Sequence[ShardTask]
) -> Pilot | None:
    """The stored pilot of this plan, or a new one; None for a run without SNR target.

    Raises:
        ContractError: a target bin that the priors do not reach, see `estimate_pilot`.
        VerificationError: the chosen shards hold no row to draw on.
    """
    sampling = config.sampling
    if sampling.target is None:
        return None
    if layout.pilot.exists():
        content = read_json(layout.pilot)
        if content.get("plan_sha256") == plan.sha256:
            return Pilot.from_json(content)
    chosen = spread_evenly(tasks, _PILOT_SHARDS)
    with cluster_errors():
        client = cluster.client
        share = -(-sampling.pilot_draws // len(chosen))
        retries = config.shards.retries
        futures = [client.submit(draw_pilot, task, share, pure=False, retries=retries) for task in chosen]
        draws = joined_draws(client.gather(futures))
    pilot = pilot_of_draws(config, draws)
    write_json(layout.pilot, {"plan_sha256": plan.sha256, **vars(pilot)})
    return pilot


def pilot_of_draws(config: RunConfig, draws: PilotDraws) -> Pilot:
    """The pilot that a configuration with a target makes of some draws; raises as `make_pilot`."""
    sampling = config.sampling
    if not draws.per_flux.size:
        raise VerificationError("pilot: none of the sampled shards has a usable row that is not a control")
    if sampling.target is None:
        raise ContractError("pilot: expected a configuration with sampling.target, got method none")
    return estimate_pilot(draws, SnrTarget.of(sampling.target), sampling, magnitude_prior(config))


def magnitude_prior(config: RunConfig) -> MagnitudePrior:
    """The configured prior of the source magnitude; ContractError for a frozen run, which has none."""
    if config.injection.priors is None:
        raise ContractError("expected injection.priors, got a run that renders the rows as they stand")
    return MagnitudePrior(config.injection.priors.src_mag_r)


def spread_evenly(tasks: Sequence[ShardTask], count: int) -> list[ShardTask]:
    """At most `count` of the tasks, evenly spaced."""
    n_tasks = min(count, len(tasks))
    return [tasks[(index * len(tasks)) // n_tasks] for index in range(n_tasks)]
