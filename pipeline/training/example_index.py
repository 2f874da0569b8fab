"""Which stamps of a training cube are examples, with which weight, and what may go along with them.

A row with role `pair` gives two examples, its injected stamp (label 1) and its control (label 0); a row with role
`control` gives its control, one with role `injected` its injected stamp. Guard rows give none. Order inside a split is
that of the cube, a pair's injected stamp first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import TRAINING
from pipeline.contracts.errors import ConfigError, ContractError, VerificationError
from pipeline.contracts.feed_config import FEATURE_COLUMNS
from pipeline.stages.example_scores import examples_of
from pipeline.storage.cube import PublishedCube

COLUMNS = ("task_id", "pair_id", "host_id", "role", "split", "arc_snr", "theta_e_arcsec", "psfsize_arcsec")
# Columns that each kind of sample weight needs.
WEIGHT_COLUMNS: dict[str, tuple[str, ...]] = {"none": (), "balanced": (), "prior": ("weight_prior",)}
MIN_PER_CLASS = 10


def require_training_cube(cube: PublishedCube) -> None:
    """Refuse a cube of another kind or version; ContractError."""
    got = (cube.attrs.get("schema"), cube.attrs.get("schema_version"))
    if got != (TRAINING.name, TRAINING.version):
        raise ContractError(
            f"{cube.location.url}: expected cube schema {TRAINING.name!r} version {TRAINING.version}, got {got}"
        )


def index_split(columns: xr.Dataset, split: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The examples of a split in cube order.

    Args:
        columns: role and split of every row.
        split: name of the split.

    Returns:
        (example) row of the cube and (example) label.

    Raises:
        VerificationError: fewer than 10 examples of a class.
    """
    row, label = examples_of(columns, [split])
    n_positives = int(label.sum())
    n_negatives = label.size - n_positives
    if min(n_positives, n_negatives) < MIN_PER_CLASS:
        raise VerificationError(
            f"split {split} has {n_positives} injected and {n_negatives} control examples; "
            f"expected at least {MIN_PER_CLASS} of each"
        )
    return row, label


def example_weights(label: NDArray[np.uint8], columns: xr.Dataset, kind: str) -> NDArray[np.float32]:
    """Sample weights; their mean is 1.

    Args:
        label: (example) 0 or 1, both present.
        columns: the WEIGHT_COLUMNS of that kind, dim `example`; weight_prior is read of injected stamps only.
        kind: `none`, all 1; `balanced`, both classes weigh the same; `prior`, injected stamps as often as the prior has
            them, with a mean of 1, controls 1.

    Returns:
        (example) float32.

    Raises:
        VerificationError: a weight_prior of an injected stamp that is not positive and finite.
    """
    weight = np.ones(label.size)
    positive = label == 1
    if kind == "balanced":
        share = positive.mean()
        weight = np.where(positive, 0.5 / share, 0.5 / (1.0 - share))
    elif kind == "prior":
        prior = columns["weight_prior"].to_numpy()[positive]
        if not (np.isfinite(prior) & (prior > 0.0)).all():
            raise VerificationError("expected a positive weight_prior of every injected stamp")
        weight[positive] = prior / prior.mean()
    return weight.astype(np.float32)


def example_features(columns: xr.Dataset, names: Sequence[str]) -> NDArray[np.float32]:
    """Columns that may enter a network beside the pixels; one of several bands gives one feature a band.

    Args:
        columns: `names`, dim `example` or `example`, `band`.
        names: observing conditions, of FEATURE_COLUMNS.

    Returns:
        (example, feature) float32.

    Raises:
        ConfigError: a column that is none of FEATURE_COLUMNS.
        ContractError: a value that is not finite.
    """
    barred = [name for name in names if name not in FEATURE_COLUMNS]
    if barred:
        raise ConfigError(f"{', '.join(barred)} may never be a feature of a network, only {', '.join(FEATURE_COLUMNS)}")
    n_examples = columns.sizes["example"]
    parts = [columns[name].to_numpy().reshape(n_examples, -1).astype(np.float32) for name in names]
    for name, part in zip(names, parts, strict=True):
        broken = np.count_nonzero(~np.isfinite(part).all(axis=1))
        if broken:
            raise ContractError(f"feature {name} is not finite in {broken} of {n_examples} examples")
    return np.concatenate(parts, axis=1) if parts else np.empty((n_examples, 0), np.float32)
