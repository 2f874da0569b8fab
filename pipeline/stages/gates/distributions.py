"""Gates on the SNR of the pairs: its target, and its independence of depth, seeing and host brightness."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import INJECTED_ROLES
from pipeline.stages.gates.result import GateInput, Measurement, Null, gate_generator, has_role
from pipeline.stages.sampling import SnrTarget
from pipeline.stages.target_fit import SIMULATIONS, fit_target

_SNR_SHUFFLES = 100
_NUISANCES = ("psfdepth_r_mag", "ebv_mag", "mag_g", "mag_r", "mag_z")
_NUISANCES_BANDS = ("sky_sigma_nmgy", "psfsize_arcsec")


def no_snr_target(config: RunConfig) -> str:
    """Why the SNR gate has nothing to measure; empty if it has."""
    return "no target configured" if config.sampling.target is None else ""


def compare_snr_target(sample: GateInput) -> Measurement:
    """The SNR of the pairs follows the configured target.

    The value is the total variation between achieved and requested shares of the bins (8 equal ones in ln SNR for
    a log-uniform or tabulated target; a bin around each value of a grid). An ideal sampler has a total variation
    above zero: its mean and standard deviation come from multinomial draws of the same size, and the bound is that
    mean plus `snr_target_tv_sigmas` of that deviation; they are the null. The interval resamples the histogram. A
    pair outside the support fails the gate.

    Detail: chi-square p over the bins, KS p against the target, KL(target || achieved) in nats; None
    where a requested bin is empty.
    """
    metric = sample.config.sampling.metric
    snr = sample.columns[metric].to_numpy()[has_role(sample.columns, *INJECTED_ROLES)].astype(np.float64)
    fit = fit_target(snr, _target(sample), gate_generator(sample.config.run.seed, "snr_target"))
    sigmas = sample.config.gates.snr_target_tv_sigmas
    limit = fit.tv_mean_ideal + sigmas * fit.tv_std_ideal
    problems = []
    if fit.outside:
        problems.append(f"{fit.outside} of {snr.size} pairs ({fit.nan} NaN) lie outside the support of the target")
    if not fit.tv <= limit:
        problems.append(f"{metric} is {fit.tv:.4f} from its target in total variation, above {limit:.4f}")
    return Measurement(
        passed=not problems,
        value=fit.tv,
        bound=f"total variation <= {limit:.6f} (mean {fit.tv_mean_ideal:.6f} + {sigmas} sigma of "
        f"{fit.tv_std_ideal:.6f}); 0 pairs outside",
        detail={
            "metric": metric,
            "edges": fit.edges,
            "requested_shares": fit.requested_shares,
            "achieved_counts": fit.achieved_counts,
            "pairs_outside": fit.outside,
            "pairs_nan": fit.nan,
            "tv_mean_ideal": fit.tv_mean_ideal,
            "tv_std_ideal": fit.tv_std_ideal,
            "chi2_p": fit.chi2_p,
            "ks_p": fit.ks_p,
            "kl_nats": fit.kl_nats,
        },
        message="; ".join(problems) or f"{metric} follows its target within {fit.tv:.4f}, bound {limit:.4f}",
        interval_95=fit.tv_interval_95,
        null=Null("samples drawn from the target", SIMULATIONS, fit.tv_p)
        if math.isfinite(fit.tv_p)
        else Null("none: no pair has an SNR in the support"),
    )


def correlate_snr(sample: GateInput) -> Measurement:
    """ln SNR of the pairs does not follow depth, seeing, extinction or the brightness of the host.

    A sampler that redraws until a host reaches an SNR leaves bright arcs in deep, sharp stamps. The value
    is the largest |Pearson r| of ln SNR (`sampling.metric`) with a column; r has a sampling error of
    1 / sqrt(n - 1) where there is none, and the bound is `snr_correlation_max` plus
    `snr_correlation_sigmas` of it. Columns without spread are skipped by name. The permutation null is the
    largest |r| of shuffled SNRs. Detail also holds r with theta_E, which has no bound.
    """
    section = sample.config.gates
    is_pair = has_role(sample.columns, *INJECTED_ROLES)
    snr = sample.columns[sample.config.sampling.metric].to_numpy()[is_pair].astype(np.float64)
    if not (snr > 0).all():
        raise ValueError(
            f"{int((~(snr > 0)).sum())} of {snr.size} pairs have no positive {sample.config.sampling.metric}"
        )
    generator = gate_generator(sample.config.run.seed, "snr_correlation")
    found: dict[str, dict[str, float]] = {}
    skipped: list[str] = []
    problems: list[str] = []
    null = np.zeros(_SNR_SHUFFLES)
    for name, values in _nuisances(sample, is_pair).items():
        finite = np.isfinite(values)
        n = int(finite.sum())
        if n < section.min_per_class or np.ptp(values[finite]) == 0.0:
            skipped.append(name)
            continue
        ln_snr = np.log(snr[finite])
        r, error = float(np.corrcoef(ln_snr, values[finite])[0, 1]), 1.0 / math.sqrt(n - 1)
        limit = section.snr_correlation_max + section.snr_correlation_sigmas * error
        low, high = np.tanh(np.arctanh(r) + np.array([-1.959964, 1.959964]) / math.sqrt(max(n - 3, 1)))
        found[name] = {"r": r, "error": error, "limit": limit, "low": float(low), "high": float(high), "n": n}
        null = np.maximum(null, np.abs(_shuffled_correlations(ln_snr, values[finite], generator)))
        if not abs(r) <= limit:
            problems.append(f"{name}: r = {r:+.3f}, beyond {limit:.3f}")
    if not found:
        raise ValueError(f"no column varies over {section.min_per_class} pairs or more: {', '.join(skipped)}")
    worst = max(found, key=lambda name: abs(found[name]["r"]))
    value = abs(found[worst]["r"])
    theta_e = sample.columns["theta_e_arcsec"].to_numpy()[is_pair].astype(np.float64)
    return Measurement(
        passed=not problems,
        value=value,
        bound=f"|r| <= {section.snr_correlation_max} + {section.snr_correlation_sigmas:g} sampling errors, each column",
        detail={
            "metric": sample.config.sampling.metric,
            "columns": found,
            "skipped": skipped,
            "r_theta_e": float(np.corrcoef(np.log(snr), theta_e)[0, 1]) if np.ptp(theta_e) > 0 else None,
            "null_mean": float(null.mean()),
            "null_max": float(null.max()),
        },
        message="; ".join(problems) or f"largest |r| is {value:.3f}, with {worst}, of {len(found)} columns",
        interval_95=_folded(found[worst]["low"], found[worst]["high"]),
        null=Null("SNR shuffled over the pairs", null.size, (1 + int((null >= value).sum())) / (1 + null.size)),
    )


def _target(sample: GateInput) -> SnrTarget:
    """The configured target, less the bins that the run left out."""
    section = sample.config.sampling.target
    if section is None:
        raise ValueError("sampling.target is not set")
    pilot = None if sample.reinjection is None else sample.reinjection.pilot
    return SnrTarget.of(section).without(() if pilot is None else pilot.unreachable)


def _nuisances(sample: GateInput, is_pair: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """(pair,) columns that the SNR must not follow; sky noise as its logarithm."""
    found = {name: sample.columns[name].to_numpy()[is_pair].astype(np.float64) for name in _NUISANCES}
    sky, seeing = (sample.columns[name].to_numpy()[is_pair].astype(np.float64) for name in _NUISANCES_BANDS)
    for index, band in enumerate(sample.config.survey.bands):
        positive = np.where(sky[:, index] > 0, sky[:, index], np.nan)
        found |= {f"ln sky_sigma_nmgy[{band}]": np.log(positive), f"psfsize_arcsec[{band}]": seeing[:, index]}
    return found


def _shuffled_correlations(
    first: NDArray[np.float64], second: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """r of `second` with `first` in _SNR_SHUFFLES random orders."""
    a, b = (first - first.mean()) / first.std(), (second - second.mean()) / second.std()
    return np.array([float(generator.permutation(a) @ b) / a.size for _ in range(_SNR_SHUFFLES)])


def _folded(low: float, high: float) -> tuple[float, float]:
    """Interval of |r| from that of r."""
    return (0.0, max(-low, high)) if low < 0.0 < high else (min(abs(low), abs(high)), max(abs(low), abs(high)))
