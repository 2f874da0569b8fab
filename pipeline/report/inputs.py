"""What the report is made of: the run's documents and columns, and why one of them is not there."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.config_file import parse_config
from pipeline.contracts.datasets import REJECT_REASONS, ROLES, SPLITS
from pipeline.contracts.errors import VerificationError
from pipeline.stages.gates.result import GateResult
from pipeline.stages.sampling import Pilot
from pipeline.storage.cube import PublishedCube, is_published, open_cube
from pipeline.storage.evaluation_tables import StoredEvaluation, evaluation_folder, read_evaluation
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, read_receipts
from pipeline.storage.runs import read_json, read_record
from pipeline.storage.tables import find_parts, pieces_of, read_pieces

_RECORD_KEYS = ("run", "state", "config", "config_sha256", "plan_sha256", "code", "stages", "error", "updated_utc")
_PLAN_KEYS = ("n_rows", "n_shards")
_EPOCH_KEYS = ("epoch", "train_loss", "val_loss", "val_auc", "learning_rate", "seconds")
_METRICS_KEYS = (
    "n_positives", "n_negatives", "auc", "tpr_at_fpr", "roc", "plan_sha256", "kept_epoch",
)  # fmt: skip
_CONFUSION_KEYS = ("stamps", "label", "logit", "arc_snr", "theta_e_arcsec", "task_id")
_SAMPLING_KEYS = ("rows", "attempts", "weights", "required_mag_r", "correlations_ln_snr", "selection", "cost")
_SCORE_COLUMNS = {"task_id": "string", "label": "integer", "logit": "number", "score": "number", "arc_snr": "number"}
_NAMED_GATES = 3
# Reasons that the injection gave: the stamp itself was good enough to be used.
_INJECTION_REASONS = (
    "host_mag_missing", "ebv_missing", "psf_unreadable", "template_unusable", "sampler_exhausted", "arc_masked",
)  # fmt: skip


@dataclass(frozen=True)
class GateOutcome:
    """Verdicts of the gates, and the hash of the configuration that they were checked under."""

    results: tuple[GateResult, ...]
    config_sha256: str


@dataclass(frozen=True)
class TrainingOutcome:
    """Verified output of the trainer.

    Attributes:
        history: one record per epoch.
        metrics: metrics of the test split.
        scores: one row per test example: task_id, label, logit, score, arc_snr.
        confusion: stamps (example, band, y, x) [nmgy] that it is most wrong about, with label, logit, arc_snr,
            theta_e_arcsec and task_id; controls first, the worst of each class first.
    """

    history: tuple[Mapping[str, Any], ...]
    metrics: Mapping[str, Any]
    scores: pd.DataFrame
    confusion: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class RunInputs:
    """Everything that one page shows; None for what does not exist yet.

    Attributes:
        record: the run record.
        plan: the frozen shard table.
        receipts: cube name -> receipts by shard, of cubes that are not published.
        reject_reason: (sample,) codes of the cutouts cube.
        cube: the training cube, for pixels.
        columns: (sample,) and (sample, band) variables of the training cube, all rows.
        sampling: what the sampler did, sampling.json.
        bands: bands of the cubes in storage order.
        report_files: names beside the page.
        anchors: recall of real lenses by tier.
    """

    layout: RunLayout
    record: Mapping[str, Any]
    config: RunConfig
    plan: Mapping[str, Any]
    receipts: Mapping[str, Mapping[int, Receipt]]
    reject_reason: NDArray[np.uint8] | None
    cube: PublishedCube | None
    columns: xr.Dataset | None
    bands: tuple[str, ...]
    pilot: Pilot | None
    sampling: Mapping[str, Any] | None
    gates: GateOutcome | None
    network_gates: GateOutcome | None
    training: TrainingOutcome | None
    evaluation: StoredEvaluation | None
    report_files: tuple[str, ...]
    anchors: StoredEvaluation | None = None

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        """Stage name -> what the run record says about it."""
        stages: Mapping[str, Mapping[str, Any]] = self.record["stages"]
        return stages

    @property
    def is_import(self) -> bool:
        """True if the stamps were finished elsewhere: no cutouts cube, and arcs that may lack their control."""
        return self.config.manifest.kind == "stamps"

    def without_pairs(self, what: str) -> str:
        """A sentence about pairs that are not there, and why imported arcs are none.

        Args:
            what: the sentence.
        """
        alone = 0 if self.columns is None else int(has_role_code(self.columns, "injected").sum())
        if not alone:
            return what
        return f"{what} Of {alone} imported arcs the control is not known: name the table of pairs first in dhs import."

    def why_no_cube(self, name: str) -> str:
        """The reason why the page has nothing of a cube."""
        done, planned = len(self.receipts.get(name, {})), self.plan["n_shards"]
        return f"The {name} cube is not published: {done} of {planned} shards are done.{self._ended()}"

    def why_no_gates(self) -> str:
        """The reason why the page has no gate results."""
        return f"The gates have not been run: there is no gates.json.{self._ended()}"

    def why_no_network_gates(self) -> str:
        """The reason why the page has no results of the gates on the network."""
        if self.training is None:
            return self.why_no_training()
        return f"The gates on the network have not been run: there is no network_gates.json.{self._ended()}"

    def why_no_training(self) -> str:
        """The reason why the page has no training results."""
        if not self.config.training.enabled:
            return "No network was trained: training.enabled is false in the configuration."
        failed = self.stages.get("gates", {}).get("failed")
        if failed:
            more = f" and {len(failed) - _NAMED_GATES} more (section 6)" if len(failed) > _NAMED_GATES else ""
            return f"No network was trained, because gates failed: {', '.join(map(str, failed[:_NAMED_GATES]))}{more}."
        return f"No network was trained: training/ holds no verified results (marker _SUCCESS).{self._ended()}"

    def why_no_evaluation(self) -> str:
        """The reason why the page has no evaluation."""
        if self.training is None:
            return self.why_no_training()
        return f"The scores have not been evaluated: evaluation/ has no marker.{self._ended()}"

    def _ended(self) -> str:
        return " The run failed before that; the reason is at the top." if self.record["error"] else ""


def read_inputs(layout: RunLayout) -> RunInputs:
    """Read what exists of a run.

    Raises:
        ContractError: no run lives there.
        VerificationError: a document exists and is not what it should be, or belongs to another plan.
        StorageError: a read failed.
    """
    record = _with_keys(read_record(layout), _RECORD_KEYS, layout.record)
    config = parse_config(record["config"], where=layout.record.url)
    plan = _with_keys(read_json(layout.plan), _PLAN_KEYS, layout.plan)
    cutouts = _published(layout, "cutouts", record)
    cube = _published(layout, "training", record)
    unpublished = [name for name, found in (("cutouts", cutouts), ("training", cube)) if found is None]
    return RunInputs(
        layout=layout,
        record=record,
        config=config,
        plan=plan,
        receipts={name: read_receipts(layout.receipts(name)) for name in unpublished},
        reject_reason=cutouts.columns(["reject_reason"])["reject_reason"].to_numpy() if cutouts else None,
        cube=cube,
        columns=cube.columns(cube.column_names()) if cube else None,
        bands=tuple(map(str, cube.attrs["bands"])) if cube else config.survey.bands,
        pilot=_read_pilot(layout, record),
        sampling=_read_sampling(layout, record),
        gates=_read_gates(layout.gates),
        network_gates=_read_gates(layout.network_gates),
        training=_read_training(layout.training, record),
        evaluation=_read_evaluation(layout, record),
        report_files=tuple(layout.report.names()),
        anchors=read_evaluation(layout.anchors.join("recall")),
    )


def has_role_code(columns: xr.Dataset, *roles: str) -> NDArray[np.bool_]:
    """(sample,) True where a row of the training cube has one of the roles."""
    return np.isin(columns["role"].to_numpy(), [ROLES.index(role) for role in roles])


def in_split(columns: xr.Dataset, split: str) -> NDArray[np.bool_]:
    """(sample,) True where a row of the training cube lies in the split."""
    return np.asarray(columns["split"].to_numpy() == SPLITS.index(split))


def usable_hosts(columns: xr.Dataset) -> NDArray[np.bool_]:
    """(sample,) True for rows with a usable stamp, whether or not an arc was accepted."""
    turned_down = np.isin(columns["reject_reason"].to_numpy(), [REJECT_REASONS.index(r) for r in _INJECTION_REASONS])
    return has_role_code(columns, "pair", "control", "injected") | turned_down


def _published(layout: RunLayout, name: str, record: Mapping[str, Any]) -> PublishedCube | None:
    location = layout.cube(name)
    if not is_published(location):
        return None
    cube = open_cube(location)
    if name != "cutouts" or layout.cutouts_root is None:
        _require_plan(cube.attrs, record, location)
    return cube


def _read_pilot(layout: RunLayout, record: Mapping[str, Any]) -> Pilot | None:
    if not layout.pilot.exists():
        return None
    content = read_json(layout.pilot)
    _require_plan(content, record, layout.pilot)
    try:
        return Pilot.from_json(content)
    except KeyError as error:
        raise VerificationError(f"{layout.pilot.url} is not a pilot: it lacks {error}") from error


def _read_sampling(layout: RunLayout, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not layout.sampling.exists():
        return None
    content = _with_keys(read_json(layout.sampling), _SAMPLING_KEYS, layout.sampling)
    _require_plan(content, record, layout.sampling)
    return content


def _read_gates(location: Location) -> GateOutcome | None:
    if not location.exists():
        return None
    content = _with_keys(read_json(location), ("gates", "config_sha256"), location)
    try:
        results = tuple(GateResult(**entry) for entry in content["gates"])
    except TypeError as error:
        raise VerificationError(f"{location.url} holds an entry that is not a gate result: {error}") from error
    return GateOutcome(results, str(content["config_sha256"]))


def _read_training(folder: Location, record: Mapping[str, Any]) -> TrainingOutcome | None:
    if not folder.join("_SUCCESS").exists():
        return None
    history_file, metrics_file, scores_file = map(folder.join, ("history.json", "metrics.json", "scores.parquet"))
    history = _read_json_list(history_file)
    metrics = _with_keys(read_json(metrics_file), _METRICS_KEYS, metrics_file)
    _require_plan(metrics, record, metrics_file)
    parts = find_parts(scores_file)
    n_rows = sum(part.n_rows for part in parts)
    scores = read_pieces(pieces_of(parts, 0, n_rows), _SCORE_COLUMNS, {})
    if n_rows != metrics["n_positives"] + metrics["n_negatives"]:
        raise VerificationError(
            f"{scores_file.url}: expected {metrics['n_positives']} + {metrics['n_negatives']} rows, got {n_rows}"
        )
    epochs = tuple(_with_keys(epoch, _EPOCH_KEYS, history_file) for epoch in history)
    return TrainingOutcome(epochs, metrics, scores, _read_confusion(folder.join("confusion.npz")))


def _read_confusion(location: Location) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(location.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise VerificationError(f"{location.url} does not hold stamps: {error}") from error
    return _with_keys(arrays, _CONFUSION_KEYS, location)


def _read_evaluation(layout: RunLayout, record: Mapping[str, Any]) -> StoredEvaluation | None:
    folder = evaluation_folder(layout.root)
    stored = read_evaluation(folder)
    if stored is not None:
        _require_plan(stored.identity, record, folder)
    return stored


def _read_json_list(location: Location) -> list[dict[str, Any]]:
    try:
        content = json.loads(location.read_bytes())
    except ValueError as error:
        raise VerificationError(f"{location.url} is not JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise VerificationError(f"{location.url}: expected a JSON array of objects")
    return content


def _require_plan(content: Mapping[str, Any], record: Mapping[str, Any], location: Location) -> None:
    if content.get("plan_sha256") != record["plan_sha256"]:
        raise VerificationError(
            f"{location.url} belongs to plan {str(content.get('plan_sha256'))[:12]}, "
            f"the run record to {str(record['plan_sha256'])[:12]}"
        )


def _with_keys(content: dict[str, Any], keys: Collection[str], location: Location) -> dict[str, Any]:
    absent = [key for key in keys if key not in content]
    if absent:
        raise VerificationError(f"{location.url}: expected the keys {absent}, got {sorted(content)}")
    return content
