"""Scores: refused stamps, the table's columns, and the verification of what was written."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import xarray as xr

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loader import Examples
from pipeline.training.model import LensResNet
from pipeline.training.score import parquet_bytes, score_examples, score_table, verify_scores

CPU = torch.device("cpu")
SPEC = PreprocessSection()
BANDS = ("g", "r")


def _checkpoint(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    weights = LensResNet(2, 4).state_dict()
    return Checkpoint(weights, weights, SPEC, BANDS, 16, 4, 0, "val_auc", {}, "a", "b", "c", "d", "e")


def _examples(n: int = 20) -> Examples:
    generator = np.random.default_rng(1)
    columns = xr.Dataset(
        {
            "task_id": ("example", np.array([f"t{i}" for i in range(n)], dtype=object)),
            "pair_id": ("example", np.arange(n)),
            "host_id": ("example", np.arange(n) + 2**62),
            "arc_snr": ("example", generator.uniform(1, 9, n).astype(np.float32)),
            "theta_e_arcsec": ("example", np.full(n, 1.25, np.float32)),
            "psfsize_arcsec": (("example", "band"), np.tile(np.float32([1.5, 1.25]), (n, 1))),
        }
    )
    stamps = generator.normal(size=(n, 2, 16, 16)).astype(np.float32)
    return Examples("test", stamps, (np.arange(n) % 2).astype(np.uint8), np.arange(n), columns, SPEC)


def _written(folder: Path) -> tuple[Location, Location]:
    out = Location(str(folder))
    return out.join("checkpoint.pt"), out.join("scores.parquet")


def test_stamps_normalised_otherwise_are_refused() -> None:
    """Another annulus or clip than the checkpoint's never gets a score."""
    other = dataclasses.replace(_examples(), preprocess=PreprocessSection(annulus_px=(16.0, 32.0)))
    with pytest.raises(ContractError, match="trained with preprocess"):
        score_examples(_checkpoint(), other, CPU)


def test_stamps_of_another_shape_are_refused() -> None:
    """A band too many is an error with both shapes."""
    other = dataclasses.replace(_checkpoint(), bands=("g", "r", "z"))
    with pytest.raises(ContractError, match=r"\(3, 16, 16\), got \(2, 16, 16\)"):
        score_examples(other, _examples(), CPU)


def test_infinite_logits_are_refused() -> None:
    """Broken weights give an error, not a table."""
    checkpoint = _checkpoint()
    checkpoint.weights["head.bias"].fill_(float("inf"))
    with pytest.raises(VerificationError, match="20 of 20 logits"):
        score_examples(checkpoint, _examples(), CPU)


def test_table_has_one_row_per_example_with_the_standard_columns() -> None:
    """Names and types are fixed, values are the examples', score is the logistic of logit, psfsize_r is band r."""
    examples = _examples()
    logit = score_examples(_checkpoint(), examples, CPU)
    table = pq.read_table(io.BytesIO(parquet_bytes(score_table(examples, logit, BANDS))))
    assert {field.name: str(field.type) for field in table.schema} == {
        "task_id": "string", "pair_id": "int64", "host_id": "int64", "label": "uint8", "logit": "float",
        "score": "float", "split": "string", "arc_snr": "float", "theta_e_arcsec": "float", "psfsize_r": "float",
    }  # fmt: skip
    np.testing.assert_array_equal(table["logit"], logit)
    np.testing.assert_allclose(table["score"], 1 / (1 + np.exp(-logit.astype(np.float64))), rtol=1e-6)
    np.testing.assert_array_equal(table["label"], examples.label)
    np.testing.assert_array_equal(table["host_id"], examples.columns["host_id"])
    assert set(table["psfsize_r"].to_pylist()) == {1.25}
    assert table["task_id"].to_pylist() == [f"t{i}" for i in range(20)]


def test_saturated_logits_stay_distinct_and_bands_without_r_have_no_seeing_column() -> None:
    """Logits of 90 and 100 differ in the table though both scores are 1."""
    logit = np.linspace(90, 100, 20, dtype=np.float32)
    table = score_table(_examples(), logit, ("g", "z"))
    assert "psfsize_r" not in table.schema.names
    assert set(table["score"].to_pylist()) == {1.0}
    assert len(set(table["logit"].to_pylist())) == 20
    assert score_table(_examples(), np.full(20, -1e4, np.float32), BANDS)["score"].to_pylist() == [0.0] * 20


def test_written_results_are_proven_and_every_tampering_is_found(tmp_path: Path) -> None:
    """Right files pass; a shorter table, another logit, NaN, or other weights raise VerificationError."""
    checkpoint, examples = _checkpoint(), _examples()
    table = score_table(examples, score_examples(checkpoint, examples, CPU), BANDS)
    checkpoint_file, scores_file = _written(tmp_path)
    checkpoint_file.write_bytes(checkpoint.to_bytes())
    scores_file.write_bytes(parquet_bytes(table))
    verify_scores(checkpoint_file, scores_file, table, examples, CPU)

    logit = table["logit"].to_numpy().copy()
    changed, broken = logit + np.eye(20, dtype=np.float32)[7], np.where(np.arange(20) == 7, np.nan, logit)
    for stored, reason in (
        (table.slice(0, 19), "expected 20 rows, got 19"),
        (score_table(examples, changed, BANDS), "other values"),
        (score_table(examples, broken.astype(np.float32), BANDS), "not finite"),
        (table.drop_columns(["psfsize_r"]), "other values"),
    ):
        scores_file.write_bytes(parquet_bytes(stored))
        with pytest.raises(VerificationError, match=reason):
            verify_scores(checkpoint_file, scores_file, table, examples, CPU)

    scores_file.write_bytes(parquet_bytes(table))
    checkpoint_file.write_bytes(_checkpoint(seed=1).to_bytes())
    with pytest.raises(VerificationError, match="does not reproduce"):
        verify_scores(checkpoint_file, scores_file, table, examples, CPU)
