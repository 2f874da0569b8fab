"""A run configuration from those of the EMR stage 4c, with an account of every key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.contracts.config import S3_SCHEMES, RunConfig
from pipeline.contracts.config_file import parse_config
from pipeline.contracts.emr_config import EMR_KEYS, STAGE_4C_KEYS
from pipeline.contracts.errors import ConfigError

_STAGES = {"4a": "dhs manifest build", "4b": "dhs cache", "4d": "dhs completeness", "4p5": "dhs compact"}
_ADDED = (
    "added: injection.extinction false, for EMR did not dim its sources; sampling.method none, the rows as they stand; "
    "training off; quality and gates at their defaults, of which EMR had none"
)
_STAMP_SIZE = re.compile(r"stamp(\d+)")


@dataclass(frozen=True)
class Answers:
    """What an EMR configuration does not say, or must not decide.

    Attributes:
        root: run.root; the EMR output prefix is not taken over.
        region: run.region; EMR took it from the environment.
        seed: run.seed; no EMR seed decided what this one does.
        name: run.name; None takes the experiment.
        old: values of EMR keys that the files do not hold, as text.
        accepted: EMR keys whose loss is accepted.
        bank_sha256: digest of the bank of source_mode cosmos, as `dhs bank inspect` prints it.
        scheduler: address of a Dask scheduler; None starts workers on this machine.
        workers: number of workers.
    """

    root: str | None
    region: str | None
    seed: int | None
    name: str | None = None
    old: Mapping[str, str] | None = None
    accepted: Sequence[str] = ()
    bank_sha256: str | None = None
    scheduler: str | None = None
    workers: int = 2


@dataclass(frozen=True)
class Migrated:
    """A configuration that parses, and one line per key of what became of it."""

    config: RunConfig
    content: dict[str, Any]
    report: tuple[str, ...]


def migrate_files(paths: Sequence[Path], answers: Answers) -> Migrated:
    """See migrate_config; ConfigError also for files that are no JSON objects."""
    documents = {}
    for path in paths:
        try:
            documents[path.name] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        if not isinstance(documents[path.name], dict):
            raise ConfigError(f"{path}: expected a JSON object, got {type(documents[path.name]).__name__}")
    return migrate_config(documents, answers)


def migrate_config(documents: Mapping[str, Mapping[str, Any]], answers: Answers) -> Migrated:
    """Turn EMR configurations of one stage-4c run into a run configuration in mode frozen.

    Args:
        documents: by file name: a --config JSON, a `_stage_config_*.json`, a `run_config_*.json`, or several of them.
        answers: what they cannot say.

    Raises:
        ConfigError: every missing answer and every key without decision at once; or files that contradict each other.
    """
    old = _merged(documents)
    given = set(old)
    stage = str(old.get("stage", "4c"))
    if stage != "4c":
        command = _STAGES.get(stage, "another command")
        raise ConfigError(f"stage {stage!r}: expected 4c, which dhs run replaces; for this one use {command}")
    old |= dict(answers.old or {})
    problems = _missing_answers(answers)
    is_record = any("inputs" in document or "timestamp_utc" in document for document in documents.values())
    is_flags = any(not {"inputs", "timestamp_utc", "execution_timestamp_utc"} & set(doc) for doc in documents.values())
    for key, rule in STAGE_4C_KEYS.items():
        if key in old or rule.default is None:
            continue
        if is_record and not is_flags and not rule.recorded:
            problems.append(
                f"{key}: a _stage_config does not record it; give --old {key}=VALUE (EMR's default: {rule.default})"
            )
        else:
            old[key] = rule.default
    undecided, losses = _losses(old, answers)
    problems += undecided + _missing_bank(old, answers, is_flags or "cosmos_salt" in {*given, *(answers.old or {})})
    manifest = _manifest_url(old, problems)
    if problems:
        raise ConfigError("cannot migrate: " + "; ".join(problems))
    content = _content(old, manifest, answers)
    config = parse_config(content, where="the migrated configuration")
    return Migrated(config, content, tuple(_report(old, given, losses)))


def as_yaml(migrated: Migrated, sources: Sequence[str]) -> str:
    """The configuration as a file, its account as comments above."""
    lines = [f"# From {', '.join(sources)} by dhs migrate-config.", *(f"#   {line}" for line in migrated.report)]
    return "\n".join(lines) + "\n" + yaml.safe_dump(migrated.content, sort_keys=False)


def _merged(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All leaves by name; ConfigError where two files differ."""
    merged: dict[str, Any] = {}
    for name, document in documents.items():
        for key, value in _leaves(document):
            if key in merged and merged[key] != value and not key.endswith("timestamp_utc"):
                raise ConfigError(f"{name}: {key} is {value!r}, another file says {merged[key]!r}")
            merged[key] = value
    return merged


