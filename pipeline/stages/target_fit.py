"""How far a sample of SNRs is from its target, beside what an ideal sample of its size would reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.stages.host_bootstrap import centred_interval
from pipeline.stages.sampling import SnrTarget

SIMULATIONS = 2000
# The SNR columns are float32 results of a float32 render scaled to a target.
_EDGE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class TargetFit:
    """A sample against its target in the bins of `SnrTarget.comparison_bins`.

    Attributes:
        edges, requested_shares, achieved_counts: (bin + 1,), (bin,), (bin,).
        outside: samples outside the support, in a bin that was not asked for, or NaN. nan: those of them.
        tv: total variation, half the L1 distance of the shares; NaN without samples.
        tv_mean_ideal, tv_std_ideal: of SIMULATIONS multinomial samples of the same size, drawn from the target.
        tv_p: share of those samples, and of the one given, that are as far from the target.
        tv_interval_95: of tv, over resamplings of the histogram.
        chi2_p, ks_p: against the bins, against the distribution; ks_p is NaN for a grid.
        kl_nats: KL(target || achieved); NaN where a requested bin is empty.
    """

    edges: NDArray[np.float64]
    requested_shares: NDArray[np.float64]
    achieved_counts: NDArray[np.int64]
    outside: int
    nan: int
    tv: float
    tv_mean_ideal: float
    tv_std_ideal: float
    tv_p: float
    tv_interval_95: tuple[float, float]
    chi2_p: float
    ks_p: float
    kl_nats: float


def fit_target(snr: NDArray[np.float64], target: SnrTarget, generator: np.random.Generator) -> TargetFit:
    """Compare SNRs (sample,) with a target; the generator simulates the ideal samples."""
    edges, shares = target.comparison_bins()
    inside = snr[(snr >= edges[0] * (1 - _EDGE_TOLERANCE)) & (snr <= edges[-1] * (1 + _EDGE_TOLERANCE))]
    counts = np.histogram(np.clip(inside, edges[0], edges[-1]), bins=edges)[0]
    total = int(counts.sum())
    ideal = 0.5 * np.abs(generator.multinomial(snr.size, shares, size=SIMULATIONS) / max(snr.size, 1) - shares).sum(1)
    tv, tv_p, tv_interval = math.nan, math.nan, (math.nan, math.nan)
    if total:
        tv = 0.5 * float(np.abs(counts / total - shares).sum())
        tv_p = (1 + int((ideal >= tv).sum())) / (1 + SIMULATIONS)
        again = generator.multinomial(total, counts / total, size=SIMULATIONS) / total
        spread = centred_interval(tv, 0.5 * np.abs(again - shares).sum(axis=1))
        tv_interval = max(spread.low, 0.0), min(spread.high, 1.0)
    asked = shares > 0
    kept = int(counts[asked].sum())
    chi2_p = ks_p = kl_nats = math.nan
    if kept:
        expected, achieved = shares[asked], counts[asked] / kept
        chi2 = kept * float(((achieved - expected) ** 2 / expected).sum())
        chi2_p = float(stats.chi2.sf(chi2, int(asked.sum()) - 1)) if asked.sum() > 1 else 1.0
        ks_p = math.nan if target.values else float(stats.kstest(inside, target.cdf).pvalue)
        kl_nats = float((expected * np.log(expected / achieved)).sum()) if (achieved > 0).all() else math.nan
    return TargetFit(
        edges=edges,
        requested_shares=shares,
        achieved_counts=counts,
        outside=int(snr.size - inside.size) + int(counts[~asked].sum()),
        nan=int(np.isnan(snr).sum()),
        tv=tv,
        tv_mean_ideal=float(ideal.mean()),
        tv_std_ideal=float(ideal.std(ddof=1)),
        tv_p=tv_p,
        tv_interval_95=tv_interval,
        chi2_p=chi2_p,
        ks_p=ks_p,
        kl_nats=kl_nats,
    )
