"""Other loaders of the same stamps: memory, memory map, Zarr, webdataset, litdata; each consumes one epoch."""

from __future__ import annotations

import importlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from zarr.codecs import Crc32cCodec

TAR_EXAMPLES = 1024
SHUFFLE_BUFFER = 1024
NAIVE_EXAMPLES = 512


class Stamps:
    """The stamps in memory and in every peer's format.

    Args:
        folder: where the files go.
        stamps: (example, band, y, x) float32; labels are 1, 0, 1, 0, ...
    """

    def __init__(self, folder: Path, stamps: NDArray[np.float32]) -> None:
        self.stamps, self.folder = stamps, folder
        self.label = (1 - np.arange(len(stamps)) % 2).astype(np.float32)
        self.generator = np.random.default_rng(0)
        self.buffer = np.empty((0, *stamps.shape[1:]), np.float32)
        np.save(folder / "stamps.npy", stamps)
        self.memory_map = np.load(folder / "stamps.npy", mmap_mode="r")
        array = zarr.create_array(
            folder / "stamps.zarr", shape=stamps.shape, chunks=(16, *stamps.shape[1:]),
            shards=(512, *stamps.shape[1:]), dtype="float32", compressors=[Crc32cCodec()],
        )  # fmt: skip
        array[...] = stamps
        self._written: set[str] = set()

    def tars(self) -> list[str]:
        """webdataset shards: raw bytes of the stamp, and the label."""
        paths = [self.folder / f"{start:06d}.tar" for start in range(0, len(self.stamps), TAR_EXAMPLES)]
        if "tar" not in self._written:
            for number, path in enumerate(paths):
                with tarfile.open(path, "w") as tar:
                    for row in range(number * TAR_EXAMPLES, min((number + 1) * TAR_EXAMPLES, len(self.stamps))):
                        for name, data in (("bin", self.stamps[row].tobytes()), ("cls", b"%d" % self.label[row])):
                            entry = tarfile.TarInfo(f"{row:08d}.{name}")
                            entry.size = len(data)
                            tar.addfile(entry, io.BytesIO(data))
            self._written.add("tar")
        return [str(path) for path in paths]

    def litdata_folder(self) -> str:
        """litdata chunks of 64 MiB with the stamp as a tensor."""
        folder = self.folder / "litdata"
        if "litdata" not in self._written:
            litdata = importlib.import_module("litdata")
            cache = litdata.streaming.Cache(str(folder), chunk_bytes="64MB")
            for row, stamp in enumerate(self.stamps):
                cache[row] = {"x": torch.from_numpy(stamp), "y": int(self.label[row])}
            cache.done()
            cache.merge()
            self._written.add("litdata")
        return str(folder)

    def permutations(self, batch: int) -> Iterator[NDArray[np.int64]]:
        """Batches of a random order of all examples."""
        order = self.generator.permutation(len(self.stamps))
        return (order[start : start + batch] for start in range(0, len(order), batch))


class PerExample(Dataset[tuple[Any, float]]):
    """One example at a time."""

    def __init__(self, array: Any, label: NDArray[np.float32]) -> None:
        self.array, self.label = array, label

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, row: int) -> tuple[Any, float]:
        return torch.from_numpy(np.array(self.array[row])), float(self.label[row])


def ram_gather(stamps: Stamps, batch: int) -> int:
    return sum(len(torch.from_numpy(stamps.stamps[chosen])) for chosen in stamps.permutations(batch))


def ram_take(stamps: Stamps, batch: int) -> int:
    out = np.empty((batch, *stamps.stamps.shape[1:]), np.float32)
    return sum(
        len(np.take(stamps.stamps, chosen, axis=0, out=out[: len(chosen)], mode="clip"))
        for chosen in stamps.permutations(batch)
    )


def memory_map_gather(stamps: Stamps, batch: int) -> int:
    return sum(len(torch.from_numpy(stamps.memory_map[chosen])) for chosen in stamps.permutations(batch))


def memory_map_dataset(stamps: Stamps, batch: int) -> int:
    loader = DataLoader(PerExample(stamps.memory_map, stamps.label), batch, shuffle=True)
    return sum(len(x) for x, _ in loader)


def naive_zarr(stamps: Stamps, batch: int) -> int:
    array = zarr.open_array(stamps.folder / "stamps.zarr", mode="r")
    label = stamps.label[:NAIVE_EXAMPLES]
    order = stamps.generator.choice(len(stamps.label), label.size, replace=False)
    loader = DataLoader(PerExample(_Chosen(array, order), label), batch, shuffle=True)
    return sum(len(x) for x, _ in loader)


def webdataset(stamps: Stamps, batch: int) -> int:
    wds = importlib.import_module("webdataset")
    shape = stamps.stamps.shape[1:]

    def decode(sample: dict[str, Any]) -> tuple[Any, int]:
        return np.frombuffer(sample["bin"], np.float32).reshape(shape), int(sample["cls"])

    data = wds.WebDataset(stamps.tars(), shardshuffle=len(stamps.tars()), empty_check=False).shuffle(SHUFFLE_BUFFER)
    loader = wds.WebLoader(data.map(decode).batched(batch), batch_size=None, num_workers=0)
    return sum(len(x) for x, _ in loader)


def litdata(stamps: Stamps, batch: int) -> int:
    module = importlib.import_module("litdata")
    data = module.StreamingDataset(stamps.litdata_folder(), shuffle=True, seed=int(stamps.generator.integers(2**31)))
    return sum(len(sample["x"]) for sample in module.StreamingDataLoader(data, batch_size=batch, num_workers=0))


class _Chosen:
    def __init__(self, array: Any, order: NDArray[np.int64]) -> None:
        self.array, self.order = array, order

    def __getitem__(self, row: int) -> Any:
        return self.array[int(self.order[row])]


# Name to the call and the packages it needs.
PEERS: dict[str, tuple[Callable[[Stamps, int], int], tuple[str, ...]]] = {
    "RAM gather A[perm]": (ram_gather, ()),
    "RAM gather into one buffer": (ram_take, ()),
    "memory map, m[perm]": (memory_map_gather, ()),
    "memory map Dataset and DataLoader": (memory_map_dataset, ()),
    "Zarr Dataset, an example at a time": (naive_zarr, ()),
    "webdataset, cold": (webdataset, ("webdataset",)),
    "webdataset, first": (webdataset, ("webdataset",)),
    "litdata, first": (litdata, ("litdata",)),
}
