"""Configuration of the SNR distribution: the target, the sampler and its pilot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.contracts.priors import Fraction, NotNegative, Positive, Section, check_table


class BinsTarget(Section):
    """Shares of samples between edges; inside a bin uniform in ln SNR."""

    kind: Literal["bins"]
    edges: tuple[Positive, ...]
    shares: tuple[Fraction, ...]

    @model_validator(mode="after")
    def _consistent(self) -> BinsTarget:
        if len(self.edges) != len(self.shares) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError("bins target needs increasing edges, one more than shares")
        _check_shares(self.shares)
        return self


class LogUniformTarget(Section):
    """Density 1 / (snr ln(high/low)) on [low, high]."""

    kind: Literal["loguniform"]
    low: Positive
    high: Positive

    @model_validator(mode="after")
    def _range_is_ordered(self) -> LogUniformTarget:
        if self.low >= self.high:
            raise ValueError(f"loguniform target needs low < high, got {self.low}, {self.high}")
        return self


class TableTarget(Section):
    """Density per unit ln SNR at some SNR values, linear in ln SNR between them; its scale does not matter."""

    kind: Literal["table"]
    snr: tuple[Positive, ...]
    density: tuple[NotNegative, ...]

    @model_validator(mode="after")
    def _is_a_density(self) -> TableTarget:
        check_table("table target", "snr", self.snr, self.density)
        return self


class GridTarget(Section):
    """A few SNR values and the share of samples at each, as for tests at fixed SNR."""

    kind: Literal["grid"]
    snr: Annotated[tuple[Positive, ...], Field(min_length=1)]
    shares: tuple[Fraction, ...]

    @model_validator(mode="after")
    def _consistent(self) -> GridTarget:
        if len(self.snr) != len(self.shares) or list(self.snr) != sorted(set(self.snr)):
            raise ValueError("grid target needs increasing snr, as many as shares")
        _check_shares(self.shares)
        return self


Target = BinsTarget | LogUniformTarget | TableTarget | GridTarget


class SamplingSection(Section):
    """Control of the SNR distribution of the injected arcs; docs/sampling.md says which method is for what.

    `hosts: conditional` gives every host an arc from p(arc | SNR, host); `pooled` takes or leaves a host with its
    one draw, so that rows follow p(arc, host | SNR): `max_attempts` is then 1.
    """

    method: Literal["snr_first", "rejection", "direct", "none"] = "snr_first"
    hosts: Literal["conditional", "pooled"] = "conditional"
    metric: Literal["arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture", "arc_snr_annulus"]
    band: Literal["g", "r", "i", "z"] = Field("r", description="band of the SNR columns")
    target: Annotated[Target, Field(discriminator="kind")] | None = None
    allow_renormalise: bool = Field(
        False, description="leave out target bins that the priors never reach, instead of stopping"
    )
    max_attempts: Annotated[int, Field(ge=1, le=100_000)] = 200
    weight_draws: Annotated[int, Field(ge=1, le=1024)] = Field(4, description="snr_first: draws behind a weight")
    host_draws: Annotated[int, Field(ge=8, le=4096)] = Field(
        64, description="rejection, conditional: draws behind the SNR density of one host"
    )
    pilot_draws: Annotated[int, Field(ge=256)] = 4096
    pilot_bins: Annotated[int, Field(ge=8, le=512)] = 32
    pilot_error_max: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.05, description="pooled: largest relative error of the prior's mass in a target bin"
    )
    safety_factor: Annotated[float, Field(ge=1.0, le=10.0)] = 1.2

    @model_validator(mode="before")
    @classmethod
    def _pooled_tries_once(cls, content: Any) -> Any:
        pooled = isinstance(content, dict) and content.get("hosts") == "pooled"
        return {"max_attempts": 1, **content} if pooled else content

    @model_validator(mode="after")
    def _fits_together(self) -> SamplingSection:
        if (self.method == "none") != (self.target is None):
            raise ValueError("sampling.target is needed by every sampling.method but none")
        if self.hosts == "pooled":
            if self.method not in ("snr_first", "rejection"):
                raise ValueError(f"hosts: pooled needs method snr_first or rejection, got {self.method}")
            if self.max_attempts != 1:
                raise ValueError(
                    f"hosts: pooled needs max_attempts: 1, got {self.max_attempts}; trying a host again would favour "
                    "hosts that seldom reach the target"
                )
        if self.method == "rejection" and isinstance(self.target, GridTarget):
            raise ValueError("a grid target needs method snr_first or direct; no prior draw has exactly a given SNR")
        return self


def _check_shares(shares: Sequence[float]) -> None:
    if abs(sum(shares) - 1.0) > 1e-9:
        raise ValueError(f"shares must sum to 1, got {sum(shares)}")
