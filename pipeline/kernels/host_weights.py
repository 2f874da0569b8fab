"""Bootstrap weights of hosts: independent Poisson counts, a pure function of (seed, host, replicate).

Drawing n hosts with replacement gives multinomial counts; independent Poisson counts of mean 1 have the same
mean and nearly the same covariance (Hanley & MacGibbon 2006), and a host's count does not depend on which
other hosts are there.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.random import Word, keyed_uniform

PURPOSE_BOOTSTRAP = 32

_MAX_COUNT = 24


@njit(cache=True, nogil=True, error_model="numpy")
def poisson_host_weights(run_seed: Word, host_key: NDArray[np.uint64], replicate: int) -> NDArray[np.float64]:
    """How often each host occurs in one bootstrap replicate.

    Args:
        run_seed: seed of the run, 0 <= seed < 2**64.
        host_key: (host,) distinct uint64 identities.
        replicate: number of the replicate, 0 <= replicate < 2**32.

    Returns:
        (host,) float64 whole numbers, Poisson of mean 1 cut at 24, by inversion of the keyed uniform. [1]
    """
    weight = np.empty(host_key.size, dtype=np.float64)
    for index in range(host_key.size):
        uniform = keyed_uniform(run_seed, host_key[index], PURPOSE_BOOTSTRAP, replicate, 0)
        count = 0
        term = np.exp(-1.0)
        below = term
        while uniform > below and count < _MAX_COUNT:
            count += 1
            term /= count
            below += term
        weight[index] = count
    return weight
