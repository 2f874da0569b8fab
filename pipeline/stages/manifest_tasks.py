"""Rows of a manifest from the hosts that were taken: which grid entry, control or not, identity, frozen draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import (
    AB_ZP_NMGY,
    BRICK_NUMBERS,
    CONFIG_NUMBERS,
    CONTROL_ID,
    PHOTOMETRY,
    PIPELINE_VERSION,
    SPLIT_NAMES,
    BrickTable,
    CodedTexts,
    Hosts,
    HostSample,
    Selections,
)
from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest_config import Experiment
from pipeline.kernels.spark_hash import TextColumn, hash_modulo, hash_uniform, spark_xxhash64
from pipeline.stages.frozen_draws import draw_frozen, host_hashes, lens_models, task_seeds
from pipeline.stages.injection_grids import injection_grid
from pipeline.stages.manifest_sampling import bin_of
from pipeline.stages.spark_text import micro_units, six_decimals

_SEED_CONTROL, _SEED_CONTROL_TRAIN = 7001, 7003
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class ManifestInputTables:
    """What rows are made from besides the hosts: bricks, selections, bin edges and the seed of the build."""

    bricks: BrickTable
    selections: Selections
    psf_edges_arcsec: tuple[float, ...]
    depth_edges_mag: tuple[float, ...]
    split_seed: int


class TaskTable:
    """The rows of one manifest, numbered by host, grid entry and replicate; made in pieces of any row numbers.

    Args:
        experiment: which manifest.
        tables: see ManifestInputTables.
        hosts: every host of the sample, and maybe more.
        sample: hosts taken for each selection set.
        replicates: rows that differ only in their draws.
        unpaired: whether train controls lose the name of their grid entry.

    Raises:
        ContractError: a row of the sample is not among the hosts.
    """

    def __init__(
        self,
        experiment: Experiment,
        tables: ManifestInputTables,
        hosts: Hosts,
        sample: HostSample,
        replicates: int,
        *,
        unpaired: bool,
    ) -> None:
        self.experiment, self._tables, self._hosts, self.replicates = experiment, tables, hosts, replicates
        self._grid = injection_grid(experiment.section.grid)
        self._is_train = experiment.tier == "train"
        self._names = TextColumn.of(tables.bricks.names)
        by_row = np.argsort(hosts.row)
        host = by_row[np.searchsorted(hosts.row[by_row], sample.row).clip(max=len(by_row) - 1)]
        if not np.array_equal(hosts.row[host], sample.row):
            raise ContractError("manifest: a sampled row of the parent catalogue is not among the hosts")
        order = np.lexsort((sample.selection, host))
        self._host, self._set, self._split = host[order], sample.selection[order], sample.split[order]
        self.control = self._controls(sample.row_id[order])
        self._entry = hash_modulo(sample.row_id[order], len(self._grid)).astype(np.int32) if self._is_train else None
        self._config_texts = (*self._grid.config_ids, CONTROL_ID)
        self._config_column = TextColumn.of(self._config_texts)
        self._named_control = self._is_train and unpaired
        numbers = tables.bricks.numbers
        self._bins = {
            "psf_bin": bin_of(numbers["psfsize_r"], tables.psf_edges_arcsec),
            "depth_bin": bin_of(numbers["psfdepth_r"], tables.depth_edges_mag),
        }

    @property
    def rows_per_host(self) -> int:
        """Rows of a host in one selection set."""
        return rows_per_host(self.experiment, self.replicates)

    @property
    def n_rows(self) -> int:
        """Rows of the manifest."""
        return len(self._host) * self.rows_per_host

    @property
    def n_copies(self) -> int:
        """Rows whose stamp an earlier row has: of a host in several sets, and of a control but once."""
        positives = np.unique(self._host[~self.control]).size
        controls = np.unique(self._host[self.control]).size
        return self.n_rows - positives * self.rows_per_host - controls

    @property
    def brick_names(self) -> list[str]:
        """Bricks in which hosts lie, sorted."""
        return [self._tables.bricks.names[brick] for brick in np.unique(self._hosts.brick[self._host])]

    def pieces_by_brick(self, rows: int) -> Iterator[NDArray[np.int64]]:
        """Row numbers in order, in pieces of whole bricks with about this many rows."""
        brick = self._hosts.brick[self._host]
        stops = np.r_[np.flatnonzero(brick[1:] != brick[:-1]) + 1, brick.size] * self.rows_per_host
        start = 0
        while start < self.n_rows:
            stop = int(stops[min(np.searchsorted(stops, start + rows), stops.size - 1)])
            yield np.arange(start, stop)
            start = stop

    def task_digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """SHA-256 that is the task_id of each row, (row, 32) uint8."""
        pair, config, replicate = self._parts(rows)
        pairs, which = np.unique(pair, return_inverse=True)
        host = self._host[pairs]
        bricks = self._tables.bricks.names
        beginnings = [
            f"{self.experiment.experiment_id}|{self._tables.selections.set_ids[selection]}|{SPLIT_NAMES[split]}|"
            f"{bricks[brick]}|{ra}|{dec}|".encode()
            for selection, split, brick, ra, dec in zip(
                self._set[pairs].tolist(),
                self._split[pairs].tolist(),
                self._hosts.brick[host].tolist(),
                six_decimals(self._hosts.ra_deg[host].tolist()),
                six_decimals(self._hosts.dec_deg[host].tolist()),
                strict=True,
            )
        ]
        ends = [f"{name}|{number}".encode() for name in self._config_texts for number in range(self.replicates)]
        end = (config * self.replicates + replicate).tolist()
        sha256 = hashlib.sha256
        digests = b"".join([sha256(beginnings[w] + ends[e]).digest() for w, e in zip(which.tolist(), end, strict=True)])
        return np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST_BYTES)

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Columns of a manifest for these row numbers, by name.

        Returns:
            Numbers as (row,) arrays, masked where null; texts as CodedTexts; task_id as its SHA-256, (row, 32) uint8.
        """
        pair, config, replicate = self._parts(rows)
        host = self._host[pair]
        brick = self._hosts.brick[host]
        is_control = self.control[pair]
        selections, numbers = self._tables.selections, self._tables.bricks.numbers
        placed = np.minimum(config, len(self._grid) - 1)
        parameters = {name: np.where(is_control, 0.0, self._grid.numbers[name][placed]) for name in CONFIG_NUMBERS}
        theta_e_arcsec = parameters["theta_e_arcsec"]
        seeds = self._seeds(host, config, replicate)
        selection, split = self._set[pair].astype(np.int32), self._split[pair].astype(np.int32)
        return {
            "task_id": self.task_digests(rows),
            "experiment_id": _same(self.experiment.experiment_id, rows),
            "selection_set_id": CodedTexts(selection, selections.set_ids),
            "selection_strategy": CodedTexts(selection, selections.strategies),
            "ranking_mode": CodedTexts(selection, selections.modes),
            "region_id": self._hosts.region_id[host],
            "region_split": CodedTexts(split, SPLIT_NAMES),
            "brickname": CodedTexts(brick, self._tables.bricks.names),
            "ra": self._hosts.ra_deg[host],
            "dec": self._hosts.dec_deg[host],
            **{name: self._hosts.photometry[name][host] for name in PHOTOMETRY},
            **{name: np.ma.masked_invalid(numbers[name][brick]) for name in BRICK_NUMBERS},
            **{name: bins[brick] for name, bins in self._bins.items()},
            "config_id": CodedTexts(config, self._config_texts),
            **parameters,
            "stamp_size": np.full(rows.size, self.experiment.stamp_size_px, np.int32),
            "bandset": _same(self.experiment.bandset, rows),
            "replicate": replicate,
            "is_control": is_control.astype(np.int32),
            "task_seed64": seeds,
            **draw_frozen(seeds, theta_e_arcsec),
            "lens_model": CodedTexts(*lens_models(theta_e_arcsec)),
            "ab_zp_nmgy": np.full(rows.size, AB_ZP_NMGY),
            "pipeline_version": _same(PIPELINE_VERSION, rows),
        }

    def _parts(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Host entry, grid entry (the last one is CONTROL) and replicate of rows."""
        pair = rows // self.rows_per_host
        replicate = (rows % self.replicates).astype(np.int32)
        if self._entry is None:
            return pair, (rows // self.replicates % len(self._grid)).astype(np.int32), replicate
        entry = self._entry[pair]
        if self._named_control:
            entry = np.where(self.control[pair], np.int32(len(self._grid)), entry)
        return pair, entry, replicate

    def _seeds(
        self, host: NDArray[np.int64], config: NDArray[np.int32], replicate: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        hosts, which = np.unique(host, return_inverse=True)
        named = self._names.take(self._hosts.brick[hosts])
        hashes = host_hashes(named, self._hosts.ra_deg[hosts], self._hosts.dec_deg[hosts])
        return task_seeds(hashes[which], self._config_column.take(config), replicate, self._tables.split_seed)

    def _controls(self, row_id: NDArray[np.int64]) -> NDArray[np.bool_]:
        named = self._names.take(self._hosts.brick[self._host])
        split = TextColumn.of(SPLIT_NAMES).take(self._split)
        if self._is_train:
            hashes = spark_xxhash64(row_id, named, split, "train", self._tables.split_seed + _SEED_CONTROL_TRAIN)
        else:
            hashes = spark_xxhash64(
                named,
                micro_units(self._hosts.ra_deg[self._host]),
                micro_units(self._hosts.dec_deg[self._host]),
                TextColumn.of(self._tables.selections.set_ids).take(self._set),
                split,
                self.experiment.tier,
                self._tables.split_seed + _SEED_CONTROL,
            )
        return np.asarray(hash_uniform(hashes) < self.experiment.section.control_frac)


def rows_per_host(experiment: Experiment, replicates: int) -> int:
    """Rows that an experiment makes of a host in one selection set."""
    return replicates * (1 if experiment.tier == "train" else len(injection_grid(experiment.section.grid)))


def demand_distinct(digests: NDArray[np.uint8], where: str) -> None:
    """ContractError if a task_id, given as (row, 32) digests, occurs twice."""
    words = np.ascontiguousarray(digests).view("<u8")
    order = np.lexsort((words[:, 1], words[:, 0]))
    same = (words[order[1:]] == words[order[:-1]]).all(axis=1)
    if same.any():
        names = ", ".join(bytes(digests[row]).hex() for row in order[1:][same][:2])
        raise ContractError(
            f"{where}: {int(same.sum())} rows with a task_id that another row has ({names}); "
            "hosts of one brick at the same position to 1e-6 deg"
        )


def _same(text: str, rows: NDArray[np.int64]) -> CodedTexts:
    return CodedTexts(np.zeros(rows.size, np.int32), (text,))
