"""The evaluation of a run on disk: JSON documents, each table as parquet and as CSV, and a marker with their hashes.

Everything is read back and compared before the marker is written; readers demand the marker and check the hashes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.testing import assert_frame_equal

from pipeline.contracts.errors import VerificationError
from pipeline.storage.locations import Location
from pipeline.storage.runs import read_json, write_json
from pipeline.storage.tables import table_bytes

EVALUATION_MARKER = "_SUCCESS"


def evaluation_folder(root: Location) -> Location:
    """Where the evaluation of a run lies.

    Args:
        root: folder of the run.
    """
    return root.join("evaluation")


@dataclass(frozen=True)
class StoredEvaluation:
    """A verified evaluation.

    Attributes:
        identity: what it was made from.
        documents: name -> JSON object.
        tables: name -> table, as its parquet file holds it.
    """

    identity: Mapping[str, Any]
    documents: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]


def write_evaluation(
    folder: Location,
    identity: Mapping[str, Any],
    documents: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Write `<name>.json`, `<name>.parquet` and `<name>.csv`, read them back, then write the marker.

    Args:
        folder: the evaluation's own folder; an old marker is removed first.
        identity: what the evaluation was made from, JSON types.
        documents: name -> JSON object without NaN.
        tables: name -> table.

    Raises:
        VerificationError: a file reads back otherwise than it was written.
        StorageError: a write or read failed.
    """
    folder.join(EVALUATION_MARKER).remove()
    files = [f"{name}.json" for name in documents]
    for name, document in documents.items():
        write_json(folder.join(f"{name}.json"), document)
        if read_json(folder.join(f"{name}.json")) != document:
            raise VerificationError(f"{folder.url}/{name}.json reads back otherwise than it was written")
    for name, table in tables.items():
        content = {"parquet": table_bytes(table), "csv": table.to_csv(index=False).encode()}
        files += [f"{name}.{kind}" for kind in content]
        for kind, data in content.items():
            folder.join(f"{name}.{kind}").write_bytes(data)
        _require_same(table, _read_parquet(folder.join(f"{name}.parquet")), f"{folder.url}/{name}.parquet")
        stored = folder.join(f"{name}.csv").read_bytes()
        head, *lines = stored.decode().splitlines()
        if stored != content["csv"] or head.split(",") != list(table.columns) or len(lines) != len(table):
            raise VerificationError(f"{folder.url}/{name}.csv reads back otherwise than it was written")
    write_json(folder.join(EVALUATION_MARKER), {"identity": dict(identity), "sha256": _digests(folder, files)})


def evaluation_identity(folder: Location) -> dict[str, Any] | None:
    """What the evaluation in a folder was made from; None without a marker.

    Raises:
        VerificationError: the marker is not one.
    """
    marker = folder.join(EVALUATION_MARKER)
    if not marker.exists():
        return None
    content = read_json(marker)
    if not isinstance(content.get("identity"), dict) or not isinstance(content.get("sha256"), dict):
        raise VerificationError(f"{marker.url}: expected identity and sha256, got {sorted(content)}")
    return dict(content["identity"])


def read_evaluation(folder: Location) -> StoredEvaluation | None:
    """The evaluation in a folder, every file checked against its hash; None without a marker.

    Raises:
        VerificationError: a file is missing or is not the one that was verified.
        StorageError: a read failed.
    """
    identity = evaluation_identity(folder)
    if identity is None:
        return None
    expected = read_json(folder.join(EVALUATION_MARKER))["sha256"]
    present = set(folder.names())
    missing = [name for name in expected if name not in present]
    if missing:
        raise VerificationError(f"{folder.url}: files of the evaluation are missing: {missing}")
    changed = [name for name, found in _digests(folder, list(expected)).items() if found != expected[name]]
    if changed:
        raise VerificationError(f"{folder.url}: files differ from what was verified: {changed}")
    documents = {
        name.removesuffix(".json"): read_json(folder.join(name)) for name in expected if name.endswith(".json")
    }
    tables = {
        name.removesuffix(".parquet"): _read_parquet(folder.join(name))
        for name in expected
        if name.endswith(".parquet")
    }
    return StoredEvaluation(identity, documents, tables)


def _read_parquet(location: Location) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pq.read_table(io.BytesIO(location.read_bytes())).to_pandas()
    except pa.ArrowInvalid as error:
        raise VerificationError(f"{location.url} is not a parquet file: {error}") from error
    return frame


def _require_same(written: pd.DataFrame, stored: pd.DataFrame, where: str) -> None:
    try:
        assert_frame_equal(written.reset_index(drop=True), stored, check_exact=True, check_dtype=False)
    except AssertionError as error:
        raise VerificationError(f"{where} reads back otherwise than it was written: {error}") from error


def _digests(folder: Location, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256(folder.join(name).read_bytes()).hexdigest() for name in names}
