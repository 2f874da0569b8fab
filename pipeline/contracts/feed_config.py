"""FeedSection: how examples come from the training cube to the network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.contracts.priors import Positive, Section

# Observing conditions of a stamp, the same with and without an arc. Nothing else may ever enter a network beside the
# pixels: what describes the arc, the class, the split or the selection decides the label, or nearly.
FEATURE_COLUMNS = ("ebv_mag", "psfdepth_r_mag", "psfsize_arcsec", "sky_sigma_nmgy")

FeatureColumn = Literal["ebv_mag", "psfdepth_r_mag", "psfsize_arcsec", "sky_sigma_nmgy"]

# What decides the content of every batch; the rest only says where bytes lie and how fast they come.
_DECIDING = ("order", "shuffle_shards", "pairs", "weights", "features")


class FeedSection(Section):
    """Order, weights and extra columns of the examples, and where stamps are kept between epochs."""

    order: Literal["shards_then_global", "global", "shards"] = Field(
        default="shards_then_global",
        description="global: a permutation of all examples, which needs every shard on a local disk; shards: shards in "
        "random order, mixed in a sliding window; shards_then_global: epoch 0 by shards, the others global",
    )
    shuffle_shards: Annotated[int, Field(ge=1, le=4096)] = Field(default=8, description="shards of the sliding window")
    pairs: Literal["broken", "kept"] = Field(
        default="broken", description="kept: both stamps of a pair are in one batch, whose size must be even"
    )
    weights: Literal["none", "balanced", "prior"] = Field(
        default="none",
        description="balanced: both classes weigh the same; prior: injected stamps by weight_prior over its mean",
    )
    features: tuple[FeatureColumn, ...] = Field(default=(), description="columns that go along with the stamps")
    cache: Literal["remote", "always", "never"] = Field(
        default="remote", description="which cubes are copied to local disk: those not on it, all, or none"
    )
    cache_folder: str | None = Field(default=None, description="local folder; null is the system's temporary folder")
    cache_limit_gb: Positive | None = Field(default=None, description="1e9 bytes of the whole folder; null: the disk's")
    threads: Annotated[int, Field(ge=1, le=256)] = Field(default=2, description="that fill batches")
    prefetch_batches: Annotated[int, Field(ge=1, le=1024)] = Field(default=2, description="batches filled ahead")
    fetches: Annotated[int, Field(ge=1, le=256)] = Field(default=4, description="shards fetched at the same time")
    pinned: bool = Field(default=False, description="batches in page-locked memory where there is a GPU")

    @model_validator(mode="after")
    def _features_are_distinct(self) -> FeedSection:
        if len(set(self.features)) != len(self.features):
            raise ValueError(f"features must be distinct, got {self.features}")
        return self

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what is in every batch; part of a training's identity."""
        return self.model_dump(mode="json", include=set(_DECIDING))
