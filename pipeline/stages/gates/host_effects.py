"""The largest difference between chosen hosts and their population over many columns: interval and null.

Rows of one host share its columns, so hosts are what is resampled and permuted, never rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.stages.gates.result import Null
from pipeline.stages.host_bootstrap import centred_interval

PERMUTATIONS = 299
BOOTSTRAPS = 299
MAX_HOSTS = 50_000
_BINS = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HostColumns:
    """Columns of hosts, binned for Kolmogorov-Smirnov distances.

    Attributes:
        chosen, population: (host,) rows of the host that were chosen, and that could have been.
        standard: (host, column) values in standard deviations about the mean; 0 where there is none.
        finite: (host, column) 1 where there is a value.
        bins: (host, column) quantile bin.
    """

    chosen: Floats
    population: Floats
    standard: Floats
    finite: Floats
    bins: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Floats],
        host_id: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        usable: NDArray[np.bool_],
        generator: np.random.Generator,
    ) -> HostColumns:
        """Hosts of the usable rows; of more than MAX_HOSTS hosts, so many at random.

        Args:
            columns: (row,) values, NaN for none; each has a finite value in some usable row.
            host_id: (row,) identity of the host.
            chosen: (row,) True where the row was chosen; those are usable.
            usable: (row,) True where the row belongs to the population.
            generator: of the choice of hosts.
        """
        rows = np.flatnonzero(usable)
        _, first, code = np.unique(host_id[rows], return_index=True, return_inverse=True)
        kept = np.arange(first.size)
        if first.size > MAX_HOSTS:
            kept = np.sort(generator.choice(first.size, MAX_HOSTS, replace=False))
        values = np.stack([column[rows[first[kept]]] for column in columns.values()], axis=1)
        finite = np.isfinite(values)
        held = np.where(finite, values, 0.0)
        n = np.maximum(finite.sum(axis=0), 1)
        mean = held.sum(axis=0) / n
        deviation = np.where(finite, values - mean, 0.0)
        spread = np.sqrt((deviation**2).sum(axis=0) / n)
        return cls(
            np.bincount(code, weights=chosen[rows])[kept].astype(np.float64),
            np.bincount(code)[kept].astype(np.float64),
            deviation / np.where(spread > 0.0, spread, 1.0),
            finite.astype(np.float64),
            np.stack([_quantile_bins(*pair) for pair in zip(values.T, finite.T, strict=True)], axis=1),
        )

    def column(self, index: int) -> HostColumns:
        """One column alone."""
        one = slice(index, index + 1)
        return HostColumns(self.chosen, self.population, self.standard[:, one], self.finite[:, one], self.bins[:, one])

    def effects(self, chosen: Floats, population: Floats) -> Floats:
        """(column,) effects, the larger of |Cohen d| and the d of equal normals with the same KS distance.

        Args:
            chosen, population: (host,) weights.
        """
        cumulative, moments = [], []
        n_columns = self.bins.shape[1]
        cell = (self.bins + _BINS * np.arange(n_columns)).ravel()
        for host_weight in (chosen, population):
            weight = host_weight[:, None] * self.finite
            counts = np.bincount(cell, weights=weight.ravel(), minlength=n_columns * _BINS).reshape(n_columns, _BINS)
            total = counts.sum(axis=1)
            n = np.maximum(total, 1.0)
            mean = host_weight @ self.standard / n
            variance = np.maximum(host_weight @ self.standard**2 / n - mean**2, 0.0)
            cumulative.append(np.cumsum(counts, axis=1) / n[:, None])
            moments.append((total, mean, variance))
        (n, mean, variance), (m, other, other_variance) = moments
        pooled = np.sqrt((n * variance + m * other_variance) / np.maximum(n + m - 2.0, 1.0))
        d = np.abs(mean - other) / np.where(pooled > 0.0, pooled, np.inf)
        distance = np.abs(cumulative[0] - cumulative[1]).max(axis=1)
        apart = 2.0 * stats.norm.ppf((1.0 + np.minimum(distance, 1.0)) / 2.0)
        return np.asarray(np.maximum(d, apart), dtype=np.float64)


def effect_chance(
    hosts: HostColumns, value: float, worst: int, generator: np.random.Generator
) -> tuple[tuple[float, float], Null]:
    """Interval of the largest effect, and its null.

    The interval resamples hosts at the column that decided. The null permutes which rows were chosen among hosts
    with equally many rows, all columns at once, and takes the largest effect of each permutation.

    Args:
        hosts: columns of the hosts.
        value: the largest effect.
        worst: index of the column that has it.
        generator: of permutations and bootstrap.
    """
    size = hosts.chosen.size
    observed = float(hosts.effects(hosts.chosen, hosts.population).max())
    by_rows = np.argsort(hosts.population, kind="stable")
    drawn = np.empty(PERMUTATIONS)
    for index in range(PERMUTATIONS):
        shuffled = np.empty(size)
        shuffled[by_rows] = hosts.chosen[np.lexsort((generator.random(size), hosts.population))]
        drawn[index] = hosts.effects(shuffled, hosts.population).max()
    p = (1 + int((drawn >= observed - 1e-12).sum())) / (1 + PERMUTATIONS)
    one = hosts.column(worst)
    again = np.empty(BOOTSTRAPS)
    for index in range(BOOTSTRAPS):
        weight = np.bincount(generator.integers(0, size, size), minlength=size)
        again[index] = one.effects(weight * hosts.chosen, weight * hosts.population)[0]
    found = centred_interval(value, again)
    return (max(found.low, 0.0), found.high), Null("choice permuted among hosts", PERMUTATIONS, p)


def _quantile_bins(values: Floats, finite: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(host,) bin of each value between _BINS quantiles of the finite ones; 0 where there is none."""
    bins = np.zeros(values.size, dtype=np.int64)
    if finite.any():
        edges = np.unique(np.quantile(values[finite], np.linspace(0.0, 1.0, _BINS + 1)[1:-1]))
        bins[finite] = np.searchsorted(edges, values[finite], side="left")
    return bins
