"""Examples for the trainer: the used stamps of a published training cube, normalised, in memory.

Which stamps are examples is said in example_index.py; shuffling is the epoch permutation's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import TRAINED_SPLITS
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import PublishedCube
from pipeline.training.epoch_order import epoch_permutation
from pipeline.training.example_index import COLUMNS, index_split, require_training_cube
from pipeline.training.memory_limit import available_memory_bytes
from pipeline.training.preprocess import normalise

MEMORY_FRACTION = 0.6
NORMALISE_BATCH = 256


@dataclass(frozen=True)
class Examples:
    """The examples of one split.

    Attributes:
        split: name of the split.
        stamps: (example, band, y, x) float32 normalised with `preprocess`. [1]
        label: (example) uint8, 1 for an injected stamp.
        row: (example) int64 row of the cube.
        columns: cube columns of those rows, dim `example`; arc_snr and theta_e_arcsec of a control are its pair's.
        preprocess: how the stamps were normalised.
    """

    split: str
    stamps: NDArray[np.float32]
    label: NDArray[np.uint8]
    row: NDArray[np.int64]
    columns: xr.Dataset
    preprocess: PreprocessSection

    def __len__(self) -> int:
        return len(self.label)


def load_examples(
    cube: PublishedCube, preprocess: PreprocessSection, memory_limit_bytes: int | None = None
) -> dict[str, Examples]:
    """Read the used stamps of train, val and test, shard after shard, and normalise them.

    Args:
        cube: published training cube.
        preprocess: normalisation of every stamp.
        memory_limit_bytes: most bytes that stamps may take; 60 % of the available memory by default.

    Raises:
        VerificationError: a split has fewer than 10 examples of a class.
        ContractError: not a training cube of this version; or non-finite pixels, or stamps without noise, in used
            rows, the message names the shard.
        ConfigError: the stamps do not fit in memory.
        StorageError: unreadable or corrupt bytes.
    """
    require_training_cube(cube)
    columns = cube.columns(COLUMNS)
    index = {name: index_split(columns, name) for name in TRAINED_SPLITS}
    wanted = np.unique(np.concatenate([row for row, _ in index.values()]))
    shards = np.unique(wanted // cube.shard_samples)
    stamps: dict[str, NDArray[np.float32]] = {}
    for number, shard in enumerate(shards.tolist()):
        pixels = cube.read_shard(shard, ("injected", "control"))
        if number == 0:
            stamps = _allocate(index, pixels["injected"].shape, cube, memory_limit_bytes)
        for name, (row, label) in index.items():
            try:
                _fill(stamps[name], row, label, pixels, cube.shard_range(shard), preprocess)
            except ContractError as error:
                raise ContractError(f"{cube.location.url} shard {shard}, split {name}: {error}") from error
    return {
        name: Examples(
            split=name,
            stamps=stamps[name],
            label=label,
            row=row,
            columns=columns.isel(sample=row).rename(sample="example"),
            preprocess=preprocess,
        )
        for name, (row, label) in index.items()
    }


def batches(
    examples: Examples, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]]:
    """All examples once, in the order of the epoch's permutation; the last batch may be shorter.

    Yields:
        stamps (example, band, y, x) float32, labels (example) float32 and cube rows (example) int64.
    """
    order = epoch_permutation(len(examples), seed, epoch)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        label = examples.label[chosen].astype(np.float32)
        yield torch.from_numpy(examples.stamps[chosen]), torch.from_numpy(label), examples.row[chosen]


def _allocate(
    index: dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]],
    shape: tuple[int, ...],
    cube: PublishedCube,
    limit_bytes: int | None,
) -> dict[str, NDArray[np.float32]]:
    stamp_bytes = 4 * int(np.prod(shape[1:]))
    n_examples = sum(row.size for row, _ in index.values())
    needed = stamp_bytes * (n_examples + 2 * cube.shard_samples)
    limit = int(MEMORY_FRACTION * available_memory_bytes()) if limit_bytes is None else limit_bytes
    if needed > limit:
        raise ConfigError(
            f"{n_examples} stamps of {cube.location.url} need {needed} bytes of memory, the limit is {limit}; "
            "give the trainer more memory or plan a smaller cube"
        )
    return {name: np.empty((row.size, *shape[1:]), dtype=np.float32) for name, (row, _) in index.items()}


def _fill(
    stamps: NDArray[np.float32],
    row: NDArray[np.int64],
    label: NDArray[np.uint8],
    pixels: xr.Dataset,
    rows: tuple[int, int],
    preprocess: PreprocessSection,
) -> None:
    first, last = np.searchsorted(row, rows)
    for kind, wanted in (("control", 0), ("injected", 1)):
        target = first + np.flatnonzero(label[first:last] == wanted)
        source = pixels[kind].to_numpy()[row[target] - rows[0]]
        broken = np.count_nonzero(~np.isfinite(source).all(axis=(1, 2, 3)))
        if broken:
            raise ContractError(f"{broken} of {len(source)} used {kind} stamps hold pixels that are not finite")
        for start in range(0, len(source), NORMALISE_BATCH):
            batch = torch.from_numpy(source[start : start + NORMALISE_BATCH])
            stamps[target[start : start + NORMALISE_BATCH]] = normalise(batch, preprocess).numpy()
