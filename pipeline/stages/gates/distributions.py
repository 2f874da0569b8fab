"""Gates on distributions: what the sampler kept against what it was offered, and the SNR target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.config import BinsTarget, LogUniformTarget, RunConfig
from pipeline.contracts.datasets import REJECT_REASONS
from pipeline.stages.gates.result import GateInput, Measurement, cohen_d, gate_generator, has_role

# Reasons that the injection, not the cutout, gave: the host itself was good enough to be used.
_INJECTION_REASONS = ("sampler_exhausted", "arc_masked")
_QUALITY_COLUMNS = ("bad_pixel_frac", "wise_brightmask_frac", "mag_r")
_QUALITY_BAND_COLUMNS = ("psfsize_arcsec", "sky_sigma_nmgy")
_LOGUNIFORM_BINS = 8
_SNR_SIMULATIONS = 2000
# The SNR columns are float32 results of a float32 render scaled to a target.
_SNR_EDGE_TOLERANCE = 1e-4


def count_hosts(sample: GateInput) -> tuple[int, int]:
    """Hosts that became pairs, and the population of hosts that could have."""
    return int(has_role(sample.columns, "pair").sum()), int(_usable_hosts(sample).sum())


def compare_quality(sample: GateInput) -> Measurement:
    """The hosts that became pairs are a fair sample of those that could have, in quality and brightness.

    Pair members share their host, so the classes cannot differ there; the sampler can prefer some
    hosts. Each column passes if its two-sample Kolmogorov-Smirnov p is at least `quality_ks_p_min`
    after Holm's correction over the columns, or its effect is at most `quality_effect_max`.

    * p is of pairs against the usable hosts that did not become pairs, two disjoint samples as the
      test demands; asymptotic. Without such hosts the pairs are the population, and p is 1.
    * the effect, of pairs against the whole population, is the larger of |Cohen d| and the d of two
      normal distributions of equal width with the same KS distance D, 2 Phi^-1((1 + D) / 2): the
      second sees differences that leave the mean alone.

    The value is the largest effect. Columns with no finite value are skipped by name, but psfsize and
    sky sigma are needed in every band.
    """
    section = sample.config.gates
    is_pair = has_role(sample.columns, "pair")
    usable = _usable_hosts(sample)
    compared: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    problems: list[str] = []
    for name, values in _quality_columns(sample).items():
        finite = np.isfinite(values)
        chosen, population = values[is_pair & finite], values[usable & finite]
        if population.size == 0 and not name.startswith(_QUALITY_BAND_COLUMNS):
            skipped.append(name)
        elif chosen.size < section.min_per_class:
            problems.append(f"{name} is finite in {chosen.size} pairs, fewer than {section.min_per_class}")
        else:
            compared[name] = _compare_column(chosen, population, values[usable & ~is_pair & finite])
    adjusted = _holm_adjusted([result["ks_p"] for result in compared.values()])
    for (name, result), p in zip(compared.items(), adjusted, strict=True):
        result["ks_p_holm"] = p
        if not (p >= section.quality_ks_p_min or result["effect"] <= section.quality_effect_max):
            problems.append(f"{name} differs: D={result['ks_d']:.4f} p={p:.2g} d={result['cohen_d']:.3f}")
    return Measurement(
        passed=not problems,
        value=max((float(result["effect"]) for result in compared.values()), default=math.nan),
        bound=f"per column Holm-adjusted KS p >= {section.quality_ks_p_min} or effect <= {section.quality_effect_max}",
        detail={"columns": compared, "skipped": skipped},
        message="; ".join(problems) or f"{len(compared)} columns match the usable hosts",
    )


def no_snr_target(config: RunConfig) -> str:
    """Why the SNR gate has nothing to measure; empty if it has."""
    return "no target configured" if config.sampling.target is None else ""


def compare_snr_target(sample: GateInput) -> Measurement:
    """The SNR of the pairs follows the configured target.

    The value is the total variation between achieved and requested shares of the bins (8 equal ones
    in ln SNR for a log-uniform target). An ideal sampler has a total variation above zero: its mean
    and standard deviation come from multinomial draws of the same size, and the bound is that mean
    plus `snr_target_tv_sigmas` of that deviation. A pair outside the support fails the gate.

    Detail: chi-square p over the bins, KS p against the target, KL(target || achieved) in nats; None
    where a requested bin is empty.
    """
    target = _Target.of(sample.config)
    metric = sample.config.sampling.metric
    snr = sample.columns[metric].to_numpy()[has_role(sample.columns, "pair")].astype(np.float64)
    n_nan = int(np.isnan(snr).sum())
    low, high = target.edges[0] * (1 - _SNR_EDGE_TOLERANCE), target.edges[-1] * (1 + _SNR_EDGE_TOLERANCE)
    inside = snr[(snr >= low) & (snr <= high)]
    n_outside = int(snr.size - inside.size)
    counts = np.histogram(np.clip(inside, target.edges[0], target.edges[-1]), bins=target.edges)[0]
    n_outside += int(counts[target.shares == 0.0].sum())
    distance = _total_variation(counts, target.shares)
    floor, spread = _multinomial_floor(snr.size, target.shares, sample.config.run.seed)
    sigmas = sample.config.gates.snr_target_tv_sigmas
    limit = floor + sigmas * spread
    problems = []
    if n_outside:
        problems.append(f"{n_outside} of {snr.size} pairs ({n_nan} NaN) lie outside the support of the target")
    if not distance <= limit:
        problems.append(f"{metric} is {distance:.4f} from its target in total variation, above {limit:.4f}")
    return Measurement(
        passed=not problems,
        value=distance,
        bound=f"total variation <= {limit:.6f} (mean {floor:.6f} + {sigmas} sigma of {spread:.6f}); 0 pairs outside",
        detail={
            "metric": metric,
            "edges": target.edges,
            "requested_shares": target.shares,
            "achieved_counts": counts,
            "pairs_outside": n_outside,
            "pairs_nan": n_nan,
            "tv_mean_ideal": floor,
            "tv_std_ideal": spread,
            **_goodness_of_fit(inside, counts, target),
        },
        message="; ".join(problems) or f"{metric} follows its target within {distance:.4f}, bound {limit:.4f}",
    )


@dataclass(frozen=True)
class _Target:
    """Target as bins of ln SNR: edges (bin + 1,) increasing, shares (bin,) summing to 1."""

    edges: NDArray[np.float64]
    shares: NDArray[np.float64]

    @classmethod
    def of(cls, config: RunConfig) -> _Target:
        target = config.sampling.target
        if isinstance(target, BinsTarget):
            return cls(np.array(target.edges), np.array(target.shares) / sum(target.shares))
        if isinstance(target, LogUniformTarget):
            edges = np.exp(np.linspace(math.log(target.low), math.log(target.high), _LOGUNIFORM_BINS + 1))
            return cls(edges, np.full(_LOGUNIFORM_BINS, 1.0 / _LOGUNIFORM_BINS))
        raise ValueError("sampling.target is not set")

    def cdf(self, snr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cumulative share, linear in ln SNR inside a bin."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.shares)])
        return np.asarray(np.interp(np.log(snr), np.log(self.edges), cumulative), dtype=np.float64)


def _usable_hosts(sample: GateInput) -> NDArray[np.bool_]:
    reasons = [REJECT_REASONS.index(reason) for reason in _INJECTION_REASONS]
    turned_down = np.isin(sample.columns["reject_reason"].to_numpy(), reasons)
    return has_role(sample.columns, "pair", "control") | (has_role(sample.columns, "unused") & turned_down)


def _quality_columns(sample: GateInput) -> dict[str, NDArray[np.float64]]:
    columns = {name: sample.columns[name].to_numpy().astype(np.float64) for name in _QUALITY_COLUMNS}
    for name in _QUALITY_BAND_COLUMNS:
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


def _total_variation(counts: NDArray[np.int64], shares: NDArray[np.float64]) -> float:
    """Half the L1 distance; NaN if there are no counts."""
    total = int(counts.sum())
    return 0.5 * float(np.abs(counts / total - shares).sum()) if total else math.nan


def _multinomial_floor(n: int, shares: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the total variation of n ideal draws."""
    draws = gate_generator(seed, "snr_target").multinomial(n, shares, size=_SNR_SIMULATIONS)
    distances = 0.5 * np.abs(draws / n - shares).sum(axis=1)
    return float(distances.mean()), float(distances.std(ddof=1))


def _goodness_of_fit(snr: NDArray[np.float64], counts: NDArray[np.int64], target: _Target) -> dict[str, float]:
    asked = target.shares > 0
    total = int(counts[asked].sum())
    if total == 0:
        return {"chi2_p": math.nan, "ks_p": math.nan, "kl_nats": math.nan}
    expected, achieved = target.shares[asked], counts[asked] / total
    chi2 = total * float(((achieved - expected) ** 2 / expected).sum())
    return {
        "chi2_p": float(stats.chi2.sf(chi2, int(asked.sum()) - 1)) if asked.sum() > 1 else 1.0,
        "ks_p": float(stats.kstest(snr, target.cdf).pvalue),
        "kl_nats": float((expected * np.log(expected / achieved)).sum()) if (achieved > 0).all() else math.nan,
    }
