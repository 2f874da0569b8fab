"""How much of the difference between two splits is a difference of what they hold.

Validation examples are given the weights that make their strata as frequent as the test split's. The metric then
moves from val to val_matched; that part of val - test is explained by the mix, the rest is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import MIN_FALSE_POSITIVES
from pipeline.stages.host_bootstrap import BOOTSTRAP, RankedScores, bootstrap_weights, percentile_interval, rate_name

ARC_VARIABLES = ("arc_snr", "theta_e_over_psf", "source_mag")
HOST_VARIABLES = ("psf_fwhm", "depth_5sig", "host_mag")
JOINT_VARIABLES = ("arc_snr", "theta_e_over_psf", "depth_5sig", "host_mag")
GAP_FPR = 0.01
_BINS_ALONE = 10
_BINS_JOINT = 3


@dataclass(frozen=True)
class _Side:
    """One split: sorted scores, and the stratum of every example under each matching."""

    ranked: RankedScores
    host_id: NDArray[np.int64]
    strata: dict[str, NDArray[np.intp]]


def explain_gap(val: pd.DataFrame, test: pd.DataFrame, seed: int, replicates: int) -> pd.DataFrame:
    """The gap val - test of AUC and of TPR at FPR 0.01, and the part that matched strata explain.

    Strata are quantile bins of both splits' positives: 10 of one variable, or 3 each of arc_snr, theta_e_over_psf,
    depth_5sig and host_mag jointly; a difference inside a bin counts as not explained. Arc variables weight
    positives only, host variables weight both classes. Unknown values are a bin of their own.

    Args:
        val: examples of the one split, columns of `scored_rows.scored_examples`.
        test: examples of the other.
        seed: run seed.
        replicates: resamplings of the hosts of both splits.

    Returns:
        One row per metric and matching (a variable, or "joint"): metric, matched_on, val, test, val_matched, gap,
        gap_low, gap_high, explained, explained_low, explained_high, share_explained with _low and _high (NaN where
        the gap's interval holds 0), unmatched_test_share (test positives in strata without a val positive),
        sufficient, method. Without 10 / 0.01 negatives in both splits, that metric is NaN and not sufficient.

    Raises:
        VerificationError: a split with one class, or with scores that are not finite.
    """
    matchings = _matchings(val, test)
    sides = (_side(val, matchings[0]), _side(test, matchings[1]))
    whole = _measure(sides, (np.ones(len(val)), np.ones(len(test))))
    drawn = [
        _measure(sides, pair)
        for pair in zip(
            bootstrap_weights(sides[0].host_id, seed, replicates),
            bootstrap_weights(sides[1].host_id, seed, replicates),
            strict=True,
        )
    ]
    few = min(side.ranked.n_negatives for side in sides) < MIN_FALSE_POSITIVES / GAP_FPR - 1e-9
    rows = []
    for metric in ("auc", rate_name(GAP_FPR)):
        for name in sides[0].strata:
            parts = np.array([replicate[metric, name] for replicate in drawn])
            rows.append(
                {
                    "metric": metric,
                    "matched_on": name,
                    **_summary(whole[metric, name], parts),
                    "unmatched_test_share": _unmatched_share(sides, name),
                    "sufficient": metric == "auc" or not few,
                    "method": BOOTSTRAP.format(replicates=replicates),
                }
            )
    return pd.DataFrame(rows)


def matching_weights(
    strata: NDArray[np.intp], weight: NDArray[np.float64], other: NDArray[np.intp], other_weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights under which the strata of one sample are as frequent as those of another.

    Args:
        strata: (example) stratum, at least 0.
        weight: (example) weights to start from.
        other: (other example) strata of the sample that is matched.
        other_weight: (other example) its weights.

    Returns:
        (example) weight times share of the stratum in the other sample over its share here. [1]
    """
    n_strata = int(max(strata.max(initial=0), other.max(initial=0))) + 1
    here = np.bincount(strata, weights=weight, minlength=n_strata)
    there = np.bincount(other, weights=other_weight, minlength=n_strata)
    ratio = np.divide(there, here, out=np.zeros(n_strata), where=here > 0.0)
    scale = here.sum() / there.sum() if there.sum() > 0.0 else 0.0
    return weight * (ratio * scale)[strata]


def _matchings(val: pd.DataFrame, test: pd.DataFrame) -> tuple[dict[str, dict[str, NDArray[np.intp]]], ...]:
    """Per split: matching -> {"arc": strata for positives, "host": strata for negatives}."""
    sizes = len(val)
    both = pd.concat([val, test], ignore_index=True)
    positive = both["label"].to_numpy() == 1
    if not positive.any() or positive.all():
        raise VerificationError("expected both classes in the splits that are compared")
    known = [n for n in (*ARC_VARIABLES, *HOST_VARIABLES) if np.isfinite(both[n].to_numpy(np.float64)[positive]).any()]
    found: dict[str, dict[str, NDArray[np.intp]]] = {}
    flat = np.zeros(len(both), dtype=np.intp)
    for name in known:
        code = _quantile_bins(both[name].to_numpy(np.float64), positive, _BINS_ALONE)
        found[name] = {"arc": code, "host": code if name in HOST_VARIABLES else flat}
    joint = {"arc": flat, "host": flat}
    for name in (name for name in known if name in JOINT_VARIABLES):
        code = _quantile_bins(both[name].to_numpy(np.float64), positive, _BINS_JOINT)
        joint["arc"] = joint["arc"] * (_BINS_JOINT + 1) + code
        if name in HOST_VARIABLES:
            joint["host"] = joint["host"] * (_BINS_JOINT + 1) + code
    found["joint"] = joint
    cut = ({k: {c: s[:sizes] for c, s in v.items()} for k, v in found.items()},)
    return (*cut, {k: {c: s[sizes:] for c, s in v.items()} for k, v in found.items()})


def _quantile_bins(values: NDArray[np.float64], chosen: NDArray[np.bool_], bins: int) -> NDArray[np.intp]:
    finite = values[chosen & np.isfinite(values)]
    inner = np.unique(np.quantile(finite, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    return np.where(np.isfinite(values), np.searchsorted(inner, values, side="right"), bins).astype(np.intp)


def _side(examples: pd.DataFrame, matchings: dict[str, dict[str, NDArray[np.intp]]]) -> _Side:
    ranked = RankedScores(examples["label"].to_numpy(), examples["logit"].to_numpy())
    strata = {k: np.where(ranked.is_positive, codes["arc"], codes["host"]) for k, codes in matchings.items()}
    return _Side(ranked, examples["host_id"].to_numpy(), strata)


def _measure(
    sides: tuple[_Side, _Side], weights: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(metric, matching) -> val, test, val matched to test."""
    val, test = sides
    metrics = ("auc", rate_name(GAP_FPR))

    def both(side: _Side, weight: NDArray[np.float64]) -> tuple[float, float]:
        return side.ranked.auc(weight), side.ranked.tpr_at_fpr(weight, GAP_FPR)

    plain = (both(val, weights[0]), both(test, weights[1]))
    result = {}
    for name, strata in val.strata.items():
        matched = np.empty(strata.size)
        for positive in (True, False):
            mine, theirs = val.ranked.is_positive == positive, test.ranked.is_positive == positive
            matched[mine] = matching_weights(
                strata[mine], weights[0][mine], test.strata[name][theirs], weights[1][theirs]
            )
        moved = both(val, matched)
        for index, metric in enumerate(metrics):
            result[metric, name] = (plain[0][index], plain[1][index], moved[index])
    return result


def _summary(whole: tuple[float, float, float], drawn: NDArray[np.float64]) -> dict[str, Any]:
    val, test, matched = whole
    gap = percentile_interval(val - test, drawn[:, 0] - drawn[:, 1])
    explained = percentile_interval(val - matched, drawn[:, 0] - drawn[:, 2])
    certain = gap.low > 0.0 or gap.high < 0.0
    nan = float("nan")
    share = (nan, nan, nan)
    if certain:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (drawn[:, 0] - drawn[:, 2]) / (drawn[:, 0] - drawn[:, 1])
        found = percentile_interval(explained.value / gap.value, ratio)
        share = (found.value, found.low, found.high)
    return {
        "val": val,
        "test": test,
        "val_matched": matched,
        "gap": gap.value,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "explained": explained.value,
        "explained_low": explained.low,
        "explained_high": explained.high,
        "share_explained": share[0],
        "share_explained_low": share[1],
        "share_explained_high": share[2],
    }


def _unmatched_share(sides: tuple[_Side, _Side], name: str) -> float:
    val, test = (side.strata[name][side.ranked.is_positive] for side in sides)
    return float(np.mean(~np.isin(test, val)))
