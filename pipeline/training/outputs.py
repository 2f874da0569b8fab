"""What a training leaves: scores, embeddings, the stamps it was most wrong about; and the proof that they read back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.errors import VerificationError
from pipeline.stages.network import probability
from pipeline.storage.cube import PublishedCube
from pipeline.storage.locations import Location
from pipeline.storage.score_tables import SCORE_COLUMNS, example_table
from pipeline.training.feed import SplitFeed
from pipeline.training.scan import Kept


def score_table(cube: PublishedCube, feed: SplitFeed, logit: NDArray[np.float32], bands: tuple[str, ...]) -> pa.Table:
    """One row per example, in order; see `example_table` for the columns.

    Args:
        cube: what the feed reads.
        feed: what was scored.
        logit: (example) float32.
        bands: bands of the cube.
    """
    columns = cube.columns(SCORE_COLUMNS).isel(sample=feed.row)
    split = np.full(len(feed), feed.split, dtype=object)
    return example_table(columns, feed.label, logit, probability(logit), split, bands)


def embedding_table(feed: SplitFeed, embeddings: Kept) -> pa.Table:
    """One row per embedded example: task_id, label, arc_snr and `embedding`, a list of float32 of one length."""
    columns = feed.columns.isel(example=embeddings.place)
    width = embeddings.values.shape[1]
    flat = pa.array(embeddings.values.reshape(-1), pa.float32())
    return pa.table(
        {
            "task_id": _text(columns, "task_id"),
            "label": pa.array(feed.label[embeddings.place], pa.uint8()),
            "arc_snr": _float(columns, "arc_snr"),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, max(width, 1)),
        }
    )


def confusion_bytes(feed: SplitFeed, logit: NDArray[np.float32], worst: Kept) -> bytes:
    """The stamps that the network is most wrong about, as an npz file, the worst of each class first.

    Arrays: stamps (example, band, y, x) float32 [nmgy], label, logit, arc_snr, theta_e_arcsec, task_id.
    """
    label = feed.label[worst.place]
    error = np.where(label == 1, -logit[worst.place], logit[worst.place])
    order = np.lexsort((-error, label))
    place = worst.place[order]
    columns = feed.columns.isel(example=place)
    arrays: dict[str, NDArray[Any]] = {
        "stamps": worst.values[order],
        "label": label[order],
        "logit": logit[place],
        "arc_snr": columns["arc_snr"].to_numpy(),
        "theta_e_arcsec": columns["theta_e_arcsec"].to_numpy(),
        "task_id": columns["task_id"].to_numpy().astype(np.str_),
    }
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one parquet file, zstd."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def write_table(location: Location, table: pa.Table) -> None:
    """Write a table as parquet and read it back.

    Raises:
        VerificationError: other rows come back than were written, or a logit or score is not finite.
    """
    location.write_bytes(parquet_bytes(table))
    verify_table(location, table)


def verify_table(location: Location, table: pa.Table) -> None:
    """VerificationError unless a stored table is the given one and its scores are finite."""
    data = location.read_bytes()
    stored = pq.read_table(io.BytesIO(data))
    if stored.num_rows != table.num_rows:
        raise VerificationError(f"{location.url}: expected {table.num_rows} rows, got {stored.num_rows}")
    for name in {"logit", "score"} & set(stored.schema.names):
        if not np.isfinite(stored[name].to_numpy()).all():
            raise VerificationError(f"{location.url}: column {name} is not finite")
    if data != parquet_bytes(table):
        raise VerificationError(f"{location.url} reads back other values than were written")


def _text(columns: xr.Dataset, name: str) -> pa.Array:
    return pa.array([str(value) for value in columns[name].to_numpy()], pa.string())


def _float(columns: xr.Dataset, name: str) -> pa.Array:
    return pa.array(columns[name].to_numpy(), pa.float32())
