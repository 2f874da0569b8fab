"""SearchConfig: how `dhs score` reaches stamps, keeps bad ones out and shares the work; strict and frozen."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.config import S3_SCHEMES, QualitySection, ShardSection, SurveySection
from pipeline.contracts.priors import Section


class CandidateSection(Section):
    """What is kept of the best ranked positions."""

    top: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100, description="candidates listed, kept with their pixels and shown on the page"
    )


class SearchConfig(Section):
    """Everything but the network and the positions. The defaults score a cube on this machine."""

    region: str | None = Field(None, description="AWS region of every s3:// URL; null only if none is used")
    endpoint_url: str | None = Field(None, description="S3 endpoint other than AWS")
    survey: SurveySection | None = Field(
        None, description="where positions are cut out, in the network's bands and stamp size; a cube needs none"
    )
    quality: QualitySection = QualitySection()
    candidates: CandidateSection = CandidateSection()
    shards: ShardSection = Field(ShardSection(samples=1024), description="positions of one task; a cube has its own")
    cluster: ClusterSection = ClusterSection(kind="local")

    @model_validator(mode="after")
    def _region_is_given(self) -> SearchConfig:
        bricks = "" if self.survey is None else self.survey.bricks
        if bricks.startswith(S3_SCHEMES) and not self.region:
            raise ValueError(f"region must name the AWS region of {bricks}")
        return self
