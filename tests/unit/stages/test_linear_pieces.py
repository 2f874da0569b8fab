"""Piecewise linear densities: mass, distribution, quantile, jumps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from pipeline.stages.linear_pieces import LinearPieces, locate_share

LEVELS = st.floats(0.0, 10.0)


@st.composite
def pieces(draw: st.DrawFn) -> LinearPieces:
    """Any density with jumps, flat parts and empty parts, but not empty as a whole."""
    steps = draw(st.lists(st.floats(0.05, 3.0), min_size=1, max_size=6))
    edges = np.cumsum([draw(st.floats(-5, 5)), *steps]).tolist()
    left = draw(st.lists(LEVELS, min_size=len(steps), max_size=len(steps)))
    right = draw(st.lists(LEVELS, min_size=len(steps), max_size=len(steps)))
    left[0] += 0.5
    return LinearPieces.of(edges, left, right)


@settings(max_examples=200, deadline=None)
@given(density=pieces(), uniform=st.floats(0.0, 1.0))
def test_quantile_inverts_the_distribution(density: LinearPieces, uniform: float) -> None:
    """cdf(quantile(u)) is u, and quantiles stay inside."""
    value = density.quantile(uniform)
    assert density.edges[0] <= value <= density.edges[-1]
    assert density.cdf(value) == pytest.approx(uniform, abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(density=pieces())
def test_distribution_is_the_integral_of_the_density(density: LinearPieces) -> None:
    """The density adds up to 1 and to the cdf; it vanishes outside and stays below its peak."""
    edges = np.array(density.edges)
    inside = np.concatenate([np.linspace(a + 1e-9, b - 1e-9, 201) for a, b in pairwise(edges)])
    values = np.array([density.density(float(x)) for x in inside])
    total = [
        integrate.trapezoid(part, x) for part, x in zip(values.reshape(-1, 201), inside.reshape(-1, 201), strict=True)
    ]
    assert np.cumsum(total) == pytest.approx([density.cdf(float(edge)) for edge in edges[1:]], abs=1e-6)
    assert density.cdf(float(edges[-1])) == 1.0
    assert density.cdf(float(edges[0])) == 0.0
    assert values.max() <= density.peak() * (1 + 1e-9)
    assert density.density(float(edges[0]) - 1e-6) == density.density(float(edges[-1]) + 1e-6) == 0.0


def test_density_passes_through_its_points() -> None:
    """Linear between points, over one scale."""
    density = LinearPieces.through((0.0, 1.0, 3.0), (1.0, 3.0, 0.0))
    assert [density.density(x) for x in (0.0, 0.5, 1.0, 2.0, 3.0)] == pytest.approx(
        [value / 5.0 for value in (1.0, 2.0, 3.0, 1.5, 0.0)]
    )


def test_density_without_mass_is_refused() -> None:
    """Zero everywhere is no density."""
    with pytest.raises(ValueError, match="needs mass"):
        LinearPieces.through((0.0, 1.0), (0.0, 0.0))


def test_share_beyond_all_pieces_is_none() -> None:
    """Shares that add up to less than a number have no place for it; empty pieces are passed over."""
    assert locate_share((0.5, 0.0, 0.4), (0.0, 0.0, 0.0), 0.95) is None
    assert locate_share((0.0, 1.0), (0.0, 0.0), 0.25) == (1, 0.25)
    assert locate_share((0.0, 1.0), (1.0, 1.0), 0.25) == (1, 0.5)
