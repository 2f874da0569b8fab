"""Probes of a network on disk: beside its checkpoint, one folder per combination of cube, settings and anchors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.anchor_stamps import measured_anchors
from pipeline.storage.cube import open_cube
from pipeline.storage.evaluation_tables import read_evaluation, write_evaluation
from pipeline.storage.locations import Location, RunLayout

# The columns that tell the rows of the embeddings apart; every other column is a feature, layer_<k>_<i>.
EMBEDDED_COLUMNS = ("kind", "host_id", "psfsize_arcsec", "sky_sigma_nmgy", "aperture_nmgy")
_IDENTITY_DIGITS = 16


def probe_identity(config: RunConfig, layout: RunLayout, checkpoint: Location) -> dict[str, Any]:
    """What probes are made from: the checkpoint's bytes, the training cube's plan, settings, seed, measured anchors.

    Raises:
        ContractError: no checkpoint is there, the training cube is not published or does not say its plan, or the
            anchors that the configuration names are not measured.
    """
    if not checkpoint.exists():
        raise ContractError(f"{checkpoint.url}: no checkpoint is there")
    cube = open_cube(layout.cube("training"))
    if "plan_sha256" not in cube.attrs:
        raise ContractError(f"{cube.location.url} lacks the root attribute plan_sha256")
    return {
        "checkpoint_sha256": checkpoint.sha256(),
        "plan_sha256": str(cube.attrs["plan_sha256"]),
        "probe_sha256": config.gates.network.probe_sha256(),
        "snr_band": config.sampling.band,
        "seed": config.run.seed,
        "anchors_sha256": None if config.anchors is None else measured_anchors(layout).sha256(),
    }


def probe_folder(checkpoint: Location, identity: Mapping[str, Any]) -> Location:
    """Where the probes of an identity lie, `probes/<digits>` beside the checkpoint."""
    digits = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:_IDENTITY_DIGITS]
    folder = Location(checkpoint.url.rsplit("/", 1)[0], checkpoint.region, checkpoint.endpoint_url)
    return folder.join("probes", digits)


def write_probes(
    folder: Location,
    identity: Mapping[str, Any],
    examples: pd.DataFrame,
    embedded: pd.DataFrame,
    layers: Sequence[NDArray[np.float32]],
    anchors: Mapping[str, Any],
) -> None:
    """Write the probes, read them back, mark them.

    Args:
        folder: see `probe_folder`.
        identity: see `probe_identity`.
        examples: one row per scored stamp, label, host_id and one logit per probe.
        embedded: EMBEDDED_COLUMNS of the embedded stamps.
        layers: (stamp, feature) float32 per layer of the network, the last one below its head.
        anchors: counts of anchors by what became of them.

    Raises:
        VerificationError: a file reads back otherwise than it was written.
    """
    features = {
        f"layer_{layer}_{index:03d}": values[:, index]
        for layer, values in enumerate(layers)
        for index in range(values.shape[1])
    }
    tables = {"examples": examples, "embeddings": pd.concat([embedded, pd.DataFrame(features)], axis=1)}
    write_evaluation(folder, identity, {"anchors": anchors}, tables)


def read_probes(folder: Location, identity: Mapping[str, Any]) -> xr.Dataset | None:
    """The verified probes of an identity; None if there are none.

    Returns:
        One variable per column of `examples`, (example,); `embedded_<column>`, (stamp,), of EMBEDDED_COLUMNS;
        `layer_<k>`, (stamp, feature_<k>); attribute `anchors`, the counts.

    Raises:
        VerificationError: files that are not those that were verified, or are of another identity.
    """
    stored = read_evaluation(folder)
    if stored is None:
        return None
    if dict(stored.identity) != dict(identity):
        raise VerificationError(f"{folder.url} holds probes of {dict(stored.identity)}, expected {dict(identity)}")
    examples, table = stored.tables["examples"], stored.tables["embeddings"]
    variables: dict[str, Any] = {str(name): ("example", examples[name].to_numpy()) for name in examples}
    variables |= {f"embedded_{name}": ("stamp", table[name].to_numpy()) for name in EMBEDDED_COLUMNS}
    names = [str(name) for name in table.columns if name not in EMBEDDED_COLUMNS]
    for prefix in sorted({name.rsplit("_", 1)[0] for name in names}):
        features = table[[name for name in names if name.startswith(f"{prefix}_")]].to_numpy(np.float64)
        variables[prefix] = (("stamp", f"feature_{prefix.removeprefix('layer_')}"), features)
    return xr.Dataset(variables, attrs={"anchors": dict(stored.documents["anchors"])})
