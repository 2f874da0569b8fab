"""Densities that are linear between edges, with jumps allowed at the edges: value, distribution, quantile."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def locate_share(shares: Sequence[float], tilts: Sequence[float], uniform: float) -> tuple[int, float] | None:
    """Piece and fraction of it, 0 to 1, below which the share `uniform` of the mass lies; None above all pieces.

    In a piece of tilt t the density falls at fraction f by 1 + t (2 f - 1) from its mean, so that the mass below
    f is f (1 - t) + t f**2.
    """
    below = 0.0
    for index, (share, tilt) in enumerate(zip(shares, tilts, strict=True)):
        if share > 0 and uniform <= below + share:
            mass = (uniform - below) / share
            root = math.sqrt(max((1.0 - tilt) ** 2 + 4.0 * tilt * mass, 0.0))
            return index, 2.0 * mass / ((1.0 - tilt) + root) if mass else 0.0
        below += share
    return None


@dataclass(frozen=True)
class LinearPieces:
    """A normalised density of one number.

    Attributes:
        edges: (piece + 1,) increasing.
        shares: (piece,) mass of each piece, summing to 1.
        tilts: (piece,) (right - left) / (right + left) of the density at the ends of each piece, -1 to 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    tilts: tuple[float, ...]

    @classmethod
    def of(cls, edges: Sequence[float], left: Sequence[float], right: Sequence[float]) -> LinearPieces:
        """From unnormalised densities at the left and right end of each piece; ValueError if all are 0."""
        widths = [high - low for low, high in pairwise(edges)]
        masses = [0.5 * width * (a + b) for width, a, b in zip(widths, left, right, strict=True)]
        total = math.fsum(masses)
        if not total > 0:
            raise ValueError("a density needs mass, got zero everywhere")
        tilts = tuple((b - a) / (b + a) if a + b > 0 else 0.0 for a, b in zip(left, right, strict=True))
        return cls(tuple(edges), tuple(mass / total for mass in masses), tilts)

    @classmethod
    def through(cls, points: Sequence[float], density: Sequence[float]) -> LinearPieces:
        """The continuous density through some points."""
        return cls.of(points, density[:-1], density[1:])

    def density(self, value: float) -> float:
        """Density; 0 outside, that of the left piece at an inner edge."""
        if not self.edges[0] <= value <= self.edges[-1]:
            return 0.0
        index = max(bisect_left(self.edges, value) - 1, 0)
        width = self.edges[index + 1] - self.edges[index]
        fraction = (value - self.edges[index]) / width
        return self.shares[index] / width * (1.0 + self.tilts[index] * (2.0 * fraction - 1.0))

    def cdf(self, value: float) -> float:
        """Mass below a value."""
        if not value > self.edges[0]:
            return 0.0
        if value >= self.edges[-1]:
            return 1.0
        index = bisect_left(self.edges, value) - 1
        fraction = (value - self.edges[index]) / (self.edges[index + 1] - self.edges[index])
        below = math.fsum(self.shares[:index])
        tilt = self.tilts[index]
        return below + self.shares[index] * fraction * ((1.0 - tilt) + tilt * fraction)

    def quantile(self, uniform: float) -> float:
        """Inverse of `cdf` for 0 <= uniform <= 1."""
        found = locate_share(self.shares, self.tilts, uniform)
        if found is None:
            return self.edges[-1]
        low, high = self.edges[found[0]], self.edges[found[0] + 1]
        return min(high, low + found[1] * (high - low))

    def peak(self) -> float:
        """Largest density."""
        return max(
            share / (high - low) * (1.0 + abs(tilt))
            for share, tilt, low, high in zip(self.shares, self.tilts, self.edges[:-1], self.edges[1:], strict=True)
        )
