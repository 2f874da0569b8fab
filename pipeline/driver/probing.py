"""Probes of a network: found beside its checkpoint, or made by the training package's program."""

from __future__ import annotations

import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import VerificationError
from pipeline.driver.programs import run_program
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.probe_tables import probe_folder, probe_identity, read_probes


def network_scores(layout: RunLayout, config: RunConfig, checkpoint: Location) -> xr.Dataset:
    """What a network says of the probes of a run's training cube; scored now if that was not done yet.

    Args:
        layout: the run whose cubes and anchors are used.
        config: the run's configuration; gates.network says what to probe.
        checkpoint: a network for stamps like the cube's; the probes are kept beside it.

    Returns:
        See `storage.probe_tables.read_probes`.

    Raises:
        ContractError: a cube, the checkpoint or the anchors are missing.
        PipelineError: the program that scores failed; carries its exit code.
    """
    identity = probe_identity(config, layout, checkpoint)
    folder = probe_folder(checkpoint, identity)
    stored = read_probes(folder, identity)
    if stored is not None:
        return stored
    run_program(config, "pipeline.training.probes", "--run", layout.root.url, "--checkpoint", checkpoint.url)
    stored = read_probes(folder, identity)
    if stored is None:
        raise VerificationError(f"{folder.url}: the prober ended without its marker")
    return stored
