"""AnchorsSection: the real lenses that a run is tested on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.contracts.priors import Section


class AnchorsSection(Section):
    """Real lenses, cut out of the run's own bricks, measured, scored and reported by tier."""

    url: str = Field(description="table of anchors that `dhs anchors build` wrote, parquet or CSV")
    band: Literal["g", "r", "i", "z"] = Field("r", description="band in which arcs are measured")
