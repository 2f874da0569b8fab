"""Phase 4 of the EMR system's bucket: every prefix and marker written there, and the variants that are never written.

What is only read (phase 3, sweeps, old manifests) is named by configurations; files of a brick by `bricks.brick_file`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.contracts.emr_variants import belongs_to_emr
from pipeline.contracts.errors import ConfigError
from pipeline.storage.locations import Location

SUCCESS = "_SUCCESS"
DEFAULT_VARIANT_PREFIX = "v6_"
# `idempotency` of a stage configuration, in EMR's words: what is finished is kept, or made again.
RESUMES = {"skip_if_exists": 1, "force": 0}
REMAKES = {"skip_if_exists": 0, "force": 1}

_VARIANT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_PHASE = re.compile(r"^phase4(a|b|b_psfsize|c|d|p5)$")


@dataclass(frozen=True)
class EmrLayout:
    """Every location of one variant.

    Attributes:
        phase4: folder that holds phase4a, phase4b ...; what the EMR flag --output-s3 named.
        variant: name of the data set, one folder inside every phase.
    """

    phase4: Location
    variant: str

    def __post_init__(self) -> None:
        if not _VARIANT.match(self.variant):
            raise ConfigError(f"variant {self.variant!r}: expected letters, digits, dot, dash or underscore")
        inside = [part for part in self.phase4.path.split("/") if _PHASE.match(part)]
        if inside:
            raise ConfigError(
                f"{self.phase4.url}: expected the folder that holds {inside[0]}, not one inside it; "
                f"{inside[0]}/{self.variant} is added to it"
            )

    def for_writing(self) -> EmrLayout:
        """This layout, if its variant is one that may be written.

        Raises:
            ConfigError: a variant of the EMR system itself, v3 to v5.
        """
        if belongs_to_emr(self.variant):
            raise ConfigError(
                f"variant {self.variant!r} belongs to the EMR system; v3 to v5 and cosmos_corrected are never written. "
                f"Choose another name, such as {DEFAULT_VARIANT_PREFIX}{self.variant}"
            )
        return self

    @property
    def manifests(self) -> Location:
        """4a: folder above the manifests."""
        return self._of("4a", "manifests")

    @property
    def manifest_report(self) -> Location:
        """4a: what came of the manifests: counts, rows kept out by reason, strata."""
        return self._of("4a", "_manifest_report.json")

    def manifest(self, experiment_id: str, *, csv: bool = False) -> Location:
        """4a: manifest of one experiment."""
        return self._of("4a", "manifests", f"{experiment_id}_csv" if csv else experiment_id)

    def bricks_manifest(self, *, csv: bool = False) -> Location:
        """4a: bricks of every experiment."""
        return self._of("4a", "bricks_manifest_csv" if csv else "bricks_manifest")

    @property
    def brick_blacklist(self) -> Location:
        """4a: bricks that the survey's server does not have."""
        return self._of("4a", "brick_blacklist.json")

    def assets_manifest(self, *, csv: bool = False) -> Location:
        """4b: one row per brick of the cache."""
        return self._of("4b", "assets_manifest_csv" if csv else "assets_manifest")

    @property
    def cache_plan(self) -> Location:
        """4b: what the copying was planned as; Spark does not look at names that begin with an underscore."""
        return self._of("4b", "_plan.json")

    def cache_part(self, task: int) -> Location:
        """4b: what one task found of its bricks."""
        return self._of("4b", "_bricks", f"{task:06d}.json")

    @property
    def cache_success(self) -> Location:
        """4b: marker of a cache whose bricks are all there or known to be absent."""
        return self._of("4b", SUCCESS)

    def stamps(self, experiment_id: str) -> Location:
        """4c: 57 columns, below region_split=*/."""
        return self._of("4c", "stamps", experiment_id)

    def metrics(self, experiment_id: str) -> Location:
        """4c: 20 columns, below region_split=*/."""
        return self._of("4c", "metrics", experiment_id)

    def paired(self, split: str = "") -> Location:
        """Stamps with their controls: plain folders train, val, test of the variant `<variant>_paired`."""
        folder = self.phase4.join("phase4c", f"{self.variant}_paired")
        return folder.join(split) if split else folder

    def completeness(self, experiment_id: str) -> Location:
        """4d: completeness by grid cell, below region_split=*/."""
        return self._of("4d", "completeness", experiment_id)

    def compacted(self, experiment_id: str) -> Location:
        """4p5: balanced files, below region_split=*/."""
        return self._of("4p5", "stamps", experiment_id)

    def stage_config(self, stage: str, experiment_id: str = "") -> Location:
        """What a stage was asked to do; 4c and 4d have one per experiment."""
        if (stage in ("4c", "4d")) != bool(experiment_id):
            raise ConfigError(
                f"the stage configuration of {stage} is {'per experiment' if not experiment_id else 'one'}"
            )
        return self._of(stage, f"_stage_config_{experiment_id}.json" if experiment_id else "_stage_config.json")

    def run_config(self, experiment_id: str) -> Location:
        """4c: effective settings of the injection."""
        return self._of("4c", f"run_config_{experiment_id}.json")

    @property
    def exports(self) -> Location:
        """4c: above what this program left of every shard; Spark does not look into such folders."""
        return self._of("4c", "_receipts")

    def receipts(self, experiment_id: str, tables: str) -> Location:
        """4c: receipts of the shards of one export."""
        return self.exports.join(experiment_id, tables)

    def _of(self, stage: str, *parts: str) -> Location:
        return self.phase4.join(f"phase{stage}", self.variant, *parts)
