"""Scoring the test split: logits, the score table, and the check that what was written is what was computed."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loader import Examples
from pipeline.training.model import predict_logits
from pipeline.training.preprocess import require_same_spec

REPRODUCED_SCORES = 8
LOGIT_TOLERANCE = 1e-4


def score_examples(checkpoint: Checkpoint, examples: Examples, device: torch.device) -> NDArray[np.float32]:
    """Logits of all examples in order.

    Returns:
        (example) float32.

    Raises:
        ContractError: the stamps were normalised otherwise, or have other bands or size, than in training.
        VerificationError: a logit is not finite.
    """
    require_same_spec(checkpoint.preprocess, examples.preprocess)
    expected = (len(checkpoint.bands), checkpoint.stamp_size_px, checkpoint.stamp_size_px)
    if examples.stamps.shape[1:] != expected:
        raise ContractError(
            f"checkpoint expects stamps (band, y, x) {expected}, got {examples.stamps.shape[1:]} in {examples.split}"
        )
    logit = predict_logits(checkpoint.network(device), examples.stamps, device)
    if not np.isfinite(logit).all():
        raise VerificationError(f"{np.count_nonzero(~np.isfinite(logit))} of {logit.size} logits are not finite")
    return logit


def score_table(examples: Examples, logit: NDArray[np.float32], bands: tuple[str, ...]) -> pa.Table:
    """One row per example, in order; rank by `logit`, because `score` saturates at 1 in float32.

    A control of a pair carries the arc_snr and theta_e_arcsec of its pair; `label` says which stamp was scored.

    Args:
        examples: what was scored.
        logit: (example) float32.
        bands: bands of the cube; psfsize_r is left out without r.

    Returns:
        task_id, pair_id, host_id, label, logit, score, split, arc_snr, theta_e_arcsec and psfsize_r [arcsec].
    """
    columns = examples.columns
    score = 1.0 / (1.0 + np.exp(-np.clip(logit.astype(np.float64), -700.0, None)))
    arrays = {
        "task_id": pa.array([str(value) for value in columns["task_id"].to_numpy()], pa.string()),
        "pair_id": pa.array(columns["pair_id"].to_numpy(), pa.int64()),
        "host_id": pa.array(columns["host_id"].to_numpy(), pa.int64()),
        "label": pa.array(examples.label, pa.uint8()),
        "logit": pa.array(logit, pa.float32()),
        "score": pa.array(score.astype(np.float32), pa.float32()),
        "split": pa.array([examples.split] * len(examples), pa.string()),
        "arc_snr": pa.array(columns["arc_snr"].to_numpy(), pa.float32()),
        "theta_e_arcsec": pa.array(columns["theta_e_arcsec"].to_numpy(), pa.float32()),
    }
    if "r" in bands:
        seeing = columns["psfsize_arcsec"].to_numpy()[:, bands.index("r")]
        arrays["psfsize_r"] = pa.array(seeing, pa.float32())
    return pa.table(arrays)


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one parquet file, zstd."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def verify_scores(
    checkpoint_file: Location, scores_file: Location, table: pa.Table, examples: Examples, device: torch.device
) -> None:
    """Read checkpoint and scores back and prove them.

    Args:
        checkpoint_file: written `checkpoint.pt`.
        scores_file: written `scores.parquet`.
        table: what was written.
        examples: what was scored.
        device: where to score again.

    Raises:
        VerificationError: another table, a row count other than the split's, scores that are not finite, or a
            reloaded checkpoint that does not reproduce 8 of the logits within 1e-4.
    """
    stored = pq.read_table(io.BytesIO(scores_file.read_bytes()))
    if stored.num_rows != len(examples):
        raise VerificationError(f"{scores_file.url}: expected {len(examples)} rows, got {stored.num_rows}")
    for name in ("logit", "score"):
        if not np.isfinite(stored[name].to_numpy()).all():
            raise VerificationError(f"{scores_file.url}: column {name} is not finite")
    if stored.schema.names != table.schema.names or any(
        stored[name].combine_chunks().to_pylist() != table[name].combine_chunks().to_pylist()
        for name in ("task_id", "label", "logit")
    ):
        raise VerificationError(f"{scores_file.url} reads back other values than were written")

    chosen = np.unique(np.linspace(0, len(examples) - 1, REPRODUCED_SCORES).astype(np.int64))
    model = Checkpoint.from_bytes(checkpoint_file.read_bytes()).network(device)
    again = predict_logits(model, examples.stamps[chosen], device)
    written = stored["logit"].to_numpy()[chosen]
    if not np.allclose(again, written, rtol=LOGIT_TOLERANCE, atol=LOGIT_TOLERANCE):
        raise VerificationError(f"{checkpoint_file.url} does not reproduce its scores: {written} became {again}")