def _leaves(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in document.items():
        leaves += _leaves(value) if isinstance(value, Mapping) else [(key.replace("-", "_"), value)]
    return leaves


def _missing_answers(answers: Answers) -> list[str]:
    problems = []
    if answers.seed is None:
        problems.append("seed: EMR's seed_base decided nothing, so there is no safe default; give --seed")
    if answers.root is None:
        problems.append("root: where the run is to lie, never an old prefix; give --root")
    elif answers.root.startswith(S3_SCHEMES) and answers.region is None:
        problems.append("region: EMR took it from the environment, and the old files name three; give --region")
    return problems


def _missing_bank(old: Mapping[str, Any], answers: Answers, salt_known: bool) -> list[str]:
    if str(old.get("source_mode", "sersic")) == "sersic":
        return []
    if old["source_mode"] != "cosmos":
        return [f"source_mode: expected sersic or cosmos, got {old['source_mode']!r}"]
    problems = []
    if not salt_known:
        problems.append("cosmos_salt: a _stage_config does not record it; give --old cosmos_salt=VALUE, often empty")
    if not old.get("cosmos_bank_h5"):
        problems.append("cosmos_bank_h5: source_mode cosmos needs its bank; give --old cosmos_bank_h5=URL")
    if answers.bank_sha256 is None:
        problems.append("bank digest: EMR recorded none; give --bank-sha256 as dhs bank inspect prints it")
    return problems


def _losses(old: Mapping[str, Any], answers: Answers) -> tuple[list[str], dict[str, str]]:
    """Keys whose value cannot be carried over: those that nobody accepted, and those that were."""
    found = {key: "no key of the EMR script that is known here" for key in old if key not in EMR_KEYS}
    for key, harmless in (("core_mask_radius", 0.0), ("src_flux_scale", 1.0)):
        if _number(old, key, harmless) != harmless:
            found[key] = STAGE_4C_KEYS[key].why
    unaccepted = [
        f"{key}={old[key]}: {why}; give --accept {key} to go on without"
        for key, why in found.items()
        if key not in answers.accepted
    ]
    return unaccepted, {key: why for key, why in found.items() if key in answers.accepted}


def _manifest_url(old: Mapping[str, Any], problems: list[str]) -> str:
    """manifest, else parent_s3, else the prefix that the EMR stage built."""
    for key in ("manifest", "parent_s3"):
        if old.get(key):
            return str(old[key])
    needed = [key for key in ("output_s3", "variant", "experiment_id") if not old.get(key)]
    if needed:
        missing = ", ".join(needed)
        problems.append(f"manifest: not named, and without {missing} not to be found; give --old manifest=URL")
        return ""
    root = str(old["output_s3"]).rstrip("/")
    return f"{root}/phase4a/{old['variant']}/{old['manifests_subdir']}/{old['experiment_id']}"


def _content(old: Mapping[str, Any], manifest: str, answers: Answers) -> dict[str, Any]:
    bands = old["bands"] if isinstance(old["bands"], list) else [band.strip() for band in str(old["bands"]).split(",")]
    cluster = {"kind": "address", "address": answers.scheduler} if answers.scheduler else {"kind": "local"}
    return {
        "run": {
            "name": answers.name or _run_name(str(old.get("experiment_id") or old.get("variant") or "migrated")),
            "root": answers.root,
            "region": answers.region,
            "seed": answers.seed,
        },
        "survey": {
            "bands": bands,
            "stamp_size_px": _stamp_size_px(old),
            "bricks": old["coadd_s3_cache_prefix"],
            "layout": "cache",
        },
        "manifest": {"kind": "emr", "url": manifest},
        "injection": {
            "mode": "frozen",
            "extinction": False,
            "emr_compat": True,
            "source": _source(old, answers),
            "psf": {
                "profile": old["psf_model"],
                "moffat_beta": _number(old, "moffat_beta"),
                "psfsize_from": "map" if _number(old, "use_psfsize_maps") else "manifest",
            },
        },
        "sampling": {"method": "none", "metric": "arc_snr"},
        "training": {"enabled": False, "epochs": 1},
        "shards": {"samples": 2048},
        "cluster": {**cluster, "workers": answers.workers},
    }


def _source(old: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    if old["source_mode"] == "sersic":
        return {"kind": "sersic"}
    bank = {"url": old["cosmos_bank_h5"], "sha256": answers.bank_sha256}
    return {"kind": "bank", **bank, "emr_salt": str(old.get("cosmos_salt") or "")}


def _stamp_size_px(old: Mapping[str, Any]) -> int:
    """The size in the experiment's name, else the only size."""
    if named := _STAMP_SIZE.search(str(old.get("experiment_id", ""))):
        return int(named[1])
    sizes = old["stamp_sizes"] if isinstance(old["stamp_sizes"], list) else str(old["stamp_sizes"]).split(",")
    if len(sizes) != 1:
        raise ConfigError(f"stamp_sizes={old['stamp_sizes']}: expected one size; give --old stamp_sizes=64")
    return int(_number({"stamp_sizes": sizes[0]}, "stamp_sizes"))


def _number(old: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    try:
        return float(old.get(key, default))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: expected a number, got {old[key]!r}") from error


def _run_name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63]


def _report(old: Mapping[str, Any], given: set[str], losses: Mapping[str, str]) -> list[str]:
    lines = []
    for key, value in old.items():
        rule = EMR_KEYS.get(key)
        if key in losses or rule is None:
            lines.append(f"{key}={value}: lost, as accepted: {losses[key]}")
            continue
        source = "" if key in given else " (EMR's default, or --old)"
        # Nothing was left to decide about a key whose value is harmless.
        fate = "dropped" if rule.fate == "undecided" else rule.fate
        target = f" -> {rule.target}" if rule.target else ""
        lines.append(f"{key}={value}{source}: {fate}{target}: {rule.why}")
    return [*lines, _ADDED]
