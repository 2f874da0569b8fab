"""The EMR system's bucket: every prefix and marker, and the variants that nobody may write over."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.contracts.emr_variants import belongs_to_emr
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.survey import COADD_KINDS
from pipeline.storage.locations import Location

PHASE4 = "phase4_pipeline"
SUCCESS = "_SUCCESS"
DEFAULT_VARIANT_PREFIX = "v6_"

_VARIANT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_PHASE = re.compile(r"^phase4(a|b|b_psfsize|c|d|p5)$")
_PHASE3 = {
    "3a": ("bricks_with_region", "region_metrics", "region_metrics_csv", "_metadata_json", "_stage_config.json"),
    "3b": ("region_selections", "region_selections_csv", "_stage_config.json"),
    "3c": ("parent_union_parquet",),
    "3p5": ("parent_compact",),
}


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

    @classmethod
    def of_bucket(cls, bucket: Location, variant: str) -> EmrLayout:
        """The layout of a variant in a bucket such as s3://darkhaloscope."""
        return cls(bucket.join(PHASE4), variant)

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
    def bucket(self) -> Location:
        """Folder above phase4_pipeline, or the phase-4 folder itself if it has another name."""
        url = self.phase4.url.removesuffix(f"/{PHASE4}")
        return Location(url, self.phase4.region, self.phase4.endpoint_url)

    def survey_input(self, name: str) -> Location:
        """sweeps, sweeps_manifest, sweep_urls.txt, survey-bricks-dr10-south.fits.gz: below dr10/."""
        return self.bucket.join("dr10", name)

    @property
    def coadd_cache(self) -> Location:
        """One folder per brick."""
        return self.bucket.join("dr10", "coadd_cache")

    def brick_file(self, brickname: str, kind: str, band: str = "") -> Location:
        """A cached coadd file: image, invvar or psfsize of a band, or maskbits.

        Raises:
            ConfigError: a kind that the survey does not have, or a band where there is none.
        """
        if (kind == "maskbits") == bool(band) or (kind != "maskbits" and kind not in COADD_KINDS):
            raise ConfigError(
                f"expected maskbits, or one of {', '.join(COADD_KINDS)} with a band; got {kind!r} {band!r}"
            )
        name = "-".join(part for part in ("legacysurvey", brickname, kind, band) if part)
        return self.coadd_cache.join(brickname, f"{name}.fits.fz")

    def brick_success(self, brickname: str) -> Location:
        """Marker of a completely cached brick."""
        return self.coadd_cache.join(brickname, SUCCESS)

    def phase3(self, stage: str, variant: str, name: str) -> Location:
        """A table of phase 3, whose variants are not those of phase 4.

        Raises:
            ConfigError: the stage has no such table.
        """
        if name not in _PHASE3.get(stage, ()):
            raise ConfigError(f"phase {stage} has no {name!r}; known: {_PHASE3}")
        return self.bucket.join("phase3_pipeline", f"phase{stage}", variant, name)

    @property
    def manifests(self) -> Location:
        """4a: folder above the manifests."""
        return self._of("4a", "manifests")

    @property
    def manifest_report(self) -> Location:
        """4a: what came of the manifests: counts, rows kept out by reason, strata."""
        return self._of("4a", "_manifest_report.json")

    def manifest(self, experiment_id: str, *, filtered: bool = False, csv: bool = False) -> Location:
        """4a: manifest of one experiment; `filtered` lacks the blacklisted bricks."""
        folder = "manifests_filtered" if filtered else "manifests"
        return self._of("4a", folder, f"{experiment_id}_csv" if csv else experiment_id)

    def bricks_manifest(self, *, filtered: bool = False, csv: bool = False) -> Location:
        """4a: bricks of every experiment."""
        return self._of("4a", "bricks_manifest" + ("_filtered" if filtered else "") + ("_csv" if csv else ""))

    @property
    def brick_blacklist(self) -> Location:
        """4a: bricks that the survey's server does not have."""
        return self._of("4a", "brick_blacklist.json")

    def assets_manifest(self, *, csv: bool = False) -> Location:
        """4b: one row per brick of the cache."""
        return self._of("4b", "assets_manifest_csv" if csv else "assets_manifest")

    @property
    def psfsize_repair(self) -> Location:
        """4b2: folder of the psfsize repair."""
        return self._of("4b_psfsize")

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

    def receipts(self, experiment_id: str) -> Location:
        """What this program left of every shard; Spark does not look into folders that begin with an underscore."""
        return self._of("4c", f"_receipts_{experiment_id}")

    def _of(self, stage: str, *parts: str) -> Location:
        return self.phase4.join(f"phase{stage}", self.variant, *parts)
