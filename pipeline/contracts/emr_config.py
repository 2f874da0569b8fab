"""Every flag and configuration key of the EMR phase-4 script, and what became of it.

A key of a --config JSON is a flag with underscores; `_stage_config*.json` and `run_config*.json` hold further ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fate = Literal["kept", "changed", "dropped", "elsewhere", "undecided"]
"""Same meaning, another name; another meaning or form; not needed; part of another command; for a person to decide."""


@dataclass(frozen=True)
class KeyRule:
    """What becomes of one key.

    Attributes:
        fate: see Fate.
        target: key, option or command that takes its place; empty if none does.
        why: the reason, for a person who knew the key.
        default: what the EMR script took without the flag; None if it took nothing.
        recorded: True if a `_stage_config` of stage 4c holds it.
    """

    fate: Fate
    target: str
    why: str
    default: object = None
    recorded: bool = True


_RESUME = "a run always resumes; finished shards are found by their receipts, and another run needs another run.name"
_MANIFEST = "dhs manifest build"
_CACHE = "dhs cache"

# Keys that stage 4c read. Those with recorded=False changed its results and are missing from its _stage_config.
STAGE_4C_KEYS: dict[str, KeyRule] = {
    "stage": KeyRule("changed", "dhs run", "one command makes cutouts, arcs, gates and report"),
    "output_s3": KeyRule("changed", "run.root", "a run lies in run.root/run.name; dhs export writes the old prefixes"),
    "variant": KeyRule("changed", "dhs export --variant", "names of v3 to v5 are never written again"),
    "experiment_id": KeyRule("changed", "run.name", "also the last part of the manifest's URL"),
    "manifest": KeyRule("kept", "manifest.url", "read as it stands"),
    "manifests_subdir": KeyRule("changed", "manifest.url", "part of the URL", "manifests"),
    "parent_s3": KeyRule("changed", "manifest.url", "stage 4c took it as the URL of the manifest"),
    "coadd_s3_cache_prefix": KeyRule(
        "kept", "survey.bricks", "with survey.layout: cache", "s3://darkhaloscope/dr10/coadd_cache"
    ),
    "bands": KeyRule("kept", "survey.bands", "a list; text with commas is taken too", "g,r,z"),
    "stamp_sizes": KeyRule("changed", "survey.stamp_size_px", "one size a run; rows of another are an error", "64"),
    "bandsets": KeyRule("changed", "survey.bands", "one set a run; rows of another are an error", "grz"),
    "psf_model": KeyRule("kept", "injection.psf.profile", "moffat or gaussian", "moffat", recorded=False),
    "moffat_beta": KeyRule("kept", "injection.psf.moffat_beta", "the same number", 3.5, recorded=False),
    "use_psfsize_maps": KeyRule("kept", "injection.psf.psfsize_from", "1: map, 0: manifest", 0, recorded=False),
    "core_mask_radius": KeyRule(
        "undecided",
        "injection.core_suppression",
        "EMR cut a disc about pixel (32, 32), core_suppression is about the lens and tapers: set it by hand",
        0,
        recorded=False,
    ),
    "source_mode": KeyRule(
        "kept",
        "injection.source.kind",
        "sersic, or cosmos as bank; colours are those of the row, EMR gave every template the same",
        "sersic",
        recorded=False,
    ),
    "cosmos_bank_h5": KeyRule("kept", "injection.source.url", "used with source_mode cosmos; see dhs bank inspect"),
    "cosmos_salt": KeyRule("kept", "injection.source.emr_salt", "names the template of each row by the same hash", ""),
    "src_flux_scale": KeyRule("undecided", "", "fluxes follow from rmag and src_dmag; EMR always used 1", 1.0),
    "seed_base": KeyRule("dropped", "run.seed", "nothing in the EMR stage depended on it, so it is no seed", 42),
    "split_seed": KeyRule("dropped", _MANIFEST, "it decided the manifest, which is read as it stands", 13),
    "metrics_only": KeyRule("changed", "dhs export --metrics-only", "a run makes stamps and metrics in one pass", 0),
    "test_limit": KeyRule("changed", "dhs run --limit-shards", "shards, not rows; a limited run has its own name"),
    "sweep_partitions": KeyRule("dropped", "shards.samples", "the size of a shard, not their number, is set", 600),
    "skip_if_exists": KeyRule("dropped", "", _RESUME, 1),
    "force": KeyRule("dropped", "", _RESUME, 0),
    "use_sie": KeyRule("dropped", "", "the EMR script ignored it; lens_model of the row decides"),
    "config": KeyRule("dropped", "CONFIG", "the file is the argument; --set overrides it, never the other way round"),
    "coadd_base_url": KeyRule("elsewhere", _CACHE, "source.url of its configuration"),
}

# Keys of the other stages, which one parser read with those above.
OTHER_KEYS: dict[str, KeyRule] = {
    "bricks_with_region_s3": KeyRule("elsewhere", _MANIFEST, "inputs.bricks_with_region"),
    "region_selections_s3": KeyRule("elsewhere", _MANIFEST, "inputs.region_selections"),
    "selection_set_ids": KeyRule("elsewhere", _MANIFEST, "selection_set_ids; null for all"),
    "require_lrg_flag": KeyRule("elsewhere", _MANIFEST, "lrg_flag"),
    "tiers": KeyRule("elsewhere", _MANIFEST, "tiers; one that is left out is not made"),
    "grid_debug": KeyRule("elsewhere", _MANIFEST, "tiers.debug.grid"),
    "grid_grid": KeyRule("elsewhere", _MANIFEST, "tiers.grid.grid"),
    "grid_train": KeyRule("elsewhere", _MANIFEST, "tiers.train.grid"),
    "n_per_config_debug": KeyRule("elsewhere", _MANIFEST, "tiers.debug.n_per_config"),
    "n_per_config_grid": KeyRule("elsewhere", _MANIFEST, "tiers.grid.n_per_config"),
    "n_total_train_per_split": KeyRule("elsewhere", _MANIFEST, "tiers.train.n_total_per_split"),
    "control_frac_debug": KeyRule("elsewhere", _MANIFEST, "tiers.debug.control_frac"),
    "control_frac_grid": KeyRule("elsewhere", _MANIFEST, "tiers.grid.control_frac"),
    "control_frac_train": KeyRule("elsewhere", _MANIFEST, "tiers.train.control_frac"),
    "unpaired_controls": KeyRule("elsewhere", _MANIFEST, "unpaired_controls"),
    "max_total_tasks_soft": KeyRule("elsewhere", _MANIFEST, "max_tasks"),
    "replicates": KeyRule("elsewhere", _MANIFEST, "replicates"),
    "cache_partitions": KeyRule("elsewhere", _CACHE, "bricks_per_task, a size instead of a number"),
    "http_timeout_s": KeyRule("elsewhere", _CACHE, "patience.silence_s; patience.try_s limits a whole try"),
    "include_psfsize": KeyRule("elsewhere", _CACHE, "files.psfsize"),
    "recovery_snr_thresh": KeyRule("elsewhere", "dhs completeness", "--recovery-snr-thresh"),
    "recovery_theta_over_psf": KeyRule("elsewhere", "dhs completeness", "--recovery-theta-over-psf"),
    "compact_input_s3": KeyRule("elsewhere", "dhs compact", "its argument"),
    "compact_output_s3": KeyRule("elsewhere", "dhs compact", "--output and --variant"),
    "compact_partitions": KeyRule("elsewhere", "dhs compact", "--partitions"),
}

# What the stages noted about themselves; no setting.
RECORD_KEYS: dict[str, KeyRule] = {
    "timestamp_utc": KeyRule("dropped", "run.json", "the run record notes its own times"),
    "execution_timestamp_utc": KeyRule("dropped", "run.json", "the run record notes its own times"),
    "spark_version": KeyRule("dropped", "run.json", "the run record notes the versions of all packages"),
}

EMR_KEYS = {**STAGE_4C_KEYS, **OTHER_KEYS, **RECORD_KEYS}
