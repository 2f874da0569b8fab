"""What a sampler did to a training set, in numbers: acceptance, distance from the target, weights, selection, cost."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS, ROLES
from pipeline.stages.gates.result import gate_generator, json_value
from pipeline.stages.samplers import bin_counters
from pipeline.stages.sampling import Pilot, SnrTarget
from pipeline.stages.target_fit import fit_target

# Columns of the training cube that are read, besides the target metric.
COLUMNS = (
    "role", "reject_reason", "attempts", "weight_prior", "mag_outside_prior", "src_mag", "theta_e_arcsec",
    "mag_r", "psfdepth_r_mag", "psfsize_arcsec", "sky_sigma_nmgy", "arc_snr",
)  # fmt: skip
_ATTEMPT_EDGES = (1, 2, 3, 4, 6, 11, 21, 51, 101, 201, 501, 1001, 10_001, 100_001)
_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
# A comparison of two distributions needs this many rows of each.
_MIN_ROWS = 10


def sampling_document(
    columns: xr.Dataset, work: Mapping[str, float], config: RunConfig, pilot: Pilot | None
) -> dict[str, Any]:
    """The numbers as JSON types; None where there is nothing to measure.

    Args:
        columns: COLUMNS and the target metric of the training cube, all rows.
        work: counters of `Injector.work`, added up over the shards.
        pilot: that of the run; None without a target.
    """
    section = config.sampling
    role, reason = columns["role"].to_numpy(), columns["reject_reason"].to_numpy()
    is_pair = role == ROLES.index("pair")
    exhausted, masked = (reason == REJECT_REASONS.index(name) for name in ("sampler_exhausted", "arc_masked"))
    asked = is_pair | exhausted | masked
    snr = columns[section.metric].to_numpy()[is_pair].astype(np.float64)
    weight = columns["weight_prior"].to_numpy()[is_pair].astype(np.float64)
    n_pairs, attempts = int(is_pair.sum()), columns["attempts"].to_numpy()
    priors = config.injection.priors
    document: dict[str, Any] = {
        "method": section.method,
        "hosts": section.hosts,
        "metric": section.metric,
        "band": section.band,
        "target": None if section.target is None else section.target.model_dump(mode="json"),
        "max_attempts": section.max_attempts,
        "seed": config.run.seed,
        "prior_sha256": None if priors is None else hashlib.sha256(priors.model_dump_json().encode()).hexdigest(),
        "rows": {
            "asked": int(asked.sum()),
            "accepted": n_pairs,
            "sampler_exhausted": int(exhausted.sum()),
            "arc_masked": int(masked.sum()),
        },
        "attempts": _attempts(attempts[is_pair]),
        "weights": _weights(weight),
        "required_mag_r": _magnitudes(columns, is_pair, config),
        "correlations_ln_snr": _correlations(columns, is_pair, snr, config),
        "selection": _selection(columns, is_pair, config, exhausted | masked),
        "cost": {
            "renders": work.get("renders", 0.0),
            "renders_per_accepted": work.get("renders", 0.0) / n_pairs if n_pairs else None,
            "cutout_reads_per_accepted": int(asked.sum()) / n_pairs if n_pairs else None,
        },
    }
    if section.target is not None and pilot is not None:
        target = SnrTarget.of(section.target).without(pilot.unreachable)
        generator = gate_generator(config.run.seed, "sampling")
        document["achieved"] = dataclasses.asdict(fit_target(snr, target, generator))
        document["pilot"] = _pilot(pilot, section.safety_factor)
        document["acceptance"] = _acceptance(work, SnrTarget.of(section.target), pilot, section.safety_factor)
    plain: dict[str, Any] = json_value(document)
    return plain


def effective_size(weight: NDArray[np.float64]) -> float:
    """Kish's effective sample size, (sum w)**2 / sum w**2; 0 for weights that are all 0.

    Args:
        weight: (row,) finite, not negative.
    """
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def naive_acceptance(target: SnrTarget, pilot: Pilot, safety_factor: float) -> dict[str, float | None]:
    """What plain rejection from the priors over all hosts would accept.

    Returns:
        by_density: 1 / sup(pi / q), None where the priors do not reach the whole target or it is a grid; by_bin: with
        the shares of the target's bins wanted and not the density inside them.
    """
    kept = target.without(pilot.unreachable)
    wanted = [(mass, share) for mass, share in zip(pilot.target_mass, kept.shares, strict=True) if share > 0]
    return {
        "by_density": None if pilot.envelope is None else safety_factor / pilot.envelope,
        "by_bin": None if target.values else min(mass / share for mass, share in wanted),
    }


def _acceptance(work: Mapping[str, float], target: SnrTarget, pilot: Pilot, safety_factor: float) -> dict[str, Any]:
    counters = bin_counters(work, len(target.shares))
    accepted = sum(counter.accepted for counter in counters)
    attempts, proposals, hosts = (work.get(name, 0.0) for name in ("attempts", "proposals", "hosts_enveloped"))
    return {
        "attempts": int(attempts),
        "overall": accepted / attempts if attempts else None,
        "naive_equivalent": naive_acceptance(target, pilot, safety_factor),
        "bins": [
            {
                "low": target.edges[index],
                "high": target.edges[index + 1],
                "value": target.values[index] if target.values else None,
                "share": target.shares[index],
                **dataclasses.asdict(counter),
                "acceptance": counter.accepted / counter.attempts if counter.attempts else None,
            }
            for index, counter in enumerate(counters)
        ],
        "proposals": int(proposals),
        "above_one": int(work.get("clipped", 0.0)),
        "above_one_share": work.get("clipped", 0.0) / proposals if proposals else None,
        "envelope_pooled": pilot.envelope,
        "envelope_of_hosts_mean": work.get("envelopes", 0.0) / hosts if hosts else None,
        "hosts_that_cannot_reach_the_target": int(work.get("hosts_unreachable", 0.0)),
    }


def _pilot(pilot: Pilot, safety_factor: float) -> dict[str, Any]:
    return {
        "draws": pilot.n_draws,
        "hosts": pilot.n_hosts,
        "snr_range": pilot.snr_range,
        "target_hits": pilot.target_hits,
        "target_mass": pilot.target_mass,
        "target_relative_error": pilot.target_error,
        "unreachable_bins": pilot.unreachable,
        "safety_factor": safety_factor,
    }


def _attempts(attempts: NDArray[np.int32]) -> dict[str, Any]:
    counts = np.histogram(attempts, bins=_ATTEMPT_EDGES)[0]
    last = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    return {
        "mean": float(attempts.mean()) if attempts.size else None,
        "largest": int(attempts.max(initial=0)),
        "histogram": [
            {"from": low, "below": high, "pairs": int(count)}
            for low, high, count in zip(_ATTEMPT_EDGES[:last], _ATTEMPT_EDGES[1 : last + 1], counts[:last], strict=True)
        ],
    }


def _weights(weight: NDArray[np.float64]) -> dict[str, Any]:
    finite = weight[np.isfinite(weight)]
    mean = float(finite.mean()) if finite.size else math.nan
    return {
        "mean": mean,
        "effective_size": effective_size(finite),
        "effective_share": effective_size(finite) / finite.size if finite.size else None,
        "largest_over_mean": float(finite.max()) / mean if finite.size and mean > 0 else None,
        "zero": int((finite == 0).sum()),
        "not_finite": int(weight.size - finite.size),
    }


def _magnitudes(columns: xr.Dataset, is_pair: NDArray[np.bool_], config: RunConfig) -> dict[str, Any]:
    """Quantiles of the r magnitude at which the pairs were injected, and the share outside its prior."""
    outside = columns["mag_outside_prior"].to_numpy()[is_pair]
    result: dict[str, Any] = {"outside_prior": float(outside.mean()) if outside.size else None, "quantiles": None}
    if "r" in config.survey.bands and outside.size:
        mags = columns["src_mag"].to_numpy()[is_pair, config.survey.bands.index("r")].astype(np.float64)
        result["quantiles"] = {f"{q:g}": value for q, value in zip(_QUANTILES, _quantiles(mags), strict=True)}
    return result


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    found: list[float] = np.nanquantile(values, _QUANTILES).tolist()
    return found


def _host_columns(columns: xr.Dataset, config: RunConfig) -> dict[str, NDArray[np.float64]]:
    """(row,) what a sampler could select hosts by."""
    band = config.survey.bands.index(config.sampling.band)
    sky = columns["sky_sigma_nmgy"].to_numpy()[:, band].astype(np.float64)
    return {
        "psfdepth_r_mag": columns["psfdepth_r_mag"].to_numpy().astype(np.float64),
        "ln_sky_sigma": np.log(np.where(sky > 0, sky, np.nan)),
        "psfsize_arcsec": columns["psfsize_arcsec"].to_numpy()[:, band].astype(np.float64),
        "mag_r": columns["mag_r"].to_numpy().astype(np.float64),
    }


def _correlations(
    columns: xr.Dataset, is_pair: NDArray[np.bool_], snr: NDArray[np.float64], config: RunConfig
) -> dict[str, Any]:
    """Pearson's r of ln SNR over the pairs, with its sampling error where there is none; None without spread."""
    values = {name: column[is_pair] for name, column in _host_columns(columns, config).items()}
    values["theta_e_arcsec"] = columns["theta_e_arcsec"].to_numpy()[is_pair].astype(np.float64)
    result: dict[str, Any] = {}
    for name, column in values.items():
        known = np.isfinite(column) & (snr > 0)
        n = int(known.sum())
        spread = n >= _MIN_ROWS and np.ptp(column[known]) > 0 and np.ptp(snr[known]) > 0
        result[name] = (
            {"r": float(np.corrcoef(np.log(snr[known]), column[known])[0, 1]), "error": 1 / math.sqrt(n - 1), "n": n}
            if spread
            else None
        )
    return result


def _selection(
    columns: xr.Dataset, is_pair: NDArray[np.bool_], config: RunConfig, refused: NDArray[np.bool_]
) -> dict[str, Any]:
    """KS of the hosts of the pairs against control rows, and against hosts that got no arc."""
    others = {"controls": columns["role"].to_numpy() == ROLES.index("control"), "hosts_without_arc": refused}
    result: dict[str, Any] = {}
    for other, rows in others.items():
        result[other] = {}
        for name, column in _host_columns(columns, config).items():
            first, second = (part[np.isfinite(part)] for part in (column[is_pair], column[rows]))
            enough = min(first.size, second.size) >= _MIN_ROWS
            test = stats.ks_2samp(first, second) if enough else None
            result[other][name] = (
                None
                if test is None
                else {"d": float(test.statistic), "p": float(test.pvalue), "n": [first.size, second.size]}
            )
    return result
