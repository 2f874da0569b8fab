"""CacheConfig: what `dhs cache` copies, from where, and how patiently; strict and frozen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.contracts.cluster_config import ClusterSection
from pipeline.contracts.config import S3_SCHEMES, Bands
from pipeline.contracts.emr_variants import belongs_to_emr
from pipeline.contracts.priors import Positive, Section
from pipeline.contracts.survey import BANDS

_BRICKNAME = re.compile(r"^\d{4}[mp]\d{3}$")


class BricksSource(Section):
    """Where the coadds come from: a public server, a bucket, a folder."""

    url: str = Field(description="https://, s3:// or folder above the bricks")
    layout: Literal["public", "cache"] = Field(description="<AAA>/<brick>/ (public) or <brick>/ (cache)")
    region: str | None = Field(None, description="AWS region of an s3:// URL")
    endpoint_url: str | None = Field(None, description="S3 endpoint other than AWS")


class CacheTarget(Section):
    """Where the coadds go, as <brick>/, and where the record of the copying lies. Both on one S3 service."""

    url: str = Field(description="bucket prefix or folder of the cache")
    output: str = Field(description="folder that holds phase4a/ (blacklist) and phase4b/ (assets manifest)")
    variant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = Field(description="name of the record")
    region: str | None = Field(description="AWS region of the s3:// URLs; null only if none is used")
    endpoint_url: str | None = Field(None, description="S3 endpoint other than AWS")

    @model_validator(mode="after")
    def _record_is_not_of_emr(self) -> CacheTarget:
        if belongs_to_emr(self.variant):
            raise ValueError(f"variant {self.variant!r} holds results of the EMR system; take a new one")
        return self


class BrickChoice(Section):
    """Which bricks: named ones, or every value of `brickname` in a table such as a manifest; less a blacklist."""

    names: tuple[str, ...] = ()
    table: str | None = Field(None, description="parquet or CSV with a column brickname, reached like the cache")
    blacklist: str | None = Field(None, description="brick_blacklist.json of an earlier run, left out")

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> BrickChoice:
        if bool(self.names) == (self.table is not None):
            raise ValueError("bricks needs either names or table")
        if wrong := self.malformed(self.names):
            raise ValueError(f"brick names are of the form 0591m305, got {wrong[:3]}")
        return self

    @staticmethod
    def malformed(names: Iterable[str]) -> list[str]:
        """Those that are no names of bricks."""
        return sorted(name for name in names if not _BRICKNAME.match(name))


class FilesSection(Section):
    """Which coadds of a brick: image and invvar in each band, maskbits, and psfsize in each band if wanted."""

    bands: Bands
    psfsize: bool = Field(description="also the maps of the seeing; the EMR stage 4b left them to a second pass")

    @model_validator(mode="after")
    def _bands_are_known(self) -> FilesSection:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands must be distinct and not empty, got {self.bands}; known: {BANDS}")
        return self

    def keys(self) -> tuple[tuple[str, str], ...]:
        """(kind, band) of every file of a brick, such as ("image", "g"); maskbits has the band ""."""
        kinds = ("image", "invvar", "psfsize") if self.psfsize else ("image", "invvar")
        return (*((kind, band) for kind in kinds for band in self.bands), ("maskbits", ""))


class PatienceSection(Section):
    """How a file is asked for: tries, waits and time limits. The defaults of tries and waits are those of EMR."""

    tries: Annotated[int, Field(ge=1, le=20)] = 5
    first_wait_s: Annotated[Positive, Field(description="before the second try; doubles with each further one")] = 1.0
    max_wait_s: Positive = 60.0
    jitter: Annotated[float, Field(ge=0.0, lt=1.0, description="relative spread of the waits, uniform")] = 0.25
    start_spread_s: Annotated[float, Field(ge=0.0, description="a task begins within this time, at random")] = 2.0
    silence_s: Annotated[Positive, Field(description="longest time without a byte")] = 180.0
    try_s: Annotated[Positive, Field(description="longest time of one try")] = 900.0
    connections: Annotated[int, Field(ge=1, le=32, description="files of one brick in flight, per worker")] = 2


class CacheLimits(Section):
    """When to stop, because something else is wrong than single bricks."""

    failed_bricks: Annotated[int, Field(ge=0, description="bricks that failed in spite of all tries")] = 100
    absent_bricks: Annotated[int, Field(ge=0, description="bricks that the source does not have")] = 1000


class CacheConfig(Section):
    """Everything that decides what `dhs cache` does."""

    source: BricksSource
    cache: CacheTarget
    bricks: BrickChoice
    files: FilesSection
    patience: PatienceSection = PatienceSection()
    limits: CacheLimits = CacheLimits()
    check: Literal["marker", "source"] = Field(
        "marker",
        description="marker: _SUCCESS and all files make a complete brick; source: with its sizes too",
    )
    bricks_per_task: Annotated[int, Field(ge=1, le=1024)] = 16
    retries: Annotated[int, Field(ge=0, le=20)] = Field(3, description="of a task whose cache could not be written")
    cluster: ClusterSection

    @model_validator(mode="after")
    def _regions_are_given(self) -> CacheConfig:
        places = {
            "source": (self.source.region, (self.source.url,)),
            "cache": (self.cache.region, (self.cache.url, self.cache.output, self.bricks.table, self.bricks.blacklist)),
        }
        for section, (region, urls) in places.items():
            remote = [url for url in urls if url is not None and url.startswith(S3_SCHEMES)]
            if remote and not region:
                raise ValueError(f"{section}.region must name the AWS region of {remote[0]}")
        if self.cache.url.startswith(("http://", "https://")):
            raise ValueError(f"cache.url cannot be written to: {self.cache.url}")
        return self

    def identity_sha256(self, bricknames: list[str]) -> str:
        """Hash of what decides the cache's content: source, files, bricks, and how they are dealt to tasks."""
        content = {
            "source": self.source.model_dump(mode="json"),
            "cache": self.cache.url,
            "files": self.files.model_dump(mode="json"),
            "bricks_per_task": self.bricks_per_task,
            "bricks": bricknames,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
