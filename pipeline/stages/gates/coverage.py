"""Gates on coverage: pairs near the detection threshold, and cells of Einstein radius and SNR that are filled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import INJECTED_ROLES, SPLITS
from pipeline.contracts.sampling import BinsTarget, GridTarget
from pipeline.stages.gates.result import (
    GateInput,
    Measurement,
    Null,
    gate_generator,
    has_role,
    wilson_interval,
)
from pipeline.stages.host_bootstrap import centred_interval
from pipeline.stages.sampling import SnrTarget

# SNR ranges that the lessons ask for, where the run has no target.
_LESSON_SNR_EDGES = (0.8, 2.0, 8.0, 20.0, 100.0)
_CELLS = 4
# Float32 columns may lie this share outside the edges that they were drawn between.
_EDGE_TOLERANCE = 1e-4
_DRAWS = 499


def cover_threshold(sample: GateInput) -> Measurement:
    """Enough pairs lie near the threshold of detection, where a finder is calibrated.

    The value is the share of pairs with `near_threshold_metric` within `near_threshold_snr`, which has to be
    `near_threshold_share_min`, and the number `min_per_class`. The null is the binomial distribution of the number
    of near pairs, with the share that the target asks for if it is one of the same metric, otherwise the bound: p is
    the chance of as few or fewer.
    """
    section = sample.config.gates
    low, high = section.near_threshold_snr
    is_pair = has_role(sample.columns, *INJECTED_ROLES)
    snr = sample.columns[section.near_threshold_metric].to_numpy()[is_pair].astype(np.float64)
    split = sample.columns["split"].to_numpy()[is_pair]
    near = (snr >= low * (1 - _EDGE_TOLERANCE)) & (snr < high)
    n_near, share = int(near.sum()), float(near.mean())
    by_split = {
        name: {"near": int(near[split == code].sum()), "pairs": int((split == code).sum())}
        for code, name in enumerate(SPLITS)
    }
    problems = []
    if not share >= section.near_threshold_share_min:
        problems.append(f"{share:.4f} of the pairs lie there")
    if n_near < section.min_per_class:
        problems.append(f"{n_near} pairs lie there, fewer than {section.min_per_class}")
    where = f"{section.near_threshold_metric} in [{low}, {high})"
    return Measurement(
        passed=not problems,
        value=share,
        bound=f"share of pairs with {where} >= {section.near_threshold_share_min}; >= {section.min_per_class} pairs",
        detail={"near": n_near, "pairs": int(is_pair.sum()), "splits": by_split},
        message=f"{where}: " + ("; ".join(problems) or f"{n_near} pairs, {share:.4f} of all"),
        interval_95=wilson_interval(n_near, int(is_pair.sum())),
        null=_binomial_null(sample.config, n_near, int(is_pair.sum())),
    )


def cover_grid(sample: GateInput) -> Measurement:
    """The cells of Einstein radius and SNR that the configuration spans hold pairs.

    Edges are `grid_theta_e_arcsec` and `grid_snr`; where these are null, four equal cells between the bounds
    of the prior of theta_E (of the pairs, without prior) and the bins of the target (four equal in ln SNR
    for a log-uniform or tabulated one, those of the lessons without target). A cell is filled by `grid_n_min`
    pairs; the value is the share of filled cells. Pairs outside all cells are counted in the detail. The interval
    resamples pairs; the null shuffles the SNRs among them, which draws tables with the same margins: p is the
    chance of as few filled cells or fewer, small if Einstein radius and SNR leave corners empty together.
    """
    section, metric = sample.config.gates, sample.config.sampling.metric
    is_pair = has_role(sample.columns, *INJECTED_ROLES)
    theta_e = sample.columns["theta_e_arcsec"].to_numpy()[is_pair].astype(np.float64)
    snr = sample.columns[metric].to_numpy()[is_pair].astype(np.float64)
    if not (np.isfinite(theta_e).all() and np.isfinite(snr).all()):
        raise ValueError(f"theta_e_arcsec or {metric} of a pair is not finite")
    theta_edges, snr_edges = _theta_e_edges(sample.config, theta_e), _snr_edges(sample.config)
    counts = np.histogram2d(theta_e, snr, bins=[_widened(theta_edges), _widened(snr_edges)])[0].astype(np.int64)
    filled = counts >= section.grid_n_min
    share = float(filled.mean())
    empty = [
        f"theta_E {theta_edges[i]:.3g}-{theta_edges[i + 1]:.3g}, "
        f"SNR {snr_edges[j]:.3g}-{snr_edges[j + 1]:.3g}: {counts[i, j]}"
        for i, j in np.argwhere(~filled).tolist()
    ]
    interval, null = _grid_chance(sample, theta_e, snr, (theta_edges, snr_edges), share)
    return Measurement(
        passed=share >= section.grid_filled_min,
        value=share,
        bound=f"share of cells with >= {section.grid_n_min} pairs >= {section.grid_filled_min}",
        detail={
            "theta_e_edges_arcsec": theta_edges,
            "snr_edges": snr_edges,
            "metric": metric,
            "counts": counts,
            "pairs_outside": int(theta_e.size - counts.sum()),
        },
        message=f"{int(filled.sum())} of {filled.size} cells of theta_E and {metric} are filled"
        + (f"; too few pairs at {'; '.join(empty[:5])}" if empty else f", the poorest by {int(counts.min())} pairs"),
        interval_95=interval,
        null=null,
    )


def _binomial_null(config: RunConfig, n_near: int, n_pairs: int) -> Null:
    """Chance of as few pairs near the threshold, at the share that was asked for."""
    section, target = config.gates, config.sampling.target
    share, whose = section.near_threshold_share_min, "bound"
    if target is not None and config.sampling.metric == section.near_threshold_metric:
        below = SnrTarget.of(target).cdf(np.array(section.near_threshold_snr))
        share, whose = float(np.clip(below[1] - below[0], 0.0, 1.0)), "target"
    return Null(f"binomial at the share {share:.3g} of the {whose}", 0, float(stats.binom.cdf(n_near, n_pairs, share)))


def _grid_chance(
    sample: GateInput,
    theta_e: NDArray[np.float64],
    snr: NDArray[np.float64],
    edges: tuple[NDArray[np.float64], NDArray[np.float64]],
    share: float,
) -> tuple[tuple[float, float], Null]:
    """Interval and null of the share of filled cells; what lies outside the cells has cells of its own."""
    outer = [np.concatenate([[-np.inf], _widened(edge), [np.inf]]) for edge in edges]
    whole = np.histogram2d(theta_e, snr, bins=outer)[0].astype(np.int64)
    generator = gate_generator(sample.config.run.seed, "parameter_grid_coverage")
    shuffled = stats.random_table(whole.sum(axis=1), whole.sum(axis=0)).rvs(_DRAWS, random_state=generator)
    resampled = generator.multinomial(theta_e.size, whole.ravel() / theta_e.size, _DRAWS).reshape(-1, *whole.shape)
    null, drawn = (
        (tables[:, 1:-1, 1:-1] >= sample.config.gates.grid_n_min).mean(axis=(1, 2)) for tables in (shuffled, resampled)
    )
    found = centred_interval(share, drawn)
    p = (1 + int((null <= share + 1e-12).sum())) / (1 + _DRAWS)
    return (max(found.low, 0.0), min(found.high, 1.0)), Null("SNR shuffled against theta_E", _DRAWS, p)


def _theta_e_edges(config: RunConfig, theta_e: NDArray[np.float64]) -> NDArray[np.float64]:
    if config.gates.grid_theta_e_arcsec is not None:
        return np.array(config.gates.grid_theta_e_arcsec)
    priors = config.injection.priors
    low, high = priors.theta_e_arcsec.bounds if priors is not None else (float(theta_e.min()), float(theta_e.max()))
    return np.linspace(low, high, _CELLS + 1) if high > low else np.array([low, low])


def _snr_edges(config: RunConfig) -> NDArray[np.float64]:
    target = config.sampling.target
    if config.gates.grid_snr is not None:
        return np.array(config.gates.grid_snr)
    if isinstance(target, BinsTarget):
        asked = [index for index, share in enumerate(target.shares) if share > 0]
        return np.array(target.edges[asked[0] : asked[-1] + 2])
    if target is not None:
        whole = SnrTarget.of(target)
        if isinstance(target, GridTarget):
            return np.array(whole.edges)
        return np.exp(np.linspace(math.log(whole.edges[0]), math.log(whole.edges[-1]), _CELLS + 1))
    return np.array(_LESSON_SNR_EDGES)


def _widened(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges whose outer ones leave room for the rounding of float32."""
    wide = edges.copy()
    wide[0] *= 1 - _EDGE_TOLERANCE
    wide[-1] *= 1 + _EDGE_TOLERANCE
    return wide
