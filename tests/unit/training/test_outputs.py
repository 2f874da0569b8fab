"""What a training leaves: columns that others rely on, and the proof that it reads back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.feed_config import FeedSection
from pipeline.stages.emr_surfaces import emr_bins, injection_surfaces
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.training.feed import SplitFeed, open_feed
from pipeline.training.outputs import (
    confusion_bytes,
    embedding_table,
    parquet_bytes,
    score_table,
    verify_table,
    write_table,
)
from pipeline.training.scan import Kept

BANDS = ("g", "r", "z")


@pytest.fixture
def scored(make_cube: Callable[..., PublishedCube]) -> tuple[PublishedCube, SplitFeed, np.ndarray]:
    """A cube, its test split and a logit of every example."""

    def edit(rows: dict[str, np.ndarray]) -> None:
        rows["src_mag"][:] = 24.0
        rows["mag_r"][:] = 20.5
        rows["psfdepth_r_mag"][:] = 23.6

    cube = make_cube(edit)
    feed = open_feed(cube, FeedSection())["test"]
    return cube, feed, np.linspace(-3, 100, len(feed), dtype=np.float32)


def test_table_has_one_row_per_example_with_the_standard_columns(scored: tuple[Any, Any, Any]) -> None:
    """Names and types are fixed, values are the examples', score is the logistic of logit, psfsize_r is band r."""
    cube, feed, logit = scored
    table = pq.read_table(io.BytesIO(parquet_bytes(score_table(cube, feed, logit, BANDS))))
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "task_id": "string", "pair_id": "int64", "host_id": "int64", "label": "uint8", "logit": "float",
        "score": "float", "split": "string", "arc_snr": "float", "theta_e_arcsec": "float", "psfsize_r": "float",
        "model_score": "double", "y_true": "int32", "cutout_ok": "int32", "psfdepth_r": "float",
        "bad_pixel_frac": "float", "wise_brightmask_frac": "float", "region_id": "int64", "region_split": "string",
        "src_dmag": "float", "src_reff_arcsec": "float",
    }  # fmt: skip
    np.testing.assert_array_equal(table["logit"], logit)
    np.testing.assert_allclose(table["score"], 1 / (1 + np.exp(-logit.astype(np.float64))), rtol=1e-6)
    assert table["y_true"].to_pylist() == feed.label.tolist()
    assert table["host_id"].to_pylist() == (1000 + feed.row).tolist()
    assert set(table["psfsize_r"].to_pylist()) == {np.float32(1.2)}
    assert table["src_dmag"].to_pylist() == [3.5 if label else None for label in feed.label]
    assert "psfsize_r" not in score_table(cube, feed, logit, ("g", "i", "z")).schema.names


def test_completeness_of_the_emr_system_can_be_computed_from_the_table(scored: tuple[Any, Any, Any]) -> None:
    """The old job's binning takes the table's injections as they are: nothing but names of seeing differs."""
    cube, feed, logit = scored
    frame = score_table(cube, feed, logit, BANDS).to_pandas()
    rows = frame[frame["y_true"] == 1].rename(columns={"psfsize_r": "psf_fwhm_r"})
    surfaces = injection_surfaces(emr_bins(rows))
    assert surfaces["n_attempt"].sum() == feed.label.sum()
    assert surfaces["n_recovered_all"].sum() == int((rows["model_score"] >= 0.5).sum())


def test_written_tables_are_proven_and_every_tampering_is_found(scored: tuple[Any, Any, Any], tmp_path: Path) -> None:
    """Right files pass; a shorter table, another logit, NaN or a lost column raise VerificationError."""
    cube, feed, logit = scored
    table, file = score_table(cube, feed, logit, BANDS), Location(str(tmp_path / "scores.parquet"))
    write_table(file, table)
    verify_table(file, table)
    changed = table.set_column(4, "logit", pa.array(logit + np.eye(len(feed), dtype=np.float32)[3]))
    broken = table.set_column(4, "logit", pa.array(np.where(np.arange(len(feed)) == 3, np.float32(np.nan), logit)))
    for stored, reason in (
        (table.slice(0, len(feed) - 1), f"expected {len(feed)} rows"),
        (changed, "other values"),
        (broken, "not finite"),
        (table.drop_columns(["psfsize_r"]), "other values"),
    ):
        file.write_bytes(parquet_bytes(stored))
        with pytest.raises(VerificationError, match=reason):
            verify_table(file, table)


def test_embeddings_are_lists_of_one_length(scored: tuple[Any, Any, Any]) -> None:
    """Identities of the chosen examples beside their numbers."""
    _, feed, _ = scored
    place, values = np.array([0, 3]), np.arange(8, dtype=np.float32).reshape(2, 4)
    table = embedding_table(feed, Kept(place, values))
    assert table["embedding"].to_pylist() == values.tolist()
    assert table["label"].to_pylist() == feed.label[place].tolist()
    assert table["task_id"].to_pylist() == [f"task-{row:04d}" for row in feed.row[place]]


def test_confusion_lists_the_worst_of_each_class_first(scored: tuple[Any, Any, Any]) -> None:
    """Controls by falling logit, then injected stamps by rising logit, with their pixels."""
    _, feed, logit = scored
    place = np.array([0, 2, 5, 7, 8, 9])
    stamps = place[:, None, None, None] * np.ones((6, 3, 2, 2), np.float32)
    with np.load(io.BytesIO(confusion_bytes(feed, logit, Kept(place, stamps))), allow_pickle=False) as found:
        label, scores = found["label"], found["logit"]
        assert label.tolist() == sorted(label.tolist())
        assert scores[label == 0].tolist() == sorted(scores[label == 0].tolist(), reverse=True)
        assert scores[label == 1].tolist() == sorted(scores[label == 1].tolist())
        np.testing.assert_array_equal(logit[found["stamps"][:, 0, 0, 0].astype(int)], scores)
        assert found["task_id"].tolist() == [f"task-{feed.row[int(k)]:04d}" for k in found["stamps"][:, 0, 0, 0]]
