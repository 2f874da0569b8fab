"""RunConfig: the one configuration of a run, strict and frozen.

Unknown keys are errors that name the nearest known key. Where a wrong default would cost a day
(root with its bucket, region, seed, bands, stamp size) there is none.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.contracts.anchor_config import AnchorsSection
from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.emr_variants import belongs_to_emr
from pipeline.contracts.evaluation import EvaluationSettings
from pipeline.contracts.gate_config import GateSection
from pipeline.contracts.injection import InjectionSection
from pipeline.contracts.priors import Fraction, Section
from pipeline.contracts.sampling import SamplingSection
from pipeline.contracts.survey import BANDS
from pipeline.contracts.training_config import TrainingSection

S3_SCHEMES = ("s3://", "s3a://")


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


_BandNames = tuple[Literal["g", "r", "i", "z"], ...]
Bands = Annotated[_BandNames, BeforeValidator(_split_commas, json_schema_input_type=_BandNames | str)]


class RunSection(Section):
    """Identity of a run: everything random follows from `seed`, everything written lies in `root`/`name`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    root: str = Field(description="URL or local folder under which the run's folder is made")
    region: str | None = Field(description="AWS region of every s3:// URL; null only if none is used")
    endpoint_url: str | None = Field(None, description="S3 endpoint other than AWS")
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    cutouts_from: str | None = Field(
        None, description="folder of a run whose cutouts cube is used; no survey pixel is read again"
    )

    @model_validator(mode="after")
    def _is_not_of_emr(self) -> RunSection:
        parts = (*self.root.rstrip("/").split("/"), self.name)
        for phase, variant in pairwise(parts):
            if phase.startswith("phase4") and belongs_to_emr(variant):
                raise ValueError(f"run.root and run.name lie in {phase}/{variant}, which the EMR system wrote")
        return self


class SurveySection(Section):
    """What is cut out of the survey."""

    bands: Bands = Field(description="stamp bands in storage order, such as [g, r, z]")
    stamp_size_px: Annotated[int, Field(ge=16, le=256, multiple_of=2)]
    bricks: str = Field(description="URL of the folder with the coadds")
    layout: Literal["cache", "public"] = Field(description="<brick>/ (cache) or <AAA>/<brick>/ (public)")

    @model_validator(mode="after")
    def _bands_are_distinct(self) -> SurveySection:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands must be distinct and not empty, got {self.bands}; known: {BANDS}")
        return self


class QualitySection(Section):
    """Limits beyond which a stamp is kept out, with a recorded reason."""

    bad_pixel_frac_max: Fraction = 0.2
    invvar_zero_frac_max: Fraction = 0.0


class ManifestSection(Section):
    """Where the rows come from: an EMR phase-4a manifest, a parent catalogue with priors, or finished stamps."""

    kind: Literal["emr", "parent", "stamps"]
    url: str = Field(description="parquet file, folder of part files, or (parent only) a CSV file")
    also: tuple[str, ...] = Field(default=(), description="further tables of the same kind, read after `url`")
    split_from: Literal["sky", "table"] = Field(
        default="sky", description="stamps only; table: by region_split, where copies of one host may be on both sides"
    )

    @model_validator(mode="after")
    def _split_is_of_stamps(self) -> ManifestSection:
        if self.split_from == "table" and self.kind != "stamps":
            raise ValueError("manifest.split_from: table needs manifest.kind: stamps")
        return self


class SplitSection(Section):
    """Split by sky: HEALPix cells (NESTED) hashed into train, val and test; a guard band between them."""

    nside: Literal[32, 64, 128, 256, 512] = 128
    train: Fraction = 0.70
    val: Fraction = 0.15
    test: Fraction = 0.15
    guard_arcsec: Annotated[float, Field(ge=0.0, le=3600.0)] = 60.0
    guard: Literal["drop", "assign"] = Field(
        default="drop", description="drop: the band on both sides of a border; assign: the rarer split keeps its side"
    )
    tolerance: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.02, description="largest |achieved - requested| share; beyond it a run ends"
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSection:
        if abs(self.train + self.val + self.test - 1.0) > 1e-9:
            raise ValueError("split fractions train + val + test must sum to 1")
        return self


