"""Confidence intervals of a proportion, each under its own name.

Counts may be fractions: a weighted proportion C of effective size n enters as n C successes of n trials.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from pipeline.contracts.errors import VerificationError

WILSON = "Wilson 1927 score interval"
JEFFREYS = "Jeffreys interval, Beta(k + 1/2, n - k + 1/2) quantiles"

Interval = tuple[NDArray[np.float64], NDArray[np.float64]]


def wilson_score_interval(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Interval:
    """Score interval (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    Args:
        successes: 0 <= successes <= trials, broadcast against `trials`.
        trials: >= 0; 0 gives NaN.
        level: coverage in (0, 1).

    Returns:
        Lower and upper ends in [0, 1], float64.

    Raises:
        VerificationError: counts out of range, or a level outside (0, 1).
    """
    k, n = _checked(successes, trials, level)
    z = float(ndtri(0.5 + level / 2.0))
    share = k / n
    denominator = 1.0 + z**2 / n
    centre = (share + z**2 / (2.0 * n)) / denominator
    half = z * np.sqrt(share * (1.0 - share) / n + z**2 / (4.0 * n**2)) / denominator
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def jeffreys_interval(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Interval:
    """Equal-tailed posterior interval under the Jeffreys prior (Brown, Cai & DasGupta 2001).

    Both tails are kept for 0 and for all successes, so the lower end is above 0 and the upper end below 1.

    Args:
        successes: 0 <= successes <= trials, broadcast against `trials`.
        trials: >= 0; 0 gives NaN.
        level: coverage in (0, 1).

    Returns:
        Lower and upper ends in [0, 1], float64.

    Raises:
        VerificationError: counts out of range, or a level outside (0, 1).
    """
    k, n = _checked(successes, trials, level)
    tail = (1.0 - level) / 2.0
    return betaincinv(k + 0.5, n - k + 0.5, tail), betaincinv(k + 0.5, n - k + 0.5, 1.0 - tail)


def _checked(successes: ArrayLike, trials: ArrayLike, level: float) -> Interval:
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    if not 0.0 < level < 1.0:
        raise VerificationError(f"expected a level in (0, 1), got {level}")
    if not (np.isfinite(k).all() and np.isfinite(n).all()) or (k < 0.0).any() or (k > n * (1.0 + 1e-12)).any():
        raise VerificationError("expected finite counts with 0 <= successes <= trials")
    return np.minimum(k, n), np.where(n > 0.0, n, np.nan)
