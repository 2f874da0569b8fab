"""ManifestConfig: what `dhs manifest build` makes, from what, and where; strict and frozen."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.config import S3_SCHEMES
from pipeline.contracts.emr_manifest import DEFAULT_SPLIT_SEED, experiment_name
from pipeline.contracts.emr_variants import belongs_to_emr
from pipeline.contracts.priors import Fraction, Section

TierName = Literal["debug", "grid", "train"]
GridName = Literal["grid_small", "grid_medium", "grid_full", "grid_sota"]
Edges = tuple[float, float, float, float, float]


class ManifestInputs(Section):
    """Tables of phase 3: folders of parquet part files, or single parquet files."""

    parent: str = Field(description="parent catalogue, such as .../phase3p5/<variant>/parent_compact")
    bricks_with_region: str
    region_selections: str


class HostTier(Section):
    """Every host of a sample with every entry of a grid."""

    grid: GridName
    n_per_config: Annotated[int, Field(ge=1)] = Field(description="hosts per selection set and split")
    control_frac: Fraction = 0.0

    @property
    def n_hosts(self) -> int:
        """Hosts per selection set and split."""
        return self.n_per_config


class TrainTier(Section):
    """Every host of a sample with one entry of a grid, or as control."""

    grid: GridName
    n_total_per_split: Annotated[int, Field(ge=1)] = Field(description="hosts per selection set and split")
    control_frac: Fraction = 0.5

    @property
    def n_hosts(self) -> int:
        """Hosts per selection set and split."""
        return self.n_total_per_split


class ManifestTiers(Section):
    """Tiers to make; one that is left out is not made."""

    debug: HostTier | None = None
    grid: HostTier | None = None
    train: TrainTier | None = None

    @model_validator(mode="after")
    def _some_tier(self) -> ManifestTiers:
        if not self.items():
            raise ValueError("tiers needs at least one of debug, grid, train")
        return self

    def items(self) -> list[tuple[TierName, HostTier | TrainTier]]:
        """Name and section of the tiers to make."""
        named: tuple[tuple[TierName, HostTier | TrainTier | None], ...] = (
            ("debug", self.debug),
            ("grid", self.grid),
            ("train", self.train),
        )
        return [(name, tier) for name, tier in named if tier is not None]


class Experiment(Section):
    """One manifest: a tier with its stamp size and bands."""

    tier: TierName
    section: HostTier | TrainTier
    stamp_size_px: int
    bandset: str

    @property
    def experiment_id(self) -> str:
        """Such as train_stamp64_bandsgrz_gridgrid_sota."""
        return experiment_name(self.tier, self.stamp_size_px, self.bandset, self.section.grid)


class ManifestConfig(Section):
    """One build of phase-4a manifests, below `output`/phase4a/`variant`."""

    variant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    output: str = Field(description="prefix of phase 4, such as s3://bucket/phase4_pipeline")
    region: str | None = Field(description="AWS region of every s3:// URL; null only if none is used")
    endpoint_url: str | None = Field(None, description="S3 endpoint other than AWS")
    inputs: ManifestInputs
    tiers: ManifestTiers
    selection_set_ids: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(None, description="null: all")
    lrg_flag: str | None = Field("is_v3_color_relaxed", description="column that must be 1; null takes every row")
    stamp_sizes_px: Annotated[tuple[Annotated[int, Field(ge=16, le=256, multiple_of=2)], ...], Field(min_length=1)] = (
        64,
    )
    bandsets: Annotated[tuple[Literal["grz", "r"], ...], Field(min_length=1)] = ("grz",)
    replicates: Annotated[int, Field(ge=1, le=1000)] = 2
    unpaired_controls: bool = Field(default=True, description="train controls lose their config_id")
    split_seed: Annotated[int, Field(ge=0, lt=2**31 - 7003)] = DEFAULT_SPLIT_SEED
    psf_edges_arcsec: Edges | None = Field(None, description="edges of psf_bin; null for quartiles of the bricks")
    depth_edges_mag: Edges | None = Field(None, description="edges of depth_bin; null for quartiles of the bricks")
    row_order: Literal["brick", "task_id"] = Field(
        default="brick", description="brick: rows of a brick together; task_id: shuffled, as in sorted EMR manifests"
    )
    csv: bool = Field(default=True, description="a copy of every manifest as text, in <experiment>_csv, as EMR made")
    max_tasks: Annotated[int, Field(ge=1)] | None = Field(
        default=30_000_000, description="more rows over all experiments are refused; null for no limit"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ManifestConfig:
        if belongs_to_emr(self.variant):
            raise ValueError(f"variant {self.variant!r} holds results of the EMR system; take a new one")
        for name in ("selection_set_ids", "stamp_sizes_px", "bandsets"):
            values = getattr(self, name) or ()
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must be distinct, got {values}")
        for name in ("psf_edges_arcsec", "depth_edges_mag"):
            edges = getattr(self, name)
            if edges is not None and list(edges) != sorted(set(edges)):
                raise ValueError(f"{name} needs increasing edges, got {edges}")
        urls = (self.output, self.inputs.parent, self.inputs.bricks_with_region, self.inputs.region_selections)
        if self.region is None and any(url.startswith(S3_SCHEMES) for url in urls):
            raise ValueError("region is needed for s3:// URLs")
        return self

    def experiments(self) -> list[Experiment]:
        """Manifests to make, in the order of the EMR system."""
        return [
            Experiment(tier=tier, section=section, stamp_size_px=size, bandset=bandset)
            for size in self.stamp_sizes_px
            for bandset in self.bandsets
            for tier, section in self.tiers.items()
        ]

    def sha256(self) -> str:
        """Digest of what decides the rows: everything but the output and how it is reached."""
        content = self.model_dump(mode="json", exclude={"output", "region", "endpoint_url", "max_tasks"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
