"""Gates on quality: pairs against the hosts they were chosen from, against control rows, and split against split."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import INJECTED_ROLES, REJECT_REASONS, SPLITS
from pipeline.stages.gates.host_effects import HostColumns, effect_chance
from pipeline.stages.gates.result import GateInput, Measurement, Null, cohen_d, gate_generator, has_role
from pipeline.stages.host_bootstrap import centred_interval

# Reasons that the injection, not the cutout, gave: the host itself was good enough to be used.
_INJECTION_REASONS = ("sampler_exhausted", "arc_masked")
_COLUMNS = (
    "bad_pixel_frac",
    "wise_brightmask_frac",
    "mag_g",
    "mag_r",
    "mag_z",
    "ebv_mag",
    "psfdepth_r_mag",
)
_BAND_COLUMNS = ("psfsize_arcsec", "sky_sigma_nmgy")
_SPLIT_SHUFFLES = 499
_SPLIT_BOOTSTRAPS = 299
_SPLIT_BINS = 64


def count_hosts(sample: GateInput) -> tuple[int, int]:
    """Hosts that became pairs, and the population of hosts that could have."""
    return int(has_role(sample.columns, *INJECTED_ROLES).sum()), int(_usable_hosts(sample).sum())


def count_split_rows(sample: GateInput) -> tuple[int, int]:
    """Used rows of the train split, and of the val and test splits together."""
    split, used = sample.columns["split"].to_numpy(), has_role(sample.columns, *INJECTED_ROLES, "control")
    held_out = np.isin(split, [SPLITS.index("val"), SPLITS.index("test")])
    return int((used & (split == SPLITS.index("train"))).sum()), int((used & held_out).sum())


def no_held_out_split(config: RunConfig) -> str:
    """Why there are no splits to compare; empty if there are."""
    return "" if config.splits.val > 0 or config.splits.test > 0 else "no split but train is configured"


def compare_quality(sample: GateInput) -> Measurement:
    """The hosts that became pairs are a fair sample of those that could have, in quality and brightness.

    Pair members share their host, so they cannot differ there; but the sampler can prefer some hosts, and
    control rows can be other hosts. Each column passes if its two-sample Kolmogorov-Smirnov p is at least
    `quality_ks_p_min` after Holm's correction over all comparisons, or its effect is at most
    `quality_effect_max`.

    * p is of pairs against the usable hosts that did not become pairs, two disjoint samples as the
      test demands; asymptotic. Without such hosts the pairs are the population, and p is 1.
    * the effect, of pairs against the whole population, is the larger of |Cohen d| and the d of two
      normal distributions of equal width with the same KS distance D, 2 Phi^-1((1 + D) / 2): the
      second sees differences that leave the mean alone.
    * where there are `min_per_class` control rows, the same of pairs against control rows alone.

    The value is the largest effect against the population, with the interval and null of `effect_chance`. Columns
    with no finite value are skipped by name, but psfsize and sky sigma are needed in every band.

    Raises:
        ValueError: no column can be compared.
    """
    section = sample.config.gates
    is_pair, is_control = has_role(sample.columns, *INJECTED_ROLES), has_role(sample.columns, "control")
    usable = _usable_hosts(sample)
    compared: dict[str, dict[str, Any]] = {}
    against_controls: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    problems: list[str] = []
    columns = _quality_columns(sample)
    for name, values in columns.items():
        finite = np.isfinite(values)
        chosen, population = values[is_pair & finite], values[usable & finite]
        if population.size == 0 and not name.startswith(_BAND_COLUMNS):
            skipped.append(name)
        elif chosen.size < section.min_per_class:
            problems.append(f"{name} is finite in {chosen.size} pairs, fewer than {section.min_per_class}")
        else:
            compared[name] = _compare_column(chosen, population, values[usable & ~is_pair & finite])
            controls = values[is_control & finite]
            if controls.size >= section.min_per_class:
                against_controls[name] = _compare_column(chosen, controls, controls)
    problems += _judge(
        {**compared, **{f"{name} of control rows": result for name, result in against_controls.items()}},
        section.quality_ks_p_min,
        section.quality_effect_max,
    )
    if not compared:
        raise ValueError(f"no column can be compared: {'; '.join(problems)}")
    effects = [float(result["effect"]) for result in compared.values()]
    generator = gate_generator(sample.config.run.seed, "quality_distributions")
    hosts = HostColumns.of(
        {name: columns[name] for name in compared}, sample.columns["host_id"].to_numpy(), is_pair, usable, generator
    )
    interval, null = effect_chance(hosts, max(effects), int(np.argmax(effects)), generator)
    return Measurement(
        passed=not problems,
        value=max(effects),
        bound=f"per column Holm-adjusted KS p >= {section.quality_ks_p_min} or effect <= {section.quality_effect_max}",
        detail={"columns": compared, "control_rows": against_controls, "skipped": skipped},
        message="; ".join(problems) or f"{len(compared)} columns match the usable hosts",
        interval_95=interval,
        null=null,
    )


def compare_splits(sample: GateInput) -> Measurement:
    """Train, val and test hold hosts of the same quality and brightness.

    Every column of `compare_quality` is compared between train and each other split that was asked for. Rows
    of one sky cell share seeing and depth, so they are not independent: p is that of the KS distance (over
    64 quantile bins) among 499 random assignments of the cells to splits of the same numbers of cells,
    adjusted over all comparisons by the largest standardised distance of each assignment (Westfall & Young
    1993). A comparison passes if p is at least `quality_ks_p_min` or its effect at most
    `quality_effect_max`. The value is the largest KS distance, its interval resamples the cells, and the p of the
    null is the smallest of all comparisons.
    """
    section, requested = sample.config.gates, sample.config.splits
    split = sample.columns["split"].to_numpy()
    used = has_role(sample.columns, *INJECTED_ROLES, "control") & (split != SPLITS.index("guard"))
    others = [name for name in ("val", "test") if getattr(requested, name) > 0]
    first_rows, cell = np.unique(
        sample.columns["split_healpix"].to_numpy()[used], return_index=True, return_inverse=True
    )[1:]
    cell_split = split[used][first_rows]
    generator = gate_generator(sample.config.run.seed, "quality_by_split")
    assignments = np.stack([cell_split, *(generator.permutation(cell_split) for _ in range(_SPLIT_SHUFFLES))])
    by_split = {name: (assignments == SPLITS.index(name)).astype(np.float32) for name in ("train", *others)}
    compared: dict[str, dict[str, Any]] = {}
    distances: list[NDArray[np.float64]] = []
    worst = (-1.0, "", np.empty((0, 0), dtype=np.float32))
    skipped: list[str] = []
    problems: list[str] = []
    for name, every in _quality_columns(sample).items():
        values = every[used]
        finite = np.isfinite(values)
        train = values[finite & (split[used] == SPLITS.index("train"))]
        if not finite.any():
            skipped.append(name)
            continue
        for other in others:
            held_out = values[finite & (split[used] == SPLITS.index(other))]
            if min(train.size, held_out.size) < 2:
                problems.append(f"{name} is finite in {train.size} train and {held_out.size} {other} rows")
                continue
            compared[f"{name} of {other}"] = _compare_column(held_out, train, train)
            binned = _binned_cells(values[finite], cell[finite], cell_split.size)
            distances.append(_distances(by_split["train"] @ binned, by_split[other] @ binned))
            if float(compared[f"{name} of {other}"]["ks_d"]) >= worst[0]:
                worst = float(compared[f"{name} of {other}"]["ks_d"]), other, binned
    if not distances:
        raise ValueError(f"nothing to compare: {'; '.join(problems) or 'no column has a finite value'}")
    standard = np.stack(distances)
    spread = standard[:, 1:].std(axis=1)
    standard = (standard - standard[:, 1:].mean(axis=1)[:, None]) / np.where(spread > 0, spread, np.inf)[:, None]
    largest = standard[:, 1:].max(axis=0)
    for (name, result), observed in zip(compared.items(), standard[:, 0], strict=True):
        result["p_cells"] = (1 + int((largest >= observed).sum())) / (1 + _SPLIT_SHUFFLES)
        if not (result["p_cells"] >= section.quality_ks_p_min or result["effect"] <= section.quality_effect_max):
            problems.append(_difference(name, result, result["p_cells"]))
    value, other, binned = worst
    weight = np.stack(
        [np.bincount(generator.integers(0, cell_split.size, cell_split.size), minlength=cell_split.size)
         for _ in range(_SPLIT_BOOTSTRAPS)]
    ).astype(np.float32)  # fmt: skip
    again = _distances(*((weight * by_split[name][0]) @ binned for name in ("train", other)))
    found = centred_interval(value, again)
    return Measurement(
        passed=not problems,
        value=value,
        bound=f"per column p over cells >= {section.quality_ks_p_min} or effect <= {section.quality_effect_max}",
        detail={
            "columns": compared,
            "skipped": skipped,
            "cells": cell_split.size,
        },
        message="; ".join(problems) or f"{len(compared)} comparisons of {cell_split.size} sky cells agree with chance",
        interval_95=(max(found.low, 0.0), min(found.high, 1.0)),
        null=Null(
            "sky cells permuted over the splits",
            _SPLIT_SHUFFLES,
            min(float(result["p_cells"]) for result in compared.values()),
        ),
    )


def _usable_hosts(sample: GateInput) -> NDArray[np.bool_]:
    reasons = [REJECT_REASONS.index(reason) for reason in _INJECTION_REASONS]
    turned_down = np.isin(sample.columns["reject_reason"].to_numpy(), reasons)
    return has_role(sample.columns, *INJECTED_ROLES, "control") | (has_role(sample.columns, "unused") & turned_down)


def _quality_columns(sample: GateInput) -> dict[str, NDArray[np.float64]]:
    columns = {name: sample.columns[name].to_numpy().astype(np.float64) for name in _COLUMNS}
    for name in _BAND_COLUMNS:
        values = sample.columns[name].to_numpy().astype(np.float64)
        for index, band in enumerate(sample.config.survey.bands):
            columns[f"{name}[{band}]"] = values[:, index]
    return columns


def _compare_column(
    chosen: NDArray[np.float64], population: NDArray[np.float64], others: NDArray[np.float64]
) -> dict[str, Any]:
    """The population is chosen and others together, so its KS distance is that to the others, diluted."""
    distance, p = 0.0, 1.0
    if others.size:
        test = stats.ks_2samp(chosen, others, method="asymp")
        distance, p = float(test.statistic) * others.size / population.size, float(test.pvalue)
    d = cohen_d(chosen, population)
    return {
        "n_pairs": chosen.size,
        "n_population": population.size,
        "ks_d": distance,
        "ks_p": p,
        "cohen_d": d,
        "effect": max(abs(d), 2.0 * float(stats.norm.ppf((1.0 + distance) / 2.0))),
    }


def _holm_adjusted(p_values: list[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _judge(compared: dict[str, dict[str, Any]], p_min: float, effect_max: float) -> list[str]:
    """Add Holm's p to every comparison and name those that fail."""
    problems = []
    adjusted = _holm_adjusted([result["ks_p"] for result in compared.values()])
    for (name, result), p in zip(compared.items(), adjusted, strict=True):
        result["ks_p_holm"] = p
        if not (p >= p_min or result["effect"] <= effect_max):
            problems.append(_difference(name, result, p))
    return problems


def _difference(name: str, result: dict[str, Any], p: float) -> str:
    return f"{name} differs: D={result['ks_d']:.4f} p={p:.2g} d={result['cohen_d']:.3f}"


def _binned_cells(values: NDArray[np.float64], cell: NDArray[np.int64], n_cells: int) -> NDArray[np.float32]:
    """(cell, bin) rows of each cell at or below each of some quantile bins of the values.

    Args:
        values: (row,) finite.
        cell: (row,) index of the row's cell.
        n_cells: cells.
    """
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, _SPLIT_BINS + 1)[1:-1]))
    n_bins = edges.size + 1
    bins = np.searchsorted(edges, values, side="left")
    counts = np.bincount(cell * n_bins + bins, minlength=n_cells * n_bins).reshape(-1, n_bins)
    cumulative: NDArray[np.float32] = np.cumsum(counts, axis=1).astype(np.float32)
    return cumulative


def _distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """(draw,) KS distances of two cumulative histograms (draw, bin); an empty one counts as 0 everywhere."""
    shares = [total / np.maximum(total[:, -1:], 1.0) for total in (first, second)]
    return np.asarray(np.abs(shares[0] - shares[1]).max(axis=1), dtype=np.float64)
