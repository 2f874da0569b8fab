"""Manifests on disk: types, files, row groups, markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts.emr_manifest import MANIFEST_TYPES, CodedTexts
from pipeline.contracts.errors import ContractError
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location
from pipeline.storage.manifest_files import (
    ManifestWriter,
    is_marked_complete,
    manifest_pieces,
    write_bricks_manifest,
)

_NUMPY = {"int32": np.int32, "int64": np.int64, "float": np.float32, "double": np.float64}


def piece(n_rows: int, first: int = 0) -> dict[str, Any]:
    """Rows as the stages make them."""
    columns: dict[str, Any] = {
        name: CodedTexts(np.arange(n_rows, dtype=np.int32) % 3, ("a", "b", "c", "never used"))
        if kind == "string"
        else (first + np.arange(n_rows)).astype(_NUMPY[kind])
        for name, kind in MANIFEST_TYPES.items()
    }
    columns["task_id"] = np.random.default_rng(first).integers(0, 256, (n_rows, 32), np.uint8)
    columns["zmag"] = np.ma.masked_array(columns["zmag"], mask=np.arange(n_rows) == 1)
    return columns


def test_files_have_the_types_of_the_contract(tmp_path: Path) -> None:
    """Plain strings, nulls where masked, hexadecimal identities; files of about the size that was asked for."""
    folder, text = (Location(str(tmp_path / name)) for name in ("manifest", "manifest_csv"))
    with ManifestWriter(folder, text, file_rows=10) as writer:
        for first in (0, 6, 12):
            writer.write(piece(6, first))
        assert not is_marked_complete(folder)
    assert is_marked_complete(folder)
    assert writer.n_rows == 18
    assert folder.names() == ["_SUCCESS", "part-00000.snappy.parquet", "part-00001.snappy.parquet"]
    table = pa.concat_tables(list(manifest_pieces(folder, 5)))
    assert [(field.name, str(field.type)) for field in table.schema] == list(MANIFEST_TYPES.items())
    assert table["task_id"].to_pylist()[:6] == [bytes(row).hex() for row in piece(6)["task_id"]]
    assert table["zmag"].to_pylist()[:3] == [0.0, None, 2.0]
    assert table["brickname"].to_pylist()[:4] == ["a", "b", "c", "a"]
    assert table["task_seed64"].to_pylist() == list(range(18))
    assert text.names() == ["_SUCCESS", "part-00000.csv", "part-00001.csv"]
    copies = [pd.read_csv(text.join(name).path, dtype={"task_id": str}) for name in text.names()[1:]]
    pd.testing.assert_frame_equal(pd.concat(copies, ignore_index=True), table.to_pandas(), check_dtype=False)
    footer = pq.ParquetFile(tmp_path / "manifest" / "part-00000.snappy.parquet").metadata
    assert footer.num_row_groups == 2
    assert footer.row_group(0).column(0).compression == "SNAPPY"


def test_marker_is_absent_after_an_error_and_old_parts_go_first(tmp_path: Path) -> None:
    """An interrupted manifest cannot be taken for a complete one, nor mix with the next."""
    folder = Location(str(tmp_path / "manifest"))
    with ManifestWriter(folder, file_rows=1) as writer:
        for first in range(3):
            writer.write(piece(2, first))
    with pytest.raises(RuntimeError), ManifestWriter(folder) as writer:
        writer.write(piece(2))
        raise RuntimeError
    assert not is_marked_complete(folder)
    assert folder.names() == ["part-00000.snappy.parquet"]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    """Another type, another order, a column too many."""
    folder = Location(str(tmp_path / "manifest"))
    with ManifestWriter(folder) as writer:
        writer.write(piece(2))
    file = tmp_path / "manifest" / "part-00000.snappy.parquet"
    table = pq.read_table(file)
    ra = table.column_names.index("ra")
    for changed in (
        table.set_column(ra, "ra", table["ra"].cast(pa.float32())),
        table.select(table.column_names[::-1]),
        table.append_column("extra", table["ra"]),
    ):
        pq.write_table(changed, file)
        with pytest.raises(ContractError, match="expected the columns of a manifest"):
            list(manifest_pieces(folder, 10))


def test_layout_and_bricks(tmp_path: Path) -> None:
    """Prefixes of phase 4a; the bricks as parquet and as CSV, each with its marker."""
    layout = EmrLayout(Location(str(tmp_path)), "v6_test")
    assert layout.manifest("train_x").url.endswith("/phase4a/v6_test/manifests/train_x")
    assert layout.stage_config("4a").url.endswith("/phase4a/v6_test/_stage_config.json")
    write_bricks_manifest(layout, {"train_x": ["0001m100", "0002m100"], "debug_x": ["0001m100"]})
    table = pq.read_table(tmp_path / "phase4a" / "v6_test" / "bricks_manifest" / "part-00000.snappy.parquet")
    assert table.to_pylist()[1] == {"experiment_id": "train_x", "brickname": "0002m100"}
    text = layout.bricks_manifest(csv=True).join("part-00000.csv").read_bytes().decode()
    assert text.splitlines()[0] == "experiment_id,brickname"
    assert text.splitlines()[3] == "debug_x,0001m100"
    assert all(is_marked_complete(layout.bricks_manifest(csv=csv)) for csv in (False, True))