class ShardSection(Section):
    """Size of a shard, the unit of work, storage and retry; and of its inner chunks."""

    samples: Annotated[int, Field(ge=1, le=65_536)]
    inner_chunk: Annotated[int, Field(ge=1, le=4096)] = 16
    retries: Annotated[int, Field(ge=0, le=20)] = 3

    @model_validator(mode="after")
    def _chunks_divide(self) -> ShardSection:
        if self.samples % self.inner_chunk:
            raise ValueError(f"samples={self.samples} is not a multiple of inner_chunk={self.inner_chunk}")
        return self


class RunConfig(Section):
    """Everything that decides what a run does."""

    run: RunSection
    survey: SurveySection
    manifest: ManifestSection
    quality: QualitySection = QualitySection()
    injection: InjectionSection
    sampling: SamplingSection
    splits: SplitSection = SplitSection()
    gates: GateSection = GateSection()
    training: TrainingSection
    evaluation: EvaluationSettings = EvaluationSettings()
    anchors: AnchorsSection | None = None
    shards: ShardSection
    cluster: ClusterSection

    @model_validator(mode="after")
    def _rows_fit_the_mode(self) -> RunConfig:
        if self.injection.mode == "frozen" and (self.manifest.kind == "parent" or self.sampling.method != "none"):
            raise ValueError("injection.mode: frozen needs manifest.kind: emr and sampling.method: none")
        if self.manifest.kind == "stamps" and self.injection.mode != "frozen":
            raise ValueError("manifest.kind: stamps needs injection.mode: frozen; nothing is drawn for them")
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> RunConfig:
        if self.sampling.band not in self.survey.bands:
            raise ValueError(f"sampling.band {self.sampling.band!r} is not in survey.bands {self.survey.bands}")
        if self.anchors is not None and self.anchors.band not in self.survey.bands:
            raise ValueError(f"anchors.band {self.anchors.band!r} is not in survey.bands {self.survey.bands}")
        if "i" in self.survey.bands:
            raise ValueError("band i has no source colour in this version; survey.bands may hold g, r, z")
        if self.training.preprocess.annulus_px[0] >= self.survey.stamp_size_px / 2 * 2**0.5:
            raise ValueError("training.preprocess.annulus_px lies outside the stamp")
        degraded = self.training.centre_degradation
        if degraded is not None and degraded.radius_px + degraded.edge_px > self.survey.stamp_size_px / 2:
            raise ValueError(
                f"training.centre_degradation reaches {degraded.radius_px + degraded.edge_px:g} px, beyond the stamp"
            )
        if self.sampling.metric == "arc_snr_annulus" and self.sampling.band != "r":
            raise ValueError("sampling.metric arc_snr_annulus needs sampling.band: r, the only band with a depth")
        source, psf = self.injection.source, self.injection.psf
        tables = (self.manifest.url, *self.manifest.also)
        urls = (self.run.root, self.survey.bricks, *tables, self.run.cutouts_from or "", psf.stamps or "")
        banks = (source.url if source.kind == "bank" else "", self.anchors.url if self.anchors is not None else "")
        remote = [url for url in urls + banks if url.startswith(S3_SCHEMES)]
        if remote and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", self.run.region or ""):
            raise ValueError(f"run.region must name the AWS region of {remote[0]}, got {self.run.region!r}")
        return self

    def sha256(self, *sections: str) -> str:
        """Hash of the resolved configuration, or of the named sections only; ValueError for an unknown one."""
        unknown = set(sections) - set(type(self).model_fields)
        if unknown:
            raise ValueError(f"no such sections: {sorted(unknown)}")
        content = self.model_dump(mode="json", include=set(sections) or None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
