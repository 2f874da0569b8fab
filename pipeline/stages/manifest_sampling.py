"""Stratified samples of hosts: the same hosts whatever the order and the partitioning of the parent catalogue.

A host is taken for a selection set and split if its hash is among the smallest of its cell of seeing and depth, and a
second hash among the smallest over all cells. Cells with too few hosts are not filled from others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import (
    CELLS_PER_AXIS,
    DROP_REASONS,
    SPLIT_NAMES,
    BrickTable,
    HostBatch,
    HostSample,
    Selections,
)
from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.kernels.spark_hash import TextColumn, spark_xxhash64

N_CELLS = CELLS_PER_AXIS**2
_NAMED_ROWS = 3
_MIN_BUFFER = 2_000_000
_CANDIDATE = np.dtype([("group", "i4"), ("order", "i8"), ("row_id", "i8"), ("row", "i8")])


def quartile_edges(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Minimum, quartiles and maximum as values that occur: the ceil(p n)-th smallest. NaN does not count.

    Spark's approximate quantiles are these for small tables, and within a rank of 0.1 % of the rows for large ones.

    Raises:
        ContractError: fewer than two distinct values.
    """
    ordered = np.sort(values[np.isfinite(values)])
    if ordered.size == 0 or ordered[0] == ordered[-1]:
        raise ContractError(f"bricks: expected values to take quartiles of, got {ordered.size} equal or none")
    ranks = [max(math.ceil(share * ordered.size) - 1, 0) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return tuple(float(ordered[rank]) for rank in ranks)


def bin_of(values: NDArray[np.float64], edges: Sequence[float]) -> NDArray[np.int32]:
    """Bin 0..3 that holds each value, lower edges included; values below, above and NaN are in the last one."""
    bins = np.full(values.shape, len(edges) - 2, np.int32)
    for index in range(len(edges) - 2):
        bins[(values >= edges[index]) & (values < edges[index + 1])] = index
    return bins


@dataclass
class HostSampler:
    """Collects the hosts that any tier may take, while batches of the parent catalogue go by.

    Attributes:
        bricks, selections: what hosts belong to.
        psf_edges_arcsec, depth_edges_mag: five edges each.
        split_seed: seed of the build.
        per_cell: hosts that any tier takes per cell, at most.
        max_entries: more hosts, each counted per selection set, are refused; None for no limit.
        dropped: rows kept out by reason.

    Raises:
        ContractError: from `add`, a row that cannot be used; from `finish`, the same host twice.
        ConfigError: from `add`, more than max_entries.
    """

    bricks: BrickTable
    selections: Selections
    psf_edges_arcsec: Sequence[float]
    depth_edges_mag: Sequence[float]
    split_seed: int
    per_cell: int
    max_entries: int | None = None
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROP_REASONS, 0))
    n_read: int = 0

    def __post_init__(self) -> None:
        numbers = self.bricks.numbers
        psf_bin = bin_of(numbers["psfsize_r"], self.psf_edges_arcsec)
        depth_bin = bin_of(numbers["psfdepth_r"], self.depth_edges_mag)
        self._cells = psf_bin * CELLS_PER_AXIS + depth_bin
        self._measured: NDArray[np.bool_] = np.isfinite(numbers["psfsize_r"] + numbers["psfdepth_r"])
        self._names = TextColumn.of(self.bricks.names)
        n_groups = len(self.selections.set_ids) * len(SPLIT_NAMES) * N_CELLS
        self._eligible = np.zeros(n_groups, np.int64)
        self._last_order = np.full(n_groups, np.iinfo(np.int64).max)
        self._occupied = np.zeros(len(self.selections.region_ids), np.bool_)
        self._kept = np.empty(0, _CANDIDATE)
        self._new: list[NDArray[Any]] = []
        self._n_new = 0
        self._row_ids: list[NDArray[np.int64]] = []

    def add(self, batch: HostBatch) -> None:
        """Take the hosts of a batch that may be needed."""
        self.n_read += len(batch)
        region = np.searchsorted(self.selections.region_ids, batch.region_id)
        region[region == len(self.selections.region_ids)] = 0
        known = (self.selections.region_ids[region] == batch.region_id) & np.asarray(
            self.selections.member.any(axis=0)
        )[region]
        keep = np.ones(len(batch), np.bool_)
        tests = (batch.flag, known, batch.brick >= 0, self._measured[batch.brick])
        for reason, passed in zip(DROP_REASONS, tests, strict=True):
            self.dropped[reason] += int((keep & ~passed).sum())
            keep &= passed
        rows = np.flatnonzero(keep)
        region = region[rows]
        self._demand_usable(batch, rows, region)
        self._occupied[region] = True
        row_ids = spark_xxhash64(
            self._names.take(batch.brick[rows]),
            batch.ra_deg[rows],
            batch.dec_deg[rows],
            batch.photometry["zmag"][rows],
            batch.photometry["rmag"][rows],
        )
        self._row_ids.append(row_ids)
        order = spark_xxhash64(row_ids, self.split_seed)
        place = batch.split[rows].astype(np.int32) * N_CELLS + self._cells[batch.brick[rows]]
        for index in range(len(self.selections.set_ids)):
            member = self.selections.member[index, region]
            group = place[member] + index * len(SPLIT_NAMES) * N_CELLS
            self._eligible += np.bincount(group, minlength=len(self._eligible))
            wanted = order[member] <= self._last_order[group]
            entries = np.empty(int(wanted.sum()), _CANDIDATE)
            entries["group"], entries["order"] = group[wanted], order[member][wanted]
            entries["row_id"], entries["row"] = row_ids[member][wanted], (batch.first_row + rows[member])[wanted]
            self._new.append(entries)
            self._n_new += entries.size
        if self._n_new > max(_MIN_BUFFER, self._kept.size):
            self._prune()

    def finish(self) -> None:
        """To be called after the last batch, before samples are taken."""
        self._prune()
        row_ids = np.concatenate(self._row_ids) if self._row_ids else np.empty(0, np.int64)
        self._row_ids = []
        row_ids.sort()
        twice = row_ids[1:][row_ids[1:] == row_ids[:-1]]
        if twice.size:
            kept = self._kept[np.isin(self._kept["row_id"], twice)]
            rows = ", ".join(map(str, np.unique(kept["row"])[: 2 * _NAMED_ROWS]))
            raise ContractError(
                f"parent catalogue: {twice.size} hosts occur again with equal brickname, ra, dec, zmag and rmag"
                + (f" (rows {rows} ...)" if rows else "")
                + "; remove the copies, for a sample would depend on which one is taken"
            )

    def sample(self, n_hosts: int) -> HostSample:
        """Up to n_hosts for each selection set and split.

        Returns:
            Entries ordered by set, split and second hash, which no order of the catalogue changes.
        """
        kept = self._kept[_rank_in_group(self._kept["group"]) < math.ceil(n_hosts / N_CELLS)]
        block = kept["group"] // N_CELLS
        by_hash = np.lexsort((kept["row_id"], spark_xxhash64(kept["row_id"], self.split_seed + 1), block))
        kept, block = kept[by_hash], block[by_hash]
        capped = _rank_in_group(block) < n_hosts
        kept, block = kept[capped], block[capped]
        return HostSample(
            (block // len(SPLIT_NAMES)).astype(np.int16),
            (block % len(SPLIT_NAMES)).astype(np.int8),
            kept["row"].copy(),
            kept["row_id"].copy(),
        )

    def strata(self, n_hosts: int) -> list[dict[str, Any]]:
        """For each selection set and split: hosts there are, and cells that are empty or hold too few."""
        per_cell = math.ceil(n_hosts / N_CELLS)
        shape = (len(self.selections.set_ids), len(SPLIT_NAMES), N_CELLS)
        return [
            {
                "selection_set_id": name,
                "region_split": split,
                "hosts_requested": n_hosts,
                "hosts_eligible": int(cells.sum()),
                "cells_empty": int((cells == 0).sum()),
                "cells_short": int(((cells > 0) & (cells < per_cell)).sum()),
            }
            for name, sets in zip(self.selections.set_ids, self._eligible.reshape(shape), strict=True)
            for split, cells in zip(SPLIT_NAMES, sets, strict=True)
        ]

    def regions_without_hosts(self) -> list[int]:
        """Selected regions in which no usable host was found."""
        selected = self.selections.member.any(axis=0)
        return [int(region) for region in self.selections.region_ids[selected & ~self._occupied]]

    def _prune(self) -> None:
        entries = np.concatenate([self._kept, *self._new])
        self._new, self._n_new = [], 0
        entries = entries[np.lexsort((entries["row_id"], entries["order"], entries["group"]))]
        rank = _rank_in_group(entries["group"])
        full = rank == self.per_cell - 1
        self._last_order[entries["group"][full]] = entries["order"][full]
        self._kept = entries[rank < self.per_cell]
        if self.max_entries is not None and self._kept.size > self.max_entries:
            raise ConfigError(
                f"guardrail: {self._kept.size} hosts of all selection sets and splits so far, each at least one row; "
                f"max_tasks is {self.max_entries}; ask for fewer hosts or raise max_tasks"
            )

    def _demand_usable(self, batch: HostBatch, rows: NDArray[np.int64], region: NDArray[np.int64]) -> None:
        ra, dec, split = batch.ra_deg[rows], batch.dec_deg[rows], batch.split[rows]
        with np.errstate(invalid="ignore"):
            outside = ~((ra >= 0) & (ra < 360) & (np.abs(dec) <= 90))
        checks = (
            ("ra or dec null, NaN or out of range", outside),
            (f"region_split not one of {', '.join(SPLIT_NAMES)}", split < 0),
            (
                "region_split unlike that of the region selections",
                (split >= 0) & (split != self.selections.split[region]),
            ),
        )
        problems = []
        for what, wrong in checks:
            if wrong.any():
                named = ", ".join(map(str, batch.first_row + rows[wrong][:_NAMED_ROWS]))
                problems.append(f"{int(wrong.sum())} rows with {what} (rows {named})")
        if problems:
            raise ContractError("parent catalogue is unusable: " + "; ".join(problems))


def _rank_in_group(groups: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Position of each entry in its run of equal groups."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if groups.size else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, groups.size])
    return np.arange(groups.size) - np.repeat(starts, lengths)
