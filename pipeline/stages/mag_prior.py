"""The prior of the unlensed r magnitude as a density, in magnitude and in ln flux."""

from __future__ import annotations

import math
from statistics import NormalDist

from pipeline.contracts.priors import Prior
from pipeline.stages.linear_pieces import LinearPieces

LN10_OVER_2P5 = math.log(10.0) / 2.5


class MagnitudePrior:
    """Density of a magnitude prior.

    Raises:
        ValueError: a kind that has no density in magnitude (`fixed`, `loguniform`, `disc`).
    """

    def __init__(self, prior: Prior) -> None:
        self.low, self.high = prior.bounds
        self._normal: NormalDist | None = None
        self._pieces: LinearPieces | None = None
        self._scale = 1.0
        if prior.kind == "uniform":
            self._scale = self.high - self.low
            self.peak = 1.0 / self._scale
        elif prior.kind == "normal" and prior.mean is not None and prior.sigma is not None:
            self._normal = NormalDist(prior.mean, prior.sigma)
            self._scale = self._normal.cdf(self.high) - self._normal.cdf(self.low)
            self.peak = self.density(min(max(prior.mean, self.low), self.high))
        elif prior.kind == "table" and prior.points is not None and prior.density is not None:
            self._pieces = LinearPieces.through(prior.points, prior.density)
            self.peak = self._pieces.peak()
        else:
            raise ValueError(f"a {prior.kind!r} prior has no density in magnitude; use uniform, normal or table")

    def density(self, mag: float) -> float:
        """Density at a magnitude; 0 outside the bounds and for NaN. [1/mag]"""
        if not self.low <= mag <= self.high:
            return 0.0
        if self._pieces is not None:
            return self._pieces.density(mag)
        return 1.0 / self._scale if self._normal is None else self._normal.pdf(mag) / self._scale

    def ln_flux_density(self, mag: float) -> float:
        """Density of ln(flux), at a magnitude."""
        return self.density(mag) / LN10_OVER_2P5

    def acceptance(self, mag: float) -> float:
        """`density` over its peak."""
        return self.density(mag) / self.peak

    def mass(self, faint: float, bright: float) -> float:
        """Share of the prior between two magnitudes, bright <= faint."""
        return max(self._cdf(faint) - self._cdf(bright), 0.0)

    def _cdf(self, mag: float) -> float:
        mag = min(max(mag, self.low), self.high)
        if self._pieces is not None:
            return self._pieces.cdf(mag)
        if self._normal is None:
            return (mag - self.low) / self._scale
        return (self._normal.cdf(mag) - self._normal.cdf(self.low)) / self._scale


def magnitude(flux_nmgy: float) -> float:
    """AB magnitude of a positive flux. [mag]"""
    return 22.5 - 2.5 * math.log10(flux_nmgy)
