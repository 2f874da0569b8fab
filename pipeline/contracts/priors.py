"""Priors of the drawn quantities, and the base of every configuration section."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]

# A truncated normal must keep this share of its mass, or its draws are decided by rounding.
_MIN_NORMAL_MASS = 1e-6
_NORMAL_REACH = 10.0
_NEEDED = {
    "fixed": ("value",),
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "disc": ("low", "high"),
    "normal": ("mean", "sigma"),
    "table": ("points", "density"),
}


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no infinite or undefined numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prior(Section):
    """One scalar prior, with exactly the numbers its kind needs.

    fixed: value. uniform, loguniform, disc (area-weighted in radius): low, high.
    normal: mean and sigma, truncated to low, high; without them to ten sigma. table: increasing points and
    the density there, linear between them; its scale does not matter.
    """

    kind: Literal["fixed", "uniform", "loguniform", "normal", "disc", "table"]
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    sigma: Positive | None = None
    value: float | None = None
    points: tuple[float, ...] | None = None
    density: tuple[NotNegative, ...] | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value that can be drawn."""
        if self.value is not None:
            return self.value, self.value
        if self.points:
            return self.points[0], self.points[-1]
        mean, reach = self.mean or 0.0, _NORMAL_REACH * (self.sigma or 0.0)
        return (
            mean - reach if self.low is None else self.low,
            mean + reach if self.high is None else self.high,
        )

    @model_validator(mode="after")
    def _has_its_numbers(self) -> Prior:
        given = {name for name in type(self).model_fields if name != "kind" and getattr(self, name) is not None}
        optional = {"low", "high"} if self.kind == "normal" else set()
        if given - optional != set(_NEEDED[self.kind]):
            raise ValueError(f"a {self.kind} prior needs exactly {', '.join(_NEEDED[self.kind])}, got {sorted(given)}")
        if self.points is not None and self.density is not None:
            check_table("table prior", "points", self.points, self.density)
        low, high = self.bounds
        if low > high:
            raise ValueError(f"prior needs low <= high, got {low}, {high}")
        if self.kind == "loguniform" and low <= 0:
            raise ValueError(f"loguniform prior needs low > 0, got {low}")
        if self.kind == "disc" and low < 0:
            raise ValueError(f"disc prior needs low >= 0, got {low}")
        if self.kind == "normal" and self.mean is not None and self.sigma is not None:
            normal = NormalDist(self.mean, self.sigma)
            if normal.cdf(high) - normal.cdf(low) < _MIN_NORMAL_MASS:
                raise ValueError(f"normal prior has no mass between {low} and {high}")
        return self


def check_table(what: str, name: str, points: Sequence[float], density: Sequence[float]) -> None:
    """ValueError unless some increasing points and the density at each make a density."""
    if len(points) < 2 or len(points) != len(density) or list(points) != sorted(set(points)):
        raise ValueError(
            f"a {what} needs two or more increasing {name} and as many densities, got {len(points)} and {len(density)}"
        )
    if not any(left + right > 0 for left, right in pairwise(density)):
        raise ValueError(f"the density of a {what} is zero everywhere")


# Range that a quantity can have at all: (lowest, highest, whether lowest itself is allowed).
_PHYSICAL = {
    "theta_e_arcsec": (0.0, 30.0, False),
    "lens_q": (0.0, 1.0, False),
    "shear": (0.0, 0.5, True),
    "lens_jitter_arcsec": (0.0, 5.0, True),
    "beta_over_theta_e": (0.0, 10.0, True),
    "src_re_arcsec": (0.0, 30.0, False),
    "src_n": (0.3, 8.0, True),
    "src_q": (0.0, 1.0, False),
}


class Priors(Section):
    """Prior of every drawn quantity; angles are uniform.

    `beta_over_theta_e` is the source offset in Einstein radii, `src_mag_r` the unlensed r magnitude,
    whose prior must have a density: uniform, normal or table.
    """

    theta_e_arcsec: Prior
    lens_q: Prior
    shear: Prior
    lens_jitter_arcsec: Prior
    beta_over_theta_e: Prior
    src_re_arcsec: Prior
    src_n: Prior
    src_q: Prior
    src_mag_r: Prior
    src_gr: Prior
    src_rz: Prior

    @model_validator(mode="after")
    def _ranges_are_physical(self) -> Priors:
        for name, (lowest, highest, closed) in _PHYSICAL.items():
            low, high = getattr(self, name).bounds
            if low < lowest or high > highest or (low == lowest and not closed):
                raise ValueError(f"{name} must lie in {'[' if closed else '('}{lowest}, {highest}], got {low}..{high}")
        low, high = self.src_mag_r.bounds
        written = self.src_mag_r.kind == "table" or None not in (self.src_mag_r.low, self.src_mag_r.high)
        if self.src_mag_r.kind not in ("uniform", "normal", "table") or not written or low >= high:
            raise ValueError("src_mag_r needs a uniform or normal prior with low < high, or a table")
        return self
