"""Draws from tabulated priors: one counter-based random number per parameter, independent of order."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.random import Word, keyed_normal, keyed_uniform

FIXED, UNIFORM, LOGUNIFORM, NORMAL, DISC = 0, 1, 2, 3, 4

# Columns of a prior table: kind, low, high, mean, sigma, value.
PRIOR_COLUMNS = 6

# Slots are spaced so that a truncated normal may redraw without touching the next parameter.
_SLOT_STRIDE = 256


@njit(cache=True, nogil=True, error_model="numpy")
def draw_priors(
    table: NDArray[np.float64], run_seed: Word, task_key: Word, purpose: Word, attempt: Word, out: NDArray[np.float64]
) -> None:
    """Fill `out` with one draw of every prior.

    A normal is truncated to [low, high] by redrawing; after 256 redraws, which a range with more than
    2 % of the mass never needs in practice, the mean clipped to the range is taken.

    Args:
        table: (parameter, 6) kind, low, high, mean, sigma, value.
        run_seed, task_key: unsigned 64-bit keys.
        purpose, attempt: unsigned 32-bit counters.
        out: (parameter,) receives the draws.
    """
    for index in range(table.shape[0]):
        kind = int(table[index, 0])
        low, high = table[index, 1], table[index, 2]
        slot = index * _SLOT_STRIDE
        if kind == FIXED:
            out[index] = table[index, 5]
        elif kind == NORMAL:
            out[index] = min(max(table[index, 3], low), high)
            for redraw in range(_SLOT_STRIDE):
                normal = keyed_normal(run_seed, task_key, purpose, attempt, slot + redraw)
                value = table[index, 3] + table[index, 4] * normal
                if low <= value <= high:
                    out[index] = value
                    break
        else:
            uniform = keyed_uniform(run_seed, task_key, purpose, attempt, slot)
            if kind == UNIFORM:
                out[index] = low + (high - low) * uniform
            elif kind == LOGUNIFORM:
                out[index] = low * math.exp(uniform * math.log(high / low))
            else:
                out[index] = math.sqrt(low * low + (high * high - low * low) * uniform)
