"""Bootstrap counts of hosts: Poisson of mean 1, and a function of seed, host and replicate alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.kernels.host_weights import poisson_host_weights

HOSTS = np.arange(20_000, dtype=np.uint64) * np.uint64(7919)


def test_counts_are_poisson_of_mean_one() -> None:
    """Shares of 0, 1, 2 and 3 and the first two moments agree with exp(-1) / k! within five sigma."""
    weight = poisson_host_weights(5, HOSTS, 0)
    for count in range(4):
        expected = math.exp(-1.0) / math.factorial(count)
        tolerance = 5.0 * math.sqrt(expected * (1 - expected) / HOSTS.size)
        assert np.mean(weight == count) == pytest.approx(expected, abs=tolerance)
    assert weight.mean() == pytest.approx(1.0, abs=0.04)
    assert weight.var() == pytest.approx(1.0, abs=0.06)


def test_a_count_depends_on_its_own_host_only() -> None:
    """Order and company of the hosts change nothing; seed and replicate do."""
    weight = poisson_host_weights(5, HOSTS, 3)
    np.testing.assert_array_equal(poisson_host_weights(5, HOSTS[::-3].copy(), 3), weight[::-3])
    assert (poisson_host_weights(6, HOSTS, 3) != weight).mean() > 0.5
    other = poisson_host_weights(5, HOSTS, 4)
    assert abs(np.corrcoef(weight, other)[0, 1]) < 0.04
