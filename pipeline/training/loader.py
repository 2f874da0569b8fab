"""Examples for the trainer: the used stamps of a published training cube, normalised, in memory.

A row with role `pair` gives two examples, its injected stamp (label 1) and its control (label 0); a row with
role `control` gives its control, one with role `injected` its injected stamp. Guard rows are never read into an
example. Order inside a split is that of the cube, a pair's injected stamp first; shuffling is the epoch
permutation's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import ROLES, SPLITS, TRAINED_SPLITS, TRAINING
from pipeline.contracts.errors import ConfigError, ContractError, PipelineError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.cube import PublishedCube
from pipeline.training.preprocess import normalise

COLUMNS = ("task_id", "pair_id", "host_id", "role", "split", "arc_snr", "theta_e_arcsec", "psfsize_arcsec")
MIN_PER_CLASS = 10
MEMORY_FRACTION = 0.6
NORMALISE_BATCH = 256
SHUFFLE_PURPOSE = 0
MEMINFO = Path("/proc/meminfo")
CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


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
    _require_training_cube(cube)
    columns = cube.columns(COLUMNS)
    index = {name: _index_split(columns, name) for name in TRAINED_SPLITS}
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


def epoch_permutation(n_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(example) permutation of one epoch; depends on `seed` and `epoch` only."""
    key = np.random.SeedSequence([seed, epoch, SHUFFLE_PURPOSE])
    return np.random.Generator(np.random.Philox(key)).permutation(n_examples)


def available_memory_bytes(meminfo: Path = MEMINFO, cgroup_files: tuple[tuple[Path, Path], ...] = CGROUP_FILES) -> int:
    """Memory this process can still take: the kernel's MemAvailable, or what its cgroup leaves if that is less.

    Raises:
        PipelineError: the kernel does not say.
    """
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            break
    else:
        raise PipelineError(f"{meminfo} has no MemAvailable; give the memory limit explicitly")
    for limit_file, usage_file in cgroup_files:
        if limit_file.exists() and usage_file.exists():
            limit = limit_file.read_text(encoding="ascii").strip()
            if limit != "max":
                available = min(available, int(limit) - int(usage_file.read_text(encoding="ascii")))
    return max(available, 0)


def _require_training_cube(cube: PublishedCube) -> None:
    got = (cube.attrs.get("schema"), cube.attrs.get("schema_version"))
    if got != (TRAINING.name, TRAINING.version):
        raise ContractError(
            f"{cube.location.url}: expected cube schema {TRAINING.name!r} version {TRAINING.version}, got {got}"
        )


def _index_split(columns: xr.Dataset, split: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    role = columns["role"].to_numpy()
    inside = columns["split"].to_numpy() == SPLITS.index(split)
    pairs = np.flatnonzero(inside & (role == ROLES.index("pair")))
    controls = np.flatnonzero(inside & (role == ROLES.index("control")))
    alone = np.flatnonzero(inside & (role == ROLES.index("injected")))
    row = np.concatenate([pairs, alone, pairs, controls])
    n_positives, n_negatives = pairs.size + alone.size, pairs.size + controls.size
    label = np.repeat(np.array([1, 0], dtype=np.uint8), [n_positives, n_negatives])
    if min(n_positives, n_negatives) < MIN_PER_CLASS:
        raise VerificationError(
            f"split {split} has {n_positives} injected and {n_negatives} control examples; "
            f"expected at least {MIN_PER_CLASS} of each"
        )
    order = np.lexsort((1 - label, row))
    return row[order].astype(np.int64), label[order]


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
