"""Draws from tabulated priors: one counter-based random number per parameter, independent of order."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.random import Word, keyed_uniform

FIXED, UNIFORM, LOGUNIFORM, NORMAL, DISC = 0, 1, 2, 3, 4

# Columns of a prior table: kind, low, high, mean, sigma, value.
PRIOR_COLUMNS = 6

_HALLEY_STEPS = 4


@njit(cache=True, nogil=True, error_model="numpy")
def draw_priors(
    table: NDArray[np.float64], run_seed: Word, task_key: Word, purpose: Word, attempt: Word, out: NDArray[np.float64]
) -> None:
    """Fill `out` with one draw of every prior.

    A normal is truncated to [low, high] by inverting its distribution function.

    Args:
        table: (parameter, 6) kind, low, high, mean, sigma, value.
        run_seed, task_key: unsigned 64-bit keys.
        purpose, attempt: unsigned counters.
        out: (parameter,) receives the draws.
    """
    for index in range(table.shape[0]):
        kind = int(table[index, 0])
        low, high = table[index, 1], table[index, 2]
        uniform = keyed_uniform(run_seed, task_key, purpose, attempt, index)
        if kind == FIXED:
            out[index] = table[index, 5]
        elif low == high:
            out[index] = low
        elif kind == NORMAL:
            mean, sigma = table[index, 3], table[index, 4]
            below, above = normal_cdf((low - mean) / sigma), normal_cdf((high - mean) / sigma)
            value = mean + sigma * normal_quantile(below + uniform * (above - below))
            out[index] = min(max(value, low), high)
        elif kind == UNIFORM:
            out[index] = low + (high - low) * uniform
        elif kind == LOGUNIFORM:
            out[index] = low * math.exp(uniform * math.log(high / low))
        else:
            out[index] = math.sqrt(low * low + (high * high - low * low) * uniform)


@njit(cache=True, nogil=True, error_model="numpy")
def normal_cdf(value: float) -> float:
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))


@njit(cache=True, nogil=True, error_model="numpy")
def normal_quantile(probability: float) -> float:
    """Inverse of `normal_cdf` for 0 < probability < 1, to about 1e-12.

    Abramowitz & Stegun (1964) 26.2.23 as start, then Halley's method.
    """
    tail = min(probability, 1.0 - probability)
    t = math.sqrt(-2.0 * math.log(tail))
    start = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    value = -start if probability < 0.5 else start
    for _ in range(_HALLEY_STEPS):
        step = (normal_cdf(value) - probability) * math.sqrt(2.0 * math.pi) * math.exp(0.5 * value * value)
        value -= step / (1.0 + 0.5 * value * step)
    return value
